//! Asks kedged over its admin socket.

use crate::failure::Failure;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use kedge_api::ApiError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};

/// Bytes of an answer: 100,000 flows fit.
const ANSWER_BYTES_MAX: usize = 128 << 20;
/// Bytes of one event.
const LINE_BYTES_MAX: usize = 64 << 10;
/// Until the answer begins: the daemon answers from memory, or from a TPM that it gives ten seconds.
const ANSWER_LIMIT: Duration = Duration::from_secs(12);

pub struct Client {
    socket: PathBuf,
    runtime: Runtime,
}

impl Client {
    pub fn new(socket: PathBuf) -> Result<Self, Failure> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Failure::Runtime)?;
        Ok(Self { socket, runtime })
    }

    /// The answer to GET `path`.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.runtime.block_on(async {
            let body = whole(self.ask(get(path)).await?).await?;
            serde_json::from_slice(&body).map_err(Failure::Answer)
        })
    }

    /// The answer's bytes to POST `path` with a body of JSON.
    pub fn post(&self, path: &str, body: &impl Serialize) -> Result<Vec<u8>, Failure> {
        let body = serde_json::to_vec(body).expect("plain data");
        let request = request(Request::post(path), body.into());
        self.runtime
            .block_on(async { Ok(whole(self.ask(request).await?).await?.to_vec()) })
    }

    /// Gives every line of the answer to GET `path` to `take`, as it arrives.
    pub fn get_lines(
        &self,
        path: &str,
        mut take: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.runtime.block_on(async {
            let mut body = self.ask(get(path)).await?.into_body();
            let mut pending = Vec::new();
            while let Some(frame) = body.frame().await {
                let Ok(data) = frame.map_err(Failure::Exchange)?.into_data() else {
                    continue;
                };
                pending.extend_from_slice(&data);
                take_lines(&mut pending, &mut take)?;
            }
            Ok(())
        })
    }

    async fn ask(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Failure> {
        let silent = Failure::Silent {
            socket: self.socket.clone(),
            limit_s: ANSWER_LIMIT.as_secs(),
        };
        let answer = tokio::time::timeout(ANSWER_LIMIT, self.exchange(request)).await;
        let answer = answer.map_err(|_| silent)??;
        if answer.status() == StatusCode::OK {
            return Ok(answer);
        }
        let status = answer.status().as_u16();
        let body = whole(answer).await?;
        Err(match serde_json::from_slice::<ApiError>(&body) {
            Ok(ApiError { cause, remedy }) => Failure::Daemon {
                status,
                cause,
                remedy,
            },
            Err(_) => {
                let cause = String::from_utf8_lossy(&body).trim().to_owned();
                Failure::Daemon {
                    status,
                    cause,
                    remedy: None,
                }
            }
        })
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Failure> {
        let unreachable = |source| Failure::Unreachable {
            socket: self.socket.clone(),
            source,
        };
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(unreachable)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(Failure::Exchange)?;
        // Ends with the answer's body; its error is seen there.
        tokio::spawn(connection);
        sender
            .send_request(request)
            .await
            .map_err(Failure::Exchange)
    }
}

fn get(path: &str) -> Request<Full<Bytes>> {
    request(Request::get(path), Bytes::new())
}

fn request(begun: hyper::http::request::Builder, body: Bytes) -> Request<Full<Bytes>> {
    begun
        .header(hyper::header::HOST, "kedged")
        .header(hyper::header::CONTENT_TYPE, "application/json")
        .body(Full::new(body))
        .expect("a path of this program and SPIFFE IDs form a URI")
}

async fn whole(answer: Response<Incoming>) -> Result<Bytes, Failure> {
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX)
        .collect()
        .await;
    let body = body.map_err(|error| match error.downcast::<hyper::Error>() {
        Ok(error) => Failure::Exchange(*error),
        Err(other) => {
            debug_assert!(other.is::<LengthLimitError>());
            Failure::AnswerSize {
                limit: ANSWER_BYTES_MAX,
            }
        }
    })?;
    Ok(body.to_bytes())
}

/// Takes the complete lines off the front of `pending`.
fn take_lines(
    pending: &mut Vec<u8>,
    take: &mut impl FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut start = 0;
    while let Some(length) = pending[start..].iter().position(|byte| *byte == b'\n') {
        let line = &pending[start..start + length];
        if !line.is_empty() {
            take(line)?;
        }
        start += length + 1;
    }
    pending.drain(..start);
    if pending.len() > LINE_BYTES_MAX {
        return Err(Failure::AnswerSize {
            limit: LINE_BYTES_MAX,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_whole_however_they_arrive() {
        let (mut pending, mut lines) = (Vec::new(), Vec::new());
        for chunk in ["one\ntw", "o\n\nthr", "ee"] {
            pending.extend_from_slice(chunk.as_bytes());
            take_lines(&mut pending, &mut |line| {
                lines.push(String::from_utf8_lossy(line).into_owned());
                Ok(())
            })
            .expect("short lines");
        }
        assert_eq!(
            (lines, pending),
            (vec!["one".to_owned(), "two".to_owned()], b"three".to_vec())
        );
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let mut pending = vec![b'x'; LINE_BYTES_MAX + 1];
        assert!(take_lines(&mut pending, &mut |_| Ok(())).is_err());
    }
}
