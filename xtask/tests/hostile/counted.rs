//! Whatever a hostile peer does is counted at node b under a name of its own, and told.

use anyhow::{Context, Result};
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
    refusal: (&str, &str),
    act: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let before = Before::now(lab, node, refusal.0)?;
    act().with_context(|| format!("{}: {}", refusal.0, refusal.1))?;
    before.refused_since(lab, refusal)
}

/// What a node had counted and told.
pub struct Before {
    node: Node,
    count: u64,
    told: u64,
}

impl Before {
    pub fn now(lab: &Lab, node: Node, counter: &str) -> Result<Self> {
        Ok(Self {
            node,
            count: count(lab, node, counter)?,
            told: told(lab, node)?.last().map_or(0, |(number, _)| *number),
        })
    }

    /// Waits until one more is counted under `counter`, and told with `text`.
    pub fn refused_since(&self, lab: &Lab, refusal: (&str, &str)) -> Result<()> {
        let (counter, text) = refusal;
        let what = format!(
            "node {} to count {counter} and say {text:?}",
            self.node.name()
        );
        wait_for(&what, Duration::from_secs(8), || {
            Ok(self.was_refused(lab, refusal)?.then_some(()))
        })
    }

    /// Whether that is so by now. In one second a node tells only the first of a kind.
    pub fn was_refused(&self, lab: &Lab, (counter, text): (&str, &str)) -> Result<bool> {
        let counted = count(lab, self.node, counter)? > self.count;
        let mut events = told(lab, self.node)?.into_iter();
        Ok(counted && events.any(|(number, event)| number > self.told && event.contains(text)))
    }
}

/// The events that a node remembers, with their numbers: the oldest are forgotten.
fn told(lab: &Lab, node: Node) -> Result<Vec<(u64, String)>> {
    let numbered = |line: &str| {
        let event: Value = serde_json::from_str(line).context("parse an event")?;
        let number = event["number"].as_u64().context("an event has a number")?;
        Ok((number, line.to_owned()))
    };
    lab.events(node)?.lines().map(numbered).collect()
}
