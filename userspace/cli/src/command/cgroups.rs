//! Cgroups by the number that the kernel knows them by.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Directories that are looked at; a node has some thousand.
const CGROUPS_MAX: usize = 65_536;

/// The cgroup2 tree as it was found.
pub struct Cgroups {
    by_id: HashMap<u64, PathBuf>,
}

impl Cgroups {
    pub fn find() -> Self {
        let mut cgroups = Self {
            by_id: HashMap::new(),
        };
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        if let Some(mount) = mount_of_cgroup2(&mounts) {
            cgroups.add(mount);
        }
        cgroups
    }

    fn add(&mut self, cgroup: PathBuf) {
        let mut found = vec![cgroup];
        while let Some(cgroup) = found.pop().filter(|_| self.by_id.len() < CGROUPS_MAX) {
            let entries = fs::read_dir(&cgroup).into_iter().flatten().flatten();
            let is_directory = |kind: fs::FileType| kind.is_dir();
            let below = entries.filter(|entry| entry.file_type().is_ok_and(is_directory));
            found.extend(below.map(|entry| entry.path()));
            if let Ok(metadata) = fs::metadata(&cgroup) {
                self.by_id.insert(metadata.ino(), cgroup);
            }
        }
    }

    pub fn path(&self, id: u64) -> Option<&Path> {
        self.by_id.get(&id).map(PathBuf::as_path)
    }

    pub fn above<'a>(&'a self, cgroup: &'a Path) -> impl Iterator<Item = &'a Path> {
        let is_above = move |path: &&Path| cgroup != *path && cgroup.starts_with(path);
        self.by_id.values().map(PathBuf::as_path).filter(is_above)
    }

    pub fn at_and_below<'a>(&'a self, cgroup: &'a Path) -> impl Iterator<Item = &'a Path> {
        let is_below = move |path: &&Path| path.starts_with(cgroup);
        self.by_id.values().map(PathBuf::as_path).filter(is_below)
    }
}

fn mount_of_cgroup2(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let place = words.next()?;
        (words.next()? == "cgroup2").then(|| place.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup2_is_found_by_its_kind() {
        let mounts = "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\ncgroup2 /x/unified cgroup2 rw 0 0\n";
        assert_eq!(mount_of_cgroup2(mounts), Some("/x/unified".into()));
    }
}
