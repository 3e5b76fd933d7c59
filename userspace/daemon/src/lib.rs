//! kedged. The life of one connection is in [`dataplane`]; what it is decided by comes from
//! [`control`]; the sessions with other nodes are in [`links`]; [`edge`] is what the outside sees.

#![forbid(unsafe_code)]

pub mod config;
pub mod control;
pub mod dataplane;
pub mod edge;
pub mod events;
pub mod limits;
pub mod links;
mod start;
pub mod world;

pub use start::{check, run};

#[cfg(all(feature = "leak-one-byte", not(debug_assertions)))]
compile_error!("leak-one-byte is for a test of the wire oracle and for nothing else");
