//! Who is where: address → workload, workload → node, service address → endpoints.
//!
//! ```text
//!   text ── Directory::parse ──> Directory ── resolve(10.30.0.1:80) ──> Endpoint: workload, node,
//!           (errors by line)         │                                  address to deliver to
//!                                    ├─ places(node, id, ip)   is that claim about a place true?
//!                                    └─ changes_since(&old)    what to decide again
//! ```
//!
//! A [`Directory`] is an immutable value; [`Directory::parse`] is the only way to get one, so
//! everything that its format promises (docs/directory.md) holds for every directory: an address
//! has one owner, every endpoint and node that is named exists, nothing is placed where a daemon
//! must not deliver. Pure: reading and watching the file is the daemon's part.

#![forbid(unsafe_code)]

mod changes;
mod check;
mod directory;
mod entry;
mod error;
pub mod limits;
mod raw;

pub use changes::{Changes, Placement};
pub use directory::{Directory, Endpoint};
pub use entry::{Node, Service, ServiceEndpoint, Workload};
pub use error::{DirectoryError, Owner, Problem};
