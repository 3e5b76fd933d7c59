//! Results that a Relying Party keeps: aged by a clock that nobody sets.

use crate::attest::Counters;
use crate::error::LedgerError;
use crate::ledger::{Ledger, Order};
use crate::limits::RESULT_LIFETIME;
use crate::result::AttestationResult;
use kedge_model::SpiffeId;
use rustls_pki_types::UnixTime;
use std::collections::HashMap;
use std::time::Duration;

/// Time since the machine started, its sleep included (CLOCK_BOOTTIME): it is never set and never
/// goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootTime(pub Duration);

impl BootTime {
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(wait))
    }

    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// A Result with its token, as it was when it came. The wall clock is asked once, then; how much
/// was left then only becomes less.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    result: AttestationResult,
    token: String,
    received: BootTime,
    fresh_for: Duration,
    hard_for: Duration,
}

/// What a held Result is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Within its five minutes.
    Fresh,
    /// Past them, and still within what the Relying Party allows.
    Stale,
    Ended,
}

impl Held {
    #[must_use]
    pub fn new(result: AttestationResult, token: String, wall: UnixTime, boot: BootTime) -> Self {
        let left = |end: u64| Duration::from_secs(end.saturating_sub(wall.as_secs()));
        // However far behind the wall clock is, a Result lives no longer than it was made for.
        let life = Duration::from_secs(result.hard_expiry.saturating_sub(result.issued));
        Self {
            fresh_for: left(result.fresh_until).min(RESULT_LIFETIME),
            hard_for: left(result.hard_expiry).min(life),
            received: boot,
            result,
            token,
        }
    }

    /// `max_stale` is how long after its five minutes the Relying Party takes it; never beyond the
    /// hard expiry.
    #[must_use]
    pub fn standing(&self, now: BootTime, max_stale: Duration) -> Standing {
        let age = now.since(self.received);
        if age >= self.hard_for {
            return Standing::Ended;
        }
        match age.checked_sub(self.fresh_for) {
            None => Standing::Fresh,
            Some(stale) if stale < max_stale => Standing::Stale,
            Some(_) => Standing::Ended,
        }
    }

    /// When its five minutes are over.
    #[must_use]
    pub fn fresh_until(&self) -> BootTime {
        self.received.after(self.fresh_for)
    }

    #[must_use]
    pub fn result(&self) -> &AttestationResult {
        &self.result
    }

    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }
}

/// Where Results are kept. One that is outside this process is not believed: what comes from it is
/// verified like what comes from a peer.
pub trait Results {
    /// The newest Result about a node, whatever it is still good for.
    fn held(&self, node: &SpiffeId) -> Option<&Held>;

    /// Keeps a Result that was verified, unless a newer one is kept already.
    ///
    /// # Errors
    /// When the node's TPM has been further already, or there is no room.
    fn keep(&mut self, held: Held) -> Result<Order, LedgerError>;
}

/// In memory.
#[derive(Default)]
pub struct MemoryResults {
    by_node: HashMap<SpiffeId, Held>,
    ledger: Ledger,
}

impl MemoryResults {
    /// Lets go of what has ended. What was newest of each AK stays known.
    pub fn forget_ended(&mut self, now: BootTime, max_stale: Duration) {
        self.by_node
            .retain(|_, held| held.standing(now, max_stale) != Standing::Ended);
    }
}

impl Results for MemoryResults {
    fn held(&self, node: &SpiffeId) -> Option<&Held> {
        self.by_node.get(node)
    }

    fn keep(&mut self, held: Held) -> Result<Order, LedgerError> {
        let result = held.result();
        let counters: Counters = result.counters();
        let order = self.ledger.admit(result.ak(), counters, result.issued())?;
        if order == Order::Newest {
            self.by_node.insert(result.node().clone(), held);
        }
        Ok(order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ak::AkName;
    use crate::digest::Sha256;

    const T: u64 = 1_000_000;
    const HARD: u64 = 3_600;

    fn result(issued: u64, reset: u32) -> AttestationResult {
        AttestationResult {
            verifier: "v".into(),
            node: SpiffeId::parse("spiffe://td/kedge/node/a").expect("a node"),
            node_key: Sha256([1; 32]),
            ak: AkName(Sha256([2; 32])),
            counters: Counters { reset, restart: 0 },
            policy: Sha256([3; 32]),
            issued,
            fresh_until: issued + 300,
            hard_expiry: issued + HARD,
        }
    }

    fn held(issued: u64, wall: u64, boot: u64) -> Held {
        let wall = UnixTime::since_unix_epoch(Duration::from_secs(wall));
        Held::new(result(issued, 1), "token".into(), wall, at(boot))
    }

    fn at(seconds: u64) -> BootTime {
        BootTime(Duration::from_secs(seconds))
    }

    #[test]
    fn a_result_is_fresh_for_five_minutes_then_stale_as_allowed_then_ended() {
        let held = held(T, T, 50);
        let none = Duration::ZERO;
        assert_eq!(held.standing(at(349), none), Standing::Fresh);
        assert_eq!(held.standing(at(350), none), Standing::Ended);
        let minute = Duration::from_secs(60);
        assert_eq!(held.standing(at(350), minute), Standing::Stale);
        assert_eq!(held.standing(at(409), minute), Standing::Stale);
        assert_eq!(held.standing(at(410), minute), Standing::Ended);
    }

    #[test]
    fn whatever_is_allowed_nothing_is_taken_beyond_the_hard_expiry() {
        let held = held(T, T, 50);
        let always = Duration::MAX;
        assert_eq!(held.standing(at(50 + HARD - 1), always), Standing::Stale);
        assert_eq!(held.standing(at(50 + HARD), always), Standing::Ended);
    }

    #[test]
    fn a_clock_that_was_set_back_lengthens_no_result() {
        // The wall clock is an hour behind; only the boot-time clock runs.
        let held = held(T, T - 3_600, 50);
        assert_eq!(held.standing(at(349), Duration::ZERO), Standing::Fresh);
        assert_eq!(held.standing(at(350), Duration::ZERO), Standing::Ended);
        assert_eq!(held.standing(at(50 + HARD), Duration::MAX), Standing::Ended);
        // One that goes back to before it came is as old as when it came.
        assert_eq!(held.standing(at(0), Duration::ZERO), Standing::Fresh);
    }

    #[test]
    fn of_one_boot_the_later_result_stays_whichever_comes_first() {
        let mut results = MemoryResults::default();
        let node = result(T, 1).node;
        assert_eq!(results.keep(held(T + 10, T + 10, 1)), Ok(Order::Newest));
        assert_eq!(results.keep(held(T, T + 10, 2)), Ok(Order::Older));
        let kept = results.held(&node).expect("kept");
        assert_eq!(kept.result().issued(), T + 10);
        results.forget_ended(at(100_000), Duration::ZERO);
        assert!(results.held(&node).is_none());
    }

    #[test]
    fn a_result_of_an_earlier_boot_is_refused_also_after_the_later_one_was_let_go() {
        let mut results = MemoryResults::default();
        let wall = UnixTime::since_unix_epoch(Duration::from_secs(T));
        let of = |reset| Held::new(result(T, reset), "token".into(), wall, at(0));
        assert_eq!(results.keep(of(7)), Ok(Order::Newest));
        results.forget_ended(at(100_000), Duration::ZERO);
        let refused = results.keep(of(6)).expect_err("rolled back");
        assert!(matches!(refused, LedgerError::RolledBack { .. }));
    }
}
