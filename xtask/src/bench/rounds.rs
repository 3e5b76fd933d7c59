//! One round: everything once, direct and kedge one right after the other.
//!
//! Direct goes from pod `bare` to pod `bareload` with no daemon and no program on the machine, so
//! that kedge is compared with a machine without kedge; kedge goes from `client` to `load`. Both
//! cross the same nodes and the same wire, and take turns in going first.

use super::Amounts;
use super::cost::{cpu_seconds, memory_kib};
use super::figures::{Figures, KEDGE, Pair};
use super::flood::flooded;
use crate::endless::Endless;
use crate::lab::Lab;
use crate::lab::topology::{BARE, BARELOAD, CLIENT, LOAD, LOAD_PORT, Node, Pod};
use crate::shell::output;
use anyhow::{Context, Result};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread::{available_parallelism, sleep};
use std::time::Duration;

/// A daemon that has just started, or has just lost its flows, becomes quiet within this time.
const SETTLE: Duration = Duration::from_millis(1500);
/// What a run has left to do when its client has ended is part of its cost.
const AFTERMATH: Duration = Duration::from_millis(200);
/// Streams beside which a connection is made: two for each core of the machine of the figures.
const BULK_STREAMS: usize = 4;
/// Until each of them has filled its windows.
const RISE: Duration = Duration::from_millis(500);

/// Keeps every core from sleeping between two packets, at a priority that yields to everything:
/// waking up would cost more than what is measured.
pub fn keep_cores_awake(lab: &mut Lab) -> Result<()> {
    let load = lab.tools.load.display().to_string();
    for core in 0..available_parallelism().map_or(1, usize::from) {
        let (name, core) = (format!("spin-{core}"), core.to_string());
        lab.spawn(
            Node::A,
            &name,
            &["taskset", "-c", &core, "chrt", "--idle", "0", &load, "spin"],
        )?;
    }
    Ok(())
}

/// What both systems are measured by.
struct Common {
    rr: Value,
    connect: Value,
    connect_16: Value,
    bulk: Value,
    connect_beside_bulk: Value,
}

pub fn round(lab: &mut Lab, amounts: &Amounts, number: usize, figures: &mut Figures) -> Result<()> {
    let (direct, kedge) = if number % 2 == 1 {
        let direct = direct_side(lab, amounts)?;
        (direct, kedge_side(lab, amounts, figures)?)
    } else {
        let kedge = kedge_side(lab, amounts, figures)?;
        (direct_side(lab, amounts)?, kedge)
    };
    for (pair, of) in PAIRS {
        figures.add_pair(*pair, of(&direct)?, of(&kedge)?);
    }
    Ok(())
}

type Reading = fn(&Common) -> Result<f64>;

const PAIRS: &[(Pair, Reading)] = &[
    (pair("rr_1k_p50_us", "µs", "rr_1k_p50_ratio"), |of| {
        number(&of.rr, "p50_us")
    }),
    (pair("rr_1k_p99_us", "µs", "rr_1k_p99_ratio"), |of| {
        number(&of.rr, "p99_us")
    }),
    (pair("connect_p50_us", "µs", "connect_p50_ratio"), |of| {
        number(&of.connect, "p50_us")
    }),
    (
        pair("connect_rate_16", "connections/s", "connect_rate_16_ratio"),
        |of| number(&of.connect_16, "per_second"),
    ),
    (
        pair(
            "connect_beside_bulk_p50_us",
            "µs",
            "connect_beside_bulk_p50_ratio",
        ),
        |of| number(&of.connect_beside_bulk, "p50_us"),
    ),
    (
        pair(
            "connect_beside_bulk_p99_us",
            "µs",
            "connect_beside_bulk_p99_ratio",
        ),
        |of| number(&of.connect_beside_bulk, "p99_us"),
    ),
    (pair("bulk_mb_per_s", "MB/s", "bulk_ratio"), |of| {
        Ok(number(&of.bulk, "bytes")? / 1e6 / number(&of.bulk, "seconds")?)
    }),
];

const fn pair(figure: &'static str, unit: &'static str, ratio: &'static str) -> Pair {
    Pair {
        figure,
        unit,
        ratio,
    }
}

/// Without daemons, and so without their programs.
fn direct_side(lab: &mut Lab, amounts: &Amounts) -> Result<Common> {
    lab.stop_daemons()?;
    sleep(SETTLE);
    let run = |verb: &[&str]| load(lab, &BARE, &BARELOAD, verb);
    Ok(Common {
        rr: run(&amounts.rr())?,
        connect: run(&amounts.connect())?,
        connect_16: run(&amounts.connect_16())?,
        bulk: run(&amounts.bulk())?,
        connect_beside_bulk: beside_bulk(lab, &BARE, &BARELOAD, amounts)?,
    })
}

