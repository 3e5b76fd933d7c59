//! Every packet on the wire, into a file.

use super::judge::{Expected, Report, judge};
use crate::lab::process::Process;
use crate::lab::topology::{NODES, Node, PEER_PORT};
use crate::lab::{Lab, WIRE, services};
use crate::shell::wait_for;
use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use std::path::PathBuf;
use std::time::Duration;

/// Kernel buffer: what fits into it is not lost while tcpdump waits for a processor. (Four times as
/// much takes a processor 1.5 s to make.)
const BUFFER_KIB: &str = "131072";
/// The kernel hands packets to tcpdump in blocks, the last one after at most a second. (Immediate
/// mode would end that wait, and with it the large buffer: its slots are of the largest packet.)
const SETTLE: Duration = Duration::from_millis(1500);

pub struct Capture {
    process: Process,
    name: String,
    file: PathBuf,
}

impl Capture {
    /// Returns when packets are being taken.
    ///
    /// # Errors
    /// When tcpdump does not start.
    pub fn start(lab: &mut Lab, name: &str) -> Result<Self> {
        let name = format!("capture-{name}");
        let file = lab.run.folder().join(format!("{name}.pcap"));
        let path = file.to_str().context("a path of the lab is valid UTF-8")?;
        let words = [
            "tcpdump", "-i", WIRE, "-s", "0", "-B", BUFFER_KIB, "-n", "-Z", "root", "-w", path,
        ];
        // Of an earlier capture of that name.
        let _ = std::fs::remove_file(lab.run.log(&name));
        let process = lab.spawn(Node::A, &name, &words)?;
        wait_for("tcpdump to listen", Duration::from_secs(10), || {
            Ok(lab.log(&name).contains("listening on").then_some(()))
        })?;
        Ok(Self {
            process,
            name,
            file,
        })
    }

    /// Ends it, and parses every byte of it as what may be between two kedged.
    ///
    /// # Errors
    /// When tcpdump does not end in order, or its file cannot be read.
    pub fn finish(self, lab: &Lab) -> Result<Report> {
        std::thread::sleep(SETTLE);
        self.process.stop(Signal::SIGINT)?;
        let words = lab.log(&self.name);
        let dropped =
            dropped_packets(&words).with_context(|| format!("tcpdump ended with:\n{words}"))?;
        judge(&self.file, dropped, &between_nodes())
    }
}

/// What may be on the lab's wire with kedge on it.
#[must_use]
pub fn between_nodes() -> Expected {
    Expected {
        nodes: NODES
            .iter()
            .flat_map(|node| [node.v4().into(), node.v6().into()])
            .collect(),
        peer_port: PEER_PORT,
        markers: [
            b"KEDGE-LAB-PLAINTEXT-MARKER".as_slice(),
            services::WEB_PAGE.as_bytes(),
        ]
        .map(<[u8]>::to_vec)
        .into(),
    }
}

/// From tcpdump's last words: packets dropped by the kernel or by the interface.
fn dropped_packets(words: &str) -> Option<u64> {
    let counts: Vec<u64> = words
        .lines()
        .filter(|line| line.contains(" dropped by "))
        .map(|line| line.split(' ').next()?.parse().ok())
        .collect::<Option<_>>()?;
    (!counts.is_empty()).then(|| counts.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropped_packets_are_read_from_the_last_words() {
        let words =
            "12 packets captured\n14 packets received by filter\n3 packets dropped by kernel\n";
        assert_eq!(dropped_packets(words), Some(3));
        assert_eq!(dropped_packets("tcpdump: no such device\n"), None);
    }
}
