//! What runs out on a busy node: ports, and room in tables.
//!
//! ```text
//!  client ─┐ 1,000 ports  ┌─────────┐  1,000 ports  ┌─────────┐ 1,000 ports ┌─ load, at 8 ports
//!  local  ─┴──────────────┤ kedged a├═══════════════┤ kedged b├─────────────┘
//!                         └─────────┘               └─────────┘
//! ```

mod ports;
