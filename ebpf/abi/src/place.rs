//! What an address is: whose, and whether the daemon may speak to it.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A workload on this node: plaintext may leave the daemon towards it.
pub const LOCAL_POD: u32 = 1;
/// A node: only its peer port, and only sealed traffic.
pub const NODE: u32 = 2;

/// Value of `PLACES`; its key is an [`crate::Address`].
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Place {
    /// One of [`LOCAL_POD`] or [`NODE`].
    pub kind: u32,
    /// Of a node: where its daemon listens, in host order.
    pub peer_port: u32,
    /// Of a local pod: the cgroup whose connections to this address stay within the pod; 0: none.
    pub cgroup_id: u64,
}

const _: () = assert!(size_of::<Place>() == 16);
