//! Which continuations of a flow are its own, and whose turn it is (docs/protocol.md,
//! "Continuation").

use crate::error::ContinuationError;
use crate::schedule::Secret;
use crate::wire::{Continuation, FlowName, Point};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;

/// Stands in the kind's place, so that no continuation confirms itself.
const CONFIRMATION_KIND: u8 = b'c';

type Tag = [u8; Continuation::TAG_LEN];

/// What only a flow's two daemons have. It is that of two identities and their addresses, like the
/// traffic secrets, and opens nothing.
pub struct ContinuationKey {
    flow: FlowName,
    key: hmac::Key,
}

impl ContinuationKey {
    pub(crate) fn new(flow: FlowName, secret: &Secret) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA384, secret.bytes());
        Self { flow, key }
    }

    #[must_use]
    pub fn flow(&self) -> FlowName {
        self.flow
    }

    /// What the opener sends.
    #[must_use]
    pub fn continuation(&self, point: Point) -> Continuation {
        let mut continuation = Continuation {
            flow: self.flow,
            point,
            tag: [0; Continuation::TAG_LEN],
        };
        continuation.tag = self.tag(&continuation, Continuation::KIND);
        continuation
    }

    /// What the acceptor answers.
    #[must_use]
    pub fn confirmation(&self, continuation: &Continuation) -> Tag {
        self.tag(continuation, CONFIRMATION_KIND)
    }

    /// Whether `tag` is the acceptor's answer.
    #[must_use]
    pub fn confirms(&self, continuation: &Continuation, tag: &Tag) -> bool {
        verify_slices_are_equal(&self.confirmation(continuation), tag).is_ok()
    }

    fn tag(&self, continuation: &Continuation, kind: u8) -> Tag {
        let mut covered = continuation.encode();
        covered[0] = kind;
        let mac = hmac::sign(&self.key, &covered[..Continuation::COVERED_LEN]);
        *mac.as_ref().first_chunk().expect("SHA-384 has 48 bytes")
    }
}

/// The acceptor's side: lets each continuation of a flow in once, in order.
pub struct Turns {
    key: ContinuationKey,
    /// By direction: the generation that was let in last.
    taken: [u32; 2],
}

impl Turns {
    #[must_use]
    pub fn new(key: ContinuationKey) -> Self {
        Self { key, taken: [0; 2] }
    }

    /// Takes the turn that `continuation` claims, and gives what confirms it. Whether the direction
    /// did end with that record is for the flow to say.
    ///
    /// # Errors
    /// When it is not this flow's, or not the next one. Nothing has changed.
    pub fn take(&mut self, continuation: &Continuation) -> Result<Tag, ContinuationError> {
        let due = self.key.continuation(continuation.point);
        let same_flow = due.flow == continuation.flow;
        if verify_slices_are_equal(&due.tag, &continuation.tag).is_err() || !same_flow {
            return Err(ContinuationError::Forged);
        }
        let Point {
            direction,
            generation,
            ..
        } = continuation.point;
        let taken = &mut self.taken[direction as usize];
        if generation <= *taken {
            return Err(ContinuationError::Replayed(generation));
        }
        if generation - *taken != 1 {
            return Err(ContinuationError::TooFar(generation));
        }
        *taken = generation;
        Ok(self.key.confirmation(continuation))
    }
}