fn kedge_side(lab: &mut Lab, amounts: &Amounts, figures: &mut Figures) -> Result<Common> {
    fresh_daemons(lab)?;
    figures.add(
        KEDGE,
        "idle_mib",
        "MiB of one daemon",
        memory_kib(lab)? / 1024.0,
    );
    let (_, cold) = costing(lab, &["connect", "--count", "1"])?;
    figures.add(KEDGE, "cold_cpu_us", "CPU µs, both daemons", 1e6 * cold);
    let (rr, _) = costing(lab, &amounts.rr())?;
    let (connect, cpu) = costing(lab, &amounts.connect())?;
    let each = 1e6 * cpu / number(&connect, "count")?;
    figures.add(KEDGE, "cpu_us_per_conn_1", "CPU µs, both daemons", each);
    let (connect_16, cpu) = costing(lab, &amounts.connect_16())?;
    let each = 1e6 * cpu / number(&connect_16, "count")?;
    figures.add(KEDGE, "cpu_us_per_conn_16", "CPU µs, both daemons", each);
    let (bulk, cpu) = costing(lab, &amounts.bulk())?;
    let each = cpu / (number(&bulk, "bytes")? / 1e9);
    figures.add(KEDGE, "cpu_s_per_gb", "CPU s, both daemons", each);
    let connect_beside_bulk = beside_bulk(lab, &CLIENT, &LOAD, amounts)?;
    flooded(lab, amounts, figures)?;
    Ok(Common {
        rr,
        connect,
        connect_16,
        bulk,
        connect_beside_bulk,
    })
}

/// New connections of a pod that keeps every window full with other ones.
fn beside_bulk(lab: &Lab, from: &'static Pod, to: &Pod, amounts: &Amounts) -> Result<Value> {
    let endless = || Endless::start(&mut client(lab, from, to, &["bulk", "--seconds", "600"])?);
    let streams: Result<Vec<_>> = (0..BULK_STREAMS).map(|_| endless()).collect();
    let mut streams = streams?;
    sleep(RISE);
    let connected = load(lab, from, to, &amounts.connect())?;
    streams.iter_mut().try_for_each(Endless::goes_on)?;
    Ok(connected)
}

fn fresh_daemons(lab: &mut Lab) -> Result<()> {
    lab.stop_daemons()?;
    lab.start_daemons()?;
    sleep(SETTLE);
    Ok(())
}

/// A run through kedge, and what both daemons used for it, in seconds.
fn costing(lab: &Lab, verb: &[&str]) -> Result<(Value, f64)> {
    let before = cpu_seconds(lab)?;
    let result = kedge(lab, verb)?;
    sleep(AFTERMATH);
    Ok((result, cpu_seconds(lab)? - before))
}

/// Once, after all rounds: thousands of connections that end leave their ports in TIME_WAIT for a
/// minute, and connecting would then measure the kernel's search for a free one.
pub fn idle_connections(lab: &mut Lab, amounts: &Amounts, figures: &mut Figures) -> Result<()> {
    fresh_daemons(lab)?;
    // One connection first: the link is not part of what a connection costs.
    kedge(lab, &["connect", "--count", "1"])?;
    sleep(SETTLE);
    let before = memory_kib(lab)?;
    let names = ["kib_per_idle_conn_1k", "kib_per_idle_conn_4k"];
    let mut held = Vec::new();
    let mut open = 0;
    for (name, count) in names.into_iter().zip(amounts.idle) {
        held.push(Held::open(lab, count - open)?);
        open = count;
        sleep(SETTLE);
        let each = (memory_kib(lab)? - before) / f64::from(count);
        figures.add(KEDGE, name, "KiB of one daemon", each);
    }
    Ok(())
}

/// A client that holds idle connections until it is dropped.
struct Held(Child);

impl Held {
    fn open(lab: &Lab, count: u32) -> Result<Self> {
        let mut command = client(lab, &CLIENT, &LOAD, &["idle", &count.to_string()])?;
        let mut held = Self(
            command
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .context("start idle")?,
        );
        let stdout = held.0.stdout.take().context("the pipe from idle")?;
        let mut line = String::new();
        BufReader::new(stdout)
            .read_line(&mut line)
            .context("read what idle says")?;
        let result: Value = serde_json::from_str(&line).context("idle did not open them all")?;
        anyhow::ensure!(
            result["open"].as_u64() == Some(count.into()),
            "idle opened too few: {line}"
        );
        Ok(held)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

pub(super) fn kedge(lab: &Lab, verb: &[&str]) -> Result<Value> {
    load(lab, &CLIENT, &LOAD, verb)
}

/// Runs a kedge-load client in one pod against the server in another.
fn load(lab: &Lab, from: &'static Pod, to: &Pod, verb: &[&str]) -> Result<Value> {
    let text = output(&mut client(lab, from, to, verb)?)?;
    serde_json::from_str(&text).with_context(|| format!("parse what kedge-load says: {text}"))
}

fn client(lab: &Lab, from: &'static Pod, to: &Pod, verb: &[&str]) -> Result<Command> {
    let (program, server) = (lab.tools.load.display().to_string(), address(to));
    let mut words = vec![program.as_str(), verb[0], &server];
    words.extend(&verb[1..]);
    lab.command(from, &words)
}

fn address(pod: &Pod) -> String {
    format!("{}:{LOAD_PORT}", pod.v4())
}

pub(super) fn number(result: &Value, key: &str) -> Result<f64> {
    result[key]
        .as_f64()
        .with_context(|| format!("no number {key} in {result}"))
}
