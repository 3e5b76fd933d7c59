//! Addresses towards which the daemon may speak.
//!
//! What an address is.

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
}

const _: () = assert!(size_of::<Place>() == 8);
