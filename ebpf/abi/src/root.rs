//! The root map: one entry that says who serves, where, and since when.

use crate::Address;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The only entry of `ROOT`.
///
/// The first four words are frozen: every ABI version has them at these places, so that any
/// daemon and any `kedge` can tell whose generation is active before it trusts another byte.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Root {
    /// [`crate::ABI_VERSION`] of the writer; 0 while nothing serves.
    pub abi_version: u32,
    /// Size of this structure, for readers of another version.
    pub length: u32,
    /// Grows by one with every start of a daemon.
    pub generation: u64,
    /// Network namespace of the daemon, in which ports are kept for it; 0 keeps none.
    pub netns_cookie: u64,
    /// Workers; worker w listens on `port_base + w` and beats in `BEATS[w]`.
    pub workers: u32,
    /// Capture addresses in use, of each worker.
    pub addresses: u32,
    /// Capture range of IPv4, as a mapped address, and its mask.
    pub capture_v4: Address,
    pub capture_v4_mask: Address,
    /// Capture range of IPv6 and its mask.
    pub capture_v6: Address,
    pub capture_v6_mask: Address,
    /// First capture port, in host order.
    pub port_base: u32,
    /// Port of links and carriers, in host order.
    pub peer_port: u32,
    /// Places in the accept queue of each worker.
    pub queue_places: u32,
    /// Grows by one each time that these programs are put on their hooks: who waits is counted
    /// anew then, since another generation's programs may have seen him go.
    pub round: u32,
}

impl Root {
    /// For `length`.
    pub const LENGTH: u32 = 112;
}

const _: () = assert!(size_of::<Root>() == Root::LENGTH as usize);
const _: () = assert!(core::mem::offset_of!(Root, generation) == 8);
