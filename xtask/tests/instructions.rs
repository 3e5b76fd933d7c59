//! Goal: what a byte and a round trip cost, in instructions of the whole machine, by each way of
//! records; for a machine whose clock counts instructions, and none other: `cargo xtask vm bench`.
//!
//! ```text
//!  direct:  bare ─────────────────────────── wire ─────────────────────────── bareload
//!  kedge:   client ──► kedged a ════════════ wire ════════════ kedged b ──► load
//!  one emulated processor does all of it: a nanosecond in which it is not idle is an instruction
//! ```

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::fs;
use xtask::lab::topology::{BARE, BARELOAD, CLIENT, LOAD, LOAD_PORT, NODES, Pod};
use xtask::lab::{Build, Lab};
use xtask::stage::{at, load, play};

/// Of the machine's time: enough that idling, which the kernel tells in hundredths of a second, and how a
/// stream begins weigh less than a per cent.
const BULK_SECONDS: &str = "5";
const ROUND_TRIPS: &str = "20000";
/// Who seals and opens, in the preferred suite, and in the one that asks less of the processor.
const WAYS: [(&str, &str); 3] = [
    ("userspace", "aes-256-gcm"),
    ("kernel", "aes-256-gcm"),
    ("kernel", "aes-128-gcm"),
];
/// A figure is the mean of as many runs as it takes to know it to within so many per cent:
/// streams in the kernel's records do not all cost the same.
const PERCENT: f64 = 2.0;
/// Student's t for 95 %, by the number of runs less two.
const STUDENT: [f64; 7] = [12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36];

#[test]
fn what_a_byte_and_a_round_trip_cost_in_instructions() {
    play(|lab| {
        lab.stop_daemons()?;
        measure(lab, "none", &BARE, &BARELOAD)?;
        for (records, suite) in WAYS {
            lab.stop_daemons()?;
            start(lab, records, suite)?;
            measure(lab, &format!("{records}/{suite}"), &CLIENT, &LOAD)?;
            by_whom_it_says(lab, records, suite)?;
        }
        Ok(())
    });
}

fn measure(lab: &Lab, way: &str, from: &'static Pod, to: &Pod) -> Result<()> {
    let of = |verb| repeated(|| instructions(lab, from, to, verb));
    let bulk = of(&["bulk", "--seconds", BULK_SECONDS])?;
    println!("figure {way} instructions_per_byte {bulk:.2}");
    let small = of(&["rr", "--size", "1024", "--count", ROUND_TRIPS])?;
    println!("figure {way} instructions_per_1k_round_trip {small:.0}");
    Ok(())
}

fn start(lab: &mut Lab, records: &str, suite: &str) -> Result<()> {
    let build = Build {
        kedged: lab.tools.kedged.clone(),
        object: lab.tools.object.clone(),
        lines: format!("\n[records]\nmode = \"{records}\"\nsuites = [\"{suite}\"]\n"),
    };
    lab.start_builds(&build, None)?;
    // The link is no part of what a byte costs.
    instructions(
        lab,
        &CLIENT,
        &LOAD,
        &["rr", "--size", "1024", "--count", "1"],
    )
    .map(drop)
}

/// What a client's bytes or round trips cost each.
fn instructions(lab: &Lab, from: &'static Pod, to: &Pod, verb: &[&str]) -> Result<f64> {
    let server = at(to.v4(), LOAD_PORT);
    let mut words = vec![verb[0], &server];
    words.extend(&verb[1..]);
    let before = busy()?;
    let told: Value = load(lab, from, &words)?;
    let spent = busy()? - before;
    let units = told["bytes"].as_f64().or(told["count"].as_f64());
    Ok(spent * 1e9 / units.with_context(|| format!("no amount in {told}"))?)
}

/// Seconds since boot in which the processor was not idle (proc_uptime(5)).
fn busy() -> Result<f64> {
    let text = fs::read_to_string("/proc/uptime").context("read /proc/uptime")?;
    let (up, idle) = text.trim().split_once(' ').context("two numbers")?;
    Ok(up.parse::<f64>()? - idle.parse::<f64>()?)
}

/// The mean of runs, once they tell it.
fn repeated(mut run: impl FnMut() -> Result<f64>) -> Result<f64> {
    let mut runs = vec![run()?];
    for student in STUDENT {
        runs.push(run()?);
        let count = runs.len() as f64;
        let mean = runs.iter().sum::<f64>() / count;
        let squares: f64 = runs.iter().map(|run| (run - mean).powi(2)).sum();
        let deviation = (squares / (count - 1.0)).sqrt();
        if student * deviation / count.sqrt() <= mean * PERCENT / 100.0 {
            println!("runs {runs:.2?}");
            return Ok(mean);
        }
    }
    bail!("is this clock counting instructions? {runs:?}")
}

/// A figure of the wrong way of records would be worse than none.
fn by_whom_it_says(lab: &Lab, records: &str, suite: &str) -> Result<()> {
    for node in NODES {
        let status: Value = serde_json::from_str(&lab.kedge(node, &["status", "--json"])?)?;
        let first = &status["records"][0];
        ensure!(
            first["by"] == records && first["suite"] == suite,
            "{records} in {suite} was asked for: {status}"
        );
    }
    Ok(())
}
