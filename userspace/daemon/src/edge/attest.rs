//! What the admin API asks of the TPM. Only root comes here, and still gets no Evidence for a link or a
//! Verifier: what it is for stands in it.

use crate::attestation::{DoorError, hex};
use crate::edge::admin::{Edge, failure_with};
use crate::events::chain;
use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use data_encoding::HEXLOWER;
use kedge_api::{EnrolmentAnswer, EnrolmentChallenge, EnrolmentRequest, QuoteQuery};
use kedge_attest::{Caller, Credential, Nonce};

/// As Evidence names whoever has the admin socket.
const ADMIN: &str = "admin";

pub(super) async fn quote(
    State(edge): State<Edge>,
    Query(QuoteQuery { nonce }): Query<QuoteQuery>,
) -> Response {
    let Some(nonce) = hex(&nonce).and_then(|bytes| Nonce::new(bytes).ok()) else {
        return bad("a nonce has 16 to 64 bytes, in hexadecimal digits");
    };
    let caller = Caller::new(ADMIN).expect("short");
    let attestation = &edge.observed.links.attestation;
    let (settings, key) = (attestation.settings(), attestation.own().key());
    let quoted = attestation.door().local(settings, key, (caller, nonce));
    match quoted.await {
        Ok(evidence) => evidence.encode().into_response(),
        Err(error) => refused(&error),
    }
}

pub(super) async fn request(State(edge): State<Edge>) -> Response {
    let door = edge.observed.links.attestation.door();
    let asked = async {
        let ak = door.ak_public()?;
        let certificate = door.ek_certificate().await?;
        Ok(EnrolmentRequest {
            node: edge.observed.config.id(),
            ek_certificate: HEXLOWER.encode(&certificate),
            ak: HEXLOWER.encode(ak.as_bytes()),
        })
    };
    match asked.await {
        Ok(request) => Json(request).into_response(),
        Err(error) => refused(&error),
    }
}

pub(super) async fn activate(
    State(edge): State<Edge>,
    Json(challenge): Json<EnrolmentChallenge>,
) -> Response {
    let (Some(blob), Some(seed)) = (hex(&challenge.blob), hex(&challenge.seed)) else {
        return bad("a challenge is made of hexadecimal digits");
    };
    let door = edge.observed.links.attestation.door();
    match door.activate(Credential { blob, seed }).await {
        Ok(opened) => Json(EnrolmentAnswer {
            opened: HEXLOWER.encode(&opened),
        })
        .into_response(),
        Err(error) => refused(&error),
    }
}

fn refused(error: &DoorError) -> Response {
    let remedy = match error {
        DoorError::Off => "set `attestation.mode` in the daemon's configuration and start it again",
        _ => "see `kedge attest status`, and who else uses the TPM",
    };
    failure_with(StatusCode::SERVICE_UNAVAILABLE, chain(error), Some(remedy))
}

fn bad(cause: &str) -> Response {
    failure_with(StatusCode::BAD_REQUEST, cause.to_owned(), None)
}
