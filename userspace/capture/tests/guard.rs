//! Goal: no TCP segment of a `require` pod goes past the daemon, in either direction, and
//! kedged's own cgroup is held to its places; each with the control run that does go through.
//!
//! ```text
//!   pod a (off)      ── connect(pod b) ──▶ pod b (require): the SYN is dropped
//!   pod a (require)  ── an old socket  ──▶ pod b: its segments are dropped
//!   kedged           ── connect(elsewhere): refused
//! ```

#![allow(missing_docs)]

mod common;

use common::{PEER_PORT, PORT_BASE, count, verdicts};
use kedge_capture::{Capture, Counter, EventKind};
use kedge_model::Mode;

fn set_mode(lab: &common::Lab, capture: &mut Capture, pod: &str, mode: Mode) {
    let id = lab.cgroup_id(pod);
    let mut cgroups = lab.cgroups_in(Mode::Off);
    for cgroup in &mut cgroups {
        if cgroup.id == id {
            cgroup.mode = mode;
        }
    }
    capture.replace_cgroups(&cgroups).expect("replace cgroups");
}

fn enters(mode_of_server: Mode, to: &str) -> (Result<(), i32>, u64) {
    let lab = common::Lab::open().expect("checked before");
    let mut capture = lab.capturing(Mode::Off);
    set_mode(&lab, &mut capture, "pods/b", mode_of_server);
    let mut server = lab.actor("pods/b", "b");
    server.listen("[::]:80");
    let result = lab.actor("pods/a", "a").connect(to);
    (result, count(&capture, Counter::IngressDropped))
}

#[test]
fn a_direct_connection_enters_off_and_permissive_pods_but_no_require_pod() {
    drop(lab_or_skip!());
    for to in ["10.66.2.2:80", "[fd66:2::2]:80"] {
        assert_eq!(enters(Mode::Off, to), (Ok(()), 0), "{to}");
        assert_eq!(enters(Mode::Permissive, to), (Ok(()), 0), "{to}");
        let (result, dropped) = enters(Mode::Require, to);
        assert_eq!(result, Err(libc::ETIMEDOUT), "{to}");
        assert!(dropped > 0, "{to}");
    }
}

#[test]
fn a_socket_from_before_require_sends_no_byte_to_a_managed_place() {
    let lab = lab_or_skip!();
    let mut capture = lab.capturing(Mode::Off);
    let mut server = lab.actor("pods/b", "b");
    let mut pod = lab.actor("pods/a", "a");
    server.listen("10.66.2.2:80");
    pod.connect("10.66.2.2:80").expect("connect");
    server.accept();
    pod.send("before").expect("send");
    assert_eq!(server.receive().as_deref(), Ok("before"), "the control run");

    set_mode(&lab, &mut capture, "pods/a", Mode::Require);
    pod.send("after").expect("into the socket's own buffer");
    assert!(server.receive().is_err(), "nothing arrives");
    assert!(count(&capture, Counter::EgressDropped) > 0);
}

#[test]
fn a_probe_cgroup_enters_a_require_pod_and_is_seen_as_itself() {
    let lab = lab_or_skip!();
    let _capture = lab.capturing(Mode::Require);
    let mut server = lab.actor("pods/b", "b");
    server.listen("[::]:80");
    let mut kubelet = lab.actor("kubelet", "n");
    for to in ["10.66.2.2:80", "[fd66:2::2]:80"] {
        kubelet.connect(to).expect("connect");
        let seen = server.accept().from;
        assert_eq!(seen.port(), kubelet.local_name().port());
        server.send("alive").expect("send");
        assert_eq!(kubelet.receive().as_deref(), Ok("alive"));
    }
}

