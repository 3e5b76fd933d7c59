//! What is filed about single connections, by tuple while two ends look for each other, and with
//! the socket afterwards.

use crate::limits::LINEAGE;
use crate::{Address, Endpoint};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// One TCP connection, seen from the side that opened it. Key of `CLAIMS` and `ADMITTED`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Tuple {
    pub client: Address,
    pub server: Address,
    /// In host order.
    pub client_port: u16,
    /// In host order.
    pub server_port: u16,
    pub reserved: u32,
    /// [`crate::Slot::scope`].
    pub scope: u64,
}

const _: () = assert!(size_of::<Tuple>() == 48);

impl Tuple {
    #[inline(always)]
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the upper half of a port is zero"
    )]
    pub const fn new(client: Endpoint, server: Endpoint, scope: u64) -> Self {
        Self {
            client: client.address,
            server: server.address,
            client_port: client.port as u16,
            server_port: server.port as u16,
            reserved: 0,
            scope,
        }
    }
}

/// How connect let a socket go; one that it has no more to do with has no entry.
pub mod original {
    /// Towards a slot; [`crate::Original::asked`] is what the application asked for.
    pub const CAPTURED: u32 = 1;
    /// To where it asked, from a probe cgroup: admitted by the guard of its destination.
    pub const PROBE: u32 = 2;
    /// [`CAPTURED`], and its SYN left, or was about to: the claim was filed before it.
    pub const SENT: u32 = 3;

    #[inline(always)]
    #[must_use]
    pub const fn is_captured(state: u32) -> bool {
        matches!(state, CAPTURED | SENT)
    }
}

/// Storage of a connecting socket (`ORIGINAL`), written by connect before any packet.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Original {
    pub scope: u64,
    /// Nearest configured ancestor of the connecting task's cgroup.
    pub cgroup_id: u64,
    /// If that is a managed root: the task's cgroups below it, from the root's child on, 0 where
    /// there is none. By these the task is found to be a workload's that becomes known later.
    pub lineage: [u64; LINEAGE],
    /// The connecting socket's own network namespace, whatever the scope.
    pub netns_cookie: u64,
    /// What the application asked for.
    pub asked: Endpoint,
    /// One of [`original`].
    pub state: u32,
}

const _: () = assert!(size_of::<Original>() == 80);

/// What a [`Claim`] is worth.
pub mod claim {
    pub const FILED: u32 = 0;
    /// Two namespaces share an address, and a socket of each has this tuple: nobody can tell
    /// whose the connection is.
    pub const DISPUTED: u32 = 1;
}

/// How long the application's own socket waits before it takes its peer for dead, as it stood at
/// connect(). 0: not set, or not known to this kernel's programs (before Linux 6.1).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Patience {
    /// TCP_USER_TIMEOUT (RFC 5482).
    pub user_timeout_ms: u32,
    /// TCP_KEEPIDLE, TCP_KEEPINTVL and TCP_KEEPCNT (tcp(7)); all 0 without SO_KEEPALIVE.
    pub keepalive_idle_s: u32,
    pub keepalive_interval_s: u32,
    pub keepalive_probes: u32,
}

const _: () = assert!(size_of::<Patience>() == 16);

/// Value of `CLAIMS`, filed by sock_ops before the SYN; and storage of the daemon's socket
/// (`ACCEPTED`), to which it moves when the handshake is finished.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Claim {
    pub cgroup_id: u64,
    /// [`Original::lineage`].
    pub lineage: [u64; LINEAGE],
    pub socket_cookie: u64,
    pub netns_cookie: u64,
    /// CLOCK_MONOTONIC.
    pub filed_ns: u64,
    pub asked: Endpoint,
    pub patience: Patience,
    /// One of [`claim`].
    pub state: u32,
}

const _: () = assert!(size_of::<Claim>() == 104);

/// The true client of a delivered connection: value of `DELIVERIES` (by the daemon's socket
/// cookie), of `ADMITTED` (by tuple), and storage of the server's socket (`CLIENT`).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Client {
    /// Cookie of the socket on this node that connects, and for whose life this is true.
    pub socket_cookie: u64,
    /// Whom accept() and getpeername() show; port 0: nobody else than the real peer.
    pub client: Endpoint,
    pub reserved: u32,
}

const _: () = assert!(size_of::<Client>() == 32);

impl Client {
    /// A probe is nobody else than itself.
    #[inline(always)]
    #[must_use]
    pub const fn is_probe(&self) -> bool {
        self.client.port == 0
    }
}
