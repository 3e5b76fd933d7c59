//! One round: everything once, direct and kedge next to each other.
//!
//! Direct goes from pod `bare` to pod `bareload`, both in mode off; kedge from `client` to `load`.
//! Both cross the same nodes and the same wire.

use super::Amounts;
use super::cost::{cpu_seconds, memory_kib};
use super::figures::{Figures, KEDGE, Pair};
use crate::lab::Lab;
use crate::lab::topology::{BARE, BARELOAD, CLIENT, LOAD, LOAD_PORT, Node, Pod};
use anyhow::{Context, Result};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::thread::{available_parallelism, sleep};
use std::time::Duration;

/// A daemon that has just started, or has just lost its flows, becomes quiet within this time.
const SETTLE: Duration = Duration::from_millis(1500);

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

pub fn round(lab: &mut Lab, amounts: &Amounts, figures: &mut Figures) -> Result<()> {
    fresh_daemons(lab)?;
    figures.add(KEDGE, "idle_mib", "MiB", memory_kib(lab)? / 1024.0);
    cold_pair(lab, figures)?;
    request_response(lab, amounts, figures)?;
    connect_one(lab, amounts, figures)?;
    connect_sixteen(lab, amounts, figures)?;
    bulk(lab, amounts, figures)?;
    fresh_daemons(lab)?;
    idle_connections(lab, amounts, figures)
}

fn fresh_daemons(lab: &mut Lab) -> Result<()> {
    lab.stop_daemons()?;
    lab.start_daemons()?;
    sleep(SETTLE);
    Ok(())
}

/// The first connection of two nodes that do not know each other: one handshake and one flow.
fn cold_pair(lab: &Lab, figures: &mut Figures) -> Result<()> {
    let before = cpu_seconds(lab)?;
    kedge(lab, &["connect", "--count", "1"])?;
    sleep(Duration::from_millis(200));
    figures.add(
        KEDGE,
        "cold_cpu_us",
        "CPU µs, both daemons",
        1e6 * (cpu_seconds(lab)? - before),
    );
    Ok(())
}

fn request_response(lab: &Lab, amounts: &Amounts, figures: &mut Figures) -> Result<()> {
    let verb = ["rr", "--size", "1024", "--count", amounts.requests];
    let (direct, kedge) = (direct(lab, &verb)?, kedge(lab, &verb)?);
    for (key, pair) in [("p50_us", RR_P50), ("p99_us", RR_P99)] {
        figures.add_pair(pair, number(&direct, key)?, number(&kedge, key)?);
    }
    Ok(())
}

const RR_P50: Pair = Pair {
    figure: "rr_1k_p50_us",
    unit: "µs",
    ratio: "rr_1k_p50_ratio",
};
const RR_P99: Pair = Pair {
    figure: "rr_1k_p99_us",
    unit: "µs",
    ratio: "rr_1k_p99_ratio",
};

fn connect_one(lab: &Lab, amounts: &Amounts, figures: &mut Figures) -> Result<()> {
    const P50: Pair = Pair {
        figure: "connect_p50_us",
        unit: "µs",
        ratio: "connect_p50_ratio",
    };
    let verb = ["connect", "--clients", "1", "--count", amounts.connections];
    let direct = direct(lab, &verb)?;
    let before = cpu_seconds(lab)?;
    let kedge = kedge(lab, &verb)?;
    let cpu = cpu_seconds(lab)? - before;
    figures.add_pair(P50, number(&direct, "p50_us")?, number(&kedge, "p50_us")?);
    let each = 1e6 * cpu / number(&kedge, "count")?;
    figures.add(KEDGE, "cpu_us_per_conn_1", "CPU µs, both daemons", each);
    Ok(())
}

fn connect_sixteen(lab: &Lab, amounts: &Amounts, figures: &mut Figures) -> Result<()> {
    const RATE: Pair = Pair {
        figure: "connect_rate_16",
        unit: "connections/s",
        ratio: "connect_rate_16_ratio",
    };
    let verb = [
        "connect",
        "--clients",
        "16",
        "--count",
        amounts.connections_of_16,
    ];
    let direct = direct(lab, &verb)?;
    let before = cpu_seconds(lab)?;
    let kedge = kedge(lab, &verb)?;
    let cpu = cpu_seconds(lab)? - before;
    figures.add_pair(
        RATE,
        number(&direct, "per_second")?,
        number(&kedge, "per_second")?,
    );
    let each = 1e6 * cpu / number(&kedge, "count")?;
    figures.add(KEDGE, "cpu_us_per_conn_16", "CPU µs, both daemons", each);
    Ok(())
}

fn bulk(lab: &Lab, amounts: &Amounts, figures: &mut Figures) -> Result<()> {
    const RATE: Pair = Pair {
        figure: "bulk_mb_per_s",
        unit: "MB/s",
        ratio: "bulk_ratio",
    };
    let verb = ["bulk", "--seconds", amounts.bulk_seconds];
    let direct = direct(lab, &verb)?;
    let before = cpu_seconds(lab)?;
    let kedge = kedge(lab, &verb)?;
    let cpu = cpu_seconds(lab)? - before;
    let rate = |result: &Value| {
        Ok::<_, anyhow::Error>(number(result, "bytes")? / 1e6 / number(result, "seconds")?)
    };
    figures.add_pair(RATE, rate(&direct)?, rate(&kedge)?);
    let each = cpu / (number(&kedge, "bytes")? / 1e9);
    figures.add(KEDGE, "cpu_s_per_gb", "CPU s, both daemons", each);
    Ok(())
}

fn idle_connections(lab: &Lab, amounts: &Amounts, figures: &mut Figures) -> Result<()> {
    // One connection first: the link is not part of what a connection costs.
    kedge(lab, &["connect", "--count", "1"])?;
    sleep(SETTLE);
    let before = memory_kib(lab)?;
    let names = ["kib_per_idle_conn_1k", "kib_per_idle_conn_9k"];
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
        let (load, server) = (lab.tools.load.display().to_string(), address(&LOAD));
        let mut command = lab.command(&CLIENT, &[&load, "idle", &server, &count.to_string()])?;
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

fn direct(lab: &Lab, verb: &[&str]) -> Result<Value> {
    load(lab, &BARE, &BARELOAD, verb)
}

fn kedge(lab: &Lab, verb: &[&str]) -> Result<Value> {
    load(lab, &CLIENT, &LOAD, verb)
}

/// Runs a kedge-load client in one pod against the server in another.
fn load(lab: &Lab, from: &'static Pod, to: &Pod, verb: &[&str]) -> Result<Value> {
    let (program, server) = (lab.tools.load.display().to_string(), address(to));
    let mut words = vec![program.as_str(), verb[0], &server];
    words.extend(&verb[1..]);
    let text = lab.run(from, &words)?;
    serde_json::from_str(&text).with_context(|| format!("parse what kedge-load says: {text}"))
}

fn address(pod: &Pod) -> String {
    format!("{}:{LOAD_PORT}", pod.v4())
}

fn number(result: &Value, key: &str) -> Result<f64> {
    result[key]
        .as_f64()
        .with_context(|| format!("no number {key} in {result}"))
}
