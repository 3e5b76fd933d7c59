//! Attestation: how it stands, Evidence and what is made of it.

mod ask;
mod enrol;

use super::{print, print_line};
use crate::arguments::{Arguments, AttestCommand, VerifyArguments};
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::render;
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use kedge_api::{AttestationStatus, EnrolmentChallenge, EnrolmentRequest, path};
use kedge_attest::{
    Caller, Challenge, Evidence, Expected, Ledger, Nonce, PcrPolicy, Roots, Verifier,
};
use kedge_model::SpiffeId;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use serde::Serialize;
use std::fs;
use std::io::{Read as _, Write};
use std::path::Path;

/// As kedged names whoever has its admin socket.
const ADMIN: &str = "admin";

/// What `verify` finds.
#[derive(Serialize)]
struct Finding {
    believed: bool,
    label: Option<&'static str>,
    cause: Option<String>,
    remedy: Option<&'static str>,
}

pub fn run(
    arguments: &Arguments,
    what: &AttestCommand,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    match what {
        AttestCommand::Status => status(arguments, out),
        AttestCommand::Show => show(arguments, out),
        AttestCommand::Quote { nonce, out: file } => quote(arguments, nonce.as_deref(), file, out),
        AttestCommand::Ask {
            nonce,
            out: file,
            at,
        } => ask::ask(nonce, file, at, out),
        AttestCommand::Result { at } => ask::result(at, out),
        AttestCommand::Verify(what) => verify(arguments, what, out),
        AttestCommand::Learn { roots } => learn(arguments, roots, out),
        AttestCommand::Enrol(what) => enrol::enrol(arguments, what),
        AttestCommand::Request => {
            let answer = client(arguments)?.post(path::ATTEST_REQUEST, &())?;
            let request: EnrolmentRequest =
                serde_json::from_slice(&answer).map_err(Failure::Answer)?;
            print_line(out, &request)?;
            Ok(Exit::Done)
        }
        AttestCommand::Activate => activate(arguments, out),
    }
}

fn status(arguments: &Arguments, out: &mut impl Write) -> Result<Exit, Failure> {
    let status: AttestationStatus = client(arguments)?.get(path::ATTESTATION)?;
    print(arguments, out, &status, render::attestation)?;
    Ok(match status.result {
        Some(_) => Exit::Done,
        None => Exit::No,
    })
}

fn show(arguments: &Arguments, out: &mut impl Write) -> Result<Exit, Failure> {
    let status: AttestationStatus = client(arguments)?.get(path::ATTESTATION)?;
    let Some(result) = status.result else {
        let why = status
            .result_error
            .unwrap_or_else(|| "attestation is off".to_owned());
        eprintln!("kedge: this node has no Attestation Result: {why}");
        return Ok(Exit::No);
    };
    print(arguments, out, &result, render::own_result)?;
    Ok(Exit::Done)
}

fn quote(
    arguments: &Arguments,
    nonce: Option<&str>,
    file: &Path,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let nonce = nonce.map_or_else(random_nonce, str::to_owned);
    let evidence = ask_quote(arguments, &nonce)?;
    fs::write(file, evidence).map_err(|source| Failure::Write {
        path: file.to_owned(),
        source,
    })?;
    out.write_all(format!("{nonce}\n").as_bytes())
        .map_err(Failure::Output)?;
    Ok(Exit::Done)
}

fn verify(
    arguments: &Arguments,
    what: &VerifyArguments,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let text = read(&what.policy)?;
    let policy = PcrPolicy::parse(&String::from_utf8_lossy(&text))
        .map_err(|error| content("policy", &what.policy, &error))?;
    let bytes = read(&what.evidence)?;
    let verifier = Verifier::new(read_roots(&what.roots)?, policy);
    let caller = Caller::new(what.caller.as_str())
        .map_err(|_| Failure::Digits(what.caller.clone(), "the name of a caller"))?;
    let judged = Evidence::parse(&bytes).and_then(|evidence| {
        let asked = (caller.clone(), nonce(&what.nonce));
        let expected = expected(&evidence, &what.node, asked);
        verifier.verify(
            &evidence,
            &expected,
            &mut Ledger::default(),
            UnixTime::now(),
        )
    });
    let finding = match &judged {
        Ok(_) => Finding {
            believed: true,
            label: None,
            cause: None,
            remedy: None,
        },
        Err(why) => Finding {
            believed: false,
            label: Some(why.label()),
            cause: Some(why.to_string()),
            remedy: Some(why.remedy()),
        },
    };
    print(arguments, out, &finding, |finding| match finding {
        Finding { believed: true, .. } => "believed\n".to_owned(),
        Finding { cause, remedy, .. } => render::fields(&[
            ("not believed", cause.clone().unwrap_or_default()),
            ("remedy", remedy.unwrap_or_default().to_owned()),
        ]),
    })?;
    Ok(match judged {
        Ok(_) => Exit::Done,
        Err(_) => Exit::No,
    })
}

