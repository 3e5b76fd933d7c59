//! The run's cgroup tree: one cgroup per node, below it kedged's, the pods', the kubelet's, and
//! one for what runs on the node itself. Everything that the lab starts is in it, so that the
//! kernel knows what to end, even when nobody else remembers.

use super::run::Run;
use super::topology::NODES;
use crate::shell::wait_for;
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// # Errors
/// When a cgroup cannot be made.
pub fn create(run: &Run) -> Result<()> {
    let root = run.cgroup()?;
    for node in NODES {
        let node_root = root.join(node.name());
        for leaf in ["kedged", "kubelet", "host"] {
            make(&node_root.join(leaf))?;
        }
        for pod in node.pods() {
            make(&node_root.join("pods").join(pod.name))?;
        }
    }
    Ok(())
}

/// Ends every process in the run's cgroups, then removes them.
///
/// # Errors
/// When a process outlives being killed, or a cgroup cannot be removed.
pub fn delete(run: &Run) -> Result<()> {
    let root = run.cgroup()?;
    if !root.exists() {
        return Ok(());
    }
    kill(&root)?;
    remove(&root)
}

/// Ends every process in `cgroup` and below it.
///
/// # Errors
/// When one of them is still there ten seconds later.
pub fn kill(cgroup: &Path) -> Result<()> {
    let file = cgroup.join("cgroup.kill");
    fs::write(&file, "1").with_context(|| format!("write {}", file.display()))?;
    wait_for(
        "the processes of the cgroup to end",
        Duration::from_secs(10),
        || {
            let events = fs::read_to_string(cgroup.join("cgroup.events"))?;
            Ok(events.contains("populated 0").then_some(()))
        },
    )
}

fn make(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("create cgroup {}", path.display()))
}

fn remove(cgroup: &Path) -> Result<()> {
    for entry in fs::read_dir(cgroup)?.flatten() {
        if entry.path().is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(cgroup).with_context(|| format!("remove cgroup {}", cgroup.display()))
}
