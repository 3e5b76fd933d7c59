//! Goal: what was kept with a socket for one connection says nothing of the next thing that the
//! socket is used for; and a socket of MPTCP is a socket like another.
//!
//! ```text
//!   pod a:  connect() ─ connect(AF_UNSPEC) ─ connect() elsewhere, in another cgroup
//!   pod b:  accept()  ─ connect(AF_UNSPEC) ─ listen(), connect()
//! ```

#![allow(missing_docs)]

mod common;

use common::actor::Actor;
use common::{Lab, PORT_BASE, claim, count};
use kedge_capture::{Capture, Counter};
use kedge_model::{Mode, OriginalDst};
use std::net::SocketAddr;

const SERVER: &str = "10.66.2.2:80";

/// Pod b's connection from a filed client, which it takes back.
fn taken_back(lab: &Lab, capture: &Capture) -> (Actor, Actor) {
    let (mut daemon, mut server) = (lab.daemon(), lab.actor("pods/b", "b"));
    server.listen(SERVER);
    let cookie = daemon.socket(SERVER);
    let client = "203.0.113.7:55555".parse().expect("literal");
    let filed = capture.claims().file_delivery(cookie, client);
    filed.expect("file");
    daemon.connect_socket(SERVER).expect("deliver");
    server.accept();
    server.take_back();
    (daemon, server)
}

#[test]
fn an_admitted_socket_that_listens_afterwards_admits_nobody() {
    let lab = lab_or_skip!();
    let capture = lab.capturing(Mode::Require);
    let (mut daemon, mut server) = taken_back(&lab, &capture);
    server.listen_with_current("10.66.2.2:81");
    assert_eq!(daemon.connect("10.66.2.2:81"), Err(libc::ETIMEDOUT));
    assert!(count(&capture, Counter::IngressDropped) > 0);
}

/// A socket that was admitted once speaks to anybody; this one is another by then. Connecting it
/// from a cgroup that is not captured is a way past connect(), and the guard is what is left.
#[test]
fn an_admitted_socket_that_connects_afterwards_is_guarded_again() {
    let lab = lab_or_skip!();
    let capture = lab.capturing(Mode::Require);
    let (mut daemon, mut server) = taken_back(&lab, &capture);
    daemon.listen("10.66.2.1:80");
    server.join(lab.cgroup_root());
    assert_eq!(server.connect_socket("10.66.2.1:80"), Err(libc::ETIMEDOUT));
    assert!(count(&capture, Counter::EgressDropped) > 0);
}

#[test]
fn a_captured_socket_that_connects_elsewhere_uncaptured_forgets_what_it_asked_for() {
    let lab = lab_or_skip!();
    let capture = lab.capturing(Mode::Permissive);
    let (mut daemon, mut server) = (lab.daemon(), lab.actor("pods/b", "b"));
    daemon.listen(&format!("0.0.0.0:{PORT_BASE}"));
    server.listen("10.66.2.2:81");
    let mut pod = lab.actor("pods/a", "a");
    pod.connect(SERVER).expect("captured");
    assert_eq!(pod.peer_name().to_string(), SERVER);
    pod.take_back();
    pod.join(lab.cgroup_root());
    pod.connect_socket("10.66.2.2:81").expect("nobody's now");
    assert_eq!(pod.peer_name().to_string(), "10.66.2.2:81");
    assert_eq!(count(&capture, Counter::Claimed), 1);
}

#[test]
fn a_captured_socket_that_connects_elsewhere_is_claimed_by_what_it_asks_for_now() {
    let lab = lab_or_skip!();
    let capture = lab.capturing(Mode::Require);
    let mut daemon = lab.daemon();
    daemon.listen(&format!("0.0.0.0:{PORT_BASE}"));
    let mut pod = lab.actor("pods/a", "a");
    pod.connect(SERVER).expect("captured");
    pod.take_back();
    daemon.accept();
    pod.connect_socket("10.66.2.2:443").expect("captured again");
    daemon.accept();
    let claim = claim(&capture, &mut daemon).expect("a claim of the second");
    assert_eq!(claim.original_dst.to_string(), "10.66.2.2:443");
    assert_eq!(pod.peer_name().to_string(), "10.66.2.2:443");
}

/// The hook is asked for the first subflow, which has no MPTCP any more when the daemon answers.
#[test]
fn a_socket_of_mptcp_is_redirected_and_claimed_by_what_it_asked_for() {
    let lab = lab_or_skip!();
    let capture = lab.capturing(Mode::Require);
    let mut daemon = lab.daemon();
    daemon.listen(&format!("[::]:{PORT_BASE}"));
    let mut pod = lab.actor("pods/a", "a");
    for to in [SERVER, "[fd66:2::2]:80"] {
        pod.mptcp_socket(to);
        pod.connect_socket(to).expect("connect");
        daemon.accept();
        let claim = claim(&capture, &mut daemon).expect("a claim was filed before the SYN");
        let asked: SocketAddr = to.parse().expect("literal");
        assert_eq!(claim.original_dst, OriginalDst::new(asked));
        assert_eq!(claim.cgroup_id, lab.cgroup_id("pods/a"));
        pod.send("question").expect("send");
        assert_eq!(daemon.receive().as_deref(), Ok("question"));
        daemon.send("answer").expect("send");
        assert_eq!(pod.receive().as_deref(), Ok("answer"));
    }
}

#[test]
fn mptcp_is_refused_where_tcp_is() {
    let lab = lab_or_skip!();
    let capture = lab.capturing(Mode::Require);
    let mut pod = lab.actor("pods/a", "a");
    pod.mptcp_socket("10.66.3.3:80");
    assert_eq!(pod.connect_socket("10.66.3.3:80"), Err(libc::EHOSTUNREACH));
    assert_eq!(count(&capture, Counter::Refused), 1);
    let mut thief = lab.actor("pods/a", "n");
    let kept = format!("0.0.0.0:{PORT_BASE}");
    thief.mptcp_socket(&kept);
    assert_eq!(thief.bind_socket(&kept), Err(libc::EADDRINUSE));
}
