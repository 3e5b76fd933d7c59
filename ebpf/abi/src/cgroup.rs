//! What a configured cgroup is: its mode class and its part in the play.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Mode classes: the first part of a verdict's key.
pub mod class {
    pub const OFF: u32 = 0;
    pub const PERMISSIVE: u32 = 1;
    pub const REQUIRE: u32 = 2;
    /// kedged's own cgroup; never captured.
    pub const DAEMON: u32 = 3;
}

/// What the cgroup is.
pub mod kind {
    pub const WORKLOAD: u32 = 0;
    /// Above workloads: what is unknown below it takes this entry's class.
    pub const MANAGED_ROOT: u32 = 1;
    /// Whose connections are admitted to `require` workloads, at declared ports (kubelet).
    pub const PROBE: u32 = 2;
    pub const DAEMON: u32 = 3;
}

/// Value of `CGROUPS`; its key is the cgroup id, a `u64`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct CgroupEntry {
    /// One of [`class`].
    pub class: u32,
    /// One of [`kind`].
    pub kind: u32,
}

const _: () = assert!(size_of::<CgroupEntry>() == 8);

/// Key of `PROBE_PORTS`: a port at which a workload takes probes. Its value, a `u32`, says nothing.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct ProbePort {
    /// The workload's, as `CGROUPS` has it.
    pub cgroup_id: u64,
    /// In host order; the upper half is zero.
    pub port: u32,
    pub reserved: u32,
}

const _: () = assert!(size_of::<ProbePort>() == 16);

impl ProbePort {
    #[inline(always)]
    #[must_use]
    pub const fn new(cgroup_id: u64, port: u32) -> Self {
        Self {
            cgroup_id,
            port,
            reserved: 0,
        }
    }
}
