//! Two machines with a kernel and a TPM each, and one Ethernet between them: `xtask/tests/machines`.
//!
//! ```text
//!   machine a: kernel, TPM, eth0 ── datagrams of a Unix socket ── eth0, TPM, kernel: machine b
//! ```

use super::image::Image;
use super::kernels::Kernel;
use super::parts::{Outcome, Parts};
use super::plan::{self, Extent};
use crate::artifacts::Tools;
use crate::lab::topology::{NODES, Node, TRUST_DOMAIN};
use crate::shell::{command, output};
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::process::Command;

/// In the guests.
const CA: &str = "/ca";

/// A node of the two, and its machine.
pub struct Half<'a> {
    pub name: String,
    node: Node,
    kernel: &'a Kernel,
    folder: String,
}

/// Node a is on the first kernel.
#[must_use]
pub fn halves<'a>(pair: &'a [Kernel; 2]) -> Vec<Half<'a>> {
    let both = pair.each_ref().map(|kernel| &*kernel.name).join("-");
    let half = |(node, kernel): (Node, &'a Kernel)| Half {
        name: format!(
            "Linux {}, node {} of two machines",
            kernel.name,
            node.name()
        ),
        node,
        kernel,
        folder: format!("{both}/{}", node.name()),
    };
    NODES.into_iter().zip(pair).map(half).collect()
}

impl Half<'_> {
    /// # Errors
    /// When the machine did not come to its end.
    pub fn run(&self, parts: &Parts, between: &Between, extent: Extent) -> Result<Outcome> {
        let runs = plan::half(self.node, CA, extent);
        parts.run(
            self.kernel,
            &runs,
            &self.folder,
            extent,
            |machine, image| between.join(self.node, machine, image),
        )
    }
}

/// What the two machines share: a cable, and the CA that an operator gave both.
pub struct Between {
    folder: tempfile::TempDir,
}

impl Between {
    /// # Errors
    /// When the CA cannot be made.
    pub fn make(tools: &Tools) -> Result<Self> {
        // A socket's path is at most 107 bytes long: not below the target folder.
        let folder = tempfile::tempdir().context("make a folder for a cable")?;
        let mut kedge = command([&tools.kedge]);
        kedge.args(["ca", "init", "--trust-domain", TRUST_DOMAIN, "--dir"]);
        output(kedge.arg(folder.path().join("ca")))?;
        Ok(Self { folder })
    }

    fn join(&self, node: Node, machine: &mut Command, image: &mut Image) -> Result<()> {
        let [here, there] = [node, node.other()].map(|node| self.end(node));
        let [here, there] = [&here, &there].map(|path| path.display());
        machine.args(["-netdev".to_owned(), format!(
            "dgram,id=wire,local.type=unix,local.path={here},remote.type=unix,remote.path={there}"
        )]);
        let mac = format!("52:54:00:00:00:0{}", node.name());
        // It does not boot from there.
        let card = format!("virtio-net-pci,netdev=wire,mac={mac},romfile=");
        machine.args(["-device", &card]);
        image.add_folder(CA.trim_start_matches('/'), &self.folder.path().join("ca"))
    }

    fn end(&self, node: Node) -> PathBuf {
        self.folder.path().join(node.name())
    }
}
