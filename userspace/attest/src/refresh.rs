//! When to ask a Verifier for the next Result: early, once at a time, and not all at the same moment.

use crate::held::{BootTime, Held};
use crate::limits::{ATTEMPT_TIMEOUT, BACKOFF_MAX, BACKOFF_MIN, RESULT_LIFETIME};
use std::time::Duration;

/// What may be tuned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RefreshPolicy {
    /// How eager early refreshes are: the factor *β* of XFetch.
    pub eagerness: f64,
    /// What a Result is taken to cost at least, so that refreshes of many nodes spread.
    pub cost_min: Duration,
    pub backoff_min: Duration,
    pub backoff_max: Duration,
    /// After this an attempt without an answer has failed.
    pub timeout: Duration,
}

impl Default for RefreshPolicy {
    fn default() -> Self {
        Self {
            eagerness: 1.0,
            cost_min: Duration::from_secs(15),
            backoff_min: BACKOFF_MIN,
            backoff_max: BACKOFF_MAX,
            timeout: ATTEMPT_TIMEOUT,
        }
    }
}

/// What happened so far, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RefreshCounters {
    pub attempts: u64,
    pub results: u64,
    pub failures: u64,
}

/// What is to be done now.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask the Verifier. No other [`Step::Ask`] comes before this attempt has ended.
    Ask(Attempt),
    /// Nothing before this time.
    WaitUntil(BootTime),
}

/// One question to the Verifier, to be given back with its outcome.
#[derive(Debug, PartialEq, Eq)]
pub struct Attempt {
    number: u64,
    started: BootTime,
}

/// The state of one node's own Result at one Verifier. `random` values are uniform over all of u64.
#[derive(Debug)]
pub struct Refresher {
    policy: RefreshPolicy,
    due: BootTime,
    in_flight: Option<(u64, BootTime)>,
    failures_in_a_row: u32,
    counters: RefreshCounters,
}

impl Refresher {
    /// One without a Result: it asks at once.
    #[must_use]
    pub fn new(policy: RefreshPolicy, now: BootTime) -> Self {
        Self {
            policy,
            due: now,
            in_flight: None,
            failures_in_a_row: 0,
            counters: RefreshCounters::default(),
        }
    }

    pub fn next(&mut self, now: BootTime, random: u64) -> Step {
        if let Some((_, started)) = self.in_flight {
            let ends = started.after(self.policy.timeout);
            if now < ends {
                return Step::WaitUntil(ends);
            }
            self.fail(now, random);
        }
        if now < self.due {
            return Step::WaitUntil(self.due);
        }
        self.counters.attempts += 1;
        let number = self.counters.attempts;
        self.in_flight = Some((number, now));
        Step::Ask(Attempt {
            number,
            started: now,
        })
    }

    /// The Verifier answered with `held`. One that answers after its time-out is welcome as well.
    pub fn handle_result(&mut self, attempt: Attempt, held: &Held, now: BootTime, random: u64) {
        self.end(&attempt);
        self.failures_in_a_row = 0;
        self.counters.results += 1;
        let cost = now.since(attempt.started).max(self.policy.cost_min);
        self.due = self.early(held.fresh_until(), cost, now, random);
    }

    /// The Verifier is away, or what it answered was not believed.
    pub fn handle_failure(&mut self, attempt: Attempt, now: BootTime, random: u64) {
        // One that has timed out has failed already.
        if self.end(&attempt) {
            self.fail(now, random);
        }
    }

    /// Something changed that a Result is bound to, as the node's SVID: the one that is held is of no
    /// use. A Verifier that is away is not asked any sooner.
    pub fn handle_change(&mut self, now: BootTime) {
        if self.failures_in_a_row == 0 {
            self.due = now;
        }
    }

    /// Somebody has changed on this node what may have been the fault: it is tried again at once.
    pub fn handle_remedy(&mut self, now: BootTime) {
        self.failures_in_a_row = 0;
        self.due = now;
    }

    #[must_use]
    pub fn counters(&self) -> RefreshCounters {
        self.counters
    }

