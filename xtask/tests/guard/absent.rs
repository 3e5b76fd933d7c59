//! The daemon dead, stopped, hung or starved: `require` leaks nothing, `permissive` passes when it
//! has been away for five seconds, and no sooner.

use crate::{counted, enters};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::thread;
use std::time::{Duration, Instant};
use xtask::artifacts;
use xtask::lab::topology::{BARELOAD, CLIENT, LOAD, LOAD_PORT, LOCAL, NODES, Node};
use xtask::lab::{Lab, Share, documents};
use xtask::shell::wait_for;
use xtask::stage::{
    at, client_reaches, everywhere, is_told, load, play, reaches, server, told, under_the_oracle,
};
use xtask::wire::{Capture, Problem};

/// connect() takes a worker for alive for so long after its last beat...
const FRESH: Duration = Duration::from_secs(5);
/// ...which may have been so long ago when the daemon stops.
const BEAT: Duration = Duration::from_secs(1);

#[test]
fn a_stopped_daemon_leaks_nothing_and_refuses_after_five_seconds() {
    play(|lab| {
        let report = under_the_oracle(lab, "stopped", |lab| {
            ensure!(client_reaches(lab)?, "it is reached at first");
            let stopped = Instant::now();
            signal_both(lab, Signal::SIGSTOP)?;
            let refused = until_refused(lab, stopped);
            signal_both(lab, Signal::SIGCONT)?;
            ensure!(refused? >= FRESH - BEAT, "refused too soon");
            wait_for("flows to go on", Duration::from_secs(10), || {
                Ok(client_reaches(lab)?.then_some(()))
            })?;
            // That B's workers were away for five seconds, nothing says: nobody was refused there.
            is_told(lab, Node::A, 0, "a worker that is back", |event| {
                event["kind"] == "worker-back"
            })?;
            is_told(lab, Node::A, 0, "the refusal", |event| {
                let cause = event["cause"].as_str().unwrap_or_default();
                event["kind"] == "capture-refused" && cause.contains("no worker")
            })?;
            Ok(())
        })?;
        report.is_clean()
    });
}

/// In the first five seconds a connection is taken, and waits; then connect() fails at once.
fn until_refused(lab: &Lab, since: Instant) -> Result<Duration> {
    let (ip, port) = (LOAD.v4().to_string(), LOAD_PORT.to_string());
    let words = ["nc", "-z", "-w", "1", &ip, &port];
    wait_for("connect() to be refused", Duration::from_secs(10), || {
        let connected = lab.try_run(&CLIENT, &words)?.status.success();
        Ok((!connected).then(|| since.elapsed()))
    })
}

fn signal_both(lab: &Lab, signal: Signal) -> Result<()> {
    NODES
        .into_iter()
        .try_for_each(|node| lab.daemon(node)?.signal(signal))
}

#[test]
fn a_dead_daemon_leaks_nothing_of_a_require_pod() {
    play(|lab| {
        let report = under_the_oracle(lab, "dead", |lab| {
            ensure!(client_reaches(lab)?, "it is reached at first");
            lab.daemon(Node::A)?.stop(Signal::SIGKILL)?;
            let dead = Instant::now();
            while dead.elapsed() < FRESH + 2 * BEAT {
                ensure!(!client_reaches(lab)?, "reached without a daemon");
            }
            lab.start_daemon(Node::A)?;
            lab.daemon_answers(Node::A)?;
            wait_for("flows to go on", Duration::from_secs(10), || {
                Ok(client_reaches(lab)?.then_some(()))
            })
        })?;
        report.is_clean()
    });
}

#[test]
fn permissive_passes_five_seconds_after_the_daemons_death_and_is_captured_by_the_next() {
    play(|lab| {
        flips(
            lab,
            |lab| lab.daemon(Node::A)?.stop(Signal::SIGKILL),
            |lab| {
                lab.start_daemon(Node::A)?;
                lab.daemon_answers(Node::A)
            },
            "started",
        )
    });
}

#[test]
fn permissive_passes_while_the_daemon_is_stopped_and_is_captured_when_it_goes_on() {
    play(|lab| {
        flips(
            lab,
            |lab| lab.daemon(Node::A)?.signal(Signal::SIGSTOP),
            |lab| lab.daemon(Node::A)?.signal(Signal::SIGCONT),
            "worker-back",
        )
    });
}

fn flips(
    lab: &mut Lab,
    away: impl FnOnce(&mut Lab) -> Result<()>,
    back: impl FnOnce(&mut Lab) -> Result<()>,
    back_is: &str,
) -> Result<()> {
    let to = at(BARELOAD.v4(), LOAD_PORT);
    // So that every event is of this scenario.
    lab.stop_daemons()?;
    lab.start_daemons()?;
    make_permissive(lab)?;
    let gone = Instant::now();
    away(lab)?;
    wait_for("plaintext to pass", Duration::from_secs(12), || {
        Ok(enters(lab, &LOCAL, &to)?.then_some(()))
    })?;
    let passed = gone.elapsed();
    let capture = Capture::start(lab, "permissive")?;
    ensure!(enters(lab, &LOCAL, &to)?, "it passed a moment ago");
    let report = capture.finish(lab)?;
    let plain = |finding: &xtask::wire::Finding| finding.problem == Problem::UnexpectedTuple;
    ensure!(report.findings.iter().any(plain), "in plaintext: {report}");
    back(lab)?;
    ensure!(passed >= FRESH - BEAT, "it passed after {passed:?} already");
    let told = is_told(lab, Node::A, 0, "what passed", |event| {
        event["kind"] == "capture-passed" && event["original_destination"] == to
    })?;
    let returned = is_told(lab, Node::A, 0, back_is, |event| event["kind"] == back_is)?;
    let time = |event: &Value| event["time"].as_str().map(str::to_owned);
    ensure!(
        time(&told) < time(&returned),
        "{told} is not before {returned}"
    );
    let captured = counted(lab, Node::A, "captured")?;
    let passed = counted(lab, Node::A, "no_worker_passed")?;
    ensure!(reaches(lab, &LOCAL, &to)?, "not served by kedge again");
    ensure!(
        counted(lab, Node::A, "captured")? > captured,
        "not captured"
    );
    ensure!(
        counted(lab, Node::A, "no_worker_passed")? == passed,
        "passed with a daemon there"
    );
    Ok(())
}

