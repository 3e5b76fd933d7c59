//! Goal: the Verifier believes Evidence that answers its own nonce, about the node that asks, from a
//! machine that its files allow, and says why it does not else.
//!
//! ```text
//!   Attester (a TPM in software) ── HTTP on loopback ── kedge-verifier's service, its files
//! ```

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use kedge_api::appraisal::{Denial, NonceAnswer};
use kedge_attest::testing::Attester;
use kedge_attest::{Caller, Challenge, Evidence, Nonce, PcrPolicy, PinnedKeys, Required, Sha256};
use kedge_verifier::config::Config;
use kedge_verifier::judge::Judge;
use rustls_pki_types::UnixTime;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

struct Scene {
    folder: TempDir,
    attester: Attester,
    judge: Arc<Judge>,
    address: SocketAddr,
}

impl Scene {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let mut attester = Attester::new("a");
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("roots.pem", attester.root_pem());
        write("revoked", "");
        let evidence = attester.evidence(asked("v", &[1; 16]));
        let policy = PcrPolicy::learn([&evidence.quoted.pcrs]).unwrap();
        write("policy.toml", &policy.to_toml());
        let config = config(folder.path());
        config.make_key().unwrap();
        assert!(config.make_key().is_err(), "a key that is there stays");
        let judge = Arc::new(Judge::new(config).unwrap());
        let address = serve(Arc::clone(&judge));
        Self {
            folder,
            attester,
            judge,
            address,
        }
    }

    fn nonce(&self) -> Nonce {
        let (status, body) = self.post("/v1/nonce", b"");
        assert_eq!(status, 200);
        let answer: NonceAnswer = serde_json::from_slice(&body).unwrap();
        assert_eq!(answer.verifier, "v");
        let digits = answer.nonce.as_bytes().chunks(2);
        let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
        Nonce::new(digits.map(byte).collect::<Vec<_>>()).unwrap()
    }

    fn evidence(&mut self) -> Evidence {
        let nonce = self.nonce();
        self.attester.evidence(asked("v", nonce.as_bytes()))
    }

    fn appraise(&self, evidence: &Evidence) -> Result<String, Denial> {
        let path = format!("/v1/appraise?node={}", self.attester.node);
        match self.post(&path, &evidence.encode()) {
            (200, token) => Ok(String::from_utf8(token).unwrap()),
            (403, denial) => Err(serde_json::from_slice(&denial).unwrap()),
            (status, _) => panic!("answered {status}"),
        }
    }

    fn refused(&self, evidence: &Evidence) -> String {
        self.appraise(evidence).unwrap_err().label
    }

    fn post(&self, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: v\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        // One that is refused by its length is answered before it is read.
        let _ = stream.write_all(body);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let end = answer
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .unwrap();
        let status = str::from_utf8(&answer[9..12]).unwrap().parse().unwrap();
        (status, answer[end + 4..].to_vec())
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).unwrap();
        // As the service does every second; a bad file is an error here.
        let _ = self.judge.reload();
    }
}

fn config(folder: &Path) -> Config {
    let text = format!(
        "name = \"v\"\nlisten = \"127.0.0.1:0\"\nkey = \"{0}/key.pem\"\nroots = \"{0}/roots.pem\"\n\
         policy = \"{0}/policy.toml\"\nrevoked = \"{0}/revoked\"\nlifetime_s = 60\n",
        folder.display()
    );
    fs::write(folder.join("verifier.toml"), text).unwrap();
    Config::load(&folder.join("verifier.toml")).unwrap()
}

fn serve(judge: Arc<Judge>) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            kedge_verifier::serve(judge, listener).await.unwrap();
        });
    });
    address
}

fn asked(verifier: &str, nonce: &[u8]) -> Challenge {
    let nonce = Nonce::new(nonce).unwrap();
    Challenge::appraisal(Caller::new(verifier).unwrap(), nonce)
}

#[test]
fn evidence_that_answers_its_nonce_becomes_a_result_that_its_pin_verifies() {
    let mut scene = Scene::new();
    let evidence = scene.evidence();
    let token = scene.appraise(&evidence).unwrap();
    let pinned = PinnedKeys::new(std::slice::from_ref(scene.judge.pin()), &[]).unwrap();
    let required = Required {
        node: scene.attester.node.clone(),
        node_key: scene.attester.node_key,
        policies: Vec::new(),
        max_stale: Duration::ZERO,
    };
    let result = pinned.verify(&token, &required, UnixTime::now()).unwrap();
    assert_eq!(result.verifier(), "v");
}

#[test]
fn evidence_for_another_nonce_verifier_purpose_or_node_is_refused_by_name() {
    let mut scene = Scene::new();
    let of_ours = scene.attester.evidence(asked("v", &[9; 32]));
    assert_eq!(scene.refused(&of_ours), "other-nonce");
    let nonce = scene.nonce();
    let elsewhere = scene.attester.evidence(asked("w", nonce.as_bytes()));
    assert_eq!(scene.refused(&elsewhere), "other-caller");
    let local = Challenge::local(Caller::new("v").unwrap(), nonce);
    let local = scene.attester.evidence(local);
    assert_eq!(scene.refused(&local), "other-purpose");
    let path = "/v1/appraise?node=spiffe://td/kedge/node/b";
    let evidence = scene.evidence();
    let (status, body) = scene.post(path, &evidence.encode());
    let denial: Denial = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, &*denial.label), (403, "ak-other-node"));
}

#[test]
fn what_the_files_allow_is_taken_anew_and_a_bad_file_changes_nothing() {
    let mut scene = Scene::new();
    scene.attester.tpm.extend(7, Sha256([7; 32]));
    let evidence = scene.evidence();
    let denial = scene.appraise(&evidence).unwrap_err();
    assert_eq!(denial.label, "pcr-not-allowed");
    assert!(denial.cause.contains("PCR 7"), "{}", denial.cause);
    let policy = PcrPolicy::learn([&evidence.quoted.pcrs]).unwrap();
    scene.write("policy.toml", &policy.to_toml());
    let evidence = scene.evidence();
    assert!(scene.appraise(&evidence).is_ok());

    scene.write("policy.toml", "nonsense");
    let evidence = scene.evidence();
    assert!(scene.appraise(&evidence).is_ok(), "the last good one holds");
    scene.write("policy.toml", &policy.to_toml());
    let ak = evidence.quoted.ak.name();
    scene.write("revoked", &format!("{ak}  # lost\n"));
    let evidence = scene.evidence();
    assert_eq!(scene.refused(&evidence), "ak-revoked");
}

#[test]
fn what_is_no_evidence_or_too_long_is_refused_without_harm() {
    let mut scene = Scene::new();
    let path = format!("/v1/appraise?node={}", scene.attester.node);
    let (status, body) = scene.post(&path, b"garbage");
    let denial: Denial = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, &*denial.label), (403, "evidence-malformed"));
    let long = vec![0; kedge_attest::limits::EVIDENCE_BYTES_MAX + 1];
    assert_eq!(scene.post(&path, &long).0, 413);
    assert_eq!(scene.post("/v1/appraise?node=x", b"").0, 400);
    let evidence = scene.evidence();
    assert!(scene.appraise(&evidence).is_ok());
}
