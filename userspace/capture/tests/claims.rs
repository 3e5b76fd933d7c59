//! Goal: a claim belongs to one connection, from before its SYN to the end of the socket that
//! accepts it, whatever ports are used again meanwhile; and each workload has its own share of
//! the room for claims.
//!
//! ```text
//!   pod a ── SYN ──▶ CLAIMS ── established ──▶ ACCEPTED: storage of the daemon's socket
//!             PENDING[a] + 1        PENDING[a] − 1
//! ```

#![allow(missing_docs)]

mod common;

use common::{Lab, PORT_BASE, claim, count, eventually, pinned};
use kedge_abi::{Claim, limits, map};
use kedge_capture::{Counter, EventKind};
use kedge_model::Mode;
use std::net::SocketAddr;

const TO: &str = "10.66.2.2:80";
const OTHER: &str = "10.66.2.2:81";

/// Claims of this cgroup that wait for their handshake, as the programs count them.
fn pending(lab: &Lab, cgroup: &str) -> i64 {
    let counts = pinned::hash::<u64, i64>(lab, map::PENDING);
    counts.get(&lab.cgroup_id(cgroup), 0).unwrap_or(0)
}

fn claims(lab: &Lab) -> usize {
    let claims = pinned::hash::<[u8; 48], [u8; size_of::<Claim>()]>(lab, map::CLAIMS);
    claims.keys().count()
}

#[test]
fn a_port_that_is_used_again_after_a_reset_gets_a_claim_of_its_own() {
    let lab = lab_or_skip!();
    let capture = lab.capturing(Mode::Require);
    let mut daemon = lab.daemon();
    daemon.listen(&format!("[::]:{PORT_BASE}"));
    let mut first = lab.actor("pods/a", "a");
    let mut second = lab.actor("pods/new", "a");
    // One slot address for both, so that the tuple is the same.
    let from = "10.66.1.2:40123";
    first.bind(from).expect("bind");
    first.connect_socket(TO).expect("connect");
    first.abort();
    second.bind(from).expect("the port is free again");
    second.connect_socket(TO).expect("connect");
    for (whose, cgroup) in [("first", "pods/a"), ("second", "pods")] {
        let accepted = daemon.accept();
        assert_eq!(accepted.from.port(), 40123);
        let claim = claim(&capture, &mut daemon).expect(whose);
        assert_eq!(claim.cgroup_id, lab.cgroup_id(cgroup), "{whose}");
    }
}

#[test]
fn one_source_port_reaches_two_places_under_their_own_claims() {
    let lab = lab_or_skip!();
    let capture = lab.capturing(Mode::Require);
    let mut daemon = lab.daemon();
    daemon.listen(&format!("[::]:{PORT_BASE}"));
    let mut pods = [lab.actor("pods/a", "a"), lab.actor("pods/a", "a")];
    for (pod, to) in pods.iter_mut().zip([TO, OTHER]) {
        pod.bind_shared("10.66.1.2:40124").expect("bind");
        pod.connect_socket(to).expect("connect");
        daemon.accept();
        let claim = claim(&capture, &mut daemon).expect("claim");
        assert_eq!(claim.original_dst.to_string(), to);
    }
    for (pod, to) in pods.iter_mut().zip([TO, OTHER]) {
        assert_eq!(pod.peer_name().to_string(), to);
        assert_eq!(pod.local_name().port(), 40124);
    }
}

/// Pod `b`'s namespace takes pod `a`'s address: the way back leads to one of them only, and which
/// of two connections with one tuple arrives cannot be told.
#[test]
fn two_namespaces_with_one_address_never_get_each_others_claims() {
    let lab = lab_or_skip!();
    let mut capture = lab.capturing(Mode::Require);
    let mut events = capture.events().expect("first call");
    let mut daemon = lab.daemon();
    daemon.listen(&format!("[::]:{PORT_BASE}"));
    lab.ip("b", "addr add 10.66.1.2/32 dev lo");
    let from = "10.66.1.2:40125";
    let mut without_way_back = lab.actor("pods/b", "b");
    without_way_back.bind(from).expect("bind");
    without_way_back.begin_connect(TO).expect("begin");
    let mut pod = lab.actor("pods/a", "a");
    pod.bind(from).expect("bind");
    pod.connect_socket(TO).expect("its SYN is answered");
    daemon.accept();
    assert_eq!(claim(&capture, &mut daemon), None, "nobody's");
    assert_eq!(count(&capture, Counter::ClaimLost), 1);
    let event = events.next_event().expect("told");
    assert_eq!(event.kind, EventKind::ClaimLost);

    // Both are gone, and their tuple is nobody's still: one of them may be under way.
    without_way_back.close();
    pod.abort();
    pod.bind(from).expect("bind");
    pod.connect_socket(TO).expect("its SYN is answered");
    daemon.accept();
    assert_eq!(claim(&capture, &mut daemon), None, "nobody's still");

    pod.connect(TO).expect("from another port");
    daemon.accept();
    assert!(claim(&capture, &mut daemon).is_some());
}

