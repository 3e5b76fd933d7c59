//! What runs out on a busy node: ports, places in queues, and room in tables.
//!
//! ```text
//!  client ─┐ 1,000 ports  ┌─────────┐  1,000 ports  ┌─────────┐ 1,000 ports ┌─ load, at 8 ports
//!  local  ─┴──────────────┤ kedged a├═══════════════┤ kedged b├─────────────┘
//!                         └─────────┘               └─────────┘
//! ```

mod flood;
mod names;
mod ports;
