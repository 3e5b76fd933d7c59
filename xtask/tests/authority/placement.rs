//! The directory moves under open flows.

use anyhow::{Result, bail, ensure};
use std::time::Duration;
use xtask::lab::topology::{CLIENT, LOAD, Node, PEER_PORT, PODS, Pod};
use xtask::lab::{Lab, documents};
use xtask::shell::wait_for;
use xtask::stage::{becomes_reachable, captured, next_version, play, put_into_directory, told};
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

/// Its link and carriers are closed in words that arrive: kedged's own guard drops none of them, which
/// would be repeated for minutes.
#[test]
fn a_node_that_leaves_the_directory_is_parted_from_at_once_and_in_order() {
    play(|lab| {
        let flow = Waiting::idle(lab)?;
        let (told_a, told_b) = (told(lab, Node::A)?, told(lab, Node::B)?);
        let (dropped, since) = (captured(lab, Node::A, "daemon_dropped")?, unix_ms());
        let there = "name = \"b\"\n";
        let gone = format!("{there}kedge = false\n");
        let directory = documents::directory(next_version(), &PODS).replacen(there, &gone, 1);
        lab.write_directory_text(Node::A, &directory)?;
        let took = flow.error_after(since, DECIDED)?;
        println!("its flow was reset after {took} ms");
        is_told(lab, Node::A, told_a, &["link-down", "not in our directory"])?;
        is_told(lab, Node::B, told_b, &["link-down"])?;
        wait_for("its sockets to be gone", DECIDED, || {
            let sockets = lab.run(Node::A, &["ss", "-Htan"])?;
            let port = format!(":{PEER_PORT} ");
            let ended = |line: &str| line.starts_with("LISTEN") || line.starts_with("TIME-WAIT");
            let open = |line: &&str| line.contains(&port) && !ended(line);
            match sockets.lines().find(open) {
                Some(line) => bail!("still there: {line}"),
                None => Ok(Some(())),
            }
        })?;
        ensure!(
            captured(lab, Node::A, "daemon_dropped")? == dropped,
            "FINs were dropped"
        );
        put_into_directory(lab, &PODS)?;
        becomes_reachable(lab, &CLIENT)
    });
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
