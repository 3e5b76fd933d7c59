//! A lab's name, and every path that follows from it.

use super::topology::{Node, Place};
use crate::shell::wait_for;
use anyhow::{Context, Result, bail};
use std::fmt;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// Names one lab on this machine. Everything that a lab makes carries it, so that two labs never
/// meet and everything of one can be found again from its name alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run(String);

impl FromStr for Run {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        // No dash: `kedge-RUN-` then is a prefix of this run's names and of no other's.
        let valid = (1..=12).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if !valid {
            bail!("run {text:?}: 1 to 12 lower-case letters and digits, please");
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Run {
    /// Configurations, data, logs and sockets of everything in the lab.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        format!("/run/kedge-{self}").into()
    }

    #[must_use]
    pub fn node_folder(&self, node: Node) -> PathBuf {
        self.folder().join(node.name())
    }

    #[must_use]
    pub fn log(&self, process: &str) -> PathBuf {
        self.folder().join("log").join(format!("{process}.log"))
    }

    #[must_use]
    pub fn pins(&self) -> PathBuf {
        format!("/sys/fs/bpf/kedge-{self}").into()
    }

    /// # Errors
    /// When no cgroup2 is mounted.
    pub fn cgroup(&self) -> Result<PathBuf> {
        Ok(cgroup2()?.join(format!("kedge-{self}")))
    }

    /// The cgroup that a process at `place` belongs to.
    ///
    /// # Errors
    /// When no cgroup2 is mounted.
    pub fn cgroup_of(&self, place: Place) -> Result<PathBuf> {
        let node = self.cgroup()?.join(place.node().name());
        Ok(match place {
            Place::Node(_) => node.join("host"),
            Place::Pod(pod) => node.join("pods").join(pod.name),
        })
    }

    #[must_use]
    pub fn netns_prefix(&self) -> String {
        format!("kedge-{self}-")
    }

    /// Taken by whoever makes, owns or removes the lab; freed by the kernel when they are gone.
    ///
    /// # Errors
    /// When somebody else holds it for longer than a clean-up takes.
    pub fn lock(&self) -> Result<Lock> {
        let path = PathBuf::from(format!("/run/lock/kedge-{self}.lock"));
        // Containers often begin with an empty /run.
        fs::create_dir_all("/run/lock").context("make /run/lock")?;
        let what =
            format!("lab {self}, which another process uses (end it, or choose another --run)");
        wait_for(&what, Duration::from_secs(15), || {
            let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
            if file.try_lock().is_err() {
                return Ok(None);
            }
            // The previous owner may have removed the name between our open and our lock.
            let ours = file.metadata()?.ino();
            let is_named = fs::metadata(&path).is_ok_and(|named| named.ino() == ours);
            Ok(is_named.then(|| Lock {
                path: path.clone(),
                _file: file,
            }))
        })
    }
}

/// See [`Run::lock`].
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    _file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Still held here: nobody can have locked a file of this name since.
        let _ = fs::remove_file(&self.path);
    }
}

/// Where cgroup2 is mounted: its own place on most systems, below it on hybrid ones.
///
/// # Errors
/// When it is mounted nowhere.
pub fn cgroup2() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").context("read /proc/mounts")?;
    mount_of(&mounts, "cgroup2")
        .context("no cgroup2 in /proc/mounts: mount it, for instance on /sys/fs/cgroup/unified")
}

fn mount_of(mounts: &str, kind: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let place = words.next()?;
        (words.next()? == kind).then(|| Path::new(place).to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_name_has_no_dash_and_no_path_in_it() {
        for odd in ["", "a-b", "../x", "A", "waytoolongforarun"] {
            assert!(odd.parse::<Run>().is_err(), "{odd:?} was accepted");
        }
        let run: Run = "lab".parse().expect("literal");
        assert_eq!(run.folder(), Path::new("/run/kedge-lab"));
    }

    #[test]
    fn cgroup2_is_found_by_its_kind() {
        let mounts = "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\ncgroup2 /x/unified cgroup2 rw 0 0\n";
        assert_eq!(mount_of(mounts, "cgroup2"), Some("/x/unified".into()));
        assert_eq!(mount_of(mounts, "bpf"), None);
    }
}
