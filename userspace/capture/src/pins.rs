//! Where things are pinned:
//!
//! ```text
//! <bpffs>/links/<program>     what is attached; outlives every layout, changed in place
//! <bpffs>/abi-<n>/<MAP>       the maps of ABI n, shared by all generations that speak it
//! ```
//!
//! A new generation loads its programs against the maps that are there, and then takes the links
//! over one by one with BPF_LINK_UPDATE: what only reads first, connect last. At every moment
//! each hook runs exactly one program, the old one or the new one, on the same maps.

use crate::bpf;
use crate::error::CaptureError;
use crate::table::{Plain, Table};
use kedge_abi::{ABI_VERSION, program};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, CGROUP2_SUPER_MAGIC, FsType, statfs};
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const STANDARD_MOUNT_POINT: &str = "/sys/fs/bpf";

#[derive(Debug)]
pub(crate) struct Pins {
    bpffs: PathBuf,
}

impl Pins {
    /// Makes the directories, on a BPF file system that is there or can be mounted.
    pub(crate) fn create(bpffs: &Path) -> Result<Self, CaptureError> {
        ensure_bpffs(bpffs)?;
        let pins = Self {
            bpffs: bpffs.to_owned(),
        };
        for directory in [pins.links(), pins.maps()] {
            fs::create_dir_all(&directory)
                .map_err(CaptureError::system("make directory", directory.display()))?;
        }
        Ok(pins)
    }

    fn links(&self) -> PathBuf {
        self.bpffs.join("links")
    }

    fn maps(&self) -> PathBuf {
        self.bpffs.join(format!("abi-{ABI_VERSION}"))
    }

    pub(crate) fn map(&self, name: &str) -> PathBuf {
        self.maps().join(name)
    }

    /// A descriptor of a pinned map.
    pub(crate) fn open_map(&self, name: &'static str) -> Result<OwnedFd, CaptureError> {
        let path = self.map(name);
        let map = bpf::open_pinned(&path);
        let map = map.map_err(CaptureError::system("open", path.display()))?;
        map.ok_or(CaptureError::Object {
            what: "map",
            name: name.to_owned(),
        })
    }

    pub(crate) fn table<K: Plain, V: Plain>(
        &self,
        name: &'static str,
    ) -> Result<Table<K, V>, CaptureError> {
        Ok(Table::new(self.open_map(name)?))
    }

    pub(crate) fn link(&self, program: &str) -> PathBuf {
        self.links().join(program)
    }

    /// Puts `program` where an earlier generation's one is attached to `cgroup`. `false`: nothing
    /// is attached there under this name, so the caller attaches.
    pub(crate) fn take_over(
        &self,
        name: &str,
        program: BorrowedFd<'_>,
        cgroup: u64,
    ) -> io::Result<bool> {
        let path = self.link(name);
        let Some(link) = bpf::open_pinned(&path)? else {
            return Ok(false);
        };
        if bpf::cgroup_of_link(link.as_fd())? != cgroup {
            // The cgroup has gone, or the configuration names another one.
            fs::remove_file(&path)?;
            return Ok(false);
        }
        bpf::update_link(link.as_fd(), program)?;
        Ok(true)
    }
}

/// Detaches every program that is pinned below `bpffs` and removes every pin: connect first, so
/// that no connection is redirected to where nobody files it. Needs no daemon and no
/// configuration; a directory that is not there is no error.
///
/// # Errors
/// If a program cannot be detached or a pin cannot be removed.
pub fn off(bpffs: &Path) -> Result<(), CaptureError> {
    let links = bpffs.join("links");
    for name in program::ALL.iter().rev() {
        detach(&links.join(name)).map_err(CaptureError::system("detach", name))?;
    }
    // What a later version attached under names that this one does not know.
    for path in entries(&links).map_err(CaptureError::system("list", links.display()))? {
        detach(&path).map_err(CaptureError::system("detach", path.display()))?;
    }
    remove_tree(bpffs).map_err(CaptureError::system("remove pins", bpffs.display()))
}

fn detach(path: &Path) -> io::Result<()> {
    match bpf::open_pinned(path)? {
        Some(link) => {
            bpf::detach_link(link.as_fd())?;
            fs::remove_file(path)
        }
        None => Ok(()),
    }
}

fn remove_tree(directory: &Path) -> io::Result<()> {
    for path in entries(directory)? {
        if path.is_dir() {
            remove_tree(&path)?;
        } else {
            fs::remove_file(&path)?;
        }
    }
    ignore_absent(fs::remove_dir(directory))
}

fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn ignore_absent(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The id by which programs know a cgroup: the inode number of its directory.
///
/// # Errors
/// If the directory cannot be read.
pub fn cgroup_id(cgroup: &Path) -> io::Result<u64> {
    fs::metadata(cgroup).map(|metadata| metadata.ino())
}

pub(crate) fn check_cgroup2(path: &Path) -> Result<(), CaptureError> {
    if is_on(path, CGROUP2_SUPER_MAGIC)? {
        return Ok(());
    }
    Err(CaptureError::Environment {
        path: path.to_owned(),
        remedy: "is not on a cgroup2 file system; `grep cgroup2 /proc/mounts` shows where one is",
    })
}

fn ensure_bpffs(path: &Path) -> Result<(), CaptureError> {
    let existing = path.ancestors().find(|ancestor| ancestor.exists());
    let existing = existing.unwrap_or(Path::new("/"));
    if is_on(existing, BPF_FS_MAGIC)? {
        return Ok(());
    }
    let standard = Path::new(STANDARD_MOUNT_POINT);
    if existing == standard
        && mount(
            Some("bpf"),
            standard,
            Some("bpf"),
            MsFlags::empty(),
            None::<&str>,
        )
        .is_ok()
    {
        return Ok(());
    }
    Err(CaptureError::Environment {
        path: path.to_owned(),
        remedy: "is not on a BPF file system; run `mount -t bpf bpf /sys/fs/bpf`",
    })
}

fn is_on(path: &Path, magic: FsType) -> Result<bool, CaptureError> {
    let status = statfs(path)
        .map_err(io::Error::from)
        .map_err(CaptureError::system("statfs", path.display()))?;
    Ok(status.filesystem_type() == magic)
}
