//! Goal: nothing goes past the daemon to or from a pod in `require`, whatever the daemon does; what
//! is exempt passes. Each bypass is tried on a pod in mode off too, where it works.
//!
//! ```text
//!  node a's own processes ─┐                                         ┌─ node b's own processes, kubelet
//!  client  require ────────┤ kedged a ────── wire, tcpdump ──────── kedged b ├─ load     require
//!  bare    off ────────────┘  (dead, stopped, hung, starved)         └─ bareload off
//! ```

mod absent;
mod capable;
mod dropped;
mod older;
mod passed;

use anyhow::Result;
use serde_json::Value;
use std::path::Path;
use xtask::lab::Lab;
use xtask::lab::process::command_in;
use xtask::lab::topology::{Node, Place};
use xtask::shell::finish;

/// Whether somebody in `cgroup` at `place` exchanges bytes with a load server within three seconds.
fn enters_from(lab: &Lab, place: Place, cgroup: &Path, server: &str) -> Result<bool> {
    let program = lab.tools.load.display().to_string();
    let words = ["timeout", "3", &program, "peer", server];
    let done = finish(&mut command_in(&lab.run, place, cgroup, &words))?;
    Ok(done.status.success())
}

/// The same for a process of the place itself: a node's is in no workload's cgroup.
fn enters(lab: &Lab, place: impl Into<Place>, server: &str) -> Result<bool> {
    let place = place.into();
    enters_from(lab, place, &lab.run.cgroup_of(place)?, server)
}

fn drops(event: &Value, to: &str) -> bool {
    event["kind"] == "guard-dropped" && event["original_destination"] == to
}

/// A counter of a node's programs.
fn counted(lab: &Lab, node: Node, name: &str) -> Result<u64> {
    let status: Value = serde_json::from_str(&lab.kedge(node, &["status", "--json"])?)?;
    let counters = &status["capture"]["counters"];
    counters[name]
        .as_u64()
        .ok_or_else(|| anyhow::anyhow!("no counter {name}: {counters}"))
}
