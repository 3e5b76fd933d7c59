//! Strangers at a peer port, without end.

use crate::endless::Endless;
use crate::lab::Lab;
use crate::lab::topology::{BARELOAD, LOAD, PEER_PORT};
use crate::stage::at;
use anyhow::Result;

/// Strangers from one pod of node b at that node's peer port, 2,000 at once: pods of other nodes get
/// no answer from a peer port.
///
/// # Errors
/// When they cannot be started.
pub fn flood(lab: &Lab, stranger: &str) -> Result<Endless> {
    let program = lab.tools.load.display().to_string();
    let port = at(LOAD.node.v4(), PEER_PORT);
    let words = [
        &*program,
        "hostile",
        &port,
        stranger,
        "--connections",
        "1000000",
    ];
    Endless::start(&mut lab.command(&BARELOAD, &words)?)
}
