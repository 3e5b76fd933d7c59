//! The few commands of bpf(2) that the loader library has no call for, on descriptors that the
//! type system keeps open. No pointer leaves this file.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const MAP_LOOKUP_ELEM: libc::c_long = 1;
const MAP_UPDATE_ELEM: libc::c_long = 2;
const MAP_DELETE_ELEM: libc::c_long = 3;
const MAP_GET_NEXT_KEY: libc::c_long = 4;
const PROG_LOAD: libc::c_long = 5;
const OBJ_GET: libc::c_long = 7;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const LINK_UPDATE: libc::c_long = 29;
const LINK_DETACH: libc::c_long = 34;

/// `struct { map_fd; key; value; flags }` of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct MapElement {
    map_fd: u32,
    reserved: u32,
    key: u64,
    value_or_next_key: u64,
    flags: u64,
}

/// `struct { pathname; bpf_fd; file_flags }`.
#[repr(C)]
#[derive(Default)]
struct Object {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// `struct { bpf_fd; info_len; info }`.
#[repr(C)]
#[derive(Default)]
struct Info {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// `struct { link_fd; new_prog_fd; flags; old_prog_fd }`.
#[repr(C)]
#[derive(Default)]
struct LinkUpdate {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

/// The head of the attributes of BPF_PROG_LOAD; the kernel takes what follows as zero.
#[repr(C)]
#[derive(Default)]
struct ProgramLoad {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    expected_attach_type: u32,
}

/// Answer of OBJ_GET_INFO_BY_FD for a cgroup link.
#[repr(C)]
#[derive(Default)]
struct CgroupLinkInfo {
    kind: u32,
    id: u32,
    program_id: u32,
    reserved: u32,
    cgroup_id: u64,
    attach_type: u32,
    reserved2: u32,
}

/// The head of the answer of OBJ_GET_INFO_BY_FD for a map.
#[repr(C)]
#[derive(Default)]
struct MapInfo {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
}

/// Runs one command; every address in `attributes` must hold for the length that the command
/// gives it in this kernel's `union bpf_attr`.
fn command<A>(command: libc::c_long, attributes: &mut A) -> io::Result<RawFd> {
    // SAFETY: `attributes` is a live, exclusive reference and its true size is passed, so the
    // kernel reads no byte beyond it. The callers in this file build every address in it from a
    // slice or a local that outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<A>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    RawFd::try_from(result).map_err(io::Error::other)
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

fn address<T>(bytes: &[T]) -> u64 {
    bytes.as_ptr() as u64
}

fn element(map: BorrowedFd<'_>, key: &[u8], value: u64, flags: u64) -> MapElement {
    MapElement {
        map_fd: raw(map),
        key: address(key),
        value_or_next_key: value,
        flags,
        ..MapElement::default()
    }
}

fn found(result: io::Result<RawFd>) -> io::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Reads into `value`, which must have the map's value size. `false`: no such key.
pub(crate) fn lookup(map: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
    let to = value.as_mut_ptr() as u64;
    found(command(MAP_LOOKUP_ELEM, &mut element(map, key, to, 0)))
}

pub(crate) fn update(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<()> {
    let mut attributes = element(map, key, address(value), 0);
    command(MAP_UPDATE_ELEM, &mut attributes).map(drop)
}

/// `false`: there was no such key.
pub(crate) fn delete(map: BorrowedFd<'_>, key: &[u8]) -> io::Result<bool> {
    found(command(MAP_DELETE_ELEM, &mut element(map, key, 0, 0)))
}

/// The key after `key` (`None`: the first one) into `next`. `false`: there is none.
pub(crate) fn next_key(
    map: BorrowedFd<'_>,
    key: Option<&[u8]>,
    next: &mut [u8],
) -> io::Result<bool> {
    let to = next.as_mut_ptr() as u64;
    let mut attributes = element(map, key.unwrap_or(&[]), to, 0);
    if key.is_none() {
        attributes.key = 0;
    }
    found(command(MAP_GET_NEXT_KEY, &mut attributes))
}

/// Opens what is pinned at `path`. `None`: nothing is.
pub(crate) fn open_pinned(path: &Path) -> io::Result<Option<OwnedFd>> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = Object {
        pathname: path.as_ptr() as u64,
        ..Object::default()
    };
    match command(OBJ_GET, &mut attributes) {
        Ok(fd) => Ok(Some(owned(fd))),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Puts `program` in the place of whatever `link` runs, in one step.
pub(crate) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = LinkUpdate {
        link_fd: raw(link),
        new_prog_fd: raw(program),
        ..LinkUpdate::default()
    };
    command(LINK_UPDATE, &mut attributes).map(drop)
}

/// Takes the link's program off its hook, whoever else holds the link.
pub(crate) fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = LinkUpdate {
        link_fd: raw(link),
        ..LinkUpdate::default()
    };
    // The command takes the descriptor alone; what follows it must be zero.
    command(LINK_DETACH, &mut attributes).map(drop)
}

/// The cgroup that a cgroup link is attached to; 0 once that cgroup has gone.
pub(crate) fn cgroup_of_link(link: BorrowedFd<'_>) -> io::Result<u64> {
    let mut info = CgroupLinkInfo::default();
    let mut attributes = Info {
        bpf_fd: raw(link),
        info_len: u32::try_from(size_of::<CgroupLinkInfo>()).map_err(io::Error::other)?,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    command(OBJ_GET_INFO_BY_FD, &mut attributes)?;
    Ok(info.cgroup_id)
}

/// Bytes of a map's keys and values.
pub(crate) fn map_sizes(map: BorrowedFd<'_>) -> io::Result<(usize, usize)> {
    let mut info = MapInfo::default();
    let mut attributes = Info {
        bpf_fd: raw(map),
        info_len: u32::try_from(size_of::<MapInfo>()).map_err(io::Error::other)?,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    command(OBJ_GET_INFO_BY_FD, &mut attributes)?;
    Ok((info.key_size as usize, info.value_size as usize))
}

/// Loads a program of a few instructions, to learn whether this kernel takes it.
pub(crate) fn load_program(
    kind: u32,
    expected_attach_type: u32,
    instructions: &[u64],
) -> io::Result<OwnedFd> {
    let mut attributes = ProgramLoad {
        kind,
        expected_attach_type,
        instruction_count: u32::try_from(instructions.len()).map_err(io::Error::other)?,
        instructions: address(instructions),
        license: c"GPL".as_ptr() as u64,
        ..ProgramLoad::default()
    };
    command(PROG_LOAD, &mut attributes).map(owned)
}

fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
