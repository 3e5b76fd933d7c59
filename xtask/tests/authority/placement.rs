//! The directory moves under open flows.

use anyhow::Result;
use std::time::Duration;
use xtask::lab::Lab;
use xtask::lab::topology::{CLIENT, LOAD, Node, PODS, Pod};
use xtask::stage::{becomes_reachable, next_version, play, put_into_directory, told};
use xtask::waiting::{Waiting, is_told, unix_ms};

/// A change of directory decides open flows within this long.
const DECIDED: Duration = Duration::from_secs(5);

#[test]
fn a_destination_that_its_client_s_node_loses_ends_its_flows() {
    play(|lab| loses(lab, Node::A, &LOAD, "stale"));
}

#[test]
fn a_destination_that_its_own_node_loses_ends_its_flows() {
    play(|lab| loses(lab, Node::B, &LOAD, "stale"));
}

#[test]
fn a_source_that_the_other_node_loses_ends_its_flows() {
    play(|lab| loses(lab, Node::B, &CLIENT, "source-mismatch"));
}

/// The directory of one node loses a pod, and the other's does not.
fn loses(lab: &Lab, node: Node, gone: &'static Pod, reason: &str) -> Result<()> {
    let flow = Waiting::idle(lab)?;
    let (told, since) = (told(lab, node)?, unix_ms());
    let left: Vec<_> = PODS.into_iter().filter(|pod| *pod != gone).collect();
    lab.write_directory(node, next_version(), &left)?;
    let took = flow.error_after(since, DECIDED)?;
    println!("{reason} after {took} ms");
    let reason = format!("\"{reason}\"");
    is_told(
        lab,
        node,
        told,
        &[&reason, &CLIENT.spiffe_id(), "\"remedy\":\""],
    )?;
    put_into_directory(lab, &PODS)?;
    becomes_reachable(lab, &CLIENT)
}
