//! Goal: daemons follow each other, also of another ABI and also when the follower is killed at
//! any step, and no new connection is refused, misdirected or unguarded.
//!
//! ```text
//!  client ─┐        kedged a, n          kedged b, n          ┌─ load     short connections, both ways
//!  local  ─┴─────── kedged a, n+1 ══════ kedged b, n+1 ───────┘
//!                        │ one after the other │
//!                   same listening sockets, same links in the kernel, own tables
//! ```

mod changes;
mod ends;
mod load;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::time::Duration;
use xtask::artifacts;
use xtask::lab::process::Process;
use xtask::lab::topology::Node;
use xtask::lab::{Build, Lab};
use xtask::shell::wait_for;

/// The build under test, with as many workers.
fn present(lab: &Lab, workers: usize) -> Build {
    Build {
        kedged: lab.tools.kedged.clone(),
        object: lab.tools.object.clone(),
        lines: format!("\n[workers]\ncount = {workers}\n"),
    }
}

/// The same ABI, and dies where it is told to.
fn faulty(lab: &Lab) -> Result<Build> {
    Ok(Build {
        kedged: artifacts::build_faulty_kedged()?,
        ..present(lab, 2)
    })
}

/// The next ABI, whose tables have another layout; dies where it is told to.
fn next(workers: usize) -> Result<Build> {
    let next = artifacts::build_next()?;
    Ok(Build {
        kedged: next.kedged,
        object: next.object,
        lines: format!("\n[workers]\ncount = {workers}\n"),
    })
}

/// Lets `build` follow the daemon of this node, and waits until it serves.
fn follow(lab: &mut Lab, node: Node, build: &Build) -> Result<()> {
    let follower = lab.start_build(node, build, None)?;
    wait_for("the follower to serve", Duration::from_secs(20), || {
        ensure!(follower.is_alive(), "it ended");
        Ok((serving(lab, node)? == follower.pid).then_some(()))
    })
    .with_context(|| xtask::lab::process::tail(&lab.run, &follower.name))
}

/// The process that answers for this node.
fn serving(lab: &Lab, node: Node) -> Result<i32> {
    let status: Value = serde_json::from_str(&lab.kedge(node, &["status", "--json"])?)?;
    let pid = status["pid"].as_i64().context("a process id")?;
    Ok(i32::try_from(pid)?)
}

fn ended(process: &Process) -> Result<()> {
    process.ended_within(Duration::from_secs(20))
}
