//! The command line, defined once: help, man pages, completions and docs/cli.md come from here.

use clap::{ArgGroup, Args, Parser, Subcommand, ValueHint};
use clap_complete::Shell;
use kedge_api::path::{RUN_DIR_DEFAULT, SOCKET_FILE};
use kedge_model::{NodeName, SpiffeId, TrustDomain};
use std::net::SocketAddr;
use std::path::PathBuf;

const EXIT_CODES: &str = "Exit codes:
  0  done, or the answer is yes
  1  the answer is no: denied, a feature is missing, or doctor found a failure
  2  wrong usage
  3  no daemon answers
  4  a file or an argument that was given is wrong
  5  the daemon or the system could not do it";

/// Look into kedged, and make what it reads.
///
/// Data goes to stdout, messages go to stderr.
#[derive(Debug, Parser)]
#[command(name = "kedge", version, after_help = EXIT_CODES, arg_required_else_help = true)]
pub struct Arguments {
    /// Print JSON instead of a table; its form is stable.
    #[arg(long, global = true)]
    pub json: bool,
    /// Where kedged has its sockets (`run_dir` in its configuration).
    #[arg(long, global = true, value_name = "DIR", default_value = RUN_DIR_DEFAULT)]
    #[arg(value_hint = ValueHint::DirPath)]
    pub run_dir: PathBuf,
    /// The admin socket itself, instead of DIR/admin.sock.
    #[arg(long, global = true, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub socket: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Command,
}

impl Arguments {
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.socket
            .clone()
            .unwrap_or_else(|| self.run_dir.join(SOCKET_FILE))
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show one daemon at a glance.
    Status,
    /// The sessions with other nodes.
    #[command(subcommand)]
    Link(LinkCommand),
    /// The connections that are carried now.
    #[command(subcommand)]
    Flow(FlowCommand),
    /// The connections that should be carried and are not.
    #[command(subcommand)]
    Socket(SocketCommand),
    /// Who may talk to whom.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Who is where.
    #[command(subcommand)]
    Directory(DirectoryCommand),
    /// What this kernel can do.
    #[command(subcommand)]
    Feature(FeatureCommand),
    /// What happened: refusals, links, reloads, each with its cause and what to do.
    #[command(subcommand)]
    Event(EventCommand),
    /// The embedded certificate authority.
    #[command(subcommand)]
    Ca(CaCommand),
    /// What the machine is, proven by its TPM.
    #[command(subcommand)]
    Attest(AttestCommand),
    /// Detach every program of kedge from this node, on purpose: nothing is captured or guarded
    /// any more. Needs neither daemon nor configuration.
    Off(OffArguments),
    /// Look for what keeps connections from being captured: kernel, programs and those of others,
    /// routes, listeners, links, and each workload's own way to kedged, tried from its cgroup and
    /// network namespace. Needs root; works with kedged dead. Exits 1 when something fails.
    Doctor(DoctorArguments),
    /// Go a workload's way to kedged and tell how far it leads, one line of JSON a destination:
    /// what `kedge doctor` runs for each workload.
    #[command(hide = true)]
    Probe(ProbeArguments),
    /// Print the man page, or write all of them.
    Man(ManArguments),
    /// Print the completions of a shell.
    Completions {
        /// The shell that is to complete.
        shell: Shell,
    },
}

#[derive(Debug, Subcommand)]
pub enum LinkCommand {
    /// List the links, one a line.
    List,
}

#[derive(Debug, Subcommand)]
pub enum FlowCommand {
    /// List the flows, one a line.
    List,
}

#[derive(Debug, Subcommand)]
pub enum SocketCommand {
    /// List the TCP connections of workloads in mode require that are older than the mode: their
    /// plaintext is dropped, and they have to be made anew. A probe that is under way is one too.
    List,
}

#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Say whether SRC may reach DST at PORT, and which rule says so. Exits 1 when denied.
    Explain(ExplainArguments),
    /// Check a folder of policy documents without a daemon.
    Check {
        /// The folder; every *.toml in it counts.
        #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
        folder: PathBuf,
    },
}

