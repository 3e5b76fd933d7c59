//! A share of one processor for a node's kedged, on whichever cgroup hierarchy has the controller.

use super::topology::Node;
use super::{Lab, Run, cgroup2};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// Where version 1 of the controller is, on systems that have it beside cgroup2.
const V1: &str = "/sys/fs/cgroup/cpu";
const PERIOD_US: u32 = 100_000;

/// The limit holds until this is dropped.
#[derive(Debug)]
pub struct Share {
    /// Of version 1: a cgroup made for it, which must go again.
    made: Option<PathBuf>,
    /// Of version 2: the file that takes the limit.
    limit: Option<PathBuf>,
}

impl Lab {
    /// Gives a node's kedged `percent` of one processor.
    ///
    /// # Errors
    /// When it does not run, or neither hierarchy has the controller.
    pub fn starve(&self, node: Node, percent: u32) -> Result<Share> {
        let pid = self.daemon(node)?.pid;
        let quota = PERIOD_US / 100 * percent;
        if Path::new(V1).join("cpu.cfs_quota_us").exists() {
            return starve_v1(&folder_v1(&self.run, node), pid, quota);
        }
        let root = cgroup2()?;
        let node = self.run.cgroup()?.join(node.name());
        for above in [&root, &self.run.cgroup()?, &node] {
            write(&above.join("cgroup.subtree_control"), "+cpu")?;
        }
        let limit = node.join("kedged/cpu.max");
        write(&limit, &format!("{quota} {PERIOD_US}"))?;
        Ok(Share {
            made: None,
            limit: Some(limit),
        })
    }
}

fn starve_v1(folder: &Path, pid: i32, quota: u32) -> Result<Share> {
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    let share = Share {
        made: Some(folder.to_owned()),
        limit: None,
    };
    write(&folder.join("cpu.cfs_period_us"), &PERIOD_US.to_string())?;
    write(&folder.join("cpu.cfs_quota_us"), &quota.to_string())?;
    write(&folder.join("cgroup.procs"), &pid.to_string())?;
    Ok(share)
}

impl Drop for Share {
    fn drop(&mut self) {
        // What cannot be undone goes with the lab.
        if let Some(limit) = &self.limit {
            let _ = fs::write(limit, "max");
        }
        if let Some(made) = &self.made {
            let _ = release(made);
        }
    }
}

/// Removes what a test that was ended has left.
///
/// # Errors
/// When it cannot be removed.
pub(super) fn delete(run: &Run) -> Result<()> {
    for node in super::topology::NODES {
        let folder = folder_v1(run, node);
        if folder.exists() {
            release(&folder)?;
        }
    }
    Ok(())
}

fn release(folder: &Path) -> Result<()> {
    for pid in fs::read_to_string(folder.join("cgroup.procs"))?.lines() {
        write(&Path::new(V1).join("cgroup.procs"), pid)?;
    }
    fs::remove_dir(folder).with_context(|| format!("remove {}", folder.display()))
}

fn folder_v1(run: &Run, node: Node) -> PathBuf {
    Path::new(V1).join(format!("kedge-{run}-{}", node.name()))
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("write {text} to {}", file.display()))
}
