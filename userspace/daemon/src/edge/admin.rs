//! The admin socket: HTTP/1.1 over a Unix socket that only root can open. It only reads, and asks the
//! TPM for what enrolment and `kedge attest quote` need.

use crate::edge::attest;
use crate::edge::log::EventLog;
use crate::edge::metrics;
use crate::edge::report::Observed;
use crate::edge::socket::Socket;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use kedge_api::{ApiError, Event, EventsQuery, ExplainQuery, path};
use kedge_policy::Request;
use serde::Serialize;
use std::io;
use std::path::Path;
use tokio::sync::{broadcast, mpsc};

#[derive(Clone)]
pub(super) struct Edge {
    pub(super) observed: Observed,
    log: EventLog,
}

/// `<run_dir>/admin.sock`, for root only.
pub struct AdminSocket(Socket);

impl AdminSocket {
    pub fn bind(run_dir: &Path) -> io::Result<Self> {
        Socket::bind(run_dir.join(path::SOCKET_FILE), 0o600).map(Self)
    }

    /// Takes the place of an earlier daemon's, or of what one has left.
    pub fn publish(
        self,
        observed: Observed,
        log: EventLog,
    ) -> io::Result<impl Future<Output = io::Result<()>> + use<>> {
        let listener = self.0.publish()?;
        let router = router(Edge { observed, log });
        Ok(async move { axum::serve(listener, router).await })
    }
}

fn router(edge: Edge) -> Router {
    Router::new()
        .route(path::STATUS, get(status))
        .route(
            path::LINKS,
            get(async |State(e): State<Edge>| Json(e.observed.links())),
        )
        .route(
            path::FLOWS,
            get(async |State(e): State<Edge>| Json(e.observed.flows())),
        )
        .route(path::SOCKETS, get(sockets))
        .route(path::POLICY_EXPLAIN, get(explain))
        .route(path::FEATURES, get(features))
        .route(path::EVENTS, get(events))
        .route(path::METRICS, get(metrics))
        .route(
            path::ATTESTATION,
            get(async |State(e): State<Edge>| Json(e.observed.attestation())),
        )
        .route(path::ATTEST_QUOTE, post(attest::quote))
        .route(path::ATTEST_REQUEST, post(attest::request))
        .route(path::ATTEST_ACTIVATE, post(attest::activate))
        .fallback(unknown)
        .with_state(edge)
}

async fn status(State(edge): State<Edge>) -> Response {
    aside(move || edge.observed.whole_status()).await
}

async fn sockets(State(edge): State<Edge>) -> Response {
    aside(move || edge.observed.sockets()).await
}

/// What takes a while is not for the runtime's own thread.
async fn aside<T: Serialize + Send + 'static>(
    look: impl FnOnce() -> T + Send + 'static,
) -> Response {
    match tokio::task::spawn_blocking(look).await {
        Ok(answer) => Json(answer).into_response(),
        Err(error) => failure(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

async fn explain(State(edge): State<Edge>, Query(query): Query<ExplainQuery>) -> Response {
    let request = Request {
        source: &query.source,
        destination: &query.destination,
        port: query.port,
    };
    Json(edge.observed.world.load().policy.explain(&request)).into_response()
}

async fn features() -> Response {
    aside(Observed::features).await
}

async fn metrics(State(edge): State<Edge>) -> Response {
    match metrics::encode(&edge.observed) {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => failure(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

async fn unknown() -> Response {
    failure(
        StatusCode::NOT_FOUND,
        "this daemon has no such path; are both of one version?".into(),
    )
}

fn failure(status: StatusCode, cause: String) -> Response {
    failure_with(status, cause, None)
}

pub(super) fn failure_with(status: StatusCode, cause: String, remedy: Option<&str>) -> Response {
    let remedy = remedy.map(str::to_owned);
    (status, Json(ApiError { cause, remedy })).into_response()
}

/// One event a line. A reader that is too slow misses events, and sees it by their numbers.
async fn events(State(edge): State<Edge>, Query(query): Query<EventsQuery>) -> Response {
    let (past, live) = edge.log.since(query.since.unwrap_or(0));
    let (lines, body) = mpsc::channel(1);
    tokio::spawn(async move {
        for event in &past {
            if lines.send(line(event)).await.is_err() {
                return;
            }
        }
        if query.follow {
            follow(live, lines).await;
        }
    });
    let body = Body::new(Lines(body));
    ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

async fn follow(mut live: broadcast::Receiver<Event>, lines: mpsc::Sender<Bytes>) {
    loop {
        match live.recv().await {
            Ok(event) => {
                if lines.send(line(&event)).await.is_err() {
                    return;
                }
            }
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

fn line(event: &Event) -> Bytes {
    let mut line = serde_json::to_vec(event).expect("an event has string keys only");
    line.push(b'\n');
    line.into()
}

/// Lines as they come, as an HTTP body.
struct Lines(mpsc::Receiver<Bytes>);

impl http_body::Body for Lines {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        self.0
            .poll_recv(cx)
            .map(|line| line.map(|line| Ok(http_body::Frame::data(line))))
    }
}
