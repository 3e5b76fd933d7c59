//! Asks the Verifier: a nonce, then Evidence for a token. HTTP over TCP: what goes over it is signed,
//! and no secret.

use super::Attestation;
use super::boot_time;
use super::judge::Disbelief;
use super::tpm::DoorError;
use crate::limits::VERIFIER_ANSWER_BYTES;
use data_encoding::HEXLOWER_PERMISSIVE;
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
    #[error(
        "the Verifier's answer is larger than {VERIFIER_ANSWER_BYTES} bytes, was cut, or is not \
         what this version reads"
    )]
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
    HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::VERIFIER_ANSWER_BYTES;
    use std::io::{Read as _, Write as _};

    /// Answers one connection with these bytes, and closes it.
    fn verifier(answer: Vec<u8>) -> SocketAddr {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("bound");
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let _ = stream.read(&mut [0; 1_024]);
            let _ = stream.write_all(&answer);
        });
        address
    }

    fn http(status: &str, body: &[u8]) -> Vec<u8> {
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n");
        [head.as_bytes(), body].concat()
    }

    async fn answered(bytes: Vec<u8>) -> Result<Bytes, AppraisalError> {
        post(verifier(bytes), path::NONCE, Bytes::new()).await
    }

    #[tokio::test]
    async fn whatever_a_verifier_answers_is_an_answer_or_an_error_with_its_reason() {
        let good = answered(http("200 OK", b"token")).await;
        assert_eq!(good.expect("an answer"), "token");
        let denial = br#"{"label":"pcr-not-allowed","cause":"PCR 7 is 00","remedy":"look"}"#;
        let denied = answered(http("403 Forbidden", denial)).await;
        let denied = denied.expect_err("denied").to_string();
        assert!(
            denied.contains("PCR 7") && denied.contains("look"),
            "{denied}"
        );
        for (bytes, is_expected) in [
            (http("403 Forbidden", b"no"), "larger than"),
            (http("500 Oops", b""), "500"),
            (b"garbage\r\n\r\n".to_vec(), "ask the Verifier"),
            (Vec::new(), "ask the Verifier"),
            (
                http("200 OK", &vec![0; VERIFIER_ANSWER_BYTES + 1]),
                "larger than",
            ),
            (
                b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\ncut".to_vec(),
                "cut",
            ),
        ] {
            let error = answered(bytes).await.expect_err(is_expected).to_string();
            assert!(error.contains(is_expected), "{error}, not {is_expected}");
        }
    }

    #[tokio::test]
    async fn a_verifier_that_is_away_is_an_error_with_what_to_look_at() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
        let nobody = listener.local_addr().expect("bound");
        drop(listener);
        let error = post(nobody, path::NONCE, Bytes::new())
            .await
            .expect_err("away");
        assert!(
            matches!(error, AppraisalError::Unreachable { .. }),
            "{error}"
        );
        assert!(error.remedy().contains("attestation.verifier"));
    }

    #[test]
    fn only_pairs_of_hexadecimal_digits_are_bytes() {
        assert_eq!(hex("00fF"), Some(vec![0, 255]));
        assert_eq!(hex(""), Some(Vec::new()));
        for bad in ["0", "0g", "+1", "é0"] {
            assert_eq!(hex(bad), None, "{bad}");
        }
    }
}
