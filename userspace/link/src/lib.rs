//! Node-pair links: one mutually authenticated, post-quantum TLS 1.3 connection between two
//! daemons, and the keys of every flow derived from it. docs/protocol.md specifies each byte.
//!
//! ```text
//!   control connection                     carriers, one TCP connection per flow
//!   ──────────────────                     ──────────────────────────────────────
//!   Session::client  ◄── TLS 1.3 ──►  Session::server
//!        │ Established { outbound, inbound }   (once, keys by move)
//!        ▼
//!   Outbound::opening ─────────────── 43 bytes ──────────────► Inbound::check_opening
//!   Outbound::open_flow
//!     NewFlow::seal_record0 ───── header, record 0 ──────────► Inbound::flow_secret
//!        │                                                       PendingFlow::open_record0
//!        │                                                     Inbound::commit   (test-and-set)
//!        ▼                                                        ▼
//!     FlowKeys { opener, acceptor }        equal at both ends   FlowKeys { opener, acceptor }
//!
//!   where flows continue, at the end of a direction's key:
//!   ContinuationKey::continuation ─── 56 bytes, a new carrier ─► Turns::take   (test-and-set)
//!   ContinuationKey::confirms ◄────────────── 16 bytes ───────── what it gives
//! ```
//!
//! Sans-IO: no sockets, clocks or threads. Bytes go in and out of buffers, `now` and random bytes
//! are arguments. (TLS itself takes its ephemeral keys from the crypto library's generator.)
//!
//! Keys are neither `Clone` nor `Debug`, are erased when dropped, and move: what a first flight
//! unlocks is handed out by [`Inbound::commit`] only, so nothing is delivered before the one
//! test-and-set that makes a replay fail.

#![forbid(unsafe_code)]

mod agreement;
mod carrier;
mod config;
mod continuation;
mod duel;
mod epoch;
mod error;
mod event;
mod flow;
mod identities;
mod inbound;
pub mod limits;
mod outbound;
mod schedule;
mod session;
#[cfg(feature = "testing")]
pub mod testing;
mod tls;
mod verify;
mod window;
pub mod wire;

pub use config::LinkConfig;
pub use continuation::{ContinuationKey, Turns};
pub use duel::{Contender, Settled, settle};
pub use error::{
    ContinuationError, Exhausted, FlightError, LinkError, PeerIncompatible, PeerMisbehaved,
    PeerUnauthenticated,
};
pub use event::{ClientStart, Established, SessionEvent, Start};
pub use flow::{Flight, FlowKeys, NewFlow, OpenedFlight, PendingFlow};
pub use inbound::Inbound;
pub use outbound::Outbound;
pub use session::Session;
pub use wire::{Handle, InstanceId, LinkId, ProofKind, Role};
