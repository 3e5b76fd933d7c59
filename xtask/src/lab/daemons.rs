//! Each node's kedged: its certificate, its documents, its process.

use super::documents;
use super::process::{Family, Process, command_in, tail};
use super::topology::{NODES, Node, PEER_PORT, PODS, Place, Pod, TRUST_DOMAIN};
use super::{Lab, process};
use crate::shell::{command, finish, output, wait_for};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A build of kedged that is not the one under test, or that one configured otherwise.
#[derive(Clone, Debug)]
pub struct Build {
    pub kedged: PathBuf,
    pub object: PathBuf,
    /// Added to the lab's configuration.
    pub lines: String,
}

impl Lab {
    /// Starts kedged on the nodes; each gets its certificate and documents first.
    ///
    /// # Errors
    /// When one does not come up; the message has the end of its log.
    pub fn start_daemons(&mut self) -> Result<()> {
        self.prepare_nodes()?;
        for &node in self.nodes {
            self.start_daemon(node)?;
        }
        for &node in self.nodes {
            self.daemon_answers(node)?;
        }
        Ok(())
    }

    /// # Errors
    /// When it cannot be started.
    pub fn start_daemon(&mut self, node: Node) -> Result<Process> {
        let kedged = self.tools.kedged.clone();
        self.start_program(node, &kedged, None)
    }

