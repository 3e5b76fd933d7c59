//! How one daemon follows another on the same node without a connection lost on the way.
//!
//! ```text
//!  successor                                  predecessor, serving
//!    Take ──────────────────────────────────►
//!         ◄────────────────────────── Listeners, All   both hold every listening socket
//!    fills its tables, swaps the programs
//!    StandBy ───────────────────────────────►          accepts nothing; arrivals queue up
//!         ◄──────────────────────────── StandingBy
//!    starts its workers
//!    Serving ───────────────────────────────►          closes its listeners, drains its links,
//!    Carrier ───────────────────────────────►          ends when its last flow has ended
//! ```
//!
//! No listening socket is closed and none is opened beside it, so no accept queue is lost: who
//! accepts a captured connection finds its claim in the state that all generations share. If the
//! successor is gone before it has said that it serves, the predecessor puts its own programs back
//! and goes on. A carrier belongs to the daemon that has its link; only the successor accepts then,
//! and hands those on whose links it does not know.
//!
//! Versions of kedge meet here: these messages are the same in all of them.

mod channel;
mod gate;
mod predecessor;
mod successor;

pub use channel::{Channel, Handed, Passed, Role};
pub use gate::{Gate, Keeper};
pub use predecessor::{Offer, Succession, retire};
pub use successor::{PassOn, Predecessor};

/// Below `run_dir`, mode 0600.
const SOCKET_FILE: &str = "handover.sock";
