//! Our half of a link as the opener of carriers and flows.

use crate::carrier::CarrierKey;
use crate::epoch::OpenerEpoch;
use crate::error::Exhausted;
use crate::flow::NewFlow;
use crate::schedule::OpenerSecrets;
use crate::wire::{Header, LinkId, Opening, Role};
use kedge_model::Suite;
use std::time::Instant;

/// Gives out carrier and flow numbers, each once. The one owner of our opener secret.
pub struct Outbound {
    link_id: LinkId,
    role: Role,
    suite: Suite,
    epoch: OpenerEpoch,
    last_flow: u64,
    carrier_key: CarrierKey,
    last_carrier: u64,
}

impl Outbound {
    pub(crate) fn new(
        link_id: LinkId,
        role: Role,
        suite: Suite,
        secrets: OpenerSecrets,
        now: Instant,
    ) -> Self {
        Self {
            link_id,
            role,
            suite,
            epoch: OpenerEpoch::new(secrets.epoch0, now),
            last_flow: 0,
            carrier_key: CarrierKey::new(&secrets.carrier),
            last_carrier: 0,
        }
    }

    #[must_use]
    pub fn link_id(&self) -> LinkId {
        self.link_id
    }

    /// The opening of a new carrier: its first 43 bytes.
    ///
    /// # Errors
    /// When the link's numbers are used up.
    pub fn opening(&mut self) -> Result<[u8; Opening::LEN], Exhausted> {
        self.last_carrier = self.last_carrier.checked_add(1).ok_or(Exhausted)?;
        let mut opening = Opening {
            role: self.role,
            link_id: self.link_id,
            carrier: self.last_carrier,
            tag: [0; Opening::TAG_LEN],
        };
        opening.tag = self.carrier_key.tag(&opening);
        Ok(opening.encode())
    }

    /// Takes the next flow number. It is used up whether or not its flight is ever sent.
    ///
    /// # Errors
    /// When the link's numbers or epochs are used up.
    pub fn open_flow(&mut self, now: Instant) -> Result<NewFlow, Exhausted> {
        let number = self.last_flow.checked_add(1).ok_or(Exhausted)?;
        let (epoch, secret) = self.epoch.take(now)?;
        let header = Header {
            suite: self.suite,
            role: self.role,
            link_id: self.link_id,
            epoch,
            number,
        };
        let flow_secret = secret.expand("kedge flow", &header.encode());
        self.last_flow = number;
        Ok(NewFlow::new(header, flow_secret))
    }

    /// How many flow numbers were taken.
    #[must_use]
    pub fn flows_opened(&self) -> u64 {
        self.last_flow
    }
}