#[test]
fn a_probe_of_a_port_that_is_not_declared_is_dropped_and_told() {
    let lab = lab_or_skip!();
    let mut capture = lab.capturing(Mode::Require);
    let mut events = capture.events().expect("first call");
    let mut server = lab.actor("pods/b", "b");
    server.listen("[::]:81");
    let mut kubelet = lab.actor("kubelet", "n");
    for to in ["10.66.2.2:81", "[fd66:2::2]:81"] {
        assert_eq!(kubelet.connect(to), Err(libc::ETIMEDOUT), "{to}");
        let event = events.next_event().expect("told");
        assert_eq!(event.kind, EventKind::ProbeDropped);
        assert_eq!(event.destination, to.parse().expect("literal"));
        while events.next_event().is_some() {}
    }
    assert!(count(&capture, Counter::ProbeDropped) >= 2);

    let mut cgroups = lab.cgroups_in(Mode::Require);
    for cgroup in &mut cgroups {
        cgroup.probe_ports.push(81);
    }
    capture.replace_cgroups(&cgroups).expect("declare it");
    assert_eq!(kubelet.connect("10.66.2.2:81"), Ok(()), "the control run");
}

#[test]
fn require_reaches_its_own_loopback_and_its_own_address() {
    let lab = lab_or_skip!();
    let mut capture = lab.capturing(Mode::Require);
    let mut owned = verdicts();
    let own = ["10.66.1.2", "fd66:1::2"].map(|ip| ip.parse().expect("literal"));
    for pod in owned
        .local_pods
        .iter_mut()
        .filter(|pod| own.contains(&pod.ip))
    {
        pod.cgroup_id = Some(lab.cgroup_id("pods/a"));
    }
    capture.replace_verdicts(&owned).expect("replace");
    capture.beats().rest().expect("rest");
    let mut server = lab.actor("pods/a", "a");
    server.listen("[::]:80");
    let mut pod = lab.actor("pods/a", "a");
    for to in ["127.0.0.1:80", "[::1]:80", "10.66.1.2:80", "[fd66:1::2]:80"] {
        assert_eq!(pod.connect(to), Ok(()), "{to}");
    }
    assert_eq!(count(&capture, Counter::Captured), 0);
    assert_eq!(pod.connect("10.66.2.2:80"), Err(libc::ECONNREFUSED));
}

#[test]
fn the_daemon_reaches_local_pods_and_peer_ports_only() {
    let lab = lab_or_skip!();
    let capture = lab.capturing(Mode::Require);
    let mut daemon = lab.daemon();
    for to in [
        "10.66.3.3:80",
        "192.0.2.2:80",
        "203.0.113.1:15443",
        "[2001:db8::1]:80",
    ] {
        assert_eq!(daemon.connect(to), Err(libc::EPERM), "{to}");
    }
    assert_eq!(count(&capture, Counter::DaemonDropped), 4);
    // The node's own network has no route there: what fails is the route, not the guard.
    let peer = format!("192.0.2.2:{PEER_PORT}");
    assert_eq!(daemon.connect(&peer), Err(libc::ENETUNREACH));
}

#[test]
fn the_daemon_is_never_captured() {
    let lab = lab_or_skip!();
    let capture = lab.capturing(Mode::Permissive);
    let mut server = lab.actor("pods/b", "b");
    server.listen("10.66.2.2:80");
    let mut daemon = lab.daemon();
    daemon.connect("10.66.2.2:80").expect("connect");
    assert_eq!(daemon.peer_name().to_string(), "10.66.2.2:80");
    assert_eq!(count(&capture, Counter::Captured), 0);
}

#[test]
fn capture_and_peer_ports_are_kept_for_kedged_on_the_node() {
    let lab = lab_or_skip!();
    let capture = lab.capturing(Mode::Off);
    let mut thief = lab.actor("pods/a", "n");
    for port in [PORT_BASE, PORT_BASE + 31, PEER_PORT] {
        for address in ["0.0.0.0", "[::]", "127.0.0.1"] {
            let address = format!("{address}:{port}");
            assert_eq!(thief.bind(&address), Err(libc::EADDRINUSE), "{address}");
        }
    }
    assert_eq!(thief.bind("0.0.0.0:15000"), Ok(()));
    assert_eq!(lab.daemon().bind(&format!("[::]:{PORT_BASE}")), Ok(()));
    assert_eq!(count(&capture, Counter::BindRefused), 9);
}

#[test]
fn a_pod_keeps_all_ports_of_its_own_network() {
    let lab = lab_or_skip!();
    let _capture = lab.capturing(Mode::Require);
    let mut pod = lab.actor("pods/a", "a");
    assert_eq!(pod.bind(&format!("0.0.0.0:{PEER_PORT}")), Ok(()));
}
