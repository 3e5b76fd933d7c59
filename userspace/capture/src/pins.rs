//! Where things are pinned:
//!
//! ```text
//! <bpffs>/links/<program>       what is attached; outlives every layout, changed in place
//! <bpffs>/state-<m>/<MAP>       what is filed about single connections, in layout m
//! <bpffs>/generation-<k>/<MAP>  the tables of generation k, which no other one reads or writes
//! ```
//!
//! A new generation makes tables of its own, fills them, and only then takes the links over one
//! by one with BPF_LINK_UPDATE: what only reads first, connect last. At every moment each hook
//! runs exactly one program, the old one or the new one, and both file in the same state.

use crate::bpf;
use crate::error::CaptureError;
use crate::table::{Plain, Table};
use aya::maps::{Map, MapData, RingBuf};
use kedge_abi::{ABI_VERSION, Root, STATE_VERSION, map, program};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, CGROUP2_SUPER_MAGIC, FsType, statfs};
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const STANDARD_MOUNT_POINT: &str = "/sys/fs/bpf";

const GENERATION: &str = "generation-";

#[derive(Debug)]
pub(crate) struct Pins {
    bpffs: PathBuf,
    /// One more than any that is or was begun here.
    pub(crate) generation: u64,
}

impl Pins {
    /// Makes the directories of a new generation, on a BPF file system that is there or can be
    /// mounted.
    pub(crate) fn create(bpffs: &Path) -> Result<Self, CaptureError> {
        ensure_directory(bpffs)?;
        let held = generations(bpffs);
        let held = held.map_err(CaptureError::system("list", bpffs.display()))?;
        let newest = held.iter().map(|(number, _)| *number).max();
        let pins = Self {
            bpffs: bpffs.to_owned(),
            generation: newest.unwrap_or(0) + 1,
        };
        for directory in [pins.links(), pins.state(), pins.tables()] {
            fs::create_dir_all(&directory)
                .map_err(CaptureError::system("make directory", directory.display()))?;
        }
        Ok(pins)
    }

    /// The generations that are there, the newest first, for a reader.
    pub(crate) fn existing(bpffs: &Path) -> io::Result<Vec<Self>> {
        let mut numbers: Vec<_> = generations(bpffs)?.into_iter().map(|(n, _)| n).collect();
        numbers.sort_unstable_by(|one, other| other.cmp(one));
        let pins = numbers.into_iter().map(|generation| Self {
            bpffs: bpffs.to_owned(),
            generation,
        });
        Ok(pins.collect())
    }

    /// The other generations that are there.
    pub(crate) fn others(&self) -> io::Result<Vec<Self>> {
        let mut all = Self::existing(&self.bpffs)?;
        all.retain(|pins| pins.generation != self.generation);
        Ok(all)
    }

    /// What the programs of this generation tell, if their words are ours.
    pub(crate) fn ring_of_this_layout(&self) -> Option<RingBuf<MapData>> {
        let root: Table<u32, Root> = self.table(map::ROOT).ok()?;
        if root.look_up(&0).ok()??.abi_version != ABI_VERSION {
            return None;
        }
        let ring = MapData::from_pin(self.map(map::EVENTS)).ok()?;
        RingBuf::try_from(Map::RingBuf(ring)).ok()
    }

    fn links(&self) -> PathBuf {
        self.bpffs.join("links")
    }

    fn state(&self) -> PathBuf {
        self.bpffs.join(format!("state-{STATE_VERSION}"))
    }

    fn tables(&self) -> PathBuf {
        self.bpffs.join(format!("{GENERATION}{}", self.generation))
    }

    pub(crate) fn map(&self, name: &str) -> PathBuf {
        if map::STATE.contains(&name) {
            self.state().join(name)
        } else {
            self.tables().join(name)
        }
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

    /// # Errors
    /// Also where the object file has another layout than this program.
    pub(crate) fn table<K: Plain, V: Plain>(
        &self,
        name: &'static str,
    ) -> Result<Table<K, V>, CaptureError> {
        let map = self.open_map(name)?;
        let sizes = bpf::map_sizes(map.as_fd()).map_err(CaptureError::system("look at", name))?;
        if sizes != (size_of::<K>(), size_of::<V>()) {
            return Err(CaptureError::Layout { name });
        }
        Ok(Table::new(map))
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
        let Some(link) = bpf::open_pinned(&self.link(name))? else {
            return Ok(false);
        };
        // Another one: the cgroup has gone, or the configuration names another one.
        let same = bpf::cgroup_link(link.as_fd())?.cgroup_id == cgroup;
        if same {
            bpf::update_link(link.as_fd(), program)?;
        }
        Ok(same)
    }

    /// Where a new link is pinned before [`Pins::replace_link`]. (Names with a dot are reserved
    /// on a BPF file system.)
    pub(crate) fn new_link(&self, program: &str) -> io::Result<PathBuf> {
        let path = self.link(&format!("{program}-new"));
        ignore_absent(fs::remove_file(&path))?;
        Ok(path)
    }

    /// Gives a new link its name. One that had the name is detached by that, if its cgroup lives
    /// still: never before the new one is attached.
    pub(crate) fn replace_link(&self, program: &str) -> io::Result<()> {
        let new = self.link(&format!("{program}-new"));
        fs::rename(new, self.link(program))
    }

    /// Removes the tables of other generations; who still uses them holds them by descriptor.
    pub(crate) fn forget_others(&self) -> io::Result<()> {
        for (number, path) in generations(&self.bpffs)? {
            if number != self.generation {
                remove_tree(&path)?;
            }
        }
        Ok(())
    }
}

/// The generations of which there are tables, with their directories.
fn generations(bpffs: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let number = |path: &PathBuf| {
        let name = path.file_name()?.to_str()?;
        name.strip_prefix(GENERATION)?.parse().ok()
    };
    let all = entries(bpffs)?.into_iter();
    Ok(all
        .filter_map(|path| Some((number(&path)?, path)))
        .collect())
}

/// Makes `bpffs`, on a BPF file system that is there or can be mounted.
pub(crate) fn ensure_directory(bpffs: &Path) -> Result<(), CaptureError> {
    ensure_bpffs(bpffs)?;
    fs::create_dir_all(bpffs).map_err(CaptureError::system("make directory", bpffs.display()))
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
