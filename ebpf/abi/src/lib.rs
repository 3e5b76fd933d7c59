//! The contract between kedge's eBPF programs and its userspace: every byte that both sides
//! touch, the names of the maps, and their capacities.
//!
//! ```text
//!             userspace writes                        programs write
//!   ROOT, BEATS       who serves, and is it alive     CLAIMS      tuple -> what was asked for
//!   CGROUPS           cgroup -> class                 ACCEPTED    our socket -> the same
//!   PROBE_PORTS       (cgroup, port)                  PENDING     cgroup -> its claims
//!   VERDICTS, PORTS   (class, prefix, port)           ADMITTED    tuple -> its true client
//!   REFUSALS          what was refused just now       ORIGINAL    socket -> what was asked for
//!   PLACES            local pods, nodes               CLIENT      socket -> its true client
//!   SLOTS             where capture sends to          QUEUED      our socket -> its queue
//!   DELIVERIES        our socket -> true client       QUEUES      (cgroup, queue) -> its waiting
//!                                                     COUNTERS, EVENTS
//! ```
//!
//! Rules: every structure derives zerocopy's `FromBytes + IntoBytes`, so padding and invalid bit
//! patterns fail to compile; there is no `bool`, `Option` or enum in a structure; a size assertion
//! stands beside each; whoever changes a layout raises [`ABI_VERSION`].
//!
//! Two daemons of different versions meet in nothing but the state of single connections: tables
//! belong to one generation, made, filled and read by it alone. So a table may change freely. A
//! change of the state's layout raises [`STATE_VERSION`], which is part of the path under which it
//! is pinned, and is made in two steps: first a version whose programs read both, then one that
//! writes the new layout; else what was filed before an upgrade is not found after it.
//! Integers are in host order unless the field says `_be`.

#![no_std]
#![forbid(unsafe_code)]

mod address;
mod cgroup;
mod counter;
mod event;
pub mod limits;
pub mod place;
pub mod queue;
mod refusal;
mod root;
mod slot;
mod socket;
pub mod verdict;

pub use address::{Address, Endpoint};
pub use cgroup::{CgroupEntry, ProbePort, class, kind};
pub use counter::Counter;
pub use event::{Event, EventKind};
pub use place::Place;
pub use queue::Queued;
pub use refusal::{Refusal, RefusalKey};
pub use root::Root;
pub use slot::Slot;
pub use socket::{Claim, Client, Original, Patience, Tuple, claim, original};
pub use verdict::{LpmKey, PortKey, VerdictEntry, VerdictKey};

/// Raised with every change of a layout, a map's type or its capacity.
pub const ABI_VERSION: u32 = if cfg!(feature = "abi-next") { 5 } else { 4 };

/// Raised with every change of a map in [`map::STATE`].
pub const STATE_VERSION: u32 = 1;

/// Names of the maps, as the object file and the pin directory have them.
pub mod map {
    pub const ROOT: &str = "ROOT";
    pub const BEATS: &str = "BEATS";
    pub const CGROUPS: &str = "CGROUPS";
    pub const PROBE_PORTS: &str = "PROBE_PORTS";
    pub const VERDICTS: &str = "VERDICTS";
    pub const PORTS: &str = "PORTS";
    pub const PLACES: &str = "PLACES";
    pub const SLOTS: &str = "SLOTS";
    pub const REFUSALS: &str = "REFUSALS";
    pub const PENDING: &str = "PENDING";
    pub const CLAIMS: &str = "CLAIMS";
    pub const ACCEPTED: &str = "ACCEPTED";
    pub const DELIVERIES: &str = "DELIVERIES";
    pub const ADMITTED: &str = "ADMITTED";
    pub const ORIGINAL: &str = "ORIGINAL";
    pub const CLIENT: &str = "CLIENT";
    pub const QUEUES: &str = "QUEUES";
    pub const QUEUED: &str = "QUEUED";
    pub const COUNTERS: &str = "COUNTERS";
    pub const EVENTS: &str = "EVENTS";

    /// The tables of a generation, which no other one reads.
    pub const TABLES: &[&str] = &[
        ROOT,
        BEATS,
        CGROUPS,
        PROBE_PORTS,
        VERDICTS,
        PORTS,
        PLACES,
        SLOTS,
        REFUSALS,
        QUEUES,
        QUEUED,
        COUNTERS,
        EVENTS,
    ];

    /// What is filed about single connections, shared by all generations of one
    /// [`STATE_VERSION`](crate::STATE_VERSION).
    pub const STATE: &[&str] = &[
        PENDING, CLAIMS, ACCEPTED, DELIVERIES, ADMITTED, ORIGINAL, CLIENT,
    ];
}

/// Names of the programs, in the order in which they are attached: first who reads what a
/// connect leaves behind, connect itself last. Detaching goes backwards.
///
/// No name may equal its ELF section's: bpf-linker takes the two for one symbol.
pub mod program {
    pub const PEERNAME4: &str = "kedge_peername4";
    pub const PEERNAME6: &str = "kedge_peername6";
    pub const SOCKETS: &str = "kedge_sockets";
    pub const RELEASED: &str = "kedge_released";
    pub const BIND4: &str = "kedge_bind4";
    pub const BIND6: &str = "kedge_bind6";
    pub const INGRESS: &str = "kedge_ingress";
    pub const EGRESS: &str = "kedge_egress";
    pub const CONNECT4: &str = "kedge_connect4";
    pub const CONNECT6: &str = "kedge_connect6";

    pub const ALL: &[&str] = &[
        PEERNAME4, PEERNAME6, SOCKETS, RELEASED, BIND4, BIND6, INGRESS, EGRESS, CONNECT4, CONNECT6,
    ];
}
