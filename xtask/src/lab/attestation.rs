//! Attestation in the lab: each node's TPM ([`super::tpm`]), a Verifier on node b, and enrolment by the lab's CA.
//!
//! ```text
//!   node a                                    node b
//!   kedged ── TPM                             kedged ── TPM
//!      └──── HTTP ─────────────────────────────► kedge-verifier (192.0.2.9:15480)
//! ```
//! All of it ends with the lab, being in its cgroups.

use super::process::Family;
use super::topology::Node;
use super::{Build, Lab, WIRE, documents};
use crate::shell::{command, output, wait_for};
use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// An address of its own on node b: kedged may speak to a node's at its peer port only.
const VERIFIER_AT: &str = "192.0.2.9";
const VERIFIER_PORT: u16 = 15_480;
const VERIFIER: &str = "verifier";
/// What is quoted, [`Lab::extend_pcr`]'s among them.
const PCRS: &str = "[0, 7, 16, 17]";

/// What a node's configuration says of it.
#[derive(Clone, Copy, Debug)]
pub struct Attesting<'a> {
    pub mode: &'a str,
    /// How long a Result is fresh, and is good at all.
    pub lifetime_s: u64,
    pub hard_lifetime_s: u64,
    pub max_stale_s: u64,
    /// More lines of the section.
    pub lines: &'a str,
}

impl Default for Attesting<'_> {
    fn default() -> Self {
        Self {
            mode: "required",
            lifetime_s: 300,
            hard_lifetime_s: 3_600,
            max_stale_s: 0,
            lines: "",
        }
    }
}

type Document = BTreeMap<String, BTreeSet<String>>;

impl Lab {
    /// Attests both nodes from the ground up: TPMs, Verifier, enrolment, a policy learned from both,
    /// and daemons that do as `attesting` says.
    ///
    /// # Errors
    /// When something of it does not start, or a node gets no Result.
    pub fn attest(&mut self, attesting: &Attesting<'_>) -> Result<()> {
        self.stop_daemons()?;
        let pin = self.make_verifier(attesting)?;
        let learned = self.enrol_nodes(attesting, &pin)?;
        self.start_verifier_with(&[&learned])?;
        let mut nodes = self.nodes.iter();
        nodes.try_for_each(|&node| self.has_result(node, Duration::from_secs(30)))
    }

    /// A Verifier on node b that does not run yet; what it answers is what nodes must know of it.
    ///
    /// # Errors
    /// When its key cannot be made.
    pub fn make_verifier(&mut self, attesting: &Attesting<'_>) -> Result<String> {
        self.prepare_nodes()?;
        self.stop_verifier()?;
        let address = format!("{VERIFIER_AT}/24");
        self.run(
            Node::B,
            &["ip", "address", "replace", &address, "dev", WIRE],
        )?;
        self.prepare_verifier(attesting)
    }

    /// Starts the daemons, which believe the Verifier of `pin`, with TPMs that are enrolled; answers
    /// the policy that what their PCRs hold now makes.
    ///
    /// # Errors
    /// When something of it does not start, or a TPM states nothing that is believed.
    pub fn enrol_nodes(&mut self, attesting: &Attesting<'_>, pin: &str) -> Result<String> {
        self.prepare_nodes()?;
        for &node in self.nodes {
            self.power_on_tpm(node)?;
            self.write_verifiers(node, pin)?;
            self.start_attesting(node, attesting)?;
        }
        let mut nodes = self.nodes.iter();
        nodes.try_for_each(|&node| self.daemon_answers(node))?;
        let mut policy = Document::new();
        for &node in self.nodes {
            self.enrol(node)?;
            add(&mut policy, &self.learned(node)?)?;
        }
        Ok(written(&policy))
    }

    /// Starts the Verifier, which allows what any of these policies does.
    ///
    /// # Errors
    /// When one is none, or it cannot be started.
    pub fn start_verifier_with(&mut self, policies: &[&str]) -> Result<()> {
        let mut policy = Document::new();
        policies
            .iter()
            .try_for_each(|text| add(&mut policy, text))?;
        self.write_attestation_policy(&policy)?;
        self.start_verifier()
    }

