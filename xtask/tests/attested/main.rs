//! Two nodes with TPMs of their own: flows move between machines that a Verifier affirms, and between
//! no others.
//!
//! ```text
//!  client ─┐  ┌──────────┐          wire          ┌──────────┐
//!          └──┤ kedged a ├────────────────────────┤ kedged b ├── load
//!             └──┬───────┘                        └───┬──────┘
//!              swtpm          kedge-verifier        swtpm
//! ```
//! The bounds are wall-clock times, because it is these that are promised.

mod away;
mod foreign;
mod local;
mod modes;
mod tampered;

use anyhow::{Context, Result};
use serde_json::Value;
use xtask::lab::Lab;
use xtask::lab::topology::Node;

/// `kedge attest status` of a node.
fn status(lab: &Lab, node: Node) -> Result<Value> {
    let text = lab.kedge_any_end(node, &["attest", "status", "--json"])?;
    serde_json::from_str(&text).context("the status of attestation")
}

fn counter(status: &Value, name: &str) -> Option<u64> {
    status["counters"][format!("attestation.{name}")].as_u64()
}
