//! Events name the directory and the policy that decided, whatever is in force by the time that
//! they are read.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::time::Duration;
use xtask::lab::topology::{CLIENT, LOAD, LOAD_PORT, Node, PODS};
use xtask::lab::{Lab, documents};
use xtask::shell::wait_for;
use xtask::stage::{
    at, becomes_reachable, is_told, play, put_into_directory, reaches, server, takes_effect, told,
};
use xtask::waiting::Waiting;

/// Managed, and nobody's.
const NOWHERE: &str = "10.244.9.9:80";

#[test]
fn an_event_names_the_versions_that_decided_before_and_after_a_change() {
    play(|lab| {
        let since = told(lab, Node::A)?;
        let first = deny(lab, Node::A, "# the first\n")?;
        // What the daemon decides, what connect() repeats, and what the programs decide alone.
        is_refused(lab, LOAD_PORT, since, "refused", &first)?;
        is_refused(lab, LOAD_PORT, since, "capture-refused", &first)?;
        nowhere_is_refused(lab, &first)?;

        let version = put_into_directory(lab, &PODS)?;
        takes_effect(lab, Node::A, version)?;
        let second = deny(lab, Node::A, "# the second\n")?;
        let differs = |part: &str| first[part] != second[part];
        ensure!(
            differs("directory") && differs("policy"),
            "{first} {second}"
        );
        is_refused(lab, LOAD_PORT + 1, since, "refused", &second)?;
        nowhere_is_refused(lab, &second)?;
        // What was told before names what decided then.
        is_told_by(lab, Node::A, since, "refused", &first)
    });
}

#[test]
fn a_withdrawn_flow_and_a_denied_flight_name_the_versions_that_decided() {
    play(|lab| {
        let flow = Waiting::idle(lab)?;
        let since = told(lab, Node::B)?;
        let denied = deny(lab, Node::B, "")?;
        is_told_by(lab, Node::B, since, "refused", &denied)?;
        drop(flow);

        let since = told(lab, Node::B)?;
        ensure!(!reaches(lab, &CLIENT, &server())?, "b denies it");
        is_told_by(lab, Node::B, since, "refused", &denied)?;
        // The other node's daemon did not decide that.
        let denial = |event: &Value| {
            event["kind"] == "refused" && event["peer"].is_string() && event["refusal"] == "denied"
        };
        let event = is_told(lab, Node::A, 0, "the answer", denial)?;
        ensure!(event["decided_by"].is_null(), "{event}");
        lab.write_policy(Node::B, "lab", &documents::policy())?;
        becomes_reachable(lab, &CLIENT)
    });
}

/// Forbids `client` to reach `load`, and gives the versions that are in force then.
fn deny(lab: &Lab, node: Node, note: &str) -> Result<Value> {
    let before = versions(lab, node)?;
    let rule = documents::deny(&CLIENT.spiffe_id(), &LOAD.spiffe_id());
    lab.write_policy(node, "lab", &(documents::policy() + &rule + note))?;
    wait_for("the policy", Duration::from_secs(10), || {
        let now = versions(lab, node)?;
        Ok((now["policy"] != before["policy"]).then_some(now))
    })
}

fn versions(lab: &Lab, node: Node) -> Result<Value> {
    let status: Value = serde_json::from_str(&lab.kedge(node, &["status", "--json"])?)?;
    let version = |of: &str| status[of].get("version").cloned().context("a version");
    Ok(json!({ "directory": version("directory")?, "policy": version("policy")? }))
}

/// `client` asks once, and an event of this kind names these versions.
fn is_refused(lab: &Lab, port: u16, since: usize, kind: &str, by: &Value) -> Result<()> {
    let asked = at(LOAD.v4(), port);
    ensure!(!reaches(lab, &CLIENT, &asked)?, "{asked} is denied");
    let refused = |event: &Value| event["kind"] == kind && event["original_destination"] == asked;
    let event = is_told(lab, Node::A, since, kind, refused)?;
    ensure!(event["decided_by"] == *by, "not by {by}: {event}");
    Ok(())
}

fn nowhere_is_refused(lab: &Lab, by: &Value) -> Result<()> {
    let since = told(lab, Node::A)?;
    ensure!(!reaches(lab, &CLIENT, NOWHERE)?, "{NOWHERE} is nobody's");
    let refused = |event: &Value| event["original_destination"] == NOWHERE;
    let event = is_told(lab, Node::A, since, "the refusal", refused)?;
    ensure!(event["kind"] == "capture-refused", "{event}");
    ensure!(event["decided_by"] == *by, "not by {by}: {event}");
    Ok(())
}

fn is_told_by(lab: &Lab, node: Node, since: usize, kind: &str, by: &Value) -> Result<()> {
    let decided = |event: &Value| event["kind"] == kind && event["decided_by"] == *by;
    is_told(lab, node, since, kind, decided).map(drop)
}
