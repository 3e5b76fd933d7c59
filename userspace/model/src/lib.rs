//! The words that every other crate speaks: who ([`SpiffeId`]), where ([`OriginalDst`],
//! [`SourceAddr`], [`NodeAddr`]), how strictly ([`Mode`]), sealed by whom ([`RecordsMode`])
//! and with what ([`Suite`]), and why not ([`Refusal`]).
//!
//! Pure values: no I/O, no clocks, no sockets.

#![forbid(unsafe_code)]

mod address;
mod mode;
mod records;
mod refusal;
mod spiffe;
mod suite;

pub use address::{NodeAddr, OriginalDst, SourceAddr, canonical, is_deliverable, v6_mapped};
pub use mode::{Mode, UnknownMode};
pub use records::RecordsMode;
pub use refusal::{Fault, Refusal};
pub use spiffe::{IdKind, NodeName, SpiffeId, SpiffeIdError, TrustDomain};
pub use suite::{Suite, UnknownSuite};
