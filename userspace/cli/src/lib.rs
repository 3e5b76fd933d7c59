//! `kedge`: looks into kedged, and makes what it reads.
//!
//! ```text
//!   arguments ──> command ──> client ── admin.sock ──> kedged
//!                    │           │
//!                    │           └─ kedge_api types ──> render ──> stdout: a table, or --json
//!                    └─ ca, policy check, directory check, feature probe, doctor, off: no daemon needed
//! ```
//!
//! Data goes to stdout, messages to stderr; [`Exit`] is the whole list of exit codes. Rendering is
//! a pure function of the API's types, held by golden files.

#![forbid(unsafe_code)]

pub mod arguments;
mod client;
pub mod command;
mod failure;
pub mod render;

pub use failure::{Exit, Failure};
