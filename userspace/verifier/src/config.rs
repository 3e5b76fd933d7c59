//! The Verifier's configuration, and the files that it names.

use crate::limits::REVOKED_MAX;
use anyhow::{Context, Result, ensure};
use data_encoding::HEXLOWER;
use kedge_attest::{AkName, Lifetimes, PcrPolicy, Pin, Roots, Sha256, Verifier, VerifierKey};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde::Deserialize;
use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One TOML file, read once. What it names is read again when it changes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// By which nodes pin it, beside its key.
    pub name: String,
    pub listen: SocketAddr,
    /// ECDSA P-256, PKCS #8, PEM.
    pub key: PathBuf,
    /// Whoever certifies AKs, PEM.
    pub roots: PathBuf,
    /// Which values PCRs may have.
    pub policy: PathBuf,
    /// Names of AKs that are not believed, one a line.
    pub revoked: Option<PathBuf>,
    #[serde(default = "default_lifetime_s")]
    pub lifetime_s: u64,
    #[serde(default = "default_hard_lifetime_s")]
    pub hard_lifetime_s: u64,
}

/// What the files say.
pub struct Rules {
    pub verifier: Verifier,
    pub revoked: HashSet<AkName>,
}

/// The content of the files, to tell whether they have changed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Texts {
    roots: Vec<u8>,
    policy: String,
    revoked: String,
}

impl Config {
    /// # Errors
    /// When the file cannot be read or is not what it should be.
    pub fn load(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("configuration {}", path.display()))
    }

    #[must_use]
    pub fn lifetimes(&self) -> Lifetimes {
        Lifetimes {
            fresh: Duration::from_secs(self.lifetime_s),
            hard: Duration::from_secs(self.hard_lifetime_s),
        }
    }

    /// # Errors
    /// When the file is not a key of the kind that is wanted.
    pub fn read_key(&self) -> Result<(VerifierKey, Pin)> {
        let what = || format!("key {}", self.key.display());
        let pem = PrivatePkcs8KeyDer::from_pem_file(&self.key).with_context(what)?;
        VerifierKey::from_pkcs8(&self.name, pem.secret_pkcs8_der()).with_context(what)
    }

    /// Makes the key, mode 0600; one that is there stays.
    ///
    /// # Errors
    /// When it cannot be made or written.
    pub fn make_key(&self) -> Result<()> {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let mut options = fs::File::options();
        let file = options.write(true).create_new(true).mode(0o600);
        file.open(&self.key)
            .and_then(|mut file| file.write_all(key.serialize_pem().as_bytes()))
            .with_context(|| format!("write {}", self.key.display()))
    }

    /// # Errors
    /// When a file cannot be read.
    pub fn read(&self) -> Result<Texts> {
        let text = |path: &Path| {
            fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
        };
        Ok(Texts {
            roots: text(&self.roots)?.into_bytes(),
            policy: text(&self.policy)?,
            revoked: self.revoked.as_deref().map_or(Ok(String::new()), text)?,
        })
    }
}

impl Rules {
    /// # Errors
    /// When one of the texts is not what it should be.
    pub fn parse(texts: &Texts) -> Result<Self> {
        let roots: Vec<_> = CertificateDer::pem_slice_iter(&texts.roots)
            .collect::<Result<_, _>>()
            .context("roots: not certificates in PEM")?;
        ensure!(!roots.is_empty(), "roots: no certificate in the file");
        let policy = PcrPolicy::parse(&texts.policy)?;
        Ok(Self {
            verifier: Verifier::new(Roots::new(&roots).context("roots")?, policy),
            revoked: revoked(&texts.revoked)?,
        })
    }
}

fn revoked(text: &str) -> Result<HashSet<AkName>> {
    let mut names = HashSet::new();
    for (number, line) in (1..).zip(text.lines()) {
        let name = line.split('#').next().unwrap_or_default().trim();
        if name.is_empty() {
            continue;
        }
        let digest = Sha256::parse(name)
            .with_context(|| format!("revoked, line {number}: not 64 hexadecimal digits"))?;
        names.insert(AkName(digest));
        ensure!(
            names.len() <= REVOKED_MAX,
            "revoked: more than {REVOKED_MAX} AKs"
        );
    }
    Ok(names)
}

/// What Relying Parties write into the file of those whom they believe.
#[must_use]
pub fn pin_toml(pin: &Pin) -> String {
    let key = HEXLOWER.encode(&pin.point);
    format!("[[verifier]]\nname = {:?}\nkey = \"{key}\"\n", pin.name)
}

fn default_lifetime_s() -> u64 {
    kedge_attest::limits::RESULT_LIFETIME.as_secs()
}

fn default_hard_lifetime_s() -> u64 {
    3_600
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_for_deployment_is_valid_and_an_unknown_key_is_not() {
        let example = include_str!("../../../deploy/verifier.toml");
        let config: Config = toml::from_str(example).expect("valid");
        assert_eq!(config.lifetimes().fresh, Duration::from_secs(300));
        assert!(toml::from_str::<Config>(&format!("{example}polcy = \"x\"\n")).is_err());
    }

    #[test]
    fn a_line_that_revokes_nothing_is_an_error_with_its_number() {
        let zeros = "0".repeat(64);
        let good = revoked(&format!("# lost\n\n{zeros}  # stolen\n"));
        assert_eq!(good.expect("one AK").len(), 1);
        let bad = revoked("# fine\nnonsense\n").expect_err("no digits");
        assert!(bad.to_string().contains("line 2"), "{bad}");
    }
}
