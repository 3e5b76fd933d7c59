//! Goal: a connection of a captured pod arrives at the daemon with what it asked for, once, and
//! the pod sees the address that it asked for.
//!
//! ```text
//!   pod a ── connect(pod b) ──▶ slot address : 15001 ──▶ accept() in kedged's cgroup
//!                                                        Claims::of ─▶ pod b
//! ```

#![allow(missing_docs)]

mod common;

use common::{PORT_BASE, claim, count, eventually, verdicts};
use kedge_capture::{Counter, EventKind, Keepalive, Patience};
use kedge_model::{Mode, OriginalDst};
use std::net::SocketAddr;
use std::time::Duration;

const A4: &str = "10.66.1.2";

fn claimed_by_what_was_asked(to: &str, listen: &str) {
    let lab = lab_or_skip!();
    let capture = lab.capturing(Mode::Require);
    let mut daemon = lab.daemon();
    let mut pod = lab.actor("pods/a", "a");
    daemon.listen(listen);

    pod.connect(to).expect("connect");
    daemon.accept();
    let claim = claim(&capture, &mut daemon).expect("a claim was filed before the SYN");

    let asked: SocketAddr = to.parse().expect("literal");
    assert_eq!(claim.original_dst, OriginalDst::new(asked));
    assert_eq!(claim.cgroup_id, lab.cgroup_id("pods/a"));
    assert_ne!((claim.socket_cookie, claim.netns_cookie), (0, 0));
    assert_eq!(pod.peer_name(), asked, "getpeername() of the client");
    assert_eq!(pod.peer_option(), asked, "SO_PEERNAME of the client");
}

#[test]
fn ipv4_is_redirected_and_shows_what_was_asked() {
    claimed_by_what_was_asked("10.66.2.2:80", &format!("0.0.0.0:{PORT_BASE}"));
}

#[test]
fn ipv4_reaches_a_dual_stack_capture_port() {
    claimed_by_what_was_asked("10.66.2.2:80", &format!("[::]:{PORT_BASE}"));
}

#[test]
fn ipv6_is_redirected_and_shows_what_was_asked() {
    claimed_by_what_was_asked("[fd66:2::2]:80", &format!("[::]:{PORT_BASE}"));
}

#[test]
fn v4_mapped_is_redirected_and_shows_what_was_asked() {
    claimed_by_what_was_asked("[::ffff:10.66.2.2]:80", &format!("[::]:{PORT_BASE}"));
}

/// The daemon gives the same limits to the legs that the application does not see.
#[test]
fn a_claim_says_how_long_its_client_waits_for_a_silent_peer() {
    let lab = lab_or_skip!();
    let capture = lab.capturing(Mode::Require);
    let mut daemon = lab.daemon();
    let mut pod = lab.actor("pods/a", "a");
    daemon.listen(&format!("[::]:{PORT_BASE}"));
    for to in ["10.66.2.2:80", "[fd66:2::2]:80"] {
        let seconds = Duration::from_secs;
        let strict = Patience {
            user_timeout: Some(seconds(3)),
            keepalive: Some(Keepalive {
                idle: seconds(2),
                interval: seconds(1),
                probes: 4,
            }),
        };
        for (impatient, wanted) in [(false, Patience::default()), (true, strict)] {
            pod.socket(to);
            if impatient {
                pod.impatient();
            }
            pod.connect_socket(to).expect("connect");
            daemon.accept();
            let claim = claim(&capture, &mut daemon).expect("a claim");
            assert_eq!(claim.patience, wanted, "{to}");
        }
    }
}

#[test]
fn bytes_flow_both_ways_through_a_captured_connection_of_a_guarded_pod() {
    let lab = lab_or_skip!();
    let _capture = lab.capturing(Mode::Require);
    let mut daemon = lab.daemon();
    let mut pod = lab.actor("pods/a", "a");
    daemon.listen(&format!("[::]:{PORT_BASE}"));
    for to in ["10.66.2.2:80", "[fd66:2::2]:80"] {
        pod.connect(to).expect("connect");
        daemon.accept();
        pod.send("question").expect("send");
        assert_eq!(daemon.receive().as_deref(), Ok("question"));
        daemon.send("answer").expect("send");
        assert_eq!(pod.receive().as_deref(), Ok("answer"));
    }
}

