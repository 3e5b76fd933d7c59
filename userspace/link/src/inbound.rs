//! The peer's half of a link, as we accept its carriers and flows.

use crate::carrier::CarrierKey;
use crate::epoch::AcceptorEpochs;
use crate::error::FlightError;
use crate::flow::{Flight, OpenedFlight, PendingFlow};
use crate::schedule::OpenerSecrets;
use crate::window::ReplayWindow;
use crate::wire::{Header, LinkId, Opening, Role};
use kedge_model::Suite;
use std::time::Instant;

/// Checks the peer's carriers and first flights. Shared by all workers of a daemon behind one
/// lock: [`commit`](Self::commit) is the one test-and-set.
pub struct Inbound {
    link_id: LinkId,
    /// The peer's role on the link: the only one that its headers may carry.
    opener: Role,
    suite: Suite,
    epochs: AcceptorEpochs,
    flows: ReplayWindow,
    carrier_key: CarrierKey,
    carriers: ReplayWindow,
}

impl Inbound {
    pub(crate) fn new(link_id: LinkId, opener: Role, suite: Suite, secrets: OpenerSecrets) -> Self {
        Self {
            link_id,
            opener,
            suite,
            epochs: AcceptorEpochs::new(secrets.epoch0),
            flows: ReplayWindow::new(),
            carrier_key: CarrierKey::new(&secrets.carrier),
            carriers: ReplayWindow::new(),
        }
    }

    #[must_use]
    pub fn link_id(&self) -> LinkId {
        self.link_id
    }

    /// Checks a carrier's opening, the tag before anything else, and takes its number.
    ///
    /// # Errors
    /// When it is not the peer's, or was seen before. No state has changed.
    pub fn check_opening(&mut self, opening: &Opening) -> Result<(), FlightError> {
        self.check_origin(opening.link_id, opening.role)?;
        if !self.carrier_key.verifies(opening) {
            return Err(FlightError::Forged);
        }
        self.carriers.take(opening.carrier)
    }

    /// The secret of the flow that `header` names, for one attempt to open its record 0. The
    /// header is not authenticated yet, so nothing changes but what `now` alone erases.
    ///
    /// # Errors
    /// When the header cannot be one of the peer's next flows.
    pub fn flow_secret(
        &mut self,
        now: Instant,
        header: &Header,
    ) -> Result<PendingFlow, FlightError> {
        self.check_origin(header.link_id, header.role)?;
        if header.suite != self.suite {
            return Err(FlightError::OtherSuite);
        }
        self.flows.check(header.number)?;
        self.handle_timeout(now);
        let secret = self
            .epochs
            .expand(header.epoch, "kedge flow", &header.encode())?;
        Ok(PendingFlow::new(*header, secret))
    }

    /// Takes the number of an opened flight; gives out what was in it only if nobody did before.
    ///
    /// # Errors
    /// When the number was taken by another copy of the same flight, or has meanwhile fallen out
    /// of the window. No state has changed.
    pub fn commit(&mut self, now: Instant, opened: OpenedFlight) -> Result<Flight, FlightError> {
        let Header {
            link_id,
            role,
            epoch,
            number,
            ..
        } = opened.flight.header;
        self.check_origin(link_id, role)?;
        self.flows.take(number)?;
        self.epochs.authenticated(epoch, number, now);
        self.handle_timeout(now);
        Ok(opened.flight)
    }

    /// When [`handle_timeout`](Self::handle_timeout) should be called next, if ever.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.epochs.next_end()
    }

    /// Erases the secrets of epochs that have ended.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.epochs.expire(now, self.flows.oldest());
    }

    /// A header with our own role was reflected to us: the peer never sends one.
    fn check_origin(&self, link_id: LinkId, role: Role) -> Result<(), FlightError> {
        if link_id != self.link_id {
            return Err(FlightError::OtherLink);
        }
        if role != self.opener {
            return Err(FlightError::Reflected);
        }
        Ok(())
    }
}
