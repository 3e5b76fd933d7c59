//! What happens with a connect().

use crate::cgroup::Owner;
use crate::errno::{EADDRNOTAVAIL, ECONNREFUSED, EPERM};
use crate::tables::{Tables, verdict_for};
use core::num::NonZero;
use kedge_abi::{Endpoint, Place, Refusal, RefusalKey, Root, class, limits, place, verdict};

/// A connect() that a program was asked about.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    pub owner: Owner,
    pub asked: Endpoint,
    pub socket_cookie: u64,
    /// CLOCK_MONOTONIC in nanoseconds.
    pub now: u64,
}

impl Attempt {
    #[inline(always)]
    #[must_use]
    pub fn refusal_key(&self) -> RefusalKey {
        RefusalKey {
            cgroup_id: self.owner.id,
            asked: self.asked,
            reserved: 0,
        }
    }
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Not a case for kedge: nothing is filed about it.
    Leave,
    /// It goes where it asked.
    Pass,
    /// It goes to the slot with this index.
    Capture(u32),
    /// A verdict fails it with this errno.
    Refuse(u16),
    /// The daemon has refused the same before, and this still holds.
    RefuseAgain(Refusal),
    /// The workload has too many connections under way: it fails as if its ports had run out.
    RefuseOverQuota(u16),
    /// `permissive`: it goes where it asked, in the clear, since no worker lives.
    PassWithoutWorker,
    /// `require`: it fails, since no worker lives.
    RefuseWithoutWorker(u16),
    /// kedged's own guard fails it.
    RefuseDaemon(u16),
}

/// Decides by the owner's class, the verdict, and who lives.
#[inline(always)]
pub fn decide<T: Tables>(tables: &T, attempt: &Attempt) -> Outcome {
    match attempt.owner.class {
        class::DAEMON => of_daemon(tables, &attempt.asked),
        class::PERMISSIVE | class::REQUIRE => of_workload(tables, attempt),
        _ => Outcome::Leave,
    }
}

#[inline(always)]
fn of_workload<T: Tables>(tables: &T, attempt: &Attempt) -> Outcome {
    let verdict = verdict_for(tables, attempt.owner.class, &attempt.asked);
    if let Some(errno) = verdict::errno(verdict) {
        return Outcome::Refuse(errno);
    }
    if verdict != verdict::CAPTURE || is_own(tables, attempt) {
        return Outcome::Pass;
    }
    if let Some(refusal) = learnt(tables, attempt) {
        return Outcome::RefuseAgain(refusal);
    }
    if tables.pending(attempt.owner.id) >= limits::CLAIMS_PER_CGROUP {
        return Outcome::RefuseOverQuota(EADDRNOTAVAIL);
    }
    match slot_for(tables, attempt) {
        Some(slot) => Outcome::Capture(slot),
        None if attempt.owner.class == class::PERMISSIVE => Outcome::PassWithoutWorker,
        None => Outcome::RefuseWithoutWorker(ECONNREFUSED),
    }
}

/// Whether it asks for the workload's own address: then it stays within the pod, as on loopback.
/// If the directory is wrong about that, the guard drops what would leave.
#[inline(always)]
fn is_own<T: Tables>(tables: &T, attempt: &Attempt) -> bool {
    let place = tables.place(&attempt.asked.address);
    place.is_some_and(|place| place.cgroup_id != 0 && place.cgroup_id == attempt.owner.id)
}

/// A refusal that still holds. What has run out is not removed here: only the daemon writes.
#[inline(always)]
fn learnt<T: Tables>(tables: &T, attempt: &Attempt) -> Option<Refusal> {
    tables
        .refusal(&attempt.refusal_key())
        .filter(|refusal| attempt.now < refusal.valid_until_ns)
}

