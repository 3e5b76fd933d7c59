//! What the eBPF programs decide. The programs themselves read their context, call a function of
//! this crate and act on its answer; so everything that could be wrong in a decision is tested
//! here, on the host.
//!
//! ```text
//! connect()   cgroup::nearest → connect::decide → capture | pass | refuse
//! SYN         sockets::ends   → tuples
//! packet      packet::parse   → guard::{ingress, egress} → queue::has_room
//! bind()      bind::is_kept
//! ```
//!
//! The kernel's side comes in as traits ([`Ancestry`], [`Tables`], [`Packet`], [`Connection`]).
//! Everything is inlined and every loop is bounded by [`kedge_abi::limits`], as the verifier asks.

#![no_std]
#![forbid(unsafe_code)]

pub mod bind;
pub mod cgroup;
pub mod connect;
pub mod errno;
pub mod guard;
pub mod packet;
pub mod queue;
pub mod sockets;
pub mod tables;
#[cfg(test)]
extern crate std;
#[cfg(test)]
mod world;

pub use cgroup::{Ancestry, Owner};
pub use guard::Connection;
pub use packet::Packet;
pub use tables::Tables;
