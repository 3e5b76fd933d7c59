//! Strangers at a peer port, without end.

use crate::lab::Lab;
use crate::lab::topology::{BARELOAD, LOAD, PEER_PORT};
use crate::stage::at;
use anyhow::{Context, Result};
use std::process::{Child, Stdio};

/// Strangers from one pod of node b at that node's peer port, 2,000 at once, until this is dropped:
/// pods of other nodes get no answer from a peer port.
pub struct Flood(Child);

impl Flood {
    /// # Errors
    /// When it cannot be started.
    pub fn start(lab: &Lab, stranger: &str) -> Result<Self> {
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
        let mut command = lab.command(&BARELOAD, &words)?;
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().map(Self).context("start the flood")
    }

    /// # Errors
    /// Of wait().
    pub fn goes_on(&mut self) -> Result<bool> {
        Ok(self.0.try_wait()?.is_none())
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
