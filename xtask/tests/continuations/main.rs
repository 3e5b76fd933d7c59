//! Flows whose keys cannot be updated in place go on on other carriers, as they would where the
//! kernel seals and is old: in every shape no application notices, no key seals a number twice, and
//! nothing but continuations and records is on the wire. This build of kedged has keys that last
//! for a few records only.
//!
//! ```text
//!  client: shapes ──► kedged a ══ the flow's first carrier, the next, … ══ kedged b ──► load: shapes
//!                                                    └── through its successor, if it has one ──┘
//! ```

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::time::Duration;
use xtask::artifacts;
use xtask::lab::topology::{NODES, Node};
use xtask::lab::{Build, Lab};
use xtask::shapes;
use xtask::shell::wait_for;
use xtask::stage::{play, times};
use xtask::steady::Steady;
use xtask::wire::{Capture, Report};

const SHAPES: [&str; 12] = [
    "client-first",
    "server-first",
    "client-half-closes",
    "server-half-closes",
    "no-answer",
    "client-resets",
    "server-resets",
    "reset-under-way",
    "one-byte-writes",
    "slow-reader",
    "small-buffers",
    "both-at-once",
];

#[test]
fn every_shape_is_exact_while_its_flow_goes_on_over_hundreds_of_carriers() {
    play(|lab| {
        let report = with_keys_of(lab, 32, |lab, _| {
            shapes::serve(lab)?;
            for shape in SHAPES {
                exact(lab, shape, times(16, 200))?;
            }
            exact(lab, "64-mib-both-at-once", times(1, 10))
        })?;
        ensure!(report.continuations > 300, "{report}");
        ensure!(report.full_handshakes() == 1, "{report}");
        Ok(())
    });
}

/// The acceptor's daemon has handed over: what its flow needs arrives at its successor, which knows
/// neither flow nor link.
#[test]
fn a_flow_goes_on_in_the_daemon_that_has_it_when_its_successor_gets_the_carrier() {
    play(|lab| {
        let report = with_keys_of(lab, 8, |lab, faulty| {
            let steady = Steady::start(lab)?;
            let first = lab.daemon(Node::B)?.clone();
            follow(lab, faulty)?;
            ensure!(first.is_alive(), "it has a flow");
            std::thread::sleep(Duration::from_secs(6));
            let outcome = steady.finish()?;
            ensure!(outcome["errors"] == 0, "{outcome}");
            ensure!(outcome["requests"].as_u64() > Some(50), "{outcome}");
            first.ended_within(Duration::from_secs(30))
        })?;
        ensure!(report.continuations > 10, "{report}");
        Ok(())
    });
}

/// Between daemons whose keys last for so many records, and end by a continuation.
fn with_keys_of(
    lab: &mut Lab,
    records: u32,
    act: impl FnOnce(&mut Lab, &Path) -> Result<()>,
) -> Result<Report> {
    let faulty = artifacts::build_faulty_kedged()?;
    lab.stop_daemons()?;
    for node in NODES {
        let _ = fs::remove_file(lab.seal_log(node));
    }
    let capture = Capture::start(lab, &format!("continuations-{records}"))?;
    for node in NODES {
        lab.start_faulty_daemon(node, &faulty, &faults(records))?;
    }
    let played = NODES
        .into_iter()
        .try_for_each(|node| lab.daemon_answers(node))
        .and_then(|()| act(lab, &faulty));
    let report = capture.finish(lab);
    lab.stop_daemons()?;
    played?;
    let report = report?;
    report.is_clean()?;
    lab.seals_without_repetition()?;
    Ok(report)
}

/// Short keys that end by a continuation.
fn faults(records: u32) -> String {
    format!("short-keys:{records},continue")
}

fn exact(lab: &Lab, shape: &str, count: usize) -> Result<()> {
    let played = shapes::play(lab, shape, count)?;
    ensure!(played.cut == 0, "{shape}: {played:?}");
    shapes::agrees(lab, shape, &played)
}

/// Another daemon takes over node b.
fn follow(lab: &mut Lab, faulty: &Path) -> Result<()> {
    let build = Build {
        kedged: faulty.to_owned(),
        object: lab.tools.object.clone(),
        lines: String::new(),
    };
    let follower = lab.start_build(Node::B, &build, Some(&faults(8)))?;
    wait_for("the follower to serve", Duration::from_secs(20), || {
        ensure!(follower.is_alive(), "it ended");
        let status: Value = serde_json::from_str(&lab.kedge(Node::B, &["status", "--json"])?)?;
        let serves = status["pid"].as_i64() == Some(follower.pid.into());
        Ok(serves.then_some(()))
    })
    .with_context(|| xtask::lab::process::tail(&lab.run, &follower.name))
}
