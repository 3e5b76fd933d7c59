//! Whatever a hostile peer does is counted at node b under a name of its own, and told.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::time::Duration;
use xtask::lab::Lab;
use xtask::lab::topology::Node;
use xtask::shell::wait_for;

/// A counter of a node's daemon; one that never counted anything is not there yet.
pub fn count(lab: &Lab, node: Node, counter: &str) -> Result<u64> {
    let status: Value = serde_json::from_str(&lab.kedge(node, &["status", "--json"])?)?;
    Ok(status["counters"][counter].as_u64().unwrap_or(0))
}

/// Plays `act`, which a node must refuse: counted under `counter`, and told with `text`.
pub fn refused_as(
    lab: &Lab,
    node: Node,
    (counter, text): (&str, &str),
    act: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let before = count(lab, node, counter)?;
    let told = lab.events(node)?.lines().count();
    act().with_context(|| format!("{counter}: {text}"))?;
    let what = format!("node {} to count {counter} and say {text:?}", node.name());
    wait_for(&what, Duration::from_secs(8), || {
        ensure!(count(lab, node, counter)? > before, "not counted");
        let events = lab.events(node)?;
        let says = events.lines().skip(told).any(|event| event.contains(text));
        ensure!(says, "counted, and not told");
        Ok(Some(()))
    })
}