/// kedged goes to local workloads, to the peer port of nodes, and to itself.
#[inline(always)]
fn of_daemon<T: Tables>(tables: &T, asked: &Endpoint) -> Outcome {
    let allowed = asked.address.is_loopback()
        || tables
            .place(&asked.address)
            .is_some_and(|place| daemon_may_open(&place, asked.port));
    if allowed {
        Outcome::Leave
    } else {
        Outcome::RefuseDaemon(EPERM)
    }
}

#[inline(always)]
fn daemon_may_open(to: &Place, port: u32) -> bool {
    to.kind == place::LOCAL_POD || (to.kind == place::NODE && port == to.peer_port)
}

/// The slot: its address by what was asked for, so that each destination has the client's whole
/// range of ports as it would have without kedge; its worker by the socket, among those that live.
#[inline(always)]
fn slot_for<T: Tables>(tables: &T, attempt: &Attempt) -> Option<u32> {
    let root = tables.root()?;
    if root.addresses == 0 || root.addresses > limits::ADDRESSES {
        return None;
    }
    let address = hash(&attempt.asked) % root.addresses;
    let worker = fresh_worker(tables, root, attempt)?;
    Some(worker * limits::ADDRESSES + address)
}

#[inline(always)]
fn fresh_worker<T: Tables>(tables: &T, root: &Root, attempt: &Attempt) -> Option<u32> {
    let workers = NonZero::new(root.workers)?;
    if workers.get() > limits::WORKERS {
        return None;
    }
    let start = spread(attempt.socket_cookie) % workers;
    let worker = |step| (start + step) % workers;
    let is_it = |step| is_fresh(tables.beat(worker(step)), attempt.now);
    tables.first(workers.get(), is_it).map(worker)
}

/// A beat from after `now` was taken on another CPU a moment ago.
#[inline(always)]
fn is_fresh(beat: u64, now: u64) -> bool {
    beat != 0 && now.saturating_sub(beat) < limits::BEAT_FRESH_NS
}

/// Spreads destinations over capture addresses. No secret: whoever aims at one slot shares it
/// with himself only, a slot being half of a tuple.
#[inline(always)]
fn hash(end: &Endpoint) -> u32 {
    let words = &end.address.words_be;
    mix(words[3] ^ mix(words[2] ^ mix(words[1] ^ mix(words[0] ^ mix(end.port)))))
}

