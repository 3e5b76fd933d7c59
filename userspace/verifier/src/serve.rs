//! HTTP over TCP, one request a connection.
//!
//! It needs no secrecy: Evidence is signed by the AK and answers one nonce, a Result is signed by
//! this Verifier and is good for one SVID's key only. Whoever is on the path can keep both from
//! arriving, and can forge a refusal, which is as much.

use crate::judge::Judge;
use crate::limits::{CONNECTION_TIME, CONNECTIONS_MAX, FILES_POLL};
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use data_encoding::HEXLOWER;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use kedge_api::appraisal::{AppraiseQuery, Denial, NonceAnswer, path};
use kedge_attest::limits::EVIDENCE_BYTES_MAX;
use rustls_pki_types::UnixTime;
use std::io;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Serves until the process ends.
///
/// # Errors
/// When the listener fails for good.
pub async fn serve(judge: Arc<Judge>, listener: TcpListener) -> io::Result<()> {
    tokio::spawn(follow_files(Arc::clone(&judge)));
    let router = router(judge);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        let (stream, _) = match listener.accept().await {
            Ok(accepted) => accepted,
            // Of a client that has left; what does not pass is met again, and awaited.
            Err(error) => {
                tracing::warn!(%error, "accept");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            }
        };
        let router = router.clone();
        tokio::spawn(async move {
            // What fails here is the client's to notice.
            let _ = tokio::time::timeout(CONNECTION_TIME, connection(stream, router)).await;
            drop(place);
        });
    }
}

async fn connection(stream: TcpStream, router: Router) -> hyper::Result<()> {
    http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(CONNECTION_TIME)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await
}

fn router(judge: Arc<Judge>) -> Router {
    Router::new()
        .route(path::NONCE, post(nonce))
        .route(path::APPRAISE, post(appraise))
        .layer(DefaultBodyLimit::max(EVIDENCE_BYTES_MAX))
        .with_state(judge)
}

async fn nonce(State(judge): State<Arc<Judge>>) -> Response {
    match judge.nonce(UnixTime::now()) {
        Ok(nonce) => {
            let answer = NonceAnswer {
                verifier: judge.config().name.clone(),
                nonce: HEXLOWER.encode(nonce.as_bytes()),
            };
            Json(answer).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}")).into_response(),
    }
}

async fn appraise(
    State(judge): State<Arc<Judge>>,
    Query(AppraiseQuery { node }): Query<AppraiseQuery>,
    evidence: Bytes,
) -> Response {
    match judge.appraise(&node, &evidence, UnixTime::now()) {
        Ok(token) => {
            tracing::info!(%node, "believed");
            token.into_response()
        }
        Err(denial) => {
            let Denial { label, cause, .. } = &denial;
            tracing::warn!(%node, label, cause, "refused");
            (StatusCode::FORBIDDEN, Json(denial)).into_response()
        }
    }
}

async fn follow_files(judge: Arc<Judge>) {
    let mut unreadable = None;
    loop {
        tokio::time::sleep(FILES_POLL).await;
        match judge.reload() {
            Ok(changed) => {
                unreadable = None;
                if changed {
                    tracing::info!("policy, roots and revocations taken anew");
                }
            }
            Err(error) => {
                let error = format!("{error:#}");
                if unreadable.as_ref() != Some(&error) {
                    tracing::error!(error, "the last good files stay in force: correct them");
                }
                unreadable = Some(error);
            }
        }
    }
}