fn learn(arguments: &Arguments, roots: &Path, out: &mut impl Write) -> Result<Exit, Failure> {
    let roots_read = read_roots(roots)?;
    let asked = random_nonce();
    let bytes = ask_quote(arguments, &asked)?;
    let status: kedge_api::Status = client(arguments)?.get(path::STATUS)?;
    let observed = Evidence::parse(&bytes).and_then(|evidence| {
        let admin = Caller::new(ADMIN).expect("short");
        let expected = expected(&evidence, &status.svid.id, (admin, nonce(&asked)));
        Verifier::observe(&roots_read, &evidence, &expected, UnixTime::now())
    });
    let observed = observed.map_err(|why| Failure::Unbelieved {
        cause: why.to_string(),
        remedy: why.remedy(),
    })?;
    let policy = PcrPolicy::learn([&observed])
        .map_err(|error| content("what is quoted of", roots, &error))?;
    out.write_all(policy.to_toml().as_bytes())
        .map_err(Failure::Output)?;
    Ok(Exit::Done)
}

fn activate(arguments: &Arguments, out: &mut impl Write) -> Result<Exit, Failure> {
    let mut text = String::new();
    let read = std::io::stdin().take(1 << 16).read_to_string(&mut text);
    read.map_err(|source| Failure::Read {
        path: "/dev/stdin".into(),
        source,
    })?;
    let challenge: EnrolmentChallenge = serde_json::from_str(&text)
        .map_err(|error| content("challenge", Path::new("/dev/stdin"), &error))?;
    let answer = client(arguments)?.post(path::ATTEST_ACTIVATE, &challenge)?;
    out.write_all(&answer).map_err(Failure::Output)?;
    Ok(Exit::Done)
}

/// What was asked by somebody on the node. The key is whatever the node states: what is judged is the
/// machine.
fn expected(
    evidence: &Evidence,
    node: &SpiffeId,
    (caller, nonce): (Caller, Option<Nonce>),
) -> Expected {
    // A nonce that is none was asked by nobody.
    let nonce = nonce.unwrap_or_else(|| Nonce::new([0; 16]).expect("16 bytes"));
    Expected {
        node: node.clone(),
        claims: Challenge::local(caller, nonce).claims(evidence.claims.node_key),
    }
}

fn ask_quote(arguments: &Arguments, nonce: &str) -> Result<Vec<u8>, Failure> {
    let is_hex = nonce.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_hex {
        return Err(Failure::Digits(nonce.to_owned(), "hexadecimal digits"));
    }
    let query = format!("{}?nonce={nonce}", path::ATTEST_QUOTE);
    client(arguments)?.post(&query, &())
}

fn nonce(text: &str) -> Option<Nonce> {
    hex(text).and_then(|bytes| Nonce::new(bytes).ok())
}

fn random_nonce() -> String {
    HEXLOWER.encode(&rand::random::<[u8; 32]>())
}

fn client(arguments: &Arguments) -> Result<Client, Failure> {
    Client::new(arguments.socket())
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|source| Failure::Read {
        path: path.to_owned(),
        source,
    })
}

fn read_roots(path: &Path) -> Result<Roots, Failure> {
    let certificates = CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| content("certificates", path, &error))?;
    if certificates.is_empty() {
        return Err(content("certificates", path, &"none in the file"));
    }
    Roots::new(&certificates).map_err(|error| content("certificates", path, &error))
}

fn content(what: &'static str, path: &Path, why: &impl std::fmt::Display) -> Failure {
    Failure::Content {
        what,
        path: path.to_owned(),
        why: why.to_string(),
    }
}

/// Bytes of hexadecimal digits.
fn hex(text: &str) -> Option<Vec<u8>> {
    HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()
}
