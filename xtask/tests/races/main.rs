//! Goal: a pod that connects within milliseconds of its birth, before anybody can know it, sends no
//! byte in plaintext, and loses no connection when the directory learns of it in time.
//!
//! ```text
//!  new1x100 ┐ netns, veth made; cgroup made,
//!  new1x101 ┤ joined, and connect() at once        wire, tcpdump
//!     …     ┼──────────── kedged a ─────────────────────────────────── kedged b ── load
//!  new1x129 ┘   (free, flooded, stopped)
//! ```

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};
use xtask::lab::newcomer::{Newcomer, Newcomers, any_newcomer};
use xtask::lab::topology::{BARELOAD, CLIENT, LOAD, LOAD_PORT, Node, PODS};
use xtask::lab::{Lab, documents};
use xtask::stage::{
    at, everywhere, is_told, next_version, play, server, takes_effect, times, under_the_oracle,
};
use xtask::wire::Problem;

/// A pod that had to wait longer for its turn on this machine says nothing about the race.
const IN_TIME: Duration = Duration::from_millis(5);

/// The process of a pod, from its birth on.
struct Newborn {
    child: Child,
    says: Lines<BufReader<ChildStdout>>,
}

impl Newborn {
    fn start(lab: &Lab, pod: &Newcomer, cgroup: &Path, to: &str) -> Result<Self> {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{}", pod.netns(&lab.run)))
            .arg(&lab.tools.load)
            .arg("newborn")
            .args([cgroup.as_os_str(), to.as_ref()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut child = command.spawn().context("start a newborn")?;
        let stdout = child.stdout.take().context("its output")?;
        let says = BufReader::new(stdout).lines();
        Ok(Self { child, says })
    }

    fn next(&mut self) -> Result<Value> {
        let line = self.says.next().context("a newborn ended early")??;
        serde_json::from_str(&line).with_context(|| format!("parse what a newborn says: {line}"))
    }
}

/// What became of those that were in time.
#[derive(Default)]
struct Tally {
    in_time: usize,
    late: usize,
    answered: usize,
}

/// One group is born; when all of them have connected, `then` happens.
fn be_born(
    lab: &mut Lab,
    round: usize,
    count: usize,
    then: impl FnOnce(&Lab, &Newcomers) -> Result<()>,
) -> Result<Tally> {
    let newcomers = Newcomers::create(&lab.run, round, count)?;
    let mut newborns = Vec::new();
    for pod in &newcomers.pods {
        newborns.push(Newborn::start(lab, pod, &pod.cgroup(&lab.run)?, &server())?);
    }
    let connected = newborns.iter_mut().map(Newborn::next);
    let connected: Vec<_> = connected.collect::<Result<_>>()?;
    then(lab, &newcomers)?;
    let mut tally = Tally::default();
    for (newborn, connected) in newborns.iter_mut().zip(connected) {
        let fate = newborn.next()?;
        newborn.child.wait()?;
        ensure!(
            fate["fate"] == "answered",
            "{connected} and then {fate}; node a says:\n{}",
            lab.events(Node::A)?
        );
        let called = connected["called_after_us"].as_u64();
        let called = Duration::from_micros(called.context("when it called connect()")?);
        tally.answered += 1;
        *(if called <= IN_TIME {
            &mut tally.in_time
        } else {
            &mut tally.late
        }) += 1;
    }
    Ok(tally)
}

/// Both nodes learn of them, the one that delivers first: it does not wait for its directory.
fn catch_up(lab: &Lab, newcomers: &Newcomers) -> Result<()> {
    let version = next_version();
    let text = documents::directory(version, &PODS) + &newcomers.entries();
    for node in [Node::B, Node::A] {
        documents::replace(&lab.run.node_folder(node).join("directory.toml"), &text)?;
        takes_effect(lab, node, version)?;
    }
    Ok(())
}

/// Groups are born until so many were in time.
fn until_in_time(
    lab: &mut Lab,
    wanted: usize,
    group: usize,
    mut one: impl FnMut(&mut Lab, usize, usize) -> Result<Tally>,
) -> Result<()> {
    let mut sum = Tally::default();
    let mut round = 0;
    while sum.in_time < wanted {
        round += 1;
        ensure!(round <= 4 * wanted.div_ceil(group), "too few are in time");
        let tally = one(lab, round, group)?;
        sum.in_time += tally.in_time;
        sum.late += tally.late;
        sum.answered += tally.answered;
    }
    println!(
        "{} pods connected within 5 ms of their birth, {} later; {} answered",
        sum.in_time, sum.late, sum.answered
    );
    Ok(())
}

fn race(lab: &mut Lab, name: &str, act: impl FnOnce(&mut Lab) -> Result<()>) -> Result<()> {
    let policy = documents::policy() + &documents::allow(&any_newcomer(), &LOAD.spiffe_id());
    everywhere(lab, |lab, node| lab.write_policy(node, "lab", &policy))?;
    under_the_oracle(lab, name, act)?.is_clean()
}

#[test]
fn a_pod_that_connects_at_birth_is_served_when_the_directory_catches_up() {
    play(|lab| {
        race(lab, "birth", |lab| {
            until_in_time(lab, times(30, 400), 30, |lab, round, count| {
                be_born(lab, round, count, catch_up)
            })
        })
    });
}

#[test]
fn a_flooded_daemon_loses_no_pod_that_connects_at_birth() {
    play(|lab| {
        race(lab, "birth-flooded", |lab| {
            let program = lab.tools.load.display().to_string();
            let words = [&*program, "connect", &server(), "--clients", "16"];
            let words = [&words[..], &["--count", "100000"]].concat();
            let flood = lab.spawn(&CLIENT, "flood", &words)?;
            let played = until_in_time(lab, times(15, 400), 15, |lab, round, count| {
                be_born(lab, 1_000 + round, count, catch_up)
            });
            ensure!(flood.is_alive(), "the flood ended: {}", lab.log("flood"));
            flood.stop(Signal::SIGKILL)?;
            played
        })
    });
}

#[test]
fn a_stopped_daemon_loses_no_pod_that_connects_at_birth() {
    play(|lab| {
        race(lab, "birth-stopped", |lab| {
            until_in_time(lab, times(10, 200), 5, |lab, round, count| {
                let daemon = lab.daemon(Node::A)?.clone();
                daemon.signal(Signal::SIGSTOP)?;
                let tally = be_born(lab, 2_000 + round, count, |lab, newcomers| {
                    daemon.signal(Signal::SIGCONT)?;
                    catch_up(lab, newcomers)
                });
                daemon.signal(Signal::SIGCONT)?;
                tally
            })
        })
    });
}

/// The directory never learns of it: the daemon holds the connection for five seconds, refuses it
/// and says why. Not a byte of it leaves the node.
#[test]
fn a_pod_that_nobody_ever_names_is_refused_after_five_seconds() {
    play(|lab| {
        let report = under_the_oracle(lab, "birth-unknown", |lab| {
            let newcomers = Newcomers::create(&lab.run, 3_000, 5)?;
            let mut newborns = Vec::new();
            for pod in &newcomers.pods {
                newborns.push(Newborn::start(lab, pod, &pod.cgroup(&lab.run)?, &server())?);
            }
            for (newborn, pod) in newborns.iter_mut().zip(&newcomers.pods) {
                let (connected, fate) = (newborn.next()?, newborn.next()?);
                newborn.child.wait()?;
                ensure!(connected["connect"] == "ok", "{connected}");
                ensure!(fate["fate"] == "reset", "{fate}");
                let held = Duration::from_millis(fate["after_ms"].as_u64().context("how long")?);
                ensure!(HELD.contains(&held), "held for {held:?}");
                is_told(lab, Node::A, 0, "the refusal", |event| {
                    let client = event["client"].as_str().unwrap_or_default();
                    event["refusal"] == "source-unknown"
                        && client.starts_with(&format!("{}:", pod.v4()))
                })?;
            }
            Ok(())
        })?;
        report.is_clean()?;
        ensure!(report.flows == 0, "{report}");
        Ok(())
    });
}

/// Five seconds, and what a busy machine adds.
const HELD: std::ops::Range<Duration> = Duration::from_millis(4_900)..Duration::from_secs(8);

/// The control run: the same birth outside of every managed root.
#[test]
fn a_pod_born_outside_every_managed_root_is_caught_by_the_same_oracle() {
    play(|lab| {
        let report = under_the_oracle(lab, "birth-unmanaged", |lab| {
            let newcomers = Newcomers::create(&lab.run, 4_000, 1)?;
            let pod = &newcomers.pods[0];
            let cgroup = lab.run.cgroup()?.join(Node::A.name()).join(&pod.name);
            let to = at(BARELOAD.v4(), LOAD_PORT);
            let mut newborn = Newborn::start(lab, pod, &cgroup, &to)?;
            let (_, fate) = (newborn.next()?, newborn.next()?);
            newborn.child.wait()?;
            let gone = Instant::now();
            while std::fs::remove_dir(&cgroup).is_err() {
                ensure!(gone.elapsed() < Duration::from_secs(1), "its cgroup stays");
            }
            ensure!(fate["fate"] == "answered", "{fate}");
            Ok(())
        })?;
        let plain = |finding: &xtask::wire::Finding| finding.problem == Problem::UnexpectedTuple;
        ensure!(report.findings.iter().any(plain), "{report}");
        Ok(())
    });
}
