//! What anybody on the node may ask for: all that the attestation socket has a handle to. Evidence
//! got here says that it was, and is of no use on a link.

use super::{Attestation, DoorError};
use kedge_attest::{Caller, Evidence, Held, Nonce, Standing};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

#[derive(Clone)]
pub struct Local(Attestation);

impl Attestation {
    #[must_use]
    pub fn local(&self) -> Local {
        Local(self.clone())
    }
}

impl Local {
    /// Evidence for `caller`, as which the edge has identified whoever asks.
    ///
    /// # Errors
    /// When this caller asks too fast, too many ask, or the TPM does not answer.
    pub async fn attest(&self, caller: Caller, nonce: Nonce) -> Result<Evidence, DoorError> {
        let shared = &self.0.0;
        let (settings, key) = (&shared.settings, shared.own.key());
        let asked = shared.door.local(settings, key, (caller, nonce)).await;
        let counters = &shared.counters;
        match &asked {
            Ok(_) => counters.local_answers.fetch_add(1, Relaxed),
            Err(DoorError::Ask(_)) => counters.local_limited.fetch_add(1, Relaxed),
            Err(_) => counters.local_failures.fetch_add(1, Relaxed),
        };
        asked
    }

    /// The newest Result about this node's SVID, while it is good for anything.
    ///
    /// # Errors
    /// Why there is none.
    pub fn result(&self) -> Result<Arc<Held>, String> {
        let shared = &self.0.0;
        let state = shared.own.state();
        let held = state.held(shared.own.key());
        let usable = held.filter(|held| self.0.standing(held) != Standing::Ended);
        usable.cloned().ok_or_else(|| {
            let why = state.why();
            why.unwrap_or_else(|| "the Verifier has not answered yet".to_owned())
        })
    }

    /// Somebody was sent away before he asked.
    pub fn count_unidentified(&self) {
        let counters = &self.0.0.counters;
        counters.local_unidentified.fetch_add(1, Relaxed);
    }

    /// A connection beyond a caller's share was closed.
    pub fn count_closed(&self) {
        self.0.0.counters.local_closed.fetch_add(1, Relaxed);
    }
}
