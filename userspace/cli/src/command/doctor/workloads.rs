//! Each workload's own way to kedged, tried from where the workload is.

use super::super::cgroups::Cgroups;
use super::firewall::dropping_chains;
use super::probe::{Attempt, Outcome};
use crate::failure::Failure;
use kedge_api::Finding;
use kedge_capture::Serving;
use nix::errno::Errno;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Probers that run at once.
const AT_ONCE: usize = 16;

pub fn try_all(bpffs: &Path, serving: &Serving) -> Result<Vec<Finding>, Failure> {
    let cgroups = Cgroups::find();
    let ids = kedge_capture::captured_cgroups(bpffs)?;
    let mut paths: Vec<_> = ids.iter().filter_map(|id| cgroups.path(*id)).collect();
    paths.sort_unstable();
    let mut findings = Vec::new();
    for some in paths.chunks(AT_ONCE) {
        let started: Vec<_> = some
            .iter()
            .map(|path| start(&cgroups, path, serving))
            .collect();
        for (path, prober) in some.iter().zip(started) {
            findings.extend(finish(path, prober, serving));
        }
    }
    Ok(findings)
}

/// Any process of the workload shows where its network is; its cgroup may be one below.
fn start(cgroups: &Cgroups, workload: &Path, serving: &Serving) -> Option<std::io::Result<Child>> {
    let (cgroup, pid) = cgroups.at_and_below(workload).find_map(process_in)?;
    let itself = std::env::current_exe();
    Some(itself.and_then(|itself| {
        Command::new(itself)
            .args(["probe", "--pid", &pid, "--cgroup"])
            .arg(cgroup)
            .args(serving.probe_ends().map(|end| end.to_string()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
    }))
}

fn process_in(cgroup: &Path) -> Option<(PathBuf, String)> {
    let processes = fs::read_to_string(cgroup.join("cgroup.procs")).ok()?;
    // A process of another PID namespace than ours is shown as 0.
    let pid = processes.lines().find(|pid| *pid != "0")?;
    Some((cgroup.to_owned(), pid.to_owned()))
}

fn finish(
    workload: &Path,
    prober: Option<std::io::Result<Child>>,
    serving: &Serving,
) -> Vec<Finding> {
    let object = workload.display();
    let Some(prober) = prober else {
        return vec![Finding::ok(
            "capture",
            object,
            "no process in it: not tried",
        )];
    };
    let done = prober.and_then(Child::wait_with_output);
    let (said, error) = match &done {
        Ok(done) => (
            String::from_utf8_lossy(&done.stdout),
            String::from_utf8_lossy(&done.stderr).trim().to_owned(),
        ),
        Err(error) => ("".into(), error.to_string()),
    };
    let attempts: Vec<Attempt> = said.lines().flat_map(serde_json::from_str).collect();
    if attempts.is_empty() {
        let remedy = "run kedge as root where the node's processes are seen (hostPID)";
        return vec![Finding::warn(
            "capture",
            object,
            format!("could not be tried: {error}"),
            remedy,
        )];
    }
    let tried = attempts
        .iter()
        .filter(|one| one.outcome != Outcome::NoAddress);
    tried
        .map(|one| judge(&object.to_string(), one, serving))
        .collect()
}

/// What an attempt means, and what to do about it.
fn judge(object: &str, attempt: &Attempt, serving: &Serving) -> Finding {
    let to = attempt.to;
    let range = serving.ranges[usize::from(to.is_ipv6())];
    let family = if to.is_ipv6() { "IPv6" } else { "IPv4" };
    let fail = |cause: String, remedy: String| {
        Finding::fail("capture", object, format!("{family}: {cause}"), remedy)
    };
    match &attempt.outcome {
        Outcome::Answered { .. } => answered(object, family, &attempt.outcome),
        Outcome::Dropped => {
            let (chains, rule) = (dropping_chains(), accept_rule(to, serving));
            let (who, remedy) = match chains.first() {
                Some(first) => (
                    format!("; policy drop: {}", chains.join(", ")),
                    format!("nft insert rule {first} {rule}"),
                ),
                None => (
                    String::new(),
                    format!("let in `{rule}`, on the node and in the pod's egress policy"),
                ),
            };
            fail(
                format!("its packets to {range} are dropped on the way to kedged{who}"),
                remedy,
            )
        }
        Outcome::Failed(errno) if is_no_route(*errno) => fail(
            format!("no route from it to {range}"),
            format!(
                "give it one in its network namespace: a default route, or `ip route add {range} via` its gateway"
            ),
        ),
        Outcome::Failed(errno) => fail(
            format!(
                "connections to {range} are refused: {}",
                Errno::from_raw(*errno).desc()
            ),
            format!(
                "start kedged if it does not run; else take away what rejects: `nft list ruleset`; let in by `{}`",
                accept_rule(to, serving)
            ),
        ),
        Outcome::Unclaimed => fail(
            "its connections reach kedged without what the programs file".to_owned(),
            format!("let nobody translate addresses between it and {range}; see `programs` above"),
        ),
        Outcome::NoAddress => Finding::ok("capture", object, format!("{family}: no address")),
    }
}

fn answered(object: &str, family: &str, outcome: &Outcome) -> Finding {
    let Outcome::Answered {
        answer,
        local,
        netns_cookie,
    } = outcome
    else {
        return Finding::ok("capture", object, family);
    };
    let fail = |cause: String, remedy: &str| {
        Finding::fail("capture", object, format!("{family}: {cause}"), remedy)
    };
    if answer.client != *local || answer.netns_cookie != *netns_cookie {
        let cause = format!(
            "kedged takes its connection from {local} for one from {}",
            answer.client
        );
        return fail(
            cause,
            "let nobody translate addresses between it and kedged",
        );
    }
    match (&answer.workload, answer.refusal) {
        (Some(id), None) => Finding::ok("capture", object, format!("{family}: arrives as {id}")),
        (_, Some(refusal)) => fail(
            format!("arrives, and is refused: {refusal}"),
            refusal.remedy(),
        ),
        (None, None) => fail("arrives as nobody".to_owned(), "add it to the directory"),
    }
}

fn is_no_route(errno: i32) -> bool {
    [Errno::ENETUNREACH, Errno::EHOSTUNREACH, Errno::EINVAL].contains(&Errno::from_raw(errno))
}

fn accept_rule(to: SocketAddr, serving: &Serving) -> String {
    let (family, range) = match to.is_ipv6() {
        true => ("ip6", serving.ranges[1]),
        false => ("ip", serving.ranges[0]),
    };
    let ports = &serving.ports;
    format!(
        "{family} daddr {range} tcp dport {}-{} accept",
        ports.start,
        ports.end - 1
    )
}
