//! What the programs tell, one record in the ring buffer each.

use crate::Endpoint;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Kinds of [`Event`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum EventKind {
    /// A verdict refused a connect().
    Refused = 1,
    /// A connect() of class `require` was refused since no worker beats.
    NoWorkerRefused = 2,
    /// A connect() of class `permissive` passed in the clear since no worker beats.
    NoWorkerPassed = 3,
    /// A connect() was refused since a map had no room, or its slot was empty.
    NoRoom = 4,
    /// A claim could not be filed; the daemon refuses the connection.
    ClaimLost = 5,
    /// The guard dropped a connection attempt towards a `require` workload.
    IngressDropped = 6,
    /// The guard dropped a packet of a `require` workload.
    EgressDropped = 7,
    /// kedged's own guard dropped something: a fault of kedged.
    DaemonDropped = 8,
    /// A bind() asked for a port that is kept for kedged.
    BindRefused = 9,
    /// The guard dropped a probe: its `require` workload does not declare the port.
    ProbeDropped = 10,
    /// The SYN of a captured connection has no answer. With errno ETIMEDOUT it was repeated in
    /// vain; without one, the connection ended at once.
    Unanswered = 11,
    /// A captured connection ended before a SYN could leave.
    Unsent = 12,
    /// A connect() failed by a refusal that the daemon had learnt.
    RefusedAgain = 13,
    /// A connect() of a workload that has too many under way already was refused.
    QuotaRefused = 14,
    /// A client closed its connection before the daemon had it: it wanted connect()'s outcome
    /// only.
    LeftEarly = 15,
}

impl EventKind {
    pub const ALL: &'static [Self] = &[
        Self::Refused,
        Self::NoWorkerRefused,
        Self::NoWorkerPassed,
        Self::NoRoom,
        Self::ClaimLost,
        Self::IngressDropped,
        Self::EgressDropped,
        Self::DaemonDropped,
        Self::BindRefused,
        Self::ProbeDropped,
        Self::Unanswered,
        Self::Unsent,
        Self::RefusedAgain,
        Self::QuotaRefused,
        Self::LeftEarly,
    ];
}

/// A record of `EVENTS`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Event {
    /// CLOCK_MONOTONIC.
    pub time_ns: u64,
    /// Nearest configured ancestor; 0 where it is not known.
    pub cgroup_id: u64,
    /// 0 where it is not known.
    pub socket_cookie: u64,
    /// One of [`EventKind`].
    pub kind: u32,
    /// Of the refusal, or 0.
    pub errno: u16,
    /// [`crate::Refusal::reason`], or 0.
    pub reason: u16,
    /// Zero where it is not known (in connect).
    pub source: Endpoint,
    pub destination: Endpoint,
}

const _: () = assert!(size_of::<Event>() == 72);
