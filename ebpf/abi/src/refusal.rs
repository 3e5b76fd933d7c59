//! Refusals that the daemon has learnt, so that the next connect() to the same place fails as it
//! would without kedge.

use crate::Endpoint;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Key of `REFUSALS`: who asks for what.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct RefusalKey {
    /// Nearest configured ancestor of the connecting task's cgroup.
    pub cgroup_id: u64,
    pub asked: Endpoint,
    pub reserved: u32,
}

const _: () = assert!(size_of::<RefusalKey>() == 32);

/// Value of `REFUSALS`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Refusal {
    /// CLOCK_MONOTONIC: from then on it says nothing, whether or not a daemon is there to remove
    /// it.
    pub valid_until_ns: u64,
    /// CLOCK_MONOTONIC, written by connect: when it last failed somebody. 0: nobody yet.
    pub asked_ns: u64,
    /// What connect() fails with.
    pub errno: u16,
    /// Why, as the code of an answer (docs/protocol.md).
    pub reason: u16,
    pub reserved: u32,
}

const _: () = assert!(size_of::<Refusal>() == 24);