    /// Starts one node's daemon, as `attesting` says.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_attesting(&mut self, node: Node, attesting: &Attesting<'_>) -> Result<()> {
        let build = Build {
            kedged: self.tools.kedged.clone(),
            object: self.tools.object.clone(),
            lines: self.section(node, attesting),
        };
        self.start_build(node, &build, None)?;
        Ok(())
    }

    /// The lines of `[attestation]`.
    #[must_use]
    pub fn section(&self, node: Node, attesting: &Attesting<'_>) -> String {
        let folder = self.run.node_folder(node);
        let Attesting {
            mode,
            max_stale_s,
            lines,
            ..
        } = attesting;
        format!(
            "\n[attestation]\nmode = \"{mode}\"\ntcti = \"{tcti}\"\n\
             ak_certificate = \"{0}/ak.pem\"\npcrs = {PCRS}\nverifier = \"{1}:{VERIFIER_PORT}\"\n\
             verifiers = \"{0}/verifiers.toml\"\nmax_stale_s = {max_stale_s}\n{lines}",
            folder.display(),
            VERIFIER_AT,
            tcti = self.tcti(node),
        )
    }

    /// Until a node has a Result.
    ///
    /// # Errors
    /// When it gets none in time, with the reason.
    pub fn has_result(&self, node: Node, limit: Duration) -> Result<()> {
        let what = format!("a Result for node {}", node.name());
        let mut last = String::new();
        wait_for(&what, limit, || {
            last = self.kedge_any_end(node, &["attest", "status"])?;
            Ok((last.contains("fresh for")).then_some(()))
        })
        .with_context(|| last.clone())
    }

    /// Lets the Verifier allow what this node's PCRs hold now, beside what it allows already.
    ///
    /// # Errors
    /// When the node's TPM states nothing that is believed.
    pub fn allow_what_holds(&self, node: Node) -> Result<()> {
        let mut policy = Document::new();
        add(&mut policy, &fs::read_to_string(self.policy_path())?)?;
        add(&mut policy, &self.learned(node)?)?;
        self.write_attestation_policy(&policy)
    }

    /// # Errors
    /// When it cannot be started.
    pub fn start_verifier(&mut self) -> Result<()> {
        let program = self.tools.verifier.display().to_string();
        let config = self.verifier_folder().join("verifier.toml");
        let words = [&*program, "--config", &config.display().to_string()];
        let verifier = self.spawn(Node::B, VERIFIER, &words)?;
        verifier.listens_on(&self.run, Family::V4, VERIFIER_PORT)
    }

    /// # Errors
    /// When it does not end.
    pub fn stop_verifier(&mut self) -> Result<()> {
        self.stop_process(VERIFIER)
    }

    pub(super) fn stop_process(&self, name: &str) -> Result<()> {
        let running = self.processes().iter().filter(|known| known.name == name);
        running
            .into_iter()
            .try_for_each(|process| process.stop(Signal::SIGTERM))
    }

    fn prepare_verifier(&self, attesting: &Attesting<'_>) -> Result<String> {
        let folder = self.verifier_folder();
        fs::create_dir_all(&folder)?;
        let text = format!(
            "name = \"lab\"\nlisten = \"{listen}:{VERIFIER_PORT}\"\nkey = \"{0}/key.pem\"\n\
             roots = \"{1}/ca.pem\"\npolicy = \"{0}/policy.toml\"\nlifetime_s = {2}\n\
             hard_lifetime_s = {3}\n",
            folder.display(),
            self.ca().display(),
            attesting.lifetime_s,
            attesting.hard_lifetime_s,
            listen = VERIFIER_AT,
        );
        let config = folder.join("verifier.toml");
        documents::replace(&config, &text)?;
        let program = self.tools.verifier.display().to_string();
        let make = match folder.join("key.pem").exists() {
            true => "--pin",
            false => "--make-key",
        };
        output(command([&*program, make, "--config"]).arg(&config))
    }

    /// Whom a node believes.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_verifiers(&self, node: Node, text: &str) -> Result<()> {
        documents::replace(&self.verifiers_path(node), text)
    }

    #[must_use]
    pub fn verifiers_path(&self, node: Node) -> PathBuf {
        self.run.node_folder(node).join("verifiers.toml")
    }

    /// As an operator does it who has the CA, with the node's own daemon at the other end.
    fn enrol(&self, node: Node) -> Result<()> {
        let folder = self.run.node_folder(node);
        let mut enrol = self.kedge_command(node, &["attest", "enrol", "--node", node.name()]);
        enrol.arg("--dir").arg(self.ca());
        enrol.arg("--ek-roots").arg(self.tpm_maker(node));
        enrol.arg("--out").arg(folder.join("ak.pem"));
        wait_for("the TPM to be open", Duration::from_secs(20), || {
            self.kedge(node, &["attest", "request"]).map(Some)
        })?;
        output(&mut enrol)?;
        Ok(())
    }

    fn learned(&self, node: Node) -> Result<String> {
        let roots = self.ca().join("ca.pem").display().to_string();
        let learn = ["attest", "learn", "--roots", &roots];
        // The daemon reads the AK's certificate before its next question to the Verifier.
        wait_for("what the PCRs hold", Duration::from_secs(20), || {
            self.kedge(node, &learn).map(Some)
        })
    }

    fn write_attestation_policy(&self, policy: &Document) -> Result<()> {
        documents::replace(&self.policy_path(), &written(policy))
    }

    #[must_use]
    pub fn policy_path(&self) -> PathBuf {
        self.verifier_folder().join("policy.toml")
    }

    fn verifier_folder(&self) -> PathBuf {
        self.run.folder().join(VERIFIER)
    }
}

/// Every value that another document allows, too.
fn add(policy: &mut Document, text: &str) -> Result<()> {
    let parsed: toml::Table = toml::from_str(text)?;
    let pcrs = parsed.get("pcrs").and_then(toml::Value::as_table);
    for (index, values) in pcrs.context("a policy names PCRs")? {
        let values = values.as_array().into_iter().flatten();
        let texts = values.filter_map(toml::Value::as_str).map(str::to_owned);
        policy.entry(index.clone()).or_default().extend(texts);
    }
    Ok(())
}

fn written(policy: &Document) -> String {
    let line = |(index, values): (&String, &BTreeSet<String>)| {
        format!("{index} = {values:?}\n")
            .replace('{', "[")
            .replace('}', "]")
    };
    let lines: String = policy.iter().map(line).collect();
    format!("[pcrs]\n{lines}")
}
