//! Goal: what a byte and a round trip cost, in instructions of the whole machine, by each way of
//! records; for a machine whose clock counts instructions, and none other: `cargo xtask vm bench`.
//!
//! ```text
//!  direct:  bare ─────────────────────────── wire ─────────────────────────── bareload
//!  kedge:   client ──► kedged a ════════════ wire ════════════ kedged b ──► load
//!  one emulated processor does all of it: a nanosecond in which it is not idle is an instruction
//! ```

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;
use xtask::lab::topology::{BARE, BARELOAD, CLIENT, LOAD, LOAD_PORT, NODES, Pod};
use xtask::lab::{Build, Lab};
use xtask::stage::{at, load, play};

/// Of the machine's time: enough that idling, which the kernel tells in hundredths of a second, and how a
/// stream begins weigh less than a per cent.
const BULK_SECONDS: &str = "6";
const ROUND_TRIPS: &str = "20000";
/// Each figure is taken so often, and agrees to within so many per cent.
const TIMES: usize = 2;
const AGREE_PERCENT: f64 = 2.0;

#[test]
fn what_a_byte_and_a_round_trip_cost_in_instructions() {
    play(|lab| {
        for records in ["none", "userspace", "kernel"] {
            lab.stop_daemons()?;
            let (from, to) = match records {
                "none" => (&BARE, &BARELOAD),
                _ => {
                    start(lab, records)?;
                    (&CLIENT, &LOAD)
                }
            };
            let of = |verb| repeated(|| instructions(lab, from, to, verb));
            let bulk = of(&["bulk", "--seconds", BULK_SECONDS])?;
            println!("figure {records} instructions_per_byte {bulk:.2}");
            let small = of(&["rr", "--size", "1024", "--count", ROUND_TRIPS])?;
            println!("figure {records} instructions_per_1k_round_trip {small:.0}");
            by_whom_it_says(lab, records)?;
        }
        Ok(())
    });
}

fn start(lab: &mut Lab, records: &str) -> Result<()> {
    let build = Build {
        kedged: lab.tools.kedged.clone(),
        object: lab.tools.object.clone(),
        lines: format!("\n[records]\nmode = \"{records}\"\n"),
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

/// The mean of figures that agree.
fn repeated(mut measure: impl FnMut() -> Result<f64>) -> Result<f64> {
    let mut figures = Vec::new();
    for _ in 0..TIMES {
        figures.push(measure()?);
    }
    let (least, most) = figures
        .iter()
        .fold((f64::MAX, 0_f64), |(least, most), figure| {
            (least.min(*figure), most.max(*figure))
        });
    ensure!(
        most <= least * (1.0 + AGREE_PERCENT / 100.0),
        "is this clock counting instructions? {figures:?}"
    );
    Ok(figures.iter().sum::<f64>() / TIMES as f64)
}

/// A figure of the wrong way of records would be worse than none.
fn by_whom_it_says(lab: &Lab, records: &str) -> Result<()> {
    if records == "none" {
        return Ok(());
    }
    for node in NODES {
        let status: Value = serde_json::from_str(&lab.kedge(node, &["status", "--json"])?)?;
        let first = &status["records"][0];
        ensure!(first["by"] == records, "{records} was asked for: {status}");
    }
    Ok(())
}
