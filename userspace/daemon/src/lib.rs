//! kedged. The life of one connection is in [`dataplane`]; what it is decided by comes from
//! [`control`]; the sessions with other nodes are in [`links`]; [`edge`] is what the outside sees.

#![forbid(unsafe_code)]

pub mod attestation;
pub mod config;
pub mod control;
pub mod dataplane;
pub mod doorstep;
pub mod edge;
mod errno;
pub mod events;
pub mod fault;
pub mod handover;
pub mod limits;
pub mod links;
mod listeners;
mod older;
mod processes;
mod start;
mod tables;
pub mod tally;
pub mod uncapturable;
pub mod world;

pub use start::{check, run};

#[cfg(all(feature = "faults", not(debug_assertions)))]
compile_error!("faults are for tests of a build of their own, and for nothing else");
