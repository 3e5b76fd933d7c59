//! Capacities of the maps and bounds of the loops, each with its unit. A map that is full refuses
//! the connection that needed room in it, counted; nothing is evicted.

/// Workers of the dataplane, each with a capture port of its own.
pub const WORKERS: u32 = 32;
/// Capture addresses of one family: a /22 of IPv4, a /118 of IPv6.
pub const ADDRESSES: u32 = 1024;
/// Slots: one for each worker and capture address.
pub const SLOTS: u32 = WORKERS * ADDRESSES;
/// Configured cgroups.
pub const CGROUPS: u32 = 16_384;
/// Ports at which workloads take probes, of all workloads together.
pub const PROBE_PORTS: u32 = 65_536;
/// Levels of the cgroup tree in which a configured ancestor is looked for, root included.
pub const CGROUP_DEPTH: u32 = 16;
/// Levels below a managed root whose cgroups are filed with a connection of a workload that nobody
/// knows yet: Kubernetes has a pod's at the first or second.
pub const LINEAGE: usize = 4;
/// Prefixes, of all classes together.
pub const VERDICTS: u32 = 262_144;
/// Ports that differ from their prefix, of all port sets together.
pub const PORTS: u32 = 262_144;
/// Local pods' and nodes' addresses.
pub const PLACES: u32 = 65_536;
/// Refusals that connect() repeats without asking the daemon.
pub const REFUSALS: u32 = 16_384;
/// Captured connections whose handshake with the daemon is not finished yet.
pub const CLAIMS: u32 = 65_536;
/// The same, of one cgroup.
pub const CLAIMS_PER_CGROUP: i64 = 4_096;
/// Counts of who waits in which accept queue.
pub const QUEUES: u32 = 65_536;
/// How long two sockets of one tuple leave their dispute behind, in nanoseconds: longer than
/// the kernel repeats a SYN.
pub const DISPUTE_NS: u64 = 300_000_000_000;
/// Connections of the daemon to local workloads, from before connect() to their end.
pub const DELIVERIES: u32 = 65_536;
/// Admitted connections whose handshake is not finished yet.
pub const ADMITTED: u32 = 65_536;
/// Bytes of the ring buffer of events.
pub const EVENTS_BYTES: u32 = 256 * 1024;
/// Extension headers of an IPv6 packet that the guard walks; a longer chain is dropped.
pub const EXTENSION_HEADERS: u32 = 6;
/// How long after its last beat a worker still gets connections, in nanoseconds.
pub const BEAT_FRESH_NS: u64 = 5_000_000_000;

const _: () = assert!(CLAIMS_PER_CGROUP * 16 <= CLAIMS as i64);
