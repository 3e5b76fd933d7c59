//! Goal: `kedge attest` believes what a TPM has stated, says why it does not else, and certifies no AK
//! that its TPM has not proven.
//!
//! ```text
//!   Attester (a TPM in software) ── Evidence, in a file ── kedge attest verify
//!   sh, in place of `ssh node kedge` ── kedge attest enrol
//! ```

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use clap::Parser;
use kedge_attest::testing::Attester;
use kedge_attest::{Caller, Challenge, Nonce, PcrPolicy, Sha256};
use kedge_cli::arguments::Arguments;
use kedge_cli::{Exit, Failure, command};
use std::fs;
use std::path::PathBuf;
use tempfile::TempDir;

const NONCE: [u8; 16] = [7; 16];

fn run(words: &[&str]) -> (Result<Exit, Failure>, String) {
    let arguments = Arguments::try_parse_from(["kedge"].iter().chain(words)).unwrap();
    let mut out = Vec::new();
    let ended = command::run(&arguments, &mut out);
    (ended, String::from_utf8(out).unwrap())
}

/// A node's Evidence for whoever has its admin socket, and what it is judged by, in files.
struct Files {
    folder: TempDir,
}

impl Files {
    fn of(attester: &mut Attester) -> Self {
        let folder = TempDir::new().unwrap();
        let files = Self { folder };
        let caller = Caller::new("admin").unwrap();
        let asked = Challenge::local(caller, Nonce::new(NONCE).unwrap());
        let evidence = attester.evidence(asked);
        let policy = PcrPolicy::learn([&evidence.quoted.pcrs]).unwrap();
        fs::write(files.path("evidence"), evidence.encode()).unwrap();
        fs::write(files.path("policy.toml"), policy.to_toml()).unwrap();
        fs::write(files.path("roots.pem"), attester.root_pem()).unwrap();
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn verify(&self, node: &str, nonce: &str) -> (Exit, String) {
        let [roots, policy, evidence] = ["roots.pem", "policy.toml", "evidence"]
            .map(|name| self.path(name).display().to_string());
        let words = ["attest", "verify", "--roots", &roots, "--policy", &policy];
        let more = ["--node", node, "--nonce", nonce, &evidence];
        let (ended, said) = run(&[&words[..], &more].concat());
        (ended.unwrap(), said)
    }
}

#[test]
fn evidence_is_believed_for_its_node_nonce_and_policy_and_else_refused_by_name() {
    let mut attester = Attester::new("a");
    let files = Files::of(&mut attester);
    let (a, nonce) = ("spiffe://td/kedge/node/a", "07".repeat(16));
    assert_eq!(files.verify(a, &nonce), (Exit::Done, "believed\n".into()));
    let (exit, said) = files.verify("spiffe://td/kedge/node/b", &nonce);
    assert_eq!(exit, Exit::No);
    assert!(said.contains("certified for"), "{said}");
    for other in ["08".repeat(16), "nonsense".to_owned(), String::new()] {
        let (exit, said) = files.verify(a, &other);
        assert_eq!(exit, Exit::No, "{other:?}");
        assert!(said.contains("another nonce"), "{said}");
    }
    attester.tpm.extend(7, Sha256([1; 32]));
    let changed = Files::of(&mut attester);
    fs::copy(files.path("policy.toml"), changed.path("policy.toml")).unwrap();
    let (exit, said) = changed.verify(a, &nonce);
    assert_eq!(exit, Exit::No);
    assert!(said.contains("PCR 7"), "{said}");
    fs::write(files.path("evidence"), b"garbage").unwrap();
    assert_eq!(files.verify(a, &nonce).0, Exit::No);
}

/// The CA in a folder, and a machine that shows what it should not.
#[test]
fn an_ak_of_another_node_or_of_an_unknown_maker_is_not_certified() {
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let ca = path("ca");
    run(&["ca", "init", "--dir", &ca, "--trust-domain", "td"])
        .0
        .unwrap();
    let attester = Attester::new("a");
    let ak: String = attester
        .tpm
        .ak()
        .as_bytes()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let ek: String = attester.ak_chain[0]
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let request =
        format!(r#"{{"node":"spiffe://td/kedge/node/a","ek_certificate":"{ek}","ak":"{ak}"}}"#);
    fs::write(path("request"), request).unwrap();
    // Some other certificate, which has vouched for nobody.
    fs::write(path("makers.pem"), Attester::new("b").root_pem()).unwrap();
    let enrol = |node: &str| {
        let (makers, out, shown) = (path("makers.pem"), path("ak.pem"), path("request"));
        let words = ["attest", "enrol", "--dir", &ca, "--ek-roots", &makers];
        let more = ["--node", node, "--out", &out, "--", "sh", "-c"];
        let cat = format!("cat {shown}");
        run(&[&words[..], &more, &[&cat]].concat()).0.unwrap_err()
    };
    let other = enrol("b");
    assert!(matches!(other, Failure::OtherNode { .. }), "{other}");
    assert_eq!(other.exit(), Exit::BadInput);
    let unknown = enrol("a");
    assert!(matches!(unknown, Failure::Enrolment(_)), "{unknown}");
    assert!(unknown.report().contains("maker"), "{}", unknown.report());
    assert!(
        !dir.path().join("ak.pem").exists(),
        "something was certified"
    );
}