    /// Whether `attempt` was the one under way.
    fn end(&mut self, attempt: &Attempt) -> bool {
        let is_ours = self
            .in_flight
            .is_some_and(|(number, _)| number == attempt.number);
        if is_ours {
            self.in_flight = None;
        }
        is_ours
    }

    /// Exponential back-off with full jitter above the least wait: Verifiers that come back are not
    /// asked by all nodes at once.
    fn fail(&mut self, now: BootTime, random: u64) {
        let RefreshPolicy {
            backoff_min,
            backoff_max,
            ..
        } = self.policy;
        self.in_flight = None;
        self.counters.failures += 1;
        let factor = 2_u32.saturating_pow(self.failures_in_a_row.saturating_add(1));
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        let longest = backoff_min.saturating_mul(factor).min(backoff_max);
        let jitter = longest.saturating_sub(backoff_min).mul_f64(unit(random));
        self.due = now.after(backoff_min + jitter);
    }

    /// XFetch (Vattani, Chierichetti, Lowenstein, VLDB 2015): ahead of the end by cost · β · −ln(u).
    /// Drawn once a Result instead of once a request, since a single flight has one asker. Not more
    /// than half of what is left.
    fn early(&self, end: BootTime, cost: Duration, now: BootTime, random: u64) -> BootTime {
        let factor = self.policy.eagerness.max(0.0) * -unit(random).ln();
        let seconds = cost.as_secs_f64() * factor;
        let ahead = Duration::try_from_secs_f64(seconds).unwrap_or(RESULT_LIFETIME);
        let left = end.since(now);
        now.after(left.saturating_sub(ahead).max(left / 2))
    }
}

