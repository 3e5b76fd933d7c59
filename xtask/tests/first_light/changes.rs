//! Changes under way: open connections do not notice them.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::time::Duration;
use xtask::lab::topology::{CLIENT, LOAD, NODES, Node};
use xtask::lab::{Lab, documents};
use xtask::shell::wait_for;
use xtask::stage::{play, told};
use xtask::steady::Steady;
use xtask::waiting::is_told;

#[test]
fn a_renewed_certificate_makes_a_new_link_and_drops_no_flow() {
    play(|lab| {
        let steady = Steady::start(lab)?;
        let before = links(lab)?;
        ensure!(!before.is_empty(), "a flow has a link");
        for node in NODES {
            lab.issue_certificate(node)?;
        }
        wait_for("another link", Duration::from_secs(30), || {
            let now = links(lab)?;
            let is_new = |link: &String| !before.contains(link);
            ensure!(now.iter().any(is_new), "still {now:?}");
            Ok(Some(()))
        })?;
        // The old link is drained for ten seconds and erased after that.
        std::thread::sleep(Duration::from_secs(12));
        let outcome = steady.finish()?;
        ensure!(outcome["errors"] == 0, "{outcome}");
        ensure!(
            outcome["requests"].as_u64().is_some_and(|n| n > 50),
            "{outcome}"
        );
        Ok(())
    });
}

#[test]
fn an_open_flow_that_a_new_policy_denies_is_reset_with_the_reason() {
    play(|lab| {
        let steady = Steady::start(lab)?;
        let (told_a, told_b) = (told(lab, Node::A)?, told(lab, Node::B)?);
        let deny = documents::policy() + &documents::deny(&CLIENT.spiffe_id(), &LOAD.spiffe_id());
        lab.write_policy(Node::B, "lab", &deny)?;
        is_told(lab, Node::B, told_b, &["\"denied\""])?;
        // The other node's operator is sent to where the reason is.
        let remedy = "run `kedge event list` on the peer's node";
        is_told(lab, Node::A, told_a, &["\"flow-broken\"", remedy])?;
        let outcome = steady.broken()?;
        ensure!(outcome["errors"] == 1, "{outcome}");
        Ok(())
    });
}

/// Identifiers of node a's live links.
fn links(lab: &Lab) -> Result<Vec<String>> {
    let text = lab.kedge(Node::A, &["link", "list", "--json"])?;
    let list: Value = serde_json::from_str(&text).context("parse the list of links")?;
    let links = list["links"].as_array().context("a list of links")?;
    Ok(links
        .iter()
        .filter_map(|link| link["link_id"].as_str())
        .map(str::to_owned)
        .collect())
}
