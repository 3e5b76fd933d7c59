//! The configuration: one TOML file, checked once, at start. docs/configuration.md describes it.

use crate::attestation::{RawSettings, Settings};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use kedge_identity::SvidPaths;
use kedge_model::{NodeName, RecordsMode, SpiffeId, Suite, TrustDomain};
use serde::Deserialize;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// What the daemon runs by.
#[derive(Debug)]
pub struct Config {
    pub node: NodeName,
    pub trust_domain: TrustDomain,
    pub cgroup_root: PathBuf,
    pub bpffs: PathBuf,
    pub run_dir: PathBuf,
    pub directory: PathBuf,
    pub policies: PathBuf,
    pub object: PathBuf,
    /// Relative to `cgroup_root`.
    pub managed_roots: Vec<PathBuf>,
    pub probe_cgroups: Vec<PathBuf>,
    pub svid: SvidPaths,
    /// The revocation list, where there is one.
    pub revoked: Option<PathBuf>,
    pub peer: Peer,
    pub capture: Capture,
    pub suites: Vec<Suite>,
    pub records: RecordsMode,
    pub attestation: Settings,
    pub workers: u16,
    pub log_filter: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    pub listen: Vec<IpAddr>,
    #[serde(default = "default_peer_port")]
    pub port: u16,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Capture {
    pub ipv4: Ipv4Net,
    pub ipv6: Ipv6Net,
    pub port: u16,
    /// Lets the BPF programs log each decision (level debug).
    pub debug: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    node: NodeName,
    trust_domain: TrustDomain,
    #[serde(default = "default_cgroup_root")]
    cgroup_root: PathBuf,
    #[serde(default = "default_bpffs")]
    bpffs: PathBuf,
    #[serde(default = "default_run_dir")]
    run_dir: PathBuf,
    directory: PathBuf,
    policies: PathBuf,
    object: Option<PathBuf>,
    #[serde(default)]
    managed_roots: Vec<PathBuf>,
    #[serde(default)]
    probe_cgroups: Vec<PathBuf>,
    svid: RawSvid,
    peer: Peer,
    #[serde(default)]
    capture: Capture,
    #[serde(default)]
    records: RawRecords,
    #[serde(default)]
    attestation: RawSettings,
    #[serde(default)]
    workers: RawWorkers,
    #[serde(default)]
    log: RawLog,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSvid {
    certificate: PathBuf,
    key: PathBuf,
    bundle: PathBuf,
    revoked: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawRecords {
    suites: Vec<Suite>,
    mode: RecordsMode,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawWorkers {
    count: Option<u16>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawLog {
    filter: String,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("read configuration {}", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("configuration {}: {source}", path.display())]
    Syntax {
        path: PathBuf,
        source: Box<toml::de::Error>,
    },
    #[error("configuration: {0}")]
    Value(&'static str),
}

impl Config {
    /// Reads and checks the file; an error of syntax, type or an unknown key names its line.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text).map_err(|error| match error {
            ParseError::Syntax(source) => ConfigError::Syntax {
                path: path.to_owned(),
                source,
            },
            ParseError::Value(what) => ConfigError::Value(what),
        })
    }

    fn parse(text: &str) -> Result<Self, ParseError> {
        let raw: RawConfig = toml::from_str(text).map_err(|e| ParseError::Syntax(Box::new(e)))?;
        raw.check()
    }

    /// The SPIFFE ID that our own SVID must have.
    pub fn id(&self) -> SpiffeId {
        SpiffeId::node(&self.trust_domain, &self.node)
    }
}

enum ParseError {
    Syntax(Box<toml::de::Error>),
    Value(&'static str),
}

impl RawConfig {
    fn check(self) -> Result<Config, ParseError> {
        let relative = |paths: &[PathBuf]| paths.iter().all(|path| path.is_relative());
        let rules = [
            (
                !self.peer.listen.is_empty(),
                "peer.listen names no address: peers could not reach us",
            ),
            (
                !self.records.suites.is_empty(),
                "records.suites is empty: nothing could be sealed",
            ),
            (
                self.workers.count != Some(0),
                "workers.count is 0: nobody would carry a flow",
            ),
            (
                relative(&self.managed_roots),
                "managed_roots are relative to cgroup_root",
            ),
            (
                relative(&self.probe_cgroups),
                "probe_cgroups are relative to cgroup_root",
            ),
            (
                self.peer.listen.iter().all(|ip| !ip.is_unspecified()),
                "peer.listen must name this node's own addresses, as in the directory",
            ),
        ];
        if let Some((_, broken)) = rules.into_iter().find(|(holds, _)| !holds) {
            return Err(ParseError::Value(broken));
        }
        Ok(Config {
            node: self.node,
            trust_domain: self.trust_domain,
            cgroup_root: self.cgroup_root,
            bpffs: self.bpffs,
            run_dir: self.run_dir,
            directory: self.directory,
            policies: self.policies,
            object: self.object.unwrap_or_else(default_object),
            managed_roots: self.managed_roots,
            probe_cgroups: self.probe_cgroups,
            svid: SvidPaths {
                certificate: self.svid.certificate,
                key: self.svid.key,
                bundle: self.svid.bundle,
            },
            revoked: self.svid.revoked,
            peer: self.peer,
            capture: self.capture,
            suites: self.records.suites,
            records: self.records.mode,
            attestation: self.attestation.check().map_err(ParseError::Value)?,
            workers: self.workers.count.unwrap_or_else(default_workers),
            log_filter: self.log.filter,
        })
    }
}

impl Capture {
    /// Where the daemon itself answers a workload that asks for it: the first capture address of
    /// each family, at the first capture port.
    pub fn probe_ends(&self) -> [SocketAddr; 2] {
        kedge_capture::probe_ends(self.ipv4.network(), self.ipv6.network(), self.port)
    }

    /// The capture range that connections to `asked` are sent to.
    pub fn range_for(&self, asked: IpAddr) -> IpNet {
        match asked {
            IpAddr::V4(_) => self.ipv4.into(),
            IpAddr::V6(_) => self.ipv6.into(),
        }
    }
}

impl Default for Capture {
    fn default() -> Self {
        Self {
            ipv4: "169.254.76.0/22".parse().expect("a valid prefix"),
            ipv6: "fd6b:6564:6765::/118".parse().expect("a valid prefix"),
            port: 15_001,
            debug: false,
        }
    }
}

impl Default for RawRecords {
    fn default() -> Self {
        Self {
            suites: Suite::ALL.to_vec(),
            mode: RecordsMode::default(),
        }
    }
}

impl Default for RawLog {
    fn default() -> Self {
        Self {
            filter: "info".to_owned(),
        }
    }
}

fn default_peer_port() -> u16 {
    15_443
}

fn default_cgroup_root() -> PathBuf {
    "/sys/fs/cgroup".into()
}

fn default_bpffs() -> PathBuf {
    "/sys/fs/bpf/kedge".into()
}

fn default_run_dir() -> PathBuf {
    kedge_api::path::RUN_DIR_DEFAULT.into()
}

/// `KEDGE_BPF_OBJECT`, else beside the daemon, else where packages put it.
fn default_object() -> PathBuf {
    const FILE: &str = "kedge.bpf.o";
    if let Some(path) = std::env::var_os("KEDGE_BPF_OBJECT") {
        return path.into();
    }
    let beside = std::env::current_exe()
        .ok()
        .map(|exe| exe.with_file_name(FILE));
    beside
        .filter(|path| path.exists())
        .unwrap_or_else(|| Path::new("/usr/lib/kedge").join(FILE))
}

/// One worker for each core that we may use.
fn default_workers() -> u16 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    u16::try_from(cores).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = r#"
node = "a"
trust_domain = "lab.kedge"
directory = "/etc/kedge/directory.toml"
policies = "/etc/kedge/policies"
svid = { certificate = "c", key = "k", bundle = "b" }
peer = { listen = ["192.0.2.1"] }
"#;

    fn error_of(text: &str) -> String {
        match Config::parse(text) {
            Ok(_) => panic!("accepted: {text}"),
            Err(ParseError::Syntax(error)) => error.to_string(),
            Err(ParseError::Value(what)) => what.to_owned(),
        }
    }

    #[test]
    fn what_is_not_said_has_its_documented_default() {
        let Ok(config) = Config::parse(MINIMAL) else {
            panic!("refused")
        };
        assert_eq!(config.id().as_str(), "spiffe://lab.kedge/kedge/node/a");
        assert_eq!((config.peer.port, config.capture.port), (15_443, 15_001));
        assert_eq!(config.suites, Suite::ALL);
        assert_eq!(config.attestation.mode, kedge_api::AttestationMode::Off);
    }

    #[test]
    fn the_example_for_deployment_is_valid() {
        let example = include_str!("../../../deploy/kedged.toml");
        let Ok(config) = Config::parse(example) else {
            panic!("refused")
        };
        assert_eq!(config.managed_roots, [PathBuf::from("kubepods.slice")]);
    }

    #[test]
    fn an_unknown_key_is_an_error_with_its_line() {
        let error = error_of(&format!("{MINIMAL}wokers = {{ count = 2 }}\n"));
        assert!(
            error.contains("line 8") && error.contains("wokers"),
            "{error}"
        );
    }

    #[test]
    fn what_could_not_work_is_refused_with_what_to_do() {
        let without_address = MINIMAL.replace("[\"192.0.2.1\"]", "[]");
        assert!(error_of(&without_address).contains("peer.listen"));
        let everywhere = MINIMAL.replace("192.0.2.1", "0.0.0.0");
        assert!(error_of(&everywhere).contains("own addresses"));
        let attested = |more: &str| {
            error_of(&format!(
                "{MINIMAL}[attestation]\nmode = \"required\"\n{more}"
            ))
        };
        assert!(attested("").contains("attestation.verifier "));
        let verifier = "verifier = \"192.0.2.9:15480\"\n";
        assert!(attested(verifier).contains("attestation.verifiers "));
        let whole = "verifier = \"192.0.2.9:1\"\nverifiers = \"f\"\nak_certificate = \"c\"\n";
        assert!(attested(&format!("pcrs = [24]\n{whole}")).contains("pcrs"));
        for (line, what) in [
            ("eagerness = nan", "eagerness"),
            ("cost_min_s = 301", "cost_min_s"),
            ("backoff_min_s = 0", "backoff_min_s"),
            ("backoff_max_s = 3601", "backoff_max_s"),
        ] {
            let refresh = format!("{whole}[attestation.refresh]\n{line}\n");
            assert!(attested(&refresh).contains(what), "{line}");
        }
        assert!(error_of(&format!("{MINIMAL}[workers]\ncount = 0\n")).contains("workers.count"));
    }
}
