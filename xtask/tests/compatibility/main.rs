//! What applications see with kedge and what they see without, side by side: every row of
//! docs/compatibility.md is a test here. Each does the same thing twice and says exactly what is
//! the same and what is not.
//!
//! ```text
//!  direct    bare   ── node a ─────────── wire ─────────── node b ── bareload   (mode off)
//!  captured  client ── kedged a ═════════ wire ═════════ kedged b ── load       (require)
//! ```

mod bytes;
mod names;
mod opening;
mod owners;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use xtask::lab::Lab;
use xtask::lab::process::{Family, Process, command_in};
use xtask::lab::topology::{BARE, BARELOAD, CLIENT, LOAD, Node, Place, Pod};
use xtask::shell::{output, wait_for};
use xtask::stage::{at, load};

/// Both ends of a way from node a to node b.
struct Way {
    client: &'static Pod,
    server: &'static Pod,
}

static DIRECT: Way = Way {
    client: &BARE,
    server: &BARELOAD,
};
static CAPTURED: Way = Way {
    client: &CLIENT,
    server: &LOAD,
};

/// What the client says when nothing of it is urgent.
const SAID: &str = "before ! after";
/// A server that takes what comes.
const PLAIN: u16 = 7_500;
/// One with a small buffer, that reads nothing for a while.
const SLOW: u16 = 7_501;
const MPTCP: u16 = 7_502;

impl Way {
    /// What the client's application sees of a connection to `port`, made as `words` say.
    fn socket(&self, lab: &Lab, port: u16, words: &[&str]) -> Result<Value> {
        socket(lab, self.client, &at(self.server.v4(), port), words)
    }

    /// Makes sure that its server serves `port`.
    fn serve(&self, lab: &mut Lab, port: u16, words: &[&str]) -> Result<Process> {
        serve(lab, self.server, port, words)
    }
}

/// Plain servers at both ends of both ways.
fn serve_plainly(lab: &mut Lab) -> Result<()> {
    for way in [&DIRECT, &CAPTURED] {
        way.serve(lab, PLAIN, &[])?;
    }
    Ok(())
}

fn socket(lab: &Lab, from: impl Into<Place>, to: &str, words: &[&str]) -> Result<Value> {
    load(lab, from, &[&["socket", to], words].concat())
}

/// The same as a process of another cgroup, which may go to its own later.
fn socket_in(lab: &Lab, cgroup: &Path, at: Place, to: &str, words: &[&str]) -> Result<Value> {
    let program = lab.tools.load.display().to_string();
    let words = [&[&*program, "socket", to], words].concat();
    let text = output(&mut command_in(&lab.run, at, cgroup, &words))?;
    serde_json::from_str(&text).with_context(|| format!("parse {text}"))
}

fn serve(lab: &mut Lab, pod: &'static Pod, port: u16, words: &[&str]) -> Result<Process> {
    let name = server_name(pod, port);
    let running = |process: &&Process| process.name == name && process.is_alive();
    if let Some(server) = lab.processes().iter().find(running) {
        return Ok(server.clone());
    }
    let (program, listen) = (lab.tools.load.display().to_string(), any(port));
    let words = [&[&*program, "socket-server", &listen], words].concat();
    let server = lab.spawn(pod, &name, &words)?;
    server.listens_on(&lab.run, Family::V4, port)?;
    Ok(server)
}

fn any(port: u16) -> String {
    at(Ipv4Addr::UNSPECIFIED, port)
}

fn server_name(pod: &Pod, port: u16) -> String {
    format!("sockets-{}-{port}", pod.name)
}

/// What a server has said of its connections so far.
fn told_by(lab: &Lab, pod: &Pod, port: u16) -> Result<Vec<Value>> {
    let log = lab.log(&server_name(pod, port));
    let lines = log.lines().filter(|line| line.starts_with('{'));
    lines
        .map(|line| serde_json::from_str(line).with_context(|| format!("parse {line}")))
        .collect()
}

/// What it says of the next one, `before` having been told.
fn told_next(lab: &Lab, pod: &Pod, port: u16, before: usize) -> Result<Value> {
    wait_for("the server's word", Duration::from_secs(10), || {
        Ok(told_by(lab, pod, port)?.into_iter().nth(before))
    })
}

/// Everything was said and heard.
fn succeeded(outcome: &Value) -> Result<()> {
    ensure!(outcome["failed"].is_null(), "{outcome}");
    ensure!(outcome["seen"]["text"] == SAID, "{outcome}");
    ensure!(outcome["seen"]["end"] == "fin", "{outcome}");
    Ok(())
}

/// The system call `call` failed with `errno`.
fn failed(outcome: &Value, call: &str, errno: &str) -> Result<()> {
    let expected = format!("{call}: {errno}");
    ensure!(outcome["failed"] == expected, "not {expected}: {outcome}");
    Ok(())
}

/// The connection was reset by the daemon, wherever the application noticed it.
fn was_reset(outcome: &Value) -> Result<()> {
    let failed = outcome["failed"].as_str().unwrap_or_default();
    let is_reset = ["ECONNRESET", "EPIPE", "ENOTCONN"]
        .iter()
        .any(|errno| failed.ends_with(errno));
    ensure!(is_reset && outcome["seen"].is_null(), "{outcome}");
    Ok(())
}

fn ip_of(end: &Value) -> Result<IpAddr> {
    let text = end
        .as_str()
        .with_context(|| format!("{end} is no address"))?;
    let end: std::net::SocketAddr = text.parse().with_context(|| format!("parse {text}"))?;
    Ok(end.ip())
}

/// The daemon's own address as the pod's kernel has it, which stands for what was asked.
fn is_capture(end: &Value) -> Result<bool> {
    Ok(match ip_of(end)? {
        IpAddr::V4(ip) => ip.octets()[..2] == [169, 254],
        IpAddr::V6(_) => false,
    })
}

/// How often node a's programs have counted this.
fn counted(lab: &Lab, counter: &str) -> Result<u64> {
    let status: Value = serde_json::from_str(&lab.kedge(Node::A, &["status", "--json"])?)?;
    let count = status["capture"]["counters"][counter].as_u64();
    count.with_context(|| format!("no {counter} in {status}"))
}

fn events(lab: &Lab, node: Node) -> Result<Vec<Value>> {
    let text = lab.events(node)?;
    let parsed = text.lines().map(serde_json::from_str);
    parsed.collect::<Result<_, _>>().context("parse the events")
}

/// After `before` of them, an event that `is_it` knows, with a remedy.
fn is_told(lab: &Lab, node: Node, before: usize, is_it: impl Fn(&Value) -> bool) -> Result<()> {
    wait_for("the event", Duration::from_secs(5), || {
        let events = events(lab, node)?;
        let event = events.iter().skip(before).find(|event| is_it(event));
        Ok(event.and_then(|event| event["remedy"].as_str()).map(drop))
    })
}

fn refused(event: &Value, refusal: &str) -> bool {
    event["kind"] == "refused" && event["refusal"] == refusal
}

/// The cgroup of node `node` that nobody has configured.
fn host_cgroup(lab: &Lab, node: Node) -> Result<PathBuf> {
    lab.run.cgroup_of(Place::from(node))
}

fn pod_cgroup(lab: &Lab, pod: &'static Pod) -> Result<PathBuf> {
    lab.run.cgroup_of(Place::from(pod))
}
