//! The way of an application's bytes, one module a step, in the order in which they pass:
//!
//! ```text
//!   captured:  intake ─► classify ─┬─► (same node) ─► delivery ─► flow ─► the other workload
//!                                  └─► first_flight ─► carrier ─► flow ═══╗ the wire
//!   carried:   workload ◄─ flow ◄─ delivery ◄─ classify ◄─ acceptance ◄═══╝
//!   continued: flow ─► continuation ─► another carrier ─► flow
//!   refused:   intake, flow ─► refusals ─► connect() fails by itself, until a look finds it back
//! ```
//!
//! Each worker is one thread with one current-thread runtime; what is shared with other threads
//! is in [`crate::world`] and [`crate::links`].

pub mod acceptance;
pub mod authority;
pub mod buffer;
pub mod calibration;
pub mod carrier;
pub mod classify;
pub mod continuation;
pub mod delivery;
pub mod first_flight;
pub mod flow;
pub mod half;
pub mod intake;
pub mod kernel_records;
pub mod looks;
pub mod patience;
pub mod probe;
pub mod reader;
pub mod refusals;
pub mod registry;
pub mod rounds;
pub mod shares;
pub mod worker;
