//! Goal: whoever floods a worker that accepts nothing leaves places in its queue for others; and
//! whoever was accepted, however he ended, gives his place back.
//!
//! ```text
//!   pod a ── SYN ──▶ guard ── established ──▶ accept queue of 12 ── accept() ──▶ daemon
//!             own < 12 − all?   QUEUES[a] + 1                  QUEUES[a] − 1
//! ```

#![allow(missing_docs)]

mod common;

use common::actor::Actor;
use common::{Lab, PORT_BASE, QUEUE_PLACES, claim, count};
use kedge_capture::{Capture, Counter};
use kedge_model::Mode;

const TO: &str = "10.66.2.2:80";
/// Nobody may have more than is left.
const SHARE: u32 = QUEUE_PLACES / 2;

/// What becomes of a connection that waits.
#[derive(Clone, Copy)]
enum End {
    Close,
    Reset,
}

fn daemon(lab: &Lab) -> Actor {
    let mut daemon = lab.daemon();
    daemon.listen(&format!("[::]:{PORT_BASE}"));
    daemon
}

fn come_and_go(pod: &mut Actor, times: u32, end: End) {
    for _ in 0..times {
        pod.connect(TO).expect("within its share");
        match end {
            End::Close => pod.close(),
            End::Reset => pod.abort(),
        }
    }
}

fn fills_its_share(capture: &Capture, pod: &mut Actor, end: End) {
    come_and_go(pod, SHARE, end);
    let held = count(capture, Counter::Held);
    assert_eq!(pod.connect(TO), Err(libc::ETIMEDOUT), "beyond its share");
    assert!(count(capture, Counter::Held) > held);
    pod.close();
}

#[test]
fn a_workload_that_floods_leaves_places_in_the_queue_for_its_neighbour() {
    let lab = lab_or_skip!();
    let capture = lab.capturing(Mode::Require);
    let mut daemon = daemon(&lab);
    let mut flooder = lab.actor("pods/a", "a");
    fills_its_share(&capture, &mut flooder, End::Close);
    assert_eq!(lab.actor("pods/b", "b").connect(TO), Ok(()));
    daemon.accept();
    assert_eq!(flooder.connect(TO), Ok(()), "one has been accepted");
}

#[test]
fn a_connection_that_was_reset_holds_its_place_until_it_is_accepted_and_no_longer() {
    let lab = lab_or_skip!();
    let capture = lab.capturing(Mode::Require);
    let mut daemon = daemon(&lab);
    let mut pod = lab.actor("pods/a", "a");
    for _ in 0..3 {
        fills_its_share(&capture, &mut pod, End::Reset);
        for _ in 0..SHARE {
            daemon.accept();
            assert!(claim(&capture, &mut daemon).is_some());
        }
    }
}

/// Straight to a worker's port, past connect's programs or before any of them has filed it.
#[test]
fn connections_without_a_claim_have_one_share_together() {
    let lab = lab_or_skip!();
    let _capture = lab.capturing(Mode::Require);
    let _daemon = daemon(&lab);
    let mut strangers = [lab.actor("kubelet", "a"), lab.actor("pods/a", "a")];
    let straight = format!("169.254.76.9:{PORT_BASE}");
    for turn in 0..SHARE {
        let stranger = &mut strangers[turn as usize % 2];
        assert_eq!(stranger.connect(&straight), Ok(()), "{turn}");
    }
    for stranger in &mut strangers {
        assert_eq!(stranger.connect(&straight), Err(libc::ETIMEDOUT));
    }
    assert_eq!(lab.actor("pods/a", "a").connect(TO), Ok(()));
}

/// Another generation's programs may have seen them go, as when a successor is undone.
#[test]
fn programs_that_are_put_back_count_who_waits_anew_and_never_below() {
    let lab = lab_or_skip!();
    let mut capture = lab.capturing(Mode::Require);
    let mut daemon = daemon(&lab);
    let mut pod = lab.actor("pods/a", "a");
    come_and_go(&mut pod, SHARE, End::Close);
    capture.attach(|_| ()).expect("attach again");
    fills_its_share(&capture, &mut pod, End::Close);
    for _ in 0..2 * SHARE {
        daemon.accept();
    }
    fills_its_share(&capture, &mut pod, End::Close);
}
