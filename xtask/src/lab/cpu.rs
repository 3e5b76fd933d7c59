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
    cgroup: PathBuf,
    /// Of version 1: made for this, and must go again.
    made: bool,
}

impl Share {
    /// How often the daemon had used up its share and had to wait.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn waits(&self) -> Result<u64> {
        let file = self.cgroup.join("cpu.stat");
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("nr_throttled "));
        line.context("no nr_throttled in cpu.stat")?
            .parse()
            .context("parse nr_throttled")
    }
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
        let share = Share {
            cgroup: node.join("kedged"),
            made: false,
        };
        write(
            &share.cgroup.join("cpu.max"),
            &format!("{quota} {PERIOD_US}"),
        )?;
        Ok(share)
    }
}

fn starve_v1(folder: &Path, pid: i32, quota: u32) -> Result<Share> {
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    let share = Share {
        cgroup: folder.to_owned(),
        made: true,
    };
    write(&folder.join("cpu.cfs_period_us"), &PERIOD_US.to_string())?;
    write(&folder.join("cpu.cfs_quota_us"), &quota.to_string())?;
    write(&folder.join("cgroup.procs"), &pid.to_string())?;
    Ok(share)
}

impl Drop for Share {
    fn drop(&mut self) {
        // What cannot be undone goes with the lab.
        let _ = match self.made {
            true => release(&self.cgroup),
            false => write(&self.cgroup.join("cpu.max"), "max"),
        };
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
