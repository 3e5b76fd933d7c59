//! Enrolment, as the CA: two questions to the node, by a command that runs `kedge` there. What is
//! sealed in between is in the memory of this process only.

use super::{content, hex, read_roots};
use crate::arguments::{Arguments, EnrolArguments};
use crate::failure::{Exit, Failure};
use data_encoding::HEXLOWER;
use kedge_api::{EnrolmentAnswer, EnrolmentChallenge, EnrolmentRequest};
use kedge_attest::{AkPublic, Enrolment, Request, Sha256};
use kedge_identity::Ca;
use kedge_model::SpiffeId;
use rustls_pki_types::{CertificateDer, UnixTime};
use serde::de::DeserializeOwned;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

pub fn enrol(arguments: &Arguments, what: &EnrolArguments) -> Result<Exit, Failure> {
    let ca = Ca::open(&what.dir)?;
    let roots = read_roots(&what.ek_roots)?;
    let node = SpiffeId::node(ca.trust_domain(), &what.node);
    let on_node = Node::of(arguments, what);
    let request = request(on_node.ask("request", "")?, &node)?;
    let (enrolment, credential) = Enrolment::begin(request, &roots, UnixTime::now())?;
    let challenge = EnrolmentChallenge {
        blob: HEXLOWER.encode(&credential.blob),
        seed: HEXLOWER.encode(&credential.seed),
    };
    let challenge = serde_json::to_string(&challenge).expect("plain data");
    let answer: EnrolmentAnswer = on_node.ask("activate", &challenge)?;
    // What is no secret at all is none that was sealed.
    let approved = enrolment.finish(&hex(&answer.opened).unwrap_or_default())?;
    check_ek(what.ek.as_deref(), approved.ek())?;
    let lifetime =
        Duration::try_from_secs_f64(what.lifetime_hours * 3600.0).unwrap_or(Duration::ZERO);
    let key = approved.ak().subject_public_key_info();
    let issued = ca.issue_ak(approved.node(), &key, lifetime, UnixTime::now())?;
    write(&what.out, &issued.certificate_pem)?;
    eprintln!(
        "kedge: certified AK {} of EK {} for {}: {}",
        approved.ak().name(),
        approved.ek(),
        approved.node(),
        what.out.display()
    );
    Ok(Exit::Done)
}

/// What the node shows, if it is the one that is meant.
fn request(shown: EnrolmentRequest, expected: &SpiffeId) -> Result<Request, Failure> {
    if shown.node != *expected {
        return Err(Failure::OtherNode {
            found: shown.node,
            expected: expected.clone(),
        });
    }
    let bytes = |text: &str| {
        hex(text).ok_or_else(|| Failure::Digits(text.to_owned(), "hexadecimal digits"))
    };
    let ak = AkPublic::parse(&bytes(&shown.ak)?)
        .map_err(|error| content("what the node shows", Path::new("request"), &error))?;
    Ok(Request {
        node: shown.node,
        ek_chain: vec![CertificateDer::from(bytes(&shown.ek_certificate)?)],
        ak,
    })
}

fn check_ek(expected: Option<&str>, found: Sha256) -> Result<(), Failure> {
    match expected {
        Some(expected) if Sha256::parse(expected) != Some(found) => Err(Failure::OtherEk {
            found: found.to_string(),
            expected: expected.to_owned(),
        }),
        _ => Ok(()),
    }
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let new = path.with_extension("new");
    fs::write(&new, text)
        .and_then(|()| fs::rename(&new, path))
        .map_err(|source| Failure::Write {
            path: path.to_owned(),
            source,
        })
}

/// How `kedge` is run on the node.
struct Node(Vec<String>);

impl Node {
    fn of(arguments: &Arguments, what: &EnrolArguments) -> Self {
        if !what.command.is_empty() {
            return Self(what.command.clone());
        }
        let own = std::env::current_exe().unwrap_or_else(|_| "kedge".into());
        let socket = arguments.socket();
        Self(vec![
            own.display().to_string(),
            "--socket".to_owned(),
            socket.display().to_string(),
        ])
    }

    /// Runs `kedge attest WORD` there.
    fn ask<T: DeserializeOwned>(&self, word: &str, stdin: &str) -> Result<T, Failure> {
        let command = format!("{} attest {word}", self.0.join(" "));
        let failed = |source| Failure::Command {
            command: command.clone(),
            source,
        };
        let mut child = Command::new(&self.0[0])
            .args(&self.0[1..])
            .args(["attest", word])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        if let Some(mut pipe) = child.stdin.take() {
            // One that does not read says why by its end.
            let _ = pipe.write_all(stdin.as_bytes());
        }
        let done = child.wait_with_output().map_err(failed)?;
        if !done.status.success() {
            let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
            return Err(Failure::CommandFailed { command, said });
        }
        serde_json::from_slice(&done.stdout).map_err(Failure::Answer)
    }
}
