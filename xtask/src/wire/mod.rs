//! The wire oracle: takes every packet between the nodes, puts every TCP stream together again,
//! and accepts a byte only if it is part of what docs/protocol.md allows there. It shares no code
//! with the daemon, so that a mistake in one is not a mistake in both.
//!
//! ```text
//! tcpdump ─ pcap ─> packets ─> streams ─> records ─> Report { counts, findings }
//! ```

pub mod capture;
mod finding;
mod hello;
mod judge;
mod packets;
mod records;
mod streams;

pub use capture::Capture;
pub use finding::{Finding, Problem};
pub use hello::group_name;
pub use judge::{Expected, LinkSeen, Report, judge};

#[cfg(test)]
mod synthetic;