#[derive(Debug, Args)]
pub struct ExplainArguments {
    /// The connecting workload's SPIFFE ID.
    #[arg(value_name = "SRC")]
    pub source: SpiffeId,
    /// The answering workload's SPIFFE ID.
    #[arg(value_name = "DST")]
    pub destination: SpiffeId,
    /// The port at which the answering workload listens.
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
    /// Ask the documents of this folder instead of the daemon.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub policies: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum DirectoryCommand {
    /// Check a directory file without a daemon.
    Check {
        /// The directory file.
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub enum FeatureCommand {
    /// Load a small program for each thing that kedge needs of the kernel, and try what its TLS
    /// really does, for `records.mode = "kernel"`. Needs root, but no daemon. Exits 1 when
    /// something is missing that is not optional.
    Probe,
}

#[derive(Debug, Subcommand)]
pub enum EventCommand {
    /// List the events that the daemon has kept.
    List(EventArguments),
    /// List them, and go on as events happen.
    Follow(EventArguments),
}

#[derive(Debug, Args)]
pub struct EventArguments {
    /// Only events with a greater number.
    #[arg(long, value_name = "NUMBER")]
    pub since: Option<u64>,
}

#[derive(Debug, Subcommand)]
pub enum CaCommand {
    /// Make a CA: a key (mode 0600) and a certificate. Overwrites nothing.
    Init {
        /// Where the CA is kept.
        #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
        dir: PathBuf,
        /// The trust domain that it answers for, such as example.org.
        #[arg(long, value_name = "NAME")]
        trust_domain: TrustDomain,
    },
    /// Issue a certificate: NAME.pem, NAME.key and bundle.pem, where NAME is `node` or `workload`.
    Issue(IssueArguments),
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("subject").required(true))]
pub struct IssueArguments {
    /// Where the CA is kept.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,
    /// For the daemon of this node.
    #[arg(long, value_name = "NAME", group = "subject")]
    pub node: Option<NodeName>,
    /// For this workload.
    #[arg(long, value_name = "NAMESPACE/SERVICE-ACCOUNT", group = "subject")]
    pub workload: Option<String>,
    /// Where the files go; each is replaced in one step.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub out: PathBuf,
    /// How long it is valid.
    #[arg(long, value_name = "HOURS", default_value_t = 24.0)]
    pub lifetime_hours: f64,
}

#[derive(Debug, Subcommand)]
pub enum AttestCommand {
    /// Show how attestation stands: the TPM, this node's Result, those of its peers, and why one is
    /// missing. Exits 1 when this node has none.
    Status,
    /// Show this node's Attestation Result, as peers get it; `--json` has the token.
    Show,
    /// Let the TPM state what it is in answer to a nonce, and write the Evidence.
    Quote {
        /// 16 to 64 bytes in hexadecimal digits; a random one, printed, unless given.
        #[arg(long, value_name = "HEX")]
        nonce: Option<String>,
        /// Where the Evidence goes.
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        out: PathBuf,
    },
    /// Ask for Evidence as anybody on the node may, at the attestation socket. Needs no root; kedged
    /// says who asks.
    Ask {
        /// 16 to 64 bytes in hexadecimal digits, as whoever will verify has given it.
        #[arg(long, value_name = "HEX")]
        nonce: String,
        /// Where the Evidence goes.
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        out: PathBuf,
        #[command(flatten)]
        at: AttestSocketArguments,
    },
    /// Print the token of this node's Attestation Result, as anybody on the node may ask for it.
    Result {
        #[command(flatten)]
        at: AttestSocketArguments,
    },
    /// Judge Evidence that `kedge attest quote` or `ask` has written, without a daemon. Exits 1 when it
    /// is not believed.
    Verify(VerifyArguments),
    /// Propose a policy that allows exactly what this node's PCRs hold now, after every other check.
    Learn {
        /// Whoever certifies AKs, PEM.
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        roots: PathBuf,
    },
    /// Certify the AK of a node, as its CA: the node's TPM proves that it has both the EK that its maker
    /// vouches for and this AK. Run it where the CA's key is.
    Enrol(EnrolArguments),
    /// Print what this node shows to be enrolled: what `kedge attest enrol` asks for.
    Request,
    /// Open the challenge on stdin with the TPM, and print the answer: what `kedge attest enrol` asks
    /// for.
    Activate,
}

#[derive(Debug, Args)]
pub struct AttestSocketArguments {
    /// kedged's attestation socket.
    #[arg(long = "at", value_name = "PATH", value_hint = ValueHint::FilePath,
          default_value = "/run/kedge/attest/attest.sock")]
    pub socket: PathBuf,
}

