//! Asks the Verifier: a nonce, then Evidence for a token. HTTP over TCP: what goes over it is signed,
//! and no secret.

use super::Attestation;
use super::boot_time;
use super::judge::Disbelief;
use super::tpm::DoorError;
use crate::limits::VERIFIER_ANSWER_BYTES;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use kedge_api::appraisal::{Denial, NonceAnswer, path};
use kedge_attest::{Caller, Held, NodeKey, Nonce};
use rustls_pki_types::UnixTime;
use std::net::SocketAddr;
use tokio::net::TcpStream;

/// Why there is no new Result. What the Verifier says of it is not authenticated.
#[derive(Debug, thiserror::Error)]
pub enum AppraisalError {
    #[error("reach the Verifier at {to}")]
    Unreachable {
        to: SocketAddr,
        source: std::io::Error,
    },
    #[error("ask the Verifier")]
    Exchange(#[source] hyper::Error),
    #[error("the Verifier's answer is larger than {VERIFIER_ANSWER_BYTES} bytes, or was cut")]
    Answer,
    #[error("the Verifier answers {0}, which this version does not understand")]
    Status(StatusCode),
    #[error("the Verifier refuses: {}; {}", .0.cause, .0.remedy)]
    Denied(Denial),
    #[error("the Verifier has not answered in time")]
    TimedOut,
    #[error(transparent)]
    Tpm(#[from] DoorError),
    #[error("its Result is of no use here: {0}; {remedy}", remedy = .0.remedy())]
    Disbelieved(#[from] Disbelief),
}

impl AppraisalError {
    /// What an operator can do about it, where the text does not say it.
    #[must_use]
    pub fn remedy(&self) -> &str {
        match self {
            Self::Unreachable { .. } | Self::Exchange(_) | Self::TimedOut => {
                "see that kedge-verifier runs where `attestation.verifier` says, on an address that is \
                 no node's and in no managed prefix, and that no firewall drops it"
            }
            Self::Answer | Self::Status(_) => "update node and Verifier to one version of kedge",
            Self::Denied(denial) => &denial.remedy,
            Self::Tpm(_) => "look at `attestation.tcti`, and who may open the device",
            Self::Disbelieved(why) => why.remedy(),
        }
    }
}

/// One whole appraisal of the node under this key.
pub async fn appraise(attestation: &Attestation, key: NodeKey) -> Result<Held, AppraisalError> {
    let shared = &attestation.0;
    let settings = &shared.settings;
    let verifier_at = settings.verifier.ok_or(DoorError::Off)?;
    let answer = post(verifier_at, path::NONCE, Bytes::new()).await?;
    let NonceAnswer { verifier, nonce } =
        serde_json::from_slice(&answer).map_err(|_| AppraisalError::Answer)?;
    let caller = Caller::new(verifier).map_err(|_| AppraisalError::Answer)?;
    let nonce = hex(&nonce).and_then(|bytes| Nonce::new(bytes).ok());
    let nonce = nonce.ok_or(AppraisalError::Answer)?;
    let asked = (caller, nonce);
    let evidence = shared.door.appraisal(settings, key, asked).await?;
    let to = format!("{}?node={}", path::APPRAISE, shared.node);
    let token = post(verifier_at, &to, evidence.encode().into()).await?;
    let token = String::from_utf8(token.to_vec()).map_err(|_| AppraisalError::Answer)?;
    let (wall, boot) = (UnixTime::now(), boot_time());
    // As strictly as a peer would, so that what is wrong is told here first.
    let result = shared.judge.verify(&shared.node, key, &token, wall)?;
    Ok(Held::new(result, token, wall, boot))
}

async fn post(to: SocketAddr, path: &str, body: Bytes) -> Result<Bytes, AppraisalError> {
    let stream = TcpStream::connect(to)
        .await
        .map_err(|source| AppraisalError::Unreachable { to, source })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(AppraisalError::Exchange)?;
    // Ends with the answer's body; its error is seen there.
    tokio::spawn(connection);
    let request = Request::post(path)
        .header(header::HOST, to.to_string())
        .body(Full::new(body))
        .map_err(|_| AppraisalError::Answer)?;
    let answer = sender
        .send_request(request)
        .await
        .map_err(AppraisalError::Exchange)?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), VERIFIER_ANSWER_BYTES).collect();
    let body = body.await.map_err(|_| AppraisalError::Answer)?.to_bytes();
    match status {
        StatusCode::OK => Ok(body),
        StatusCode::FORBIDDEN => {
            Err(serde_json::from_slice(&body)
                .map_or(AppraisalError::Answer, AppraisalError::Denied))
        }
        other => Err(AppraisalError::Status(other)),
    }
}

/// Bytes of hexadecimal digits.
pub fn hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.chunks_exact(2).map(byte).collect()
}
