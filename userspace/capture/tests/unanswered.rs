//! Goal: a captured connection that does not arrive is told, whatever keeps it from arriving, so
//! that a pod whose network does not lead to the daemon is found.
//!
//! ```text
//!   pod a ── no route ──✗
//!   pod a ── SYN ──▶ node ──✗ capture range
//! ```

#![allow(missing_docs)]

mod common;

use common::{PORT_BASE, count, eventually};
use kedge_capture::{Capture, CaptureEvent, Counter, EventKind, EventReader};
use kedge_model::Mode;
use std::thread;
use std::time::Duration;

const RANGES: [&str; 2] = ["169.254.76.0/22", "fd6b:6564:6765::/118"];
const SERVERS: [&str; 2] = ["10.66.2.2:80", "[fd66:2::2]:80"];

#[test]
fn a_connection_without_a_route_to_the_capture_range_is_told_when_its_socket_goes() {
    let lab = lab_or_skip!();
    let mut capture = lab.capturing(Mode::Require);
    let mut events = capture.events().expect("first call");
    let mut pod = lab.actor("pods/a", "a");
    for (range, server) in RANGES.into_iter().zip(SERVERS) {
        lab.ip("a", &format!("route add unreachable {range}"));
        assert_eq!(pod.connect(server), Err(libc::EHOSTUNREACH), "{server}");
        pod.close();
        let event = events.next_event().expect("told at the end of the socket");
        is_about(&event, EventKind::Unsent, server, lab.cgroup_id("pods/a"));
    }
    counted(&capture, 0, 2);
}

#[test]
fn a_syn_that_is_dropped_is_told_while_the_application_still_waits() {
    let lab = lab_or_skip!();
    let mut capture = lab.capturing(Mode::Require);
    let mut events = capture.events().expect("first call");
    let mut pod = lab.actor("pods/a", "a");
    lab.ip("n", &format!("route del local {} dev lo", RANGES[0]));
    lab.ip("n", &format!("route add blackhole {}", RANGES[0]));
    assert_eq!(pod.connect(SERVERS[0]), Err(libc::ETIMEDOUT));
    let event = next(&mut events);
    is_about(
        &event,
        EventKind::Unanswered,
        SERVERS[0],
        lab.cgroup_id("pods/a"),
    );
    assert_eq!(event.errno, Some(110), "repeated in vain");
    assert!(event.source.is_some());
    counted(&capture, 0, 0);
    pod.close();
    assert!(eventually(|| count(&capture, Counter::Unanswered) == 1));
}

#[test]
fn a_syn_that_is_refused_is_told_at_once() {
    let lab = lab_or_skip!();
    let mut capture = lab.capturing(Mode::Require);
    let mut events = capture.events().expect("first call");
    let mut pod = lab.actor("pods/a", "a");
    for server in SERVERS {
        assert_eq!(pod.connect(server), Err(libc::ECONNREFUSED));
        let event = events.next_event().expect("nobody listens");
        is_about(
            &event,
            EventKind::Unanswered,
            server,
            lab.cgroup_id("pods/a"),
        );
        assert_eq!(event.errno, None);
    }
    counted(&capture, 2, 0);
}

#[test]
fn connections_that_arrive_are_not_told_however_they_end() {
    let lab = lab_or_skip!();
    let mut capture = lab.capturing(Mode::Require);
    let mut events = capture.events().expect("first call");
    let mut daemon = lab.daemon();
    daemon.listen(&format!("[::]:{PORT_BASE}"));
    let mut pod = lab.actor("pods/a", "a");
    for server in SERVERS {
        pod.connect(server).expect("connect");
        pod.close();
        daemon.accept();
    }
    // A refusal by a verdict is told as what it is.
    assert_eq!(pod.connect("10.66.3.3:80"), Err(libc::EHOSTUNREACH));
    pod.close();
    let refused = events.next_event().expect("the verdict's");
    assert_eq!(refused.kind, EventKind::Refused);
    assert_eq!(events.next_event(), None);
    counted(&capture, 0, 0);
}

fn is_about(event: &CaptureEvent, kind: EventKind, server: &str, cgroup_id: u64) {
    assert_eq!(event.kind, kind, "{event:?}");
    assert_eq!(event.destination.to_string(), server);
    assert_eq!(event.cgroup_id, Some(cgroup_id));
}

fn counted(capture: &Capture, unanswered: u64, unsent: u64) {
    let counts = [Counter::Unanswered, Counter::Unsent].map(|counter| count(capture, counter));
    assert_eq!(counts, [unanswered, unsent], "unanswered, unsent");
}

/// The second timer of a SYN runs out after two or three seconds, as the kernel's version is.
fn next(events: &mut EventReader) -> CaptureEvent {
    for _ in 0..100 {
        if let Some(event) = events.next_event() {
            return event;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("nothing was told within five seconds");
}
