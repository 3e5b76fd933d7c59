//! A workload is put in `require` while connections of it are open that nobody captured.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::time::Duration;
use xtask::lab::topology::{BARE, BARELOAD, LOAD_PORT, Node, Pod};
use xtask::lab::{Lab, documents};
use xtask::shell::wait_for;
use xtask::stage::{at, is_told, play, reaches, told};
use xtask::waiting::Waiting;

/// `bare` is in mode off; `bareload` too, so that it can be reached in plaintext.
#[test]
fn connections_older_than_require_are_listed_and_told_and_captured_ones_are_not() {
    play(|lab| {
        let to = at(BARELOAD.v4(), LOAD_PORT);
        let older = Waiting::open(lab, &BARE, &to)?;
        ensure!(sockets(lab, Node::A)?.is_empty(), "mode off has none");
        let since = told(lab, Node::A)?;
        // From now on `bare` may only be captured; what it opens then is.
        require(lab, &BARE)?;
        let event = is_told(lab, Node::A, since, "the older connection", |event| {
            event["kind"] == "older-plaintext"
        })?;
        ensure!(event["source"] == BARE.spiffe_id(), "{event}");
        let text = |part: &str| event[part].as_str().unwrap_or_default().to_owned();
        ensure!(
            text("cause").contains(" 1 of its TCP connections"),
            "{event}"
        );
        ensure!(text("remedy").contains("kedge socket list"), "{event}");

        let is_older = |socket: &Value| socket["remote"] == to && socket["local"] == older.local();
        is_listed(lab, Node::A, &BARE, is_older)?;
        wait_for(
            "what bare opens to be captured",
            Duration::from_secs(10),
            || Ok(reaches(lab, &BARE, &to)?.then_some(())),
        )?;
        let captured = Waiting::open(lab, &BARE, &to)?;
        is_listed(lab, Node::A, &BARE, is_older)?;
        ensure!(
            sockets(lab, Node::A)?.len() == 1,
            "a captured one is listed"
        );
        drop(older);
        let none = || Ok(sockets(lab, Node::A)?.is_empty().then_some(()));
        wait_for("the older one to be gone", Duration::from_secs(5), none)?;
        drop(captured);
        Ok(())
    });
}

/// The other end: what it had accepted.
#[test]
fn accepted_connections_older_than_require_are_listed_and_told() {
    play(|lab| {
        let to = at(BARELOAD.v4(), LOAD_PORT);
        let older = Waiting::open(lab, &BARE, &to)?;
        let since = told(lab, Node::B)?;
        require(lab, &BARELOAD)?;
        let event = is_told(lab, Node::B, since, "the older connection", |event| {
            event["kind"] == "older-plaintext"
        })?;
        ensure!(event["source"] == BARELOAD.spiffe_id(), "{event}");
        // What another test left there may still be open: the guard let no end of it through.
        let is_older = |socket: &Value| socket["local"] == to && socket["remote"] == older.local();
        is_listed(lab, Node::B, &BARELOAD, is_older)?;
        drop(older);
        Ok(())
    });
}

/// On both nodes, and `bare` may reach everybody.
fn require(lab: &Lab, pod: &Pod) -> Result<()> {
    let off = format!(
        "\n[[mode]]\nworkload = \"{}\"\nmode = \"off\"\n",
        pod.spiffe_id()
    );
    let policy = documents::policy();
    ensure!(
        policy.contains(&off),
        "{} is not in mode off:\n{policy}",
        pod.name
    );
    let allow = documents::allow(&BARE.spiffe_id(), &documents::everybody());
    for node in [Node::A, Node::B] {
        lab.write_policy(node, "lab", &(policy.replace(&off, "") + &allow))?;
    }
    Ok(())
}

/// One socket, of a pod's load generator.
fn is_listed(lab: &Lab, node: Node, of: &Pod, is_it: impl Fn(&Value) -> bool) -> Result<()> {
    let list = sockets(lab, node)?;
    let those: Vec<_> = list.iter().filter(|socket| is_it(socket)).collect();
    let [socket] = those[..] else {
        anyhow::bail!("not one socket: {list:?}");
    };
    let is_of = socket["uid"] == of.uid() && socket["command"] == "kedge-load";
    ensure!(is_of, "{socket}");
    Ok(())
}

fn sockets(lab: &Lab, node: Node) -> Result<Vec<Value>> {
    let text = lab.kedge(node, &["socket", "list", "--json"])?;
    let list: Value = serde_json::from_str(&text).context("parse the list of sockets")?;
    Ok(list["sockets"].as_array().context("a list")?.clone())
}
