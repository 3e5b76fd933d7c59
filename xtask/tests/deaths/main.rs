//! A daemon may die at any step of a flow: no byte is delivered twice, none is lost without a
//! word, no end that nobody meant looks like one, nothing hangs; and with the daemon back, so are
//! the connections. Both daemons log every seal: no record number is used twice under one key.
//!
//! ```text
//!                              killed at each of its steps        or here, at each of its steps
//!                                       ▼                                  ▼
//!  client: shapes ──────────────► kedged a ══════ wire, captured ══════ kedged b ──► load: shapes
//! ```

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use xtask::artifacts;
use xtask::lab::Lab;
use xtask::lab::topology::{NODES, Node};
use xtask::shapes;
use xtask::shell::wait_for;
use xtask::stage::{play, times};
use xtask::wire::{Capture, Finding, Problem};

/// A step of a flow, as kedged's `fault.rs` names it, and the first passage at which to die; each
/// further death is `stride` passages later.
struct Step {
    what: &'static str,
    point: &'static str,
    first: usize,
    stride: usize,
    shapes: &'static [&'static str],
}

const ACCEPTOR: [Step; 9] = [
    step("header read", "header-read", 1, 2),
    step("number taken", "number-taken", 1, 2),
    step("policy checked", "policy-checked", 1, 2),
    step("workload connected", "workload-connected", 1, 2),
    step("answer written", "records-written", 1, 1),
    step("first byte delivered", "bytes-delivered", 1, 1),
    middle("middle, towards the workload", "bytes-delivered"),
    middle("middle, from the workload", "records-written"),
    step("close", "close-written", 1, 2),
];

const OPENER: [Step; 7] = [
    step("record 0 sealed", "record-0-sealed", 1, 2),
    step("first flight written", "records-written", 1, 1),
    step("answer read", "answer-read", 1, 2),
    step("first byte delivered", "bytes-delivered", 1, 1),
    middle("middle, towards the workload", "bytes-delivered"),
    middle("middle, from the workload", "records-written"),
    step("close", "close-written", 1, 2),
];

/// Between the first sealed byte and keys that are the kernel's, in either direction.
const KEYS: [Step; 2] = [
    step("a key not yet the kernel's", "kernel-key-due", 1, 1),
    step(
        "a key the kernel's, the next not yet",
        "kernel-key-given",
        1,
        1,
    ),
];

const fn step(what: &'static str, point: &'static str, first: usize, stride: usize) -> Step {
    Step {
        what,
        point,
        first,
        stride,
        shapes: &SHAPES,
    }
}

/// With enough bytes both ways to have a middle.
const fn middle(what: &'static str, point: &'static str) -> Step {
    Step {
        shapes: &["both-and-agreed"],
        ..step(what, point, 40, 23)
    }
}

/// In all of them, whoever has seen the whole stream knows that the other one has, too.
const SHAPES: [&str; 3] = ["client-first", "both-and-agreed", "client-half-closes"];
const STREAMS: usize = 24;
/// How long connect() may repeat the refusals of the last death.
const FORGOTTEN: Duration = Duration::from_secs(10);
/// A fault that no point has: this build only logs.
const NONE: &str = "none";

#[test]
fn the_acceptors_daemon_may_die_at_any_step() {
    play(|lab| every_step(lab, Node::B, &ACCEPTOR));
}

#[test]
fn the_openers_daemon_may_die_at_any_step() {
    play(|lab| every_step(lab, Node::A, &OPENER));
}

/// Where the kernel takes none, nobody comes to these steps.
#[test]
fn either_daemon_may_die_while_it_gives_keys_to_the_kernel() {
    play(|lab| {
        for node in NODES {
            let status: Value = serde_json::from_str(&lab.kedge(node, &["status", "--json"])?)?;
            let suites = status["records"].as_array().context("a list of suites")?;
            match suites.iter().any(|suite| suite["by"] == "kernel") {
                true => every_step(lab, node, &KEYS)?,
                false => no_step(lab, node, &KEYS)?,
            }
            lab.start_daemons()?;
        }
        Ok(())
    });
}

