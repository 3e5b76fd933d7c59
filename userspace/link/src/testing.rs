//! Links without a handshake, under given secrets, and sessions wired to each other in memory.
//! For tests and fuzzing of this crate and of those above it.

pub mod foreign;

use crate::error::LinkError;
use crate::event::SessionEvent;
use crate::inbound::Inbound;
use crate::outbound::Outbound;
use crate::schedule::{LinkSecrets, SECRET_LEN};
use crate::session::Session;
use crate::wire::Role;
use kedge_model::Suite;
use std::time::Instant;
use zeroize::Zeroizing;

/// What a handshake would have given.
#[derive(Clone, Copy, Debug)]
pub struct LinkInputs {
    pub exporter: [u8; SECRET_LEN],
    pub client_random: [u8; 32],
    pub server_random: [u8; 32],
    pub suite: Suite,
}

/// One node's keys of a link.
pub struct Half {
    pub outbound: Outbound,
    pub inbound: Inbound,
}

impl LinkInputs {
    /// The inputs of docs/vectors.
    #[must_use]
    pub fn fixed(suite: Suite) -> Self {
        Self {
            exporter: [0x11; SECRET_LEN],
            client_random: [0x22; 32],
            server_random: [0x33; 32],
            suite,
        }
    }

    /// The keys of the node with this role, as its [`Session`] would have given them at `now`.
    #[must_use]
    pub fn half(&self, role: Role, now: Instant) -> Half {
        let exporter = Zeroizing::new(self.exporter);
        let secrets = LinkSecrets::derive(&exporter, &self.client_random, &self.server_random);
        let (link_id, ours, theirs) = secrets.split(role);
        Half {
            outbound: Outbound::new(link_id, role, self.suite, ours, now),
            inbound: Inbound::new(link_id, role.peer(), self.suite, theirs),
        }
    }
}

/// What came out of one side of an [`exchange`].
pub struct Outcome {
    pub events: Vec<SessionEvent>,
    pub result: Result<(), LinkError>,
}

/// Carries bytes between two sessions until both are silent. An error of one side does not keep
/// the other from reading its alert.
pub fn exchange(one: &mut Session, other: &mut Session, now: Instant) -> [Outcome; 2] {
    let (mut at_one, mut at_other) = (Ok(()), Ok(()));
    while deliver(one, other, now, &mut at_other) | deliver(other, one, now, &mut at_one) {}
    [Outcome::of(one, at_one), Outcome::of(other, at_other)]
}

/// Whether `from` had something to say; `result` is that of `to`, and its first error stays.
fn deliver(
    from: &mut Session,
    to: &mut Session,
    now: Instant,
    result: &mut Result<(), LinkError>,
) -> bool {
    let mut bytes = Vec::new();
    let any = from.poll_transmit(&mut bytes);
    if any && result.is_ok() {
        *result = to.handle_input(now, &bytes);
    }
    any
}

impl Outcome {
    fn of(session: &mut Session, result: Result<(), LinkError>) -> Self {
        Self {
            events: std::iter::from_fn(|| session.poll_event()).collect(),
            result,
        }
    }
}
