//! First light: unmodified sockets, two real daemons, one wire, every byte of it parsed.
//!
//! ```text
//!  client ─┐    ┌──────────┐        wire         ┌──────────┐    ┌─ load, web, db, …
//!  local  ─┼────┤ kedged a ├──── tcpdump ────────┤ kedged b ├────┤
//!  bare   ─┘    └──────────┘                     └──────────┘    └─ bareload
//! ```
//! All scenarios share one lab and take turns; a scenario that counts handshakes begins with
//! daemons that have just started. Needs root: without it they are skipped aloud.

mod addresses;
mod carried;
mod changes;
mod ends;
mod refusals;