/// Socket cookies count up in steps; Fibonacci hashing makes workers of them.
#[inline(always)]
fn spread(cookie: u64) -> u32 {
    (cookie.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
}

/// The finalizer of MurmurHash3.
#[inline(always)]
fn mix(mut word: u32) -> u32 {
    word ^= word >> 16;
    word = word.wrapping_mul(0x85eb_ca6b);
    word ^= word >> 13;
    word = word.wrapping_mul(0xc2b2_ae35);
    word ^ (word >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{World, end};
    use kedge_abi::kind;
    use proptest::prelude::*;
    use std::collections::HashSet;

    const NOW: u64 = 1_000_000_000_000;

    fn attempt(class: u32, to: &str) -> Attempt {
        let kind = if class == class::DAEMON {
            kind::DAEMON
        } else {
            kind::WORKLOAD
        };
        Attempt {
            owner: Owner {
                id: 1,
                class,
                kind,
                level: None,
            },
            asked: end(to),
            socket_cookie: 77,
            now: NOW,
        }
    }

    fn capturing() -> World {
        let mut world = World::new();
        for class in [class::PERMISSIVE, class::REQUIRE] {
            world.rule(class, "10.0.0.0", 8, verdict::CAPTURE);
        }
        world.beats[1] = NOW - 1;
        world
    }

    #[test]
    fn off_is_left_alone_whatever_the_verdicts_say() {
        let mut world = capturing();
        world.rule(class::OFF, "10.0.0.0", 8, verdict::CAPTURE);
        assert_eq!(
            decide(&world, &attempt(class::OFF, "10.1.2.3:80")),
            Outcome::Leave
        );
    }

    #[test]
    fn capture_picks_a_living_worker_only() {
        let world = capturing();
        for cookie in 0..100 {
            let mut attempt = attempt(class::REQUIRE, "10.1.2.3:80");
            attempt.socket_cookie = cookie;
            let Outcome::Capture(slot) = decide(&world, &attempt) else {
                panic!("cookie {cookie}");
            };
            assert_eq!(slot / limits::ADDRESSES, 1);
        }
    }

    #[test]
    fn without_a_beat_for_five_seconds_permissive_passes_and_require_refuses() {
        let mut world = capturing();
        for (age, permissive, require) in [
            (limits::BEAT_FRESH_NS - 1, false, false),
            (limits::BEAT_FRESH_NS, true, true),
        ] {
            world.beats[1] = NOW - age;
            let outcome = |class| decide(&world, &attempt(class, "10.1.2.3:80"));
            assert_eq!(
                outcome(class::PERMISSIVE) == Outcome::PassWithoutWorker,
                permissive
            );
            let refused = Outcome::RefuseWithoutWorker(ECONNREFUSED);
            assert_eq!(outcome(class::REQUIRE) == refused, require);
        }
    }

    #[test]
    fn a_worker_that_never_beat_is_not_alive_even_right_after_boot() {
        let mut world = capturing();
        world.beats[1] = 0;
        let mut attempt = attempt(class::REQUIRE, "10.1.2.3:80");
        attempt.now = 1;
        assert_eq!(
            decide(&world, &attempt),
            Outcome::RefuseWithoutWorker(ECONNREFUSED)
        );
    }

    #[test]
    fn refuse_carries_its_errno_and_needs_no_worker() {
        let mut world = World::new();
        world.rule(class::REQUIRE, "10.9.0.0", 16, verdict::refuse(113));
        assert_eq!(
            decide(&world, &attempt(class::REQUIRE, "10.9.1.1:80")),
            Outcome::Refuse(113)
        );
    }

    fn refusal(valid_until_ns: u64) -> Refusal {
        Refusal {
            valid_until_ns,
            errno: 111,
            reason: 20,
            ..Refusal::default()
        }
    }

    #[test]
    fn a_learnt_refusal_holds_for_its_asker_and_place_and_no_longer_than_it_says() {
        let mut world = capturing();
        let asked = attempt(class::REQUIRE, "10.1.2.3:80");
        world.refuse_again(asked.refusal_key(), refusal(NOW + 1));
        let outcome = |attempt: &Attempt| decide(&world, attempt);
        assert_eq!(
            outcome(&asked),
            Outcome::RefuseAgain(refusal(NOW + 1)),
            "before it runs out"
        );
        let captured = |attempt| matches!(outcome(&attempt), Outcome::Capture(_));
        assert!(
            captured(Attempt {
                now: NOW + 1,
                ..asked
            }),
            "it ran out"
        );
        assert!(captured(attempt(class::REQUIRE, "10.1.2.3:81")));
        assert!(captured(attempt(class::REQUIRE, "10.1.2.4:80")));
        let mut other = asked;
        other.owner.id = 2;
        assert!(captured(other), "another workload asks for the same");
    }

    #[test]
    fn a_learnt_refusal_never_refuses_what_a_verdict_lets_pass() {
        let mut world = capturing();
        let asked = attempt(class::PERMISSIVE, "192.0.2.1:443");
        world.refuse_again(asked.refusal_key(), refusal(u64::MAX));
        assert_eq!(decide(&world, &asked), Outcome::Pass);
    }

    #[test]
    fn a_workload_over_its_quota_is_refused_and_another_is_not() {
        let mut world = capturing();
        let one = attempt(class::REQUIRE, "10.1.2.3:80");
        let mut other = one;
        other.owner.id = 2;
        world
            .pending
            .insert(one.owner.id, limits::CLAIMS_PER_CGROUP);
        world
            .pending
            .insert(other.owner.id, limits::CLAIMS_PER_CGROUP - 1);
        assert_eq!(
            decide(&world, &one),
            Outcome::RefuseOverQuota(EADDRNOTAVAIL)
        );
        assert!(matches!(decide(&world, &other), Outcome::Capture(_)));
    }

    #[test]
    fn what_no_prefix_names_passes() {
        let world = capturing();
        for to in ["169.254.169.254:80", "192.0.2.1:443", "[2001:db8::1]:53"] {
            assert_eq!(
                decide(&world, &attempt(class::REQUIRE, to)),
                Outcome::Pass,
                "{to}"
            );
        }
    }

    #[test]
    fn a_mapped_destination_meets_the_verdict_of_its_v4_form() {
        let world = capturing();
        let outcome = |to| decide(&world, &attempt(class::REQUIRE, to));
        assert_eq!(outcome("[::ffff:10.1.2.3]:80"), outcome("10.1.2.3:80"));
    }

    #[test]
    fn a_workloads_own_address_needs_no_daemon_and_a_neighbours_does() {
        let mut world = capturing();
        world.beats = [0; limits::WORKERS as usize];
        let own = attempt(class::REQUIRE, "10.1.0.1:80");
        world.add_own_address("10.1.0.1", own.owner.id);
        world.add_own_address("10.1.0.2", own.owner.id + 1);
        world.add_place("10.1.0.3", place::LOCAL_POD, 0);
        assert_eq!(decide(&world, &own), Outcome::Pass);
        for to in ["10.1.0.2:80", "10.1.0.3:80"] {
            let outcome = decide(&world, &attempt(class::REQUIRE, to));
            assert_eq!(outcome, Outcome::RefuseWithoutWorker(ECONNREFUSED), "{to}");
        }
    }

    #[test]
    fn the_daemon_goes_to_local_pods_and_peer_ports_and_nowhere_else() {
        let mut world = capturing();
        world.add_place("10.1.0.1", place::LOCAL_POD, 0);
        world.add_place("192.0.2.2", place::NODE, 15443);
        let outcome = |to| decide(&world, &attempt(class::DAEMON, to));
        for to in ["10.1.0.1:80", "192.0.2.2:15443", "127.0.0.1:9", "[::1]:9"] {
            assert_eq!(outcome(to), Outcome::Leave, "{to}");
        }
        for to in [
            "192.0.2.2:80",
            "10.1.0.2:80",
            "192.0.2.3:15443",
            "169.254.169.254:80",
        ] {
            assert_eq!(outcome(to), Outcome::RefuseDaemon(EPERM), "{to}");
        }
    }

    #[test]
    fn one_destination_has_one_address_and_many_destinations_are_spread() {
        let world = capturing();
        let address = |port: u16| {
            let to = std::format!("10.1.2.3:{port}");
            match decide(&world, &attempt(class::REQUIRE, &to)) {
                Outcome::Capture(slot) => slot % limits::ADDRESSES,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(address(80), address(80));
        let addresses: HashSet<u32> = (1..1000).map(address).collect();
        assert!(addresses.len() > 500, "{}", addresses.len());
    }

    proptest! {
        #[test]
        fn a_slot_lies_in_the_table_whatever_the_root_says(
            workers: u32, addresses: u32, cookie: u64, port: u16, a: u8, b: u8,
        ) {
            let mut world = capturing();
            world.root.workers = workers;
            world.root.addresses = addresses;
            world.beats = [NOW; limits::WORKERS as usize];
            let mut attempt = attempt(class::REQUIRE, &std::format!("10.{a}.{b}.1:{port}"));
            attempt.socket_cookie = cookie;
            if let Outcome::Capture(slot) = decide(&world, &attempt) {
                prop_assert!(slot < limits::SLOTS);
                prop_assert!(slot / limits::ADDRESSES < workers);
                prop_assert!(slot % limits::ADDRESSES < addresses);
            }
        }
    }
}
