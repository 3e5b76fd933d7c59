//! Where capture sends a connection: data, not code, so that another way to reach the daemon
//! (a listener inside the pod's network namespace) changes no layout.

use crate::Address;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Entry of `SLOTS`, at `worker * ADDRESSES + address`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Slot {
    /// Network namespace in which tuples of this slot are unique: 0 for the routed way, where the
    /// daemon sees every client's own address; else the cookie of the listener's namespace.
    pub scope: u64,
    /// Generation that listens there.
    pub generation: u64,
    pub v4: Address,
    pub v6: Address,
    /// What a test build has more, in the middle: whoever mistakes one for the other reads nonsense.
    #[cfg(feature = "abi-next")]
    pub next: u64,
    /// Capture port, in host order; 0: the slot is empty.
    pub port: u32,
    pub worker: u32,
}

#[cfg(not(feature = "abi-next"))]
const _: () = assert!(size_of::<Slot>() == 56);
