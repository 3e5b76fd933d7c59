//! Goal: what the daemon has learnt fails the next connect() of the same workload to the same
//! place, with its errno and its reason, for as long as it says; nobody else's.
//!
//! ```text
//!   Refusals::file ──▶ REFUSALS ──▶ connect() of pod a fails ──▶ Refusals::last_asked
//! ```

#![allow(missing_docs)]

mod common;

use common::{PORT_BASE, count};
use kedge_capture::{Counter, EventKind, Refusal};
use kedge_model::Mode;
use std::net::SocketAddr;
use std::time::Duration;

const REFUSED: Refusal = Refusal {
    errno: 111,
    reason: 20,
};
const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_learnt_refusal_fails_connect_with_its_errno_and_is_told_with_its_reason() {
    let lab = lab_or_skip!();
    let mut capture = lab.capturing(Mode::Require);
    let mut events = capture.events().expect("first call");
    let refusals = capture.refusals();
    let cgroup = lab.cgroup_id("pods/a");
    let mut pod = lab.actor("pods/a", "a");
    for to in ["10.66.2.2:80", "[fd66:2::2]:80"] {
        let asked: SocketAddr = to.parse().expect("literal");
        refusals.file(cgroup, asked, REFUSED, LONG).expect("file");
        let last_asked = || refusals.last_asked(cgroup, asked).expect("map");
        assert_eq!(last_asked(), None, "nobody has asked yet");
        assert_eq!(pod.connect(to), Err(libc::ECONNREFUSED), "{to}");
        assert!(last_asked().is_some_and(|age| age < LONG), "it says so");
        let event = events.next_event().expect("told");
        assert_eq!(event.kind, EventKind::RefusedAgain);
        assert_eq!((event.errno, event.reason), (Some(111), Some(20)));
        assert_eq!(event.cgroup_id, Some(cgroup));
        assert_eq!(event.destination, asked);
    }
    assert_eq!(count(&capture, Counter::RefusedAgain), 2);
    assert_eq!(count(&capture, Counter::Captured), 0);
}

#[test]
fn a_mapped_address_meets_the_refusal_of_its_v4_form() {
    let lab = lab_or_skip!();
    let capture = lab.capturing(Mode::Permissive);
    let asked = "10.66.2.2:80".parse().expect("literal");
    let filed = capture
        .refusals()
        .file(lab.cgroup_id("pods/a"), asked, REFUSED, LONG);
    filed.expect("file");
    let mut pod = lab.actor("pods/a", "a");
    let mapped = pod.connect("[::ffff:10.66.2.2]:80");
    assert_eq!(mapped, Err(libc::ECONNREFUSED));
}

#[test]
fn a_refusal_that_was_withdrawn_or_has_run_out_is_captured_again() {
    let lab = lab_or_skip!();
    let capture = lab.capturing(Mode::Require);
    let (refusals, cgroup) = (capture.refusals(), lab.cgroup_id("pods/a"));
    let mut daemon = lab.daemon();
    daemon.listen(&format!("[::]:{PORT_BASE}"));
    let mut pod = lab.actor("pods/a", "a");
    let to = "10.66.2.2:80";
    let asked = to.parse().expect("literal");
    refusals.file(cgroup, asked, REFUSED, LONG).expect("file");
    assert_eq!(pod.connect(to), Err(libc::ECONNREFUSED));
    refusals.withdraw(cgroup, asked).expect("withdraw");
    assert_eq!(pod.connect(to), Ok(()), "withdrawn");
    let over = Duration::ZERO;
    refusals.file(cgroup, asked, REFUSED, over).expect("file");
    assert_eq!(pod.connect(to), Ok(()), "run out");
}

#[test]
fn a_refusal_is_one_workloads_and_one_places() {
    let lab = lab_or_skip!();
    let capture = lab.capturing(Mode::Require);
    let mut daemon = lab.daemon();
    daemon.listen(&format!("[::]:{PORT_BASE}"));
    let asked = "10.66.1.2:80".parse().expect("literal");
    let filed = capture
        .refusals()
        .file(lab.cgroup_id("pods/a"), asked, REFUSED, LONG);
    filed.expect("file");
    let mut pod = lab.actor("pods/a", "a");
    assert_eq!(pod.connect("10.66.1.2:81"), Ok(()), "another port");
    let mut other = lab.actor("pods/b", "b");
    assert_eq!(other.connect("10.66.1.2:80"), Ok(()), "another workload");
}

#[test]
fn a_new_daemon_begins_without_what_the_one_before_had_learnt() {
    let lab = lab_or_skip!();
    let first = lab.capturing(Mode::Require);
    let asked = "10.66.2.2:80".parse().expect("literal");
    let cgroup = lab.cgroup_id("pods/a");
    let filed = first.refusals().file(cgroup, asked, REFUSED, LONG);
    filed.expect("file");
    let _second = lab.capturing(Mode::Require);
    let mut daemon = lab.daemon();
    daemon.listen(&format!("[::]:{PORT_BASE}"));
    assert_eq!(lab.actor("pods/a", "a").connect("10.66.2.2:80"), Ok(()));
}
