//! Who is dead and who is no longer allowed: open connections learn of both, in time and by name.
//!
//! ```text
//!  client ─┐    ┌──────────┐  wire, or a black hole  ┌──────────┐
//!  local  ─┴────┤ kedged a ├─────────────────────────┤ kedged b ├──── load
//!               └──────────┘                         └──────────┘
//!                CA, revocations, directory, policy of each
//! ```
//! The bounds are wall-clock times, because it is these that are promised.

mod certificates;
mod placement;
mod room;
mod silence;
mod versions;