    /// Starts the control build ([`crate::artifacts::build_faulty_kedged`]), which goes wrong as
    /// `fault` says.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_faulty_daemon(
        &mut self,
        node: Node,
        faulty: &Path,
        fault: &str,
    ) -> Result<Process> {
        self.start_program(node, faulty, Some(fault))
    }

    /// Starts another build of kedged, with its own BPF object and these lines more in its
    /// configuration.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_build(
        &mut self,
        node: Node,
        build: &Build,
        fault: Option<&str>,
    ) -> Result<Process> {
        let config = documents::configuration(&self.run, node, &build.object)?;
        let path = self.run.node_folder(node).join("kedged-build.toml");
        documents::replace(&path, &(config + &build.lines))?;
        self.start_with(node, &build.kedged, &path, fault)
    }

    /// The same on both nodes, until both answer.
    ///
    /// # Errors
    /// When one cannot be started, or does not answer.
    pub fn start_builds(&mut self, build: &Build, fault: Option<&str>) -> Result<()> {
        for node in NODES {
            self.start_build(node, build, fault)?;
        }
        NODES
            .into_iter()
            .try_for_each(|node| self.daemon_answers(node))
    }

    /// Where a node's control build logs every seal; nobody else writes it.
    #[must_use]
    pub fn seal_log(&self, node: Node) -> PathBuf {
        self.run.node_folder(node).join("seals")
    }

    /// How many seals both daemons logged; each pair of key and number once.
    ///
    /// # Errors
    /// When one is there twice, or a log is not readable.
    pub fn seals_without_repetition(&self) -> Result<usize> {
        let mut seen = HashSet::new();
        for node in NODES {
            let path = self.seal_log(node);
            let log = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
            let (lines, rest) = log.as_chunks::<24>();
            ensure!(
                !lines.is_empty() && rest.is_empty(),
                "node {}'s log of seals",
                node.name()
            );
            for line in lines {
                ensure!(seen.insert(*line), "sealed twice: {line:02x?}");
            }
        }
        Ok(seen.len())
    }

    fn start_program(&mut self, node: Node, kedged: &Path, fault: Option<&str>) -> Result<Process> {
        let config = self.run.node_folder(node).join("kedged.toml");
        self.start_with(node, kedged, &config, fault)
    }

    fn start_with(
        &mut self,
        node: Node,
        kedged: &Path,
        config: &Path,
        fault: Option<&str>,
    ) -> Result<Process> {
        ensure!(
            kedged.exists(),
            "{} is not built: cargo xtask build",
            kedged.display()
        );
        let kedged = kedged.display().to_string();
        let cgroup = self.run.cgroup()?.join(node.name()).join("kedged");
        let words = [&*kedged, "--config", &config.display().to_string()];
        let mut command = command_in(&self.run, Place::from(node), &cgroup, &words);
        if let Some(fault) = fault {
            command.env("KEDGE_FAULT", fault);
            command.env("KEDGE_SEAL_LOG", self.seal_log(node));
            command.env(
                "KEDGE_RESULT",
                self.run.node_folder(node).join("foreign-result"),
            );
        }
        let name = daemon_name(node);
        let process = Process::spawn(&self.run, Place::from(node), &name, command)?;
        self.record(process.clone())?;
        Ok(process)
    }

    /// Waits until a node's kedged takes peers and questions.
    ///
    /// # Errors
    /// When it ends or does not within 30 seconds.
    pub fn daemon_answers(&self, node: Node) -> Result<()> {
        let daemon = self.daemon(node)?;
        daemon.listens_on(&self.run, Family::V4, PEER_PORT)?;
        wait_for("kedged to answer", Duration::from_secs(10), || {
            self.kedge(node, &["status"]).map(Some)
        })
        .with_context(|| tail(&self.run, &daemon.name))?;
        Ok(())
    }

    /// # Errors
    /// When that node's kedged does not run.
    pub fn daemon(&self, node: Node) -> Result<&Process> {
        let name = daemon_name(node);
        let running = |process: &&Process| process.name == name && process.is_alive();
        // The newest: one that it has followed may still carry flows.
        self.processes()
            .iter()
            .rev()
            .find(running)
            .with_context(|| {
                format!(
                    "{name} does not run; its log ends:\n{}",
                    process::tail(&self.run, &name)
                )
            })
    }

    /// Ends the daemons and removes what they have left in the kernel: the next ones know no
    /// link, no flow and no generation.
    ///
    /// # Errors
    /// When one does not end.
    pub fn stop_daemons(&mut self) -> Result<()> {
        let mut nodes = self.nodes.iter();
        nodes.try_for_each(|&node| self.stop_daemon(node))
    }

    /// The same of one node.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop_daemon(&mut self, node: Node) -> Result<()> {
        while let Ok(daemon) = self.daemon(node) {
            daemon.stop(Signal::SIGTERM)?;
        }
        let pins = self.run.pins().join(node.name());
        if pins.exists() {
            fs::remove_dir_all(&pins).with_context(|| format!("remove {}", pins.display()))?;
        }
        Ok(())
    }

    /// `kedge` as an operator of that node runs it.
    ///
    /// # Errors
    /// When it does not succeed.
    pub fn kedge(&self, node: Node, words: &[&str]) -> Result<String> {
        output(&mut self.kedge_command(node, words))
    }

    /// The same for questions to which "no" is an answer, told by the exit code.
    ///
    /// # Errors
    /// When it cannot start, or says nothing.
    pub fn kedge_any_end(&self, node: Node, words: &[&str]) -> Result<String> {
        let done = finish(&mut self.kedge_command(node, words))?;
        let answer = String::from_utf8_lossy(&done.stdout).into_owned();
        ensure!(
            !answer.is_empty(),
            "kedge {}: {}",
            words.join(" "),
            String::from_utf8_lossy(&done.stderr).trim()
        );
        Ok(answer)
    }

    #[must_use]
    pub fn kedge_command(&self, node: Node, words: &[&str]) -> Command {
        let mut command = Command::new(&self.tools.kedge);
        command
            .arg("--socket")
            .arg(self.run.node_folder(node).join("admin.sock"))
            .args(words);
        command
    }

    /// What a node's kedged has reported lately, one JSON object a line.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn events(&self, node: Node) -> Result<String> {
        self.kedge(node, &["event", "list", "--json"])
    }

    /// Gives a node a directory in which these pods are.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_directory(&self, node: Node, version: u64, pods: &[&Pod]) -> Result<()> {
        self.write_directory_text(node, &documents::directory(version, pods))
    }

    /// Gives a node this directory.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_directory_text(&self, node: Node, text: &str) -> Result<()> {
        let path = self.run.node_folder(node).join("directory.toml");
        documents::replace(&path, text)
    }

    /// Gives a node another policy document of that name.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_policy(&self, node: Node, name: &str, text: &str) -> Result<()> {
        let folder = self.run.node_folder(node).join("policies");
        documents::replace(&folder.join(format!("{name}.toml")), text)
    }

    /// A new certificate for a node, in the place of the one that it has.
    ///
    /// # Errors
    /// When the CA cannot issue it.
    pub fn issue_certificate(&self, node: Node) -> Result<()> {
        self.issue(&self.ca(), node, &self.run.node_folder(node), 24.0)
    }

    /// A certificate of any CA, for any time, in a folder.
    ///
    /// # Errors
    /// When the CA cannot issue it.
    pub fn issue(&self, ca: &Path, node: Node, out: &Path, hours: f64) -> Result<()> {
        let hours = hours.to_string();
        let words = ["--node", node.name(), "--out", path_text(out)?];
        let mut kedge = Command::new(&self.tools.kedge);
        output(
            kedge
                .args(["ca", "issue", "--dir", path_text(ca)?])
                .args(words)
                .args(["--lifetime-hours", &hours]),
        )?;
        Ok(())
    }

    /// Another CA of the same trust domain.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn make_ca(&self, name: &str) -> Result<PathBuf> {
        let ca = self.run.folder().join(name);
        if !ca.exists() {
            let kedge = self.tools.kedge.display().to_string();
            let words = [&*kedge, "ca", "init", "--dir", path_text(&ca)?];
            output(command(words).args(["--trust-domain", TRUST_DOMAIN]))?;
        }
        Ok(ca)
    }

    /// Once: a CA, or the one in `KEDGE_LAB_CA`, and each node's certificate and documents.
    pub(super) fn prepare_nodes(&self) -> Result<()> {
        if self.ca().exists() {
            return Ok(());
        }
        match std::env::var("KEDGE_LAB_CA") {
            Ok(from) => copy_folder(Path::new(&from), &self.ca())?,
            Err(_) => drop(self.make_ca(CA)?),
        }
        for &node in self.nodes {
            let folder = self.run.node_folder(node);
            fs::create_dir_all(folder.join("policies"))?;
            self.issue_certificate(node)?;
            documents::replace(&folder.join("revoked"), "")?;
            documents::replace(
                &folder.join("kedged.toml"),
                &documents::configuration(&self.run, node, &self.tools.object)?,
            )?;
            self.write_directory(node, 1, &PODS)?;
            self.write_policy(node, "lab", &documents::policy())?;
        }
        Ok(())
    }

    /// The one that both nodes have their certificates of.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.run.folder().join(CA)
    }
}

const CA: &str = "ca";

fn daemon_name(node: Node) -> String {
    format!("kedged-{}", node.name())
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("read {}", from.display()))? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

fn path_text(path: &Path) -> Result<&str> {
    path.to_str().context("a path of the lab is valid UTF-8")
}
