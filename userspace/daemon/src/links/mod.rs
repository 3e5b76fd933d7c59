//! Links to other nodes: who has one, who waits for one, who makes and renews them.
//!
//! ```text
//!   workers ──link_to(node)──► [Links] ──demand──► manager ──dials──► control (one task a link)
//!      ▲                          ▲                                      │ Established
//!      └───── current link ───────┴──────────── install ◄────────────────┘
//! ```

mod control;
mod identities;
mod link;
mod manager;
mod table;

pub use control::ControlError;
pub use link::Link;
pub use manager::{Manager, Stranger, connected, dial};
pub use table::{Links, PeerReport};
