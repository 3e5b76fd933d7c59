//! The nodes' TPMs: a swtpm for each; in a test machine that has a TPM of its own ([`MACHINES`]), the
//! last of its nodes has that one.

use super::Lab;
use super::process::Family;
use super::topology::{Node, TRUST_DOMAIN};
use crate::shell::{command, find_program, output};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// The variables that name the machine's own TPM, and the folder with its maker's certificates.
pub const MACHINES: [&str; 2] = ["KEDGE_TPM_DEVICE", "KEDGE_TPM_MAKER"];

const PORT: u16 = 2_321;
/// Of swtpm: extended by a late launch, which comes by another way than commands.
const EXTENDED_FROM_OUTSIDE: u8 = 17;
/// Of the machine's TPM, whose commands a resource manager takes from everybody.
const EXTENDED_BY_COMMAND: u8 = 16;

fn name(node: Node) -> String {
    format!("tpm-{}", node.name())
}

impl Lab {
    /// Where libtss2 finds the TPM of a node.
    pub(super) fn tcti(&self, node: Node) -> String {
        match self.machines_tpm(node) {
            Some([device, _]) => format!("device:{device}"),
            None => format!("swtpm:host=127.0.0.1,port={PORT}"),
        }
    }

    /// Device and maker's folder, of the node that has the machine's TPM.
    fn machines_tpm(&self, node: Node) -> Option<[String; 2]> {
        let [device, maker] = MACHINES.map(|name| env::var(name).ok());
        (self.nodes.last() == Some(&node)).then_some([device?, maker?])
    }

    /// Whom enrolment believes that an EK is in a TPM.
    pub(super) fn tpm_maker(&self, node: Node) -> PathBuf {
        let folder = match self.machines_tpm(node) {
            Some([_, maker]) => PathBuf::from(maker),
            None => self.tpm_folder(node).join(MAKER),
        };
        folder.join(ISSUER)
    }

    /// A TPM that its maker has just delivered, with the machine just switched on. The machine's own
    /// is as it was.
    pub(super) fn power_on_tpm(&mut self, node: Node) -> Result<()> {
        if self.machines_tpm(node).is_some() {
            return Ok(());
        }
        self.stop_process(&name(node))?;
        let folder = self.tpm_folder(node);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        manufacture(&folder)?;
        let tcp = |port: u16| format!("type=tcp,port={port},bindaddr=127.0.0.1");
        let state = format!("dir={}", folder.join(STATE).display());
        let mut words = vec!["swtpm", "socket", "--tpm2", "--tpmstate", &state];
        let (server, control) = (tcp(PORT), tcp(PORT + 1));
        words.extend(["--server", &server, "--ctrl", &control]);
        words.extend(["--flags", "not-need-init,startup-clear"]);
        let tpm = self.spawn(node, &name(node), &words)?;
        tpm.listens_on(&self.run, Family::V4, PORT + 1)
    }

    /// Changes a PCR of a node's TPM, whoever has it open, and says which.
    ///
    /// # Errors
    /// When the TPM does not do it.
    pub fn extend_pcr(&self, node: Node) -> Result<u8> {
        if let Some([device, _]) = self.machines_tpm(node) {
            let (tcti, digest) = (format!("device:{device}"), "07".repeat(32));
            let extension = format!("{EXTENDED_BY_COMMAND}:sha256={digest}");
            self.run(node, &["tpm2_pcrextend", "-T", &tcti, &extension])?;
            return Ok(EXTENDED_BY_COMMAND);
        }
        let control = format!("127.0.0.1:{}", PORT + 1);
        self.run(node, &["swtpm_ioctl", "--tcp", &control, "-h", "tampered"])?;
        Ok(EXTENDED_FROM_OUTSIDE)
    }

    /// Takes a node's TPM away, or leaves it hanging: a stopped one answers nobody.
    ///
    /// # Errors
    /// When there is none, or it is the machine's own.
    pub fn signal_tpm(&self, node: Node, signal: Signal) -> Result<()> {
        let name = name(node);
        let mut running = self.processes().iter().filter(|known| known.name == name);
        running.next().context("no TPM runs")?.signal(signal)
    }

    fn tpm_folder(&self, node: Node) -> PathBuf {
        self.run.node_folder(node).join("tpm")
    }
}

/// What [`manufacture`] leaves in its folder: the maker's certificates, one of which has signed the EKs',
/// and what the TPM keeps.
pub const MAKER: &str = "maker";
pub const ISSUER: &str = "issuercert.pem";
pub const STATE: &str = "state";

/// EKs, their certificates, and a maker of its own who signs them.
///
/// # Errors
/// When swtpm's programs are missing or fail.
pub fn manufacture(folder: &Path) -> Result<()> {
    for program in ["swtpm", "swtpm_setup", "swtpm_ioctl"] {
        ensure!(
            find_program(program).is_some(),
            "no {program} here: `cargo xtask setup` installs it"
        );
    }
    let (maker, state) = (folder.join(MAKER), folder.join(STATE));
    for dir in [&maker, &state] {
        fs::create_dir_all(dir)?;
    }
    let [setup, ca, options] =
        ["setup.conf", "ca.conf", "ca.options"].map(|name| folder.join(name));
    let at = maker.display();
    fs::write(
        &setup,
        format!(
            "create_certs_tool = swtpm_localca\ncreate_certs_tool_config = {}\n\
             create_certs_tool_options = {}\nactive_pcr_banks = sha256\n",
            ca.display(),
            options.display()
        ),
    )?;
    fs::write(
        &ca,
        format!(
            "statedir = {at}\nsigningkey = {at}/signkey.pem\nissuercert = {at}/{ISSUER}\n\
             certserial = {at}/certserial\n"
        ),
    )?;
    fs::write(
        &options,
        format!(
            "--platform-manufacturer kedge\n--platform-version 1\n--platform-model {TRUST_DOMAIN}\n"
        ),
    )?;
    let state = format!("dir://{}", state.display());
    let mut swtpm_setup = command(["swtpm_setup", "--tpm2", "--createek", "--create-ek-cert"]);
    swtpm_setup.args([
        "--lock-nvram",
        "--overwrite",
        "--tpmstate",
        &state,
        "--config",
    ]);
    output(swtpm_setup.arg(&setup))?;
    Ok(())
}
