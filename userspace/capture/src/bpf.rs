//! The few commands of bpf(2) that the loader library has no call for, on descriptors that the
//! type system keeps open. No pointer leaves this file.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const MAP_CREATE: libc::c_long = 0;
const MAP_LOOKUP_ELEM: libc::c_long = 1;
const MAP_UPDATE_ELEM: libc::c_long = 2;
const MAP_DELETE_ELEM: libc::c_long = 3;
const MAP_GET_NEXT_KEY: libc::c_long = 4;
const PROG_LOAD: libc::c_long = 5;
const OBJ_GET: libc::c_long = 7;
const PROG_GET_FD_BY_ID: libc::c_long = 13;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const PROG_QUERY: libc::c_long = 16;
const LINK_UPDATE: libc::c_long = 29;
const LINK_DETACH: libc::c_long = 34;

const MAP_TYPE_ARRAY: u32 = 2;
const MAP_TYPE_ARRAY_OF_MAPS: u32 = 12;

/// `struct { map_type; key_size; value_size; max_entries; map_flags; inner_map_fd }`.
#[repr(C)]
#[derive(Default)]
struct MapCreate {
    kind: u32,
    key_size: u32,
    value_size: u32,
    entries_max: u32,
    flags: u32,
    inner_map: u32,
}

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
pub(crate) struct CgroupLink {
    kind: u32,
    id: u32,
    pub(crate) program_id: u32,
    reserved: u32,
    pub(crate) cgroup_id: u64,
    pub(crate) attach_type: u32,
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

/// `query` of `union bpf_attr`, to its end: the kernel writes into all of it.
#[repr(C)]
#[derive(Default)]
struct ProgramQuery {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    program_ids: u64,
    program_count: u32,
    reserved: u32,
    program_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// `struct { prog_id; next_id; open_flags }`.
#[repr(C)]
#[derive(Default)]
struct ProgramId {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

/// The head of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Default)]
struct ProgramInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited_len: u32,
    translated_len: u32,
    jited: u64,
    translated: u64,
    load_time: u64,
    created_by_uid: u32,
    map_count: u32,
    map_ids: u64,
    name: [u8; 16],
}

const _: () = assert!(std::mem::offset_of!(ProgramInfo, name) == 64);

/// Programs that one cgroup may have at one hook (BPF_CGROUP_MAX_PROGS).
const PROGRAMS_MAX: usize = 64;

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

/// Returns when every program that runs now has ended, with whatever it had read of maps by then. The
/// kernel waits for that when a map of maps is written (`maybe_wait_bpf_programs` in
/// kernel/bpf/syscall.c), so this writes to one of its own.
pub(crate) fn wait_for_programs() -> io::Result<()> {
    let mut attributes = MapCreate {
        kind: MAP_TYPE_ARRAY,
        key_size: 4,
        value_size: 4,
        entries_max: 1,
        ..MapCreate::default()
    };
    let inner = owned(command(MAP_CREATE, &mut attributes)?);
    attributes.kind = MAP_TYPE_ARRAY_OF_MAPS;
    attributes.inner_map = raw(inner.as_fd());
    let outer = owned(command(MAP_CREATE, &mut attributes)?);
    let entry = raw(inner.as_fd()).to_ne_bytes();
    update(outer.as_fd(), &[0; 4], &entry)
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

/// Where a cgroup link is attached; its cgroup is 0 once that has gone.
pub(crate) fn cgroup_link(link: BorrowedFd<'_>) -> io::Result<CgroupLink> {
    let mut info = CgroupLink::default();
    let mut attributes = Info {
        bpf_fd: raw(link),
        info_len: u32::try_from(size_of::<CgroupLink>()).map_err(io::Error::other)?,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    command(OBJ_GET_INFO_BY_FD, &mut attributes)?;
    Ok(info)
}

/// Ids of the programs that are attached to this cgroup itself, in the order in which they run.
pub(crate) fn programs_of(cgroup: BorrowedFd<'_>, attach_type: u32) -> io::Result<Vec<u32>> {
    let mut ids = [0_u32; PROGRAMS_MAX];
    let mut attributes = ProgramQuery {
        target_fd: raw(cgroup),
        attach_type,
        program_ids: ids.as_mut_ptr() as u64,
        program_count: u32::try_from(PROGRAMS_MAX).map_err(io::Error::other)?,
        ..ProgramQuery::default()
    };
    command(PROG_QUERY, &mut attributes)?;
    let count = usize::try_from(attributes.program_count).map_err(io::Error::other)?;
    Ok(ids.iter().take(count).copied().collect())
}

/// The name of the program with this id, as the kernel keeps it.
pub(crate) fn name_of_program(id: u32) -> io::Result<String> {
    let mut by_id = ProgramId {
        id,
        ..ProgramId::default()
    };
    let program = owned(command(PROG_GET_FD_BY_ID, &mut by_id)?);
    let mut info = ProgramInfo::default();
    let mut attributes = Info {
        bpf_fd: raw(program.as_fd()),
        info_len: u32::try_from(size_of::<ProgramInfo>()).map_err(io::Error::other)?,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    command(OBJ_GET_INFO_BY_FD, &mut attributes)?;
    let name = info.name.split(|byte| *byte == 0).next();
    Ok(String::from_utf8_lossy(name.unwrap_or_default()).into_owned())
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