#[derive(Debug, Args)]
pub struct VerifyArguments {
    /// Whoever certifies AKs, PEM.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub roots: PathBuf,
    /// Which values PCRs may have.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub policy: PathBuf,
    /// The node's SPIFFE ID.
    #[arg(long, value_name = "ID")]
    pub node: SpiffeId,
    /// The nonce that was asked with.
    #[arg(long, value_name = "HEX")]
    pub nonce: String,
    /// Who asked, as `kedge attest ask` has printed it.
    #[arg(long, value_name = "NAME", default_value = "admin")]
    pub caller: String,
    /// The Evidence.
    #[arg(value_hint = ValueHint::FilePath)]
    pub evidence: PathBuf,
}

#[derive(Debug, Args)]
pub struct EnrolArguments {
    /// Where the CA is kept.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,
    /// Certificates of the TPMs' makers that are believed, roots or intermediates, PEM.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub ek_roots: PathBuf,
    /// The node that this machine is to be. That it may have this name is for you to say.
    #[arg(long, value_name = "NAME")]
    pub node: NodeName,
    /// Only the machine whose EK has this SHA-256 (of the SubjectPublicKeyInfo).
    #[arg(long, value_name = "HEX")]
    pub ek: Option<String>,
    /// Where the AK's certificate goes; the node's `attestation.ak_certificate` gets a copy.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub out: PathBuf,
    /// How long it is valid.
    #[arg(long, value_name = "HOURS", default_value_t = 2160.0)]
    pub lifetime_hours: f64,
    /// How `kedge` is run on the node, such as `ssh node-1 kedge`; on this machine unless given.
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

#[derive(Debug, Args)]
pub struct OffArguments {
    /// The daemon's pins (`bpffs` in its configuration).
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub bpffs: PathBuf,
}

#[derive(Debug, Args)]
pub struct DoctorArguments {
    /// The daemon's pins (`bpffs` in its configuration).
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf/kedge")]
    #[arg(value_hint = ValueHint::DirPath)]
    pub bpffs: PathBuf,
}

#[derive(Debug, Args)]
pub struct ProbeArguments {
    /// A process in the network namespace to be entered.
    #[arg(long)]
    pub pid: u32,
    /// The cgroup to be joined.
    #[arg(long, value_name = "DIR")]
    pub cgroup: PathBuf,
    /// Where kedged answers.
    pub to: Vec<SocketAddr>,
}

#[derive(Debug, Args)]
pub struct ManArguments {
    /// Write a page for each command into this directory.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with = "markdown")]
    pub out: Option<PathBuf>,
    /// Print docs/cli.md instead.
    #[arg(long)]
    pub markdown: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_socket_is_in_the_run_directory_unless_named() {
        let socket = |words: &[&str]| Arguments::parse_from(words).socket();
        assert_eq!(
            socket(&["kedge", "status"]),
            PathBuf::from("/run/kedge/admin.sock")
        );
        assert_eq!(
            socket(&["kedge", "status", "--run-dir", "/r"]),
            PathBuf::from("/r/admin.sock")
        );
        assert_eq!(
            socket(&["kedge", "--socket", "/s", "status"]),
            PathBuf::from("/s")
        );
    }

    #[test]
    fn a_certificate_is_for_a_node_or_a_workload() {
        let issue = |words: &[&str]| {
            let base = ["kedge", "ca", "issue", "--dir", "d", "--out", "o"];
            Arguments::try_parse_from(base.iter().chain(words))
        };
        assert!(issue(&["--node", "a"]).is_ok() && issue(&["--workload", "ns/sa"]).is_ok());
        assert!(issue(&[]).is_err() && issue(&["--node", "a", "--workload", "ns/sa"]).is_err());
    }
}
