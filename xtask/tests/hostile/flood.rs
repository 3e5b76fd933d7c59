//! Strangers without end at the peer port. How long the slowest flow takes is a figure of the bench.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::time::Duration;
use xtask::lab::Lab;
use xtask::lab::topology::{CLIENT, Node};
use xtask::shell::wait_for;
use xtask::stage::{becomes_reachable, load, play, server};
use xtask::strangers;

#[test]
fn every_flow_opens_while_strangers_flood_the_peer_port() {
    play(|lab| {
        // The claim is about flows: the link is there.
        becomes_reachable(lab, &CLIENT)?;
        for (stranger, counted) in [("tls-hello", "links.failed."), ("silent", "strangers.")] {
            let before = refused(lab, counted)?;
            let mut flood = strangers::flood(lab, stranger)?;
            wait_for("strangers to be refused", Duration::from_secs(30), || {
                Ok((refused(lab, counted)? > before + 100).then_some(()))
            })?;
            let made: Value = load(lab, &CLIENT, &["connect", &server(), "--count", "50"])?;
            ensure!(made["count"] == 50, "beside {stranger}: {made}");
            flood.goes_on()?;
        }
        Ok(())
    });
}

/// How many strangers node b has counted.
fn refused(lab: &Lab, kind: &str) -> Result<u64> {
    let status: Value = serde_json::from_str(&lab.kedge(Node::B, &["status", "--json"])?)?;
    let counters = status["counters"].as_object().context("counters")?;
    let of_kind = counters.iter().filter(|(name, _)| name.starts_with(kind));
    Ok(of_kind.filter_map(|(_, count)| count.as_u64()).sum())
}