/// `local` becomes permissive, and may talk to `bareload`, which takes plaintext too.
fn make_permissive(lab: &Lab) -> Result<()> {
    let mode = format!(
        "\n[[mode]]\nworkload = \"{}\"\nmode = \"permissive\"\n",
        LOCAL.spiffe_id()
    );
    let allow = documents::allow(&LOCAL.spiffe_id(), &BARELOAD.spiffe_id());
    let policy = documents::policy() + &mode + &allow;
    everywhere(lab, |lab, node| lab.write_policy(node, "lab", &policy))?;
    wait_for("local to be served", Duration::from_secs(10), || {
        let to = at(BARELOAD.v4(), LOAD_PORT);
        Ok(reaches(lab, &LOCAL, &to)?.then_some(()))
    })
}

#[test]
fn a_worker_that_hangs_asleep_is_passed_over_and_what_it_had_waits() {
    play(|lab| with_one_worker_hung(lab, "hang-asleep:4"));
}

#[test]
fn a_worker_that_hangs_in_a_loop_is_passed_over_and_what_it_had_waits() {
    play(|lab| with_one_worker_hung(lab, "hang-busy:4"));
}

/// Worker 0 of node a hangs for nine seconds from its fourth beat on.
fn with_one_worker_hung(lab: &mut Lab, fault: &str) -> Result<()> {
    let faulty = artifacts::build_faulty_kedged()?;
    lab.stop_daemons()?;
    let capture = Capture::start(lab, "hung")?;
    lab.start_faulty_daemon(Node::A, &faulty, fault)?;
    lab.start_daemon(Node::B)?;
    for node in NODES {
        lab.daemon_answers(node)?;
    }
    let played = play_hung(lab);
    let report = capture.finish(lab);
    lab.stop_daemons()?;
    played?;
    report?.is_clean()
}

fn play_hung(lab: &Lab) -> Result<()> {
    wait_for("the worker to hang", Duration::from_secs(10), || {
        Ok((beat_age_ms(lab)? > 2_000).then_some(()))
    })?;
    // Half of these go to the worker that hangs: they wait, and are served when it is back.
    let clients: Vec<_> = thread::scope(|scope| {
        let early: Vec<_> = (0..16)
            .map(|_| scope.spawn(|| reaches_slowly(lab)))
            .collect();
        let stalled = is_told(lab, Node::A, 0, "the worker that hangs", |event| {
            event["kind"] == "worker-stalled"
        });
        let late = stalled.and_then(|_| {
            (0..8).try_for_each(|_| {
                let asked = Instant::now();
                ensure!(client_reaches(lab)?, "sent to a worker that hangs");
                ensure!(
                    asked.elapsed() < FRESH,
                    "served after {:?}",
                    asked.elapsed()
                );
                Ok(())
            })
        });
        let early = early.into_iter().map(|client| client.join());
        let early: Vec<_> = early.collect();
        late.map(|()| early)
    })?;
    let mut waited = 0;
    for client in clients {
        let took = client.ok().context("a client panicked")??;
        waited += usize::from(took > Duration::from_secs(2));
    }
    ensure!(waited > 0, "no connection met the worker that hangs");
    println!("{waited} of 16 early connections waited for the worker, and were served");
    is_told(lab, Node::A, 0, "the worker that is back", |event| {
        event["kind"] == "worker-back"
    })?;
    Ok(())
}

fn reaches_slowly(lab: &Lab) -> Result<Duration> {
    let asked = Instant::now();
    ensure!(client_reaches(lab)?, "not served");
    Ok(asked.elapsed())
}

fn beat_age_ms(lab: &Lab) -> Result<u64> {
    let status: Value = serde_json::from_str(&lab.kedge(Node::A, &["status", "--json"])?)?;
    let age = status["workers"][0]["beat_age_ms"].as_u64();
    age.context("the age of worker 0's beat")
}

#[test]
fn daemons_with_a_tenth_of_a_processor_carry_flows_and_leak_nothing() {
    play(|lab| {
        let report = under_the_oracle(lab, "starved", |lab| {
            let since = told(lab, Node::A)?;
            let shares = [lab.starve(Node::A, 10)?, lab.starve(Node::B, 10)?];
            let exchanged: Value = load(lab, &CLIENT, &["concurrent", &server(), "1000"])?;
            ensure!(exchanged["errors"] == 0, "{exchanged}");
            let waits = shares
                .iter()
                .map(Share::waits)
                .collect::<Result<Vec<_>>>()?;
            ensure!(!waits.contains(&0), "nobody starved: {waits:?}");
            println!(
                "1,000 exchanges took {} s; the daemons had to wait {waits:?} times",
                exchanged["seconds"]
            );
            let events = lab.events(Node::A)?;
            let refused = |line: &&str| line.contains("capture-refused");
            let refused = events.lines().skip(since).filter(refused).count();
            ensure!(refused == 0, "{events}");
            Ok(())
        })?;
        report.is_clean()
    });
}
