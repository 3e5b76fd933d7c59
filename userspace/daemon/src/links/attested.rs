//! Attestation on one link: what is shown, what is made of what the peer shows, and when flows may
//! move. docs/protocol.md has the rules.

use super::control::ControlError;
use super::link::Link;
use crate::attestation::{Attestation, Disbelief, OwnState};
use crate::fault;
use crate::limits::{ATTESTATION_TIMEOUT, RESULTS_AT_ONCE};
use kedge_attest::NodeKey;
use kedge_link::Session;
use kedge_link::wire::{Attesting, Shown, Verdict};
use std::time::Instant;
use tokio::sync::watch;

/// Both hellos said something about attestation.
pub struct Attested {
    attestation: Attestation,
    /// Of the SVID that this link was made under.
    key: NodeKey,
    own: watch::Receiver<OwnState>,
    /// The last Result, and the last reason for none.
    last_shown: [Option<Shown>; 2],
    has_waited: bool,
    we_require: bool,
    seen: Seen,
    /// Nothing is opened before then; no more once the link is in use.
    waits_until: Option<Instant>,
    /// Whether the peer's Result was believed, or need not be.
    believed: bool,
    /// Whether the peer says that it takes flows.
    taken: bool,
}

/// What becomes of the link now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Waits,
    /// Flows are taken on it, and none is opened yet.
    Admits,
    /// It is to be used.
    Opens,
}

impl Attested {
    /// Nothing, where one of the two knows no attestation and neither requires it.
    ///
    /// # Errors
    /// When we require it of a peer that knows none.
    pub fn agree(
        attestation: &Attestation,
        [ours, theirs]: [Option<Attesting>; 2],
        key: NodeKey,
    ) -> Result<Option<Self>, ControlError> {
        let (ours, theirs) = match (ours, theirs) {
            (Some(ours), Some(theirs)) => (ours, theirs),
            (Some(Attesting::Required), None) => {
                let none = "attestation is off there, or its kedged is too old".to_owned();
                return Err(ControlError::Disbelieved(Disbelief::Nothing(none)));
            }
            _ => return Ok(None),
        };
        let we_require = ours == Attesting::Required;
        let waits = we_require || theirs == Attesting::Required;
        let mut own = attestation.own().changes();
        own.mark_changed();
        Ok(Some(Self {
            attestation: attestation.clone(),
            key,
            own,
            last_shown: [None, None],
            has_waited: false,
            we_require,
            seen: Seen::since(Instant::now()),
            waits_until: waits.then(|| Instant::now() + ATTESTATION_TIMEOUT),
            believed: !we_require,
            taken: !waits,
        }))
    }

    /// What becomes of the link when it has just been established.
    pub fn first(&self) -> Next {
        match (self.waits_until, self.believed) {
            (None, _) => Next::Opens,
            (Some(_), true) => Next::Admits,
            (Some(_), false) => Next::Waits,
        }
    }

    /// Until what this node has to show may have changed.
    pub async fn own_changed(&mut self) {
        // Its sender lives as long as the daemon.
        let _ = self.own.changed().await;
    }

    /// Shows what there is, if that was not shown yet.
    ///
    /// # Errors
    /// Of the session.
    pub fn show(&mut self, session: &mut Session) -> Result<(), ControlError> {
        let state = self.own.borrow_and_update().clone();
        let shown = state.shown(self.key, self.attestation.max_stale());
        let Some(shown) = fault::foreign_result().map(Shown::Result).or(shown) else {
            if self.waits_until.is_some() && !std::mem::replace(&mut self.has_waited, true) {
                self.attestation.count_wait();
            }
            return Ok(());
        };
        let is_result = matches!(shown, Shown::Result(_));
        self.show_once(session, shown)?;
        // The peer keeps what it has, and can say why there is nothing newer when that ends.
        match state.why() {
            Some(why) if is_result => self.show_once(session, Shown::Nothing(why)),
            _ => Ok(()),
        }
    }

    fn show_once(&mut self, session: &mut Session, shown: Shown) -> Result<(), ControlError> {
        let is_result = matches!(shown, Shown::Result(_));
        let last = &mut self.last_shown[usize::from(!is_result)];
        if last.as_ref() == Some(&shown) {
            return Ok(());
        }
        session.show(shown.clone())?;
        *last = Some(shown);
        if is_result {
            self.last_shown[1] = None;
        }
        Ok(())
    }

    /// Looks at what the peer shows; its verdict is to be told before anything else.
    ///
    /// # Errors
    /// When it is not believed, and has to be.
    pub fn consume_shown(&mut self, link: &Link, shown: &Shown) -> Result<(), Disbelief> {
        if !self.seen.has_room(Instant::now()) {
            return Err(Disbelief::TooOften);
        }
        let judged = self.attestation.judge().judge(&link.proof.peer, shown);
        match judged {
            Ok(held) => {
                link.proof.attest(held);
                link.note_unattested(None);
                self.believed = true;
                Ok(())
            }
            // The one before counts until its end; it is told then why there was none after it.
            Err(Disbelief::Nothing(why)) if link.proof.attested().is_some() => {
                link.note_unattested(Some(why));
                Ok(())
            }
            Err(error) => {
                link.note_unattested(Some(error.to_string()));
                match self.we_require {
                    true => Err(error),
                    false => {
                        self.attestation.tell_disbelieved(link, &error);
                        Ok(())
                    }
                }
            }
        }
    }

    /// # Errors
    /// When the peer takes no flows.
    pub fn consume_verdict(&mut self, verdict: Verdict) -> Result<(), ControlError> {
        verdict.map_err(|(refusal, text)| ControlError::Unbelieved { refusal, text })?;
        self.taken = true;
        Ok(())
    }

    /// Whether it can be used from now on: says so once.
    pub fn opens(&mut self) -> bool {
        let opens = self.waits_until.is_some() && self.believed && self.taken;
        if opens {
            self.waits_until = None;
        }
        opens
    }

    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.waits_until
    }
}

/// How often the peer has shown something.
struct Seen {
    since: Instant,
    count: u64,
}

impl Seen {
    fn since(since: Instant) -> Self {
        Self { since, count: 0 }
    }

    /// Counts one more; whether it is to be looked at.
    fn has_room(&mut self, now: Instant) -> bool {
        self.count += 1;
        let seconds = now.saturating_duration_since(self.since).as_secs();
        self.count <= RESULTS_AT_ONCE + seconds
    }
}

/// What a peer is told of why.
pub fn refused(error: &Disbelief) -> Verdict {
    Err((error.refusal(), error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_peer_that_shows_results_without_end_is_looked_at_once_a_second() {
        let began = Instant::now();
        let mut seen = Seen::since(began);
        let looked_at = |seen: &mut Seen, at| (0..1_000).filter(|_| seen.has_room(at)).count();
        assert_eq!(looked_at(&mut seen, began) as u64, RESULTS_AT_ONCE);
        // What was refused counts too: the link has ended by then.
        assert_eq!(looked_at(&mut seen, began + Duration::from_secs(60)), 0);
        let mut steady = Seen::since(began);
        let each = |second| steady.has_room(began + Duration::from_secs(second));
        assert!((0..100_000).all(each), "one a second");
    }
}