fn no_step(lab: &mut Lab, survivor: Node, steps: &[Step]) -> Result<()> {
    let faulty = artifacts::build_faulty_kedged()?;
    shapes::serve(lab)?;
    lab.stop_daemons()?;
    let points: Vec<_> = steps.iter().map(|step| step.point).collect();
    let daemon = lab.start_faulty_daemon(survivor, &faulty, &points.join(","))?;
    lab.start_faulty_daemon(survivor.other(), &faulty, NONE)?;
    for node in NODES {
        lab.daemon_answers(node)?;
    }
    let played = shapes::play(lab, SHAPES[0], STREAMS)?;
    shapes::agrees(lab, SHAPES[0], &played)?;
    ensure!(played.cut == 0 && daemon.is_alive(), "{played:?}");
    lab.stop_daemons()
}

fn every_step(lab: &mut Lab, victim: Node, steps: &[Step]) -> Result<()> {
    let faulty = artifacts::build_faulty_kedged()?;
    shapes::serve(lab)?;
    lab.stop_daemons()?;
    for node in NODES {
        let _ = fs::remove_file(lab.seal_log(node));
    }
    let capture = Capture::start(lab, &format!("deaths-{}", victim.name()))?;
    let died = die_at_each(lab, &faulty, victim, steps);
    let report = capture.finish(lab);
    lab.stop_daemons()?;
    died?;
    let report = report?;
    // Whoever is killed ends its carriers wherever it is.
    let cut = |finding: &&Finding| matches!(finding.problem, Problem::EndsInside(_));
    let odd: Vec<_> = report
        .findings
        .iter()
        .filter(|finding| !cut(finding))
        .collect();
    ensure!(odd.is_empty(), "the wire oracle objects: {odd:?}");
    let seals = lab.seals_without_repetition()?;
    ensure!(
        report.flows > 0 && seals as u64 >= report.flows,
        "{seals} seals were logged; {report}"
    );
    Ok(())
}

fn die_at_each(lab: &mut Lab, faulty: &Path, victim: Node, steps: &[Step]) -> Result<()> {
    lab.start_faulty_daemon(victim.other(), faulty, NONE)?;
    lab.daemon_answers(victim.other())?;
    let streams = times(1, 200) as u64;
    for step in steps {
        let (mut death, mut cut) = (0, 0);
        while death < 2 || cut < streams {
            let shape = step.shapes[death % step.shapes.len()];
            // The later passages of a long series would come after the end of the streams.
            let passage = step.first + step.stride * (death % 10);
            cut += one_death(lab, faulty, victim, step, passage, shape)
                .with_context(|| format!("{}, passage {passage}, {shape}", step.what))?;
            death += 1;
        }
        println!("{}: {death} deaths cut {cut} streams", step.what);
    }
    back_to_life(lab, faulty, victim)
}

/// How many streams it cut.
fn one_death(
    lab: &mut Lab,
    faulty: &Path,
    victim: Node,
    step: &Step,
    passage: usize,
    shape: &str,
) -> Result<u64> {
    back_to_life(lab, faulty, victim)?;
    lab.daemon(victim)?.stop(Signal::SIGKILL)?;
    let fault = format!("{}:{passage}", step.point);
    let daemon = lab.start_faulty_daemon(victim, faulty, &fault)?;
    lab.daemon_answers(victim)?;
    let started = Instant::now();
    let mut cut = 0;
    while daemon.is_alive() {
        ensure!(started.elapsed() < FORGOTTEN, "it never came there");
        let played = shapes::play(lab, shape, STREAMS)?;
        shapes::agrees(lab, shape, &played)?;
        cut += played.cut;
    }
    ensure!(cut > 0, "nobody noticed");
    Ok(cut)
}

/// With the daemon back, connections are whole again; and then connect() repeats no refusal, and
/// nobody looks whether it still holds.
fn back_to_life(lab: &mut Lab, faulty: &Path, victim: Node) -> Result<()> {
    lab.start_faulty_daemon(victim, faulty, NONE)?;
    lab.daemon_answers(victim)?;
    for shape in SHAPES {
        let started = Instant::now();
        loop {
            let played = shapes::play(lab, shape, STREAMS)?;
            shapes::agrees(lab, shape, &played)?;
            if played.cut == 0 {
                break;
            }
            ensure!(started.elapsed() < FORGOTTEN, "afterwards: {played:?}");
        }
    }
    wait_for("no refusal to stand", FORGOTTEN, || {
        let status: Value = serde_json::from_str(&lab.kedge(Node::A, &["status", "--json"])?)?;
        let standing = status["counters"]["refusals.standing"].as_u64();
        Ok((standing == Some(0)).then_some(()))
    })
}
