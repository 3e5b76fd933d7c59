//! Goal: a server sees the true client of a delivered connection in accept(), getpeername() and
//! SO_PEERNAME, for that connection and for no other.
//!
//! ```text
//!   kedged's cgroup: file_delivery(cookie, true client), connect() ──▶ pod b: accept()
//! ```

#![allow(missing_docs)]

mod common;

use common::actor::{Accepted, Actor};
use common::{Lab, PORT_BASE, claim, count, eventually};
use kedge_capture::{Capture, Counter};
use kedge_model::Mode;
use std::net::SocketAddr;

fn deliver(daemon: &mut Actor, capture: &Capture, to: &str, client: &str) -> Result<(), i32> {
    let cookie = daemon.socket(to);
    let client = client.parse().expect("literal");
    capture
        .claims()
        .file_delivery(cookie, client)
        .expect("file");
    daemon.connect_socket(to)
}

fn delivered(lab: &Lab, listen: &str, to: &str, client: &str) -> (Actor, Actor, Accepted) {
    let capture = lab.capturing(Mode::Require);
    let mut daemon = lab.daemon();
    let mut server = lab.actor("pods/b", "b");
    server.listen(listen);
    deliver(&mut daemon, &capture, to, client).expect("deliver");
    let accepted = server.accept();
    (daemon, server, accepted)
}

fn shows_the_true_client(listen: &str, to: &str, client: &str, shown: &str) {
    let lab = lab_or_skip!();
    let (mut daemon, mut server, accepted) = delivered(&lab, listen, to, client);
    let shown: SocketAddr = shown.parse().expect("literal");
    assert_eq!(accepted.from, shown, "accept()");
    assert_eq!(server.peer_name(), shown, "getpeername()");
    assert_eq!(server.peer_option(), shown, "SO_PEERNAME");
    server.send("hello").expect("send");
    assert_eq!(daemon.receive().as_deref(), Ok("hello"), "server first");
    daemon.send("hello yourself").expect("send");
    assert_eq!(server.receive().as_deref(), Ok("hello yourself"));
}

#[test]
fn an_ipv4_server_sees_the_true_client() {
    let client = "203.0.113.7:55555";
    shows_the_true_client("10.66.2.2:80", "10.66.2.2:80", client, client);
}

#[test]
fn an_ipv6_server_sees_the_true_client() {
    let client = "[2001:db8::7]:55555";
    shows_the_true_client("[fd66:2::2]:80", "[fd66:2::2]:80", client, client);
}

#[test]
fn a_dual_stack_server_sees_the_true_client_in_mapped_form() {
    shows_the_true_client(
        "[::]:80",
        "10.66.2.2:80",
        "203.0.113.7:55555",
        "[::ffff:203.0.113.7]:55555",
    );
}

#[test]
fn the_true_client_holds_for_one_connection_only() {
    let lab = lab_or_skip!();
    let capture = lab.capturing(Mode::Permissive);
    let mut daemon = lab.daemon();
    let mut server = lab.actor("pods/b", "b");
    server.listen("10.66.2.2:80");
    deliver(&mut daemon, &capture, "10.66.2.2:80", "203.0.113.7:55555").expect("deliver");
    assert_eq!(server.accept().from.to_string(), "203.0.113.7:55555");
    daemon.close();
    daemon.connect("10.66.2.2:80").expect("connect");
    assert_eq!(server.accept().from, daemon.local_name());
}

#[test]
fn a_connection_that_was_not_filed_does_not_enter_a_require_pod() {
    let lab = lab_or_skip!();
    let capture = lab.capturing(Mode::Require);
    let mut daemon = lab.daemon();
    let mut server = lab.actor("pods/b", "b");
    server.listen("10.66.2.2:80");
    assert_eq!(daemon.connect("10.66.2.2:80"), Err(libc::ETIMEDOUT));
    assert!(count(&capture, Counter::IngressDropped) > 0);
}

#[test]
fn a_withdrawn_delivery_is_not_admitted() {
    let lab = lab_or_skip!();
    let capture = lab.capturing(Mode::Require);
    let mut daemon = lab.daemon();
    let mut server = lab.actor("pods/b", "b");
    server.listen("10.66.2.2:80");
    let cookie = daemon.socket("10.66.2.2:80");
    let claims = capture.claims();
    let client = "203.0.113.7:55555".parse().expect("literal");
    claims.file_delivery(cookie, client).expect("file");
    claims.withdraw_delivery(cookie).expect("withdraw");
    claims.withdraw_delivery(cookie).expect("twice is no error");
    assert_eq!(daemon.connect_socket("10.66.2.2:80"), Err(libc::ETIMEDOUT));
}

#[test]
fn a_delivery_that_the_daemon_closes_first_ends_cleanly() {
    let lab = lab_or_skip!();
    let capture = lab.capturing(Mode::Require);
    let (daemon, server) = delivery(&lab, &capture);
    ends_cleanly(&capture, daemon, server);
}

#[test]
fn a_delivery_that_the_server_closes_first_ends_cleanly() {
    let lab = lab_or_skip!();
    let capture = lab.capturing(Mode::Require);
    let (daemon, server) = delivery(&lab, &capture);
    ends_cleanly(&capture, server, daemon);
}

fn delivery(lab: &Lab, capture: &Capture) -> (Actor, Actor) {
    let mut daemon = lab.daemon();
    let mut server = lab.actor("pods/b", "b");
    server.listen("10.66.2.2:80");
    deliver(&mut daemon, capture, "10.66.2.2:80", "203.0.113.7:55555").expect("deliver");
    server.accept();
    (daemon, server)
}

/// Both FINs arrive and are acknowledged, and no packet is taken for an attempt at something else;
/// one that another has overtaken may be a stray.
fn ends_cleanly(capture: &Capture, mut first: Actor, mut second: Actor) {
    first.close();
    assert_eq!(second.receive().as_deref(), Ok(""), "the FIN arrives");
    second.close();
    for end in [first, second] {
        assert!(eventually(|| !end.has_fin_under_way()));
    }
    assert_eq!(count(capture, Counter::IngressDropped), 0);
    assert_eq!(count(capture, Counter::EgressDropped), 0);
}

#[test]
fn from_one_pod_to_the_other_through_both_halves() {
    let lab = lab_or_skip!();
    let capture = lab.capturing(Mode::Require);
    let mut accepting = lab.daemon();
    let mut dialling = lab.daemon();
    let mut server = lab.actor("pods/b", "b");
    let mut client = lab.actor("pods/a", "a");
    accepting.listen(&format!("[::]:{PORT_BASE}"));
    server.listen("10.66.2.2:80");

    client.connect("10.66.2.2:80").expect("connect");
    accepting.accept();
    let claim = claim(&capture, &mut accepting).expect("claim");
    let true_client = client.local_name().to_string();
    let to = claim.original_dst.to_string();
    deliver(&mut dialling, &capture, &to, &true_client).expect("deliver");
    assert_eq!(server.accept().from, client.local_name());
    assert!(eventually(|| count(&capture, Counter::Delivered) == 1));
}