/// A number above 0 and at most 1, from 53 of the bits.
fn unit(random: u64) -> f64 {
    const STEPS: f64 = (1_u64 << 53) as f64;
    ((random >> 11) + 1) as f64 / STEPS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ak::AkName;
    use crate::attest::Counters;
    use crate::digest::Sha256;
    use crate::result::AttestationResult;
    use kedge_model::SpiffeId;
    use rustls_pki_types::UnixTime;

    fn at(seconds: u64) -> BootTime {
        BootTime(Duration::from_secs(seconds))
    }

    fn held(now: BootTime) -> Held {
        let wall = UnixTime::since_unix_epoch(now.0);
        let issued = wall.as_secs();
        let result = AttestationResult {
            verifier: "v".into(),
            node: SpiffeId::parse("spiffe://td/kedge/node/a").expect("a node"),
            node_key: Sha256([1; 32]),
            ak: AkName(Sha256([2; 32])),
            counters: Counters {
                reset: 0,
                restart: 0,
            },
            policy: Sha256([3; 32]),
            issued,
            fresh_until: issued + 300,
            hard_expiry: issued + 3_600,
        };
        Held::new(result, String::new(), wall, now)
    }

    fn ask(refresher: &mut Refresher, now: BootTime) -> Attempt {
        match refresher.next(now, 0) {
            Step::Ask(attempt) => attempt,
            Step::WaitUntil(time) => panic!("waits until {time:?}"),
        }
    }

    fn due(refresher: &mut Refresher, now: BootTime) -> BootTime {
        match refresher.next(now, 0) {
            Step::WaitUntil(time) => time,
            Step::Ask(_) => panic!("asks"),
        }
    }

    #[test]
    fn one_attempt_is_under_way_at_a_time() {
        let mut refresher = Refresher::new(RefreshPolicy::default(), at(0));
        let attempt = ask(&mut refresher, at(0));
        for second in 0..10 {
            assert_eq!(due(&mut refresher, at(second)), at(10), "its time-out");
        }
        refresher.handle_result(attempt, &held(at(9)), at(9), u64::MAX);
        assert!(matches!(refresher.next(at(9), 0), Step::WaitUntil(_)));
        assert_eq!(refresher.counters().attempts, 1);
    }

    #[test]
    fn a_result_is_renewed_before_its_five_minutes_are_over() {
        for random in (0..1_000_u64).map(|n| n << 54) {
            let mut refresher = Refresher::new(RefreshPolicy::default(), at(0));
            let attempt = ask(&mut refresher, at(0));
            refresher.handle_result(attempt, &held(at(1)), at(1), random);
            let due = due(&mut refresher, at(1));
            assert!((at(151)..=at(301)).contains(&due), "{due:?}");
        }
    }

    #[test]
    fn renewals_of_many_nodes_spread_and_are_early_by_little() {
        let times: Vec<_> = (0..1_000_u64)
            .map(|n| {
                let mut refresher = Refresher::new(RefreshPolicy::default(), at(0));
                let attempt = ask(&mut refresher, at(0));
                let random = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                refresher.handle_result(attempt, &held(at(0)), at(0), random);
                due(&mut refresher, at(0)).0.as_secs()
            })
            .collect();
        let mean = times.iter().sum::<u64>() as f64 / times.len() as f64;
        assert!(mean > 280.0, "{mean} s");
        let busiest = (0..=300)
            .map(|s| times.iter().filter(|t| **t == s).count())
            .max();
        println!("renewed after {mean} s; {busiest:?} in the busiest second");
        assert!(
            busiest.is_some_and(|count| count <= 100),
            "{busiest:?} of 1,000 in one second"
        );
    }

    #[test]
    fn failures_are_asked_again_later_and_later_within_the_bounds() {
        let mut refresher = Refresher::new(RefreshPolicy::default(), at(0));
        let mut now = at(0);
        let mut waits = Vec::new();
        for _ in 0..10 {
            let attempt = ask(&mut refresher, now);
            refresher.handle_failure(attempt, now, u64::MAX);
            let next = due(&mut refresher, now);
            waits.push(next.since(now).as_secs());
            now = next;
        }
        assert_eq!(waits, [2, 4, 8, 16, 32, 60, 60, 60, 60, 60]);
        let attempt = ask(&mut refresher, now);
        refresher.handle_failure(attempt, now, 0);
        assert_eq!(
            due(&mut refresher, now).since(now).as_secs(),
            BACKOFF_MIN.as_secs()
        );
    }

    #[test]
    fn nodes_whose_verifier_comes_back_do_not_ask_in_the_same_second() {
        let mut per_second = [0_u32; 120];
        for node in 0..1_000_u64 {
            let mut refresher = Refresher::new(RefreshPolicy::default(), at(0));
            let mut now = at(0);
            let mut random = node.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            while now < at(300) {
                let attempt = ask(&mut refresher, now);
                random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                refresher.handle_failure(attempt, now, random);
                now = due(&mut refresher, now);
            }
            per_second[usize::try_from(now.0.as_secs() - 300).expect("small")] += 1;
        }
        let busiest = per_second.iter().max();
        println!("{busiest:?} in the busiest second");
        assert!(
            busiest.is_some_and(|count| *count <= 60),
            "{busiest:?} of 1,000 in one second"
        );
    }

    #[test]
    fn an_attempt_that_hangs_has_failed_and_its_late_result_is_still_taken() {
        let mut refresher = Refresher::new(RefreshPolicy::default(), at(0));
        let late = ask(&mut refresher, at(0));
        assert!(matches!(refresher.next(at(10), 0), Step::WaitUntil(_)));
        assert_eq!(refresher.counters().failures, 1);
        let second = ask(&mut refresher, at(20));
        refresher.handle_failure(late, at(20), 0);
        assert_eq!(refresher.counters().failures, 1, "told before");
        assert_eq!(
            due(&mut refresher, at(20)),
            at(30),
            "the second is still under way"
        );
        refresher.handle_result(second, &held(at(21)), at(21), u64::MAX);
        assert_eq!(refresher.counters().results, 1);
    }

    #[test]
    fn a_new_certificate_asks_at_once_unless_the_verifier_is_away() {
        let mut refresher = Refresher::new(RefreshPolicy::default(), at(0));
        let attempt = ask(&mut refresher, at(0));
        refresher.handle_result(attempt, &held(at(0)), at(0), u64::MAX);
        refresher.handle_change(at(5));
        let attempt = ask(&mut refresher, at(5));
        refresher.handle_failure(attempt, at(5), u64::MAX);
        refresher.handle_change(at(5));
        assert_eq!(due(&mut refresher, at(5)), at(7));
    }
}