#[test]
fn however_a_connection_ends_its_claim_ends_with_it_and_is_counted_once() {
    let lab = lab_or_skip!();
    let capture = lab.capturing(Mode::Require);
    let mut pod = lab.actor("pods/a", "a");
    assert_eq!(pod.connect(TO), Err(libc::ECONNREFUSED), "nobody listens");
    assert_eq!((claims(&lab), pending(&lab, "pods/a")), (0, 0), "refused");

    let mut daemon = lab.daemon();
    daemon.listen(&format!("[::]:{PORT_BASE}"));
    pod.connect(TO).expect("connect");
    assert!(eventually(|| claims(&lab) == 0), "established");
    assert_eq!(pending(&lab, "pods/a"), 0);
    pod.abort();
    pod.connect(TO).expect("connect");
    pod.send("last words").expect("send");
    pod.close();
    assert!(eventually(|| claims(&lab) == 0), "closed");
    assert_eq!(pending(&lab, "pods/a"), 0);

    lab.ip("n", "link set to-a down");
    pod.socket(TO);
    pod.begin_connect(TO).expect("begin");
    assert_eq!((claims(&lab), pending(&lab, "pods/a")), (1, 1), "under way");
    pod.close();
    assert!(eventually(|| claims(&lab) == 0), "given up");
    assert_eq!(pending(&lab, "pods/a"), 0);
    assert_eq!(count(&capture, Counter::ClaimLost), 0);
}

#[test]
fn a_workload_over_its_quota_of_claims_fails_as_if_its_ports_had_run_out() {
    let lab = lab_or_skip!();
    let mut capture = lab.capturing(Mode::Require);
    let mut events = capture.events().expect("first call");
    let mut daemon = lab.daemon();
    daemon.listen(&format!("[::]:{PORT_BASE}"));
    let mut flooder = lab.actor("pods/a", "a");
    flooder.connect(TO).expect("within the quota");
    let mut counts = pinned::hash::<u64, i64>(&lab, map::PENDING);
    let over = limits::CLAIMS_PER_CGROUP;
    let cgroup = lab.cgroup_id("pods/a");
    counts.insert(cgroup, over, 0).expect("counted");
    assert_eq!(flooder.connect(TO), Err(libc::EADDRNOTAVAIL));
    let event = events.next_event().expect("told");
    assert_eq!(event.kind, EventKind::QuotaRefused);
    assert_eq!(event.cgroup_id, Some(cgroup));
    assert_eq!(count(&capture, Counter::QuotaRefused), 1);
    assert_eq!(
        lab.actor("pods/b", "b").connect(TO),
        Ok(()),
        "its own quota"
    );
    counts.insert(cgroup, over - 1, 0).expect("one has ended");
    assert_eq!(flooder.connect(TO), Ok(()));
}

#[test]
fn the_name_of_a_peer_stays_right_whatever_other_connections_came_since() {
    let lab = lab_or_skip!();
    let _capture = lab.capturing(Mode::Require);
    let mut daemon = lab.daemon();
    daemon.listen(&format!("[::]:{PORT_BASE}"));
    let mut first = lab.actor("pods/a", "a");
    first.connect(TO).expect("connect");
    daemon.accept();
    let mut others = lab.actor("pods/a", "a");
    for port in 1_000..1_200 {
        others
            .connect(&format!("10.66.2.2:{port}"))
            .expect("connect");
        daemon.accept();
    }
    let asked: SocketAddr = TO.parse().expect("literal");
    assert_eq!(first.peer_name(), asked);
    assert_eq!(first.peer_option(), asked);
}
