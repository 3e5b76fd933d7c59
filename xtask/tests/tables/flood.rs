//! A pod that opens connections without end: its neighbour's are accepted as if it were not there.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::thread;
use xtask::lab::Lab;
use xtask::lab::documents;
use xtask::lab::topology::{CLIENT, LOAD, LOCAL, Node};
use xtask::stage::{becomes_reachable, everywhere, load, play, server, times};

const NEIGHBOURS: usize = 1_000;
/// More than the accept queues of two workers hold together.
const BEYOND_ALL_QUEUES: usize = 10_000;

#[test]
fn a_pod_that_floods_pending_connects_starves_no_neighbour() {
    play(|lab| {
        neighbour_is_allowed(lab)?;
        for end in [&[][..], &["--reset"]] {
            let count = times(20_000, 200_000);
            let lab = &*lab;
            thread::scope(|scope| {
                let flooding = scope.spawn(|| flood(lab, count, end));
                let exchanged: Value = load(lab, &LOCAL, &["concurrent", &server(), "1000"])?;
                ensure!(exchanged["errors"] == 0, "{exchanged}");
                let flood = flooding.join().ok().context("the flood panicked")??;
                println!("beside the flood, {} s: {flood}", exchanged["seconds"]);
                Ok::<_, anyhow::Error>(())
            })?;
        }
        Ok(())
    });
}

/// While nothing is accepted, places in the accept queues are all there is.
#[test]
fn a_pod_that_floods_a_daemon_that_is_stopped_leaves_room_in_its_queues() {
    play(|lab| {
        neighbour_is_allowed(lab)?;
        for end in [&[][..], &["--reset"]] {
            lab.daemon(Node::A)?.signal(Signal::SIGSTOP)?;
            let beside = beside_a_flood(lab, end);
            lab.daemon(Node::A)?.signal(Signal::SIGCONT)?;
            let (flood, neighbour) = beside?;
            println!("{flood}; beside it: {neighbour}");
            ensure!(neighbour["connected"] == NEIGHBOURS, "{neighbour}; {flood}");
            becomes_reachable(lab, &LOCAL)?;
            let exchanged: Value = load(lab, &LOCAL, &["concurrent", &server(), "1000"])?;
            ensure!(exchanged["errors"] == 0, "{exchanged}");
        }
        Ok(())
    });
}

fn beside_a_flood(lab: &Lab, end: &[&str]) -> Result<(Value, Value)> {
    let flood = flood(lab, BEYOND_ALL_QUEUES, end)?;
    let (to, count) = (server(), NEIGHBOURS.to_string());
    let words = ["flood", &to, "--connections", &count, "--wait-ms", "500"];
    Ok((flood, load(lab, &LOCAL, &words)?))
}

fn flood(lab: &Lab, count: usize, end: &[&str]) -> Result<Value> {
    let (to, count) = (server(), count.to_string());
    let words = [&["flood", &to, "--connections", &count], end].concat();
    load(lab, &CLIENT, &words)
}

fn neighbour_is_allowed(lab: &Lab) -> Result<()> {
    let policy = documents::policy() + &documents::allow(&LOCAL.spiffe_id(), &LOAD.spiffe_id());
    everywhere(lab, |lab, node| lab.write_policy(node, "lab", &policy))?;
    becomes_reachable(lab, &LOCAL)
}