#[test]
fn an_unknown_cgroup_below_a_managed_root_is_captured_as_require_with_its_lineage() {
    let lab = lab_or_skip!();
    let capture = lab.capturing(Mode::Off);
    let mut daemon = lab.daemon();
    daemon.listen(&format!("[::]:{PORT_BASE}"));
    let mut stranger = lab.actor("pods/new/container", "a");
    stranger.connect("10.66.2.2:80").expect("connect");
    daemon.accept();
    let claim = claim(&capture, &mut daemon).expect("claim");
    assert_eq!(claim.cgroup_id, lab.cgroup_id("pods"));
    let below = ["pods/new", "pods/new/container"].map(|path| lab.cgroup_id(path));
    assert_eq!(claim.lineage, [below[0], below[1], 0, 0]);
}

#[test]
fn a_client_that_writes_and_closes_before_it_is_accepted_keeps_its_claim_and_its_bytes() {
    let lab = lab_or_skip!();
    let capture = lab.capturing(Mode::Require);
    let mut daemon = lab.daemon();
    let mut pod = lab.actor("pods/a", "a");
    daemon.listen(&format!("[::]:{PORT_BASE}"));
    pod.connect("10.66.2.2:80").expect("connect");
    pod.send("last words").expect("send");
    pod.close();
    std::thread::sleep(std::time::Duration::from_millis(300));
    daemon.accept();
    let claim = claim(&capture, &mut daemon).expect("the claim of a closed socket");
    assert_eq!(claim.original_dst.to_string(), "10.66.2.2:80");
    assert_eq!(daemon.receive(), Ok("last words".to_owned()));
}

#[test]
fn refuse_fails_connect_with_its_errno_and_is_told() {
    let lab = lab_or_skip!();
    let mut capture = lab.capturing(Mode::Require);
    let mut events = capture.events().expect("first call");
    let mut pod = lab.actor("pods/a", "a");
    for to in ["10.66.3.3:80", "[fd66:3::3]:80", "[::ffff:10.66.3.3]:80"] {
        assert_eq!(pod.connect(to), Err(libc::EHOSTUNREACH), "{to}");
        let event = events.next_event().expect("an event for each refusal");
        assert_eq!(event.kind, EventKind::Refused);
        assert_eq!(event.cgroup_id, Some(lab.cgroup_id("pods/a")));
        assert_eq!(event.destination.port(), 80);
    }
    assert_eq!(count(&capture, Counter::Refused), 3);
}

#[test]
fn mode_off_connects_directly_and_the_server_sees_it() {
    let lab = lab_or_skip!();
    let capture = lab.capturing(Mode::Off);
    let mut server = lab.actor("pods/b", "b");
    let mut pod = lab.actor("pods/a", "a");
    server.listen("10.66.2.2:80");
    pod.connect("10.66.2.2:80").expect("connect");
    assert_eq!(server.accept().from.ip().to_string(), A4);
    assert_eq!(count(&capture, Counter::Captured), 0);
}

#[test]
fn a_verdict_for_one_port_leaves_the_others_alone() {
    let lab = lab_or_skip!();
    let mut capture = lab.capturing(Mode::Permissive);
    let mut with_port = verdicts();
    let mut rule = common::rule("10.66.2.2/32", kedge_capture::Verdict::Refuse(111));
    rule.port = Some(81);
    with_port.permissive.push(rule);
    capture.replace_verdicts(&with_port).expect("replace");
    let mut daemon = lab.daemon();
    daemon.listen(&format!("[::]:{PORT_BASE}"));
    let mut pod = lab.actor("pods/a", "a");
    assert_eq!(pod.connect("10.66.2.2:81"), Err(libc::ECONNREFUSED));
    assert_eq!(pod.connect("10.66.2.2:80"), Ok(()));

    capture.replace_verdicts(&verdicts()).expect("replace");
    assert_eq!(pod.connect("10.66.2.2:81"), Ok(()), "as its prefix again");
}

#[test]
fn without_a_living_worker_require_refuses_and_permissive_passes() {
    let lab = lab_or_skip!();
    let mut capture = lab.capturing(Mode::Require);
    capture.beats().rest().expect("rest");
    let mut server = lab.actor("pods/b", "b");
    server.listen("10.66.2.2:80");
    let mut pod = lab.actor("pods/a", "a");
    assert_eq!(pod.connect("10.66.2.2:80"), Err(libc::ECONNREFUSED));

    let permissive = lab.cgroups_in(Mode::Permissive);
    capture.replace_cgroups(&permissive).expect("replace");
    pod.connect("10.66.2.2:80").expect("passes");
    assert_eq!(server.accept().from.ip().to_string(), A4);
    assert!(eventually(|| count(&capture, Counter::NoWorkerPassed) == 1));
}
