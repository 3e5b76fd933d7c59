//! Links to other nodes: who has one, who waits for one, who makes and renews them.
//!
//! ```text
//!   workers ──link_to(node)──► [Links] ──demand──► manager ──dials──► control (one task a link)
//!      ▲                          ▲                                      │ Established
//!      └───── current link ───────┴──────────── install ◄────────────────┘
//! ```

mod attested;
mod control;
mod identities;
mod link;
mod manager;
mod proof;
mod table;

pub use control::ControlError;
pub use link::Link;
pub use manager::{Credential, Manager, Stranger, connected, dial};
pub use proof::Proof;
pub use table::{Links, PeerReport};
