//! What this node has to show: the newest Result about each of its keys, or why there is none.

use super::boot_time;
use kedge_attest::{BootTime, Held, NodeKey, Standing};
use kedge_link::wire::Shown;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Keys of SVIDs that are in use at once: the one before, while its links last, and the new one.
const KEYS: usize = 2;

/// Everybody who shows it is told when it changes.
pub struct Own {
    key: watch::Sender<NodeKey>,
    state: watch::Sender<OwnState>,
}

#[derive(Clone, Default)]
pub struct OwnState {
    results: Vec<Arc<Held>>,
    /// Why there is no newer one.
    why: Option<String>,
    /// Whether an attempt has ended, either way. It stays so.
    settled: bool,
}

impl Own {
    #[must_use]
    pub fn new(key: NodeKey) -> Self {
        Self {
            key: watch::Sender::new(key),
            state: watch::Sender::default(),
        }
    }

    /// Of the SVID that the next Result is about.
    #[must_use]
    pub fn key(&self) -> NodeKey {
        *self.key.borrow()
    }

    pub fn use_key(&self, key: NodeKey) {
        self.key.send_replace(key);
    }

    #[must_use]
    pub fn keys(&self) -> watch::Receiver<NodeKey> {
        self.key.subscribe()
    }

    #[must_use]
    pub fn state(&self) -> OwnState {
        self.state.borrow().clone()
    }

    #[must_use]
    pub fn changes(&self) -> watch::Receiver<OwnState> {
        self.state.subscribe()
    }

    pub fn keep(&self, held: Held) {
        self.state.send_modify(|state| state.keep(held));
    }

    /// There is no newer Result. Said once for each reason.
    ///
    /// Returns whether it is another reason than before.
    pub fn fail(&self, why: String) -> bool {
        let differs = self.state.borrow().why.as_ref() != Some(&why);
        self.state.send_if_modified(|state| {
            let news = differs || !state.settled;
            state.settled = true;
            state.why = Some(why);
            news
        });
        differs
    }
}

impl OwnState {
    #[must_use]
    pub fn held(&self, key: NodeKey) -> Option<&Arc<Held>> {
        let of_key = |held: &&Arc<Held>| held.result().node_key() == key;
        self.results.iter().rev().find(of_key)
    }

    /// What a link under this key shows; nothing at all until the first attempt has ended.
    #[must_use]
    pub fn shown(&self, key: NodeKey, max_stale: Duration) -> Option<Shown> {
        let now: BootTime = boot_time();
        let usable = self
            .held(key)
            .filter(|held| held.standing(now, max_stale) != Standing::Ended);
        match usable {
            Some(held) => Some(Shown::Result(held.token().to_owned())),
            None if !self.settled => None,
            None => Some(Shown::Nothing(self.why().unwrap_or_else(|| {
                "there is none about the key of its SVID yet".to_owned()
            }))),
        }
    }

    #[must_use]
    pub fn why(&self) -> Option<String> {
        self.why.clone()
    }

    fn keep(&mut self, held: Held) {
        let key = held.result().node_key();
        self.results
            .retain(|known| known.result().node_key() != key);
        self.results.push(Arc::new(held));
        let extra = self.results.len().saturating_sub(KEYS);
        self.results.drain(..extra);
        self.why = None;
        self.settled = true;
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Scene;
    use super::*;

    const NONE: Duration = Duration::ZERO;

    #[test]
    fn nothing_is_shown_until_the_first_attempt_has_ended_and_always_something_after_it() {
        let mut scene = Scene::new();
        let key = scene.node_key();
        let own = Own::new(key);
        assert_eq!(own.state().shown(key, NONE), None);
        assert!(own.fail("the Verifier is away".into()), "news");
        assert!(!own.fail("the Verifier is away".into()), "no news");
        let away = Some(Shown::Nothing("the Verifier is away".into()));
        assert_eq!(own.state().shown(key, NONE), away);
        let held = scene.held(300);
        let token = Some(Shown::Result(held.token().to_owned()));
        own.keep(held);
        assert_eq!(own.state().shown(key, NONE), token);
        own.fail("the Verifier is away".into());
        assert_eq!(own.state().shown(key, NONE), token, "it is fresh");
        // That of another key says nothing about this one.
        let other = kedge_attest::Sha256([9; 32]);
        assert_eq!(own.state().shown(other, NONE), away);
    }

    #[test]
    fn a_result_that_has_ended_is_not_shown_and_the_reason_is() {
        let mut scene = Scene::new();
        let key = scene.node_key();
        let own = Own::new(key);
        own.keep(scene.held(0));
        let shown = own.state().shown(key, NONE);
        assert!(matches!(shown, Some(Shown::Nothing(_))), "{shown:?}");
        let stale = own.state().shown(key, Duration::from_secs(60));
        assert!(matches!(stale, Some(Shown::Result(_))), "{stale:?}");
    }
}
