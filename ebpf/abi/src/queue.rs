//! Who waits in the accept queues of the workers. All of it belongs to one generation: whoever is
//! counted by its programs is marked by them too, and no other's programs see the mark.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Instead of a cgroup: connections that nobody has filed.
pub const NOBODY: u64 = 0;
/// Instead of a cgroup: all connections of a queue together.
pub const EVERYBODY: u64 = u64::MAX;

/// Key of `QUEUES`, which counts; and mark of a connection that waits (`QUEUED`, a storage of the
/// daemon's socket), taken away when it is accepted.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Queued {
    /// Of the claim, or [`NOBODY`], or [`EVERYBODY`].
    pub cgroup_id: u64,
    /// Capture port of the worker whose queue it is, in host order.
    pub port: u32,
    /// [`crate::Root::round`] when it came.
    pub round: u32,
}

const _: () = assert!(size_of::<Queued>() == 16);
