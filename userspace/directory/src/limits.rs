//! Every bound of this crate, with its unit.

/// Bytes of a directory.
pub const TEXT_BYTES_MAX: usize = 64 << 20;
pub const NODES_MAX: usize = 10_000;
pub const WORKLOADS_MAX: usize = 100_000;
pub const SERVICES_MAX: usize = 50_000;
pub const MANAGED_PREFIXES_MAX: usize = 1_024;
/// Endpoints of one service.
pub const ENDPOINTS_MAX: usize = 10_000;
/// Addresses of one node, workload or service.
pub const ADDRESSES_MAX: usize = 16;
/// Bytes of a workload's uid: it travels in record 0 (docs/protocol.md).
pub const UID_BYTES_MAX: usize = 64;
