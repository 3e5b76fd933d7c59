//! What anybody on the node may ask, at the attestation socket.

use super::hex;
use crate::arguments::AttestSocketArguments;
use crate::failure::{Exit, Failure};
use kedge_attest_api::tonic::Status;
use kedge_attest_api::tonic::transport::Channel;
use kedge_attest_api::{AttestRequest, AttestationClient, GetResultRequest};
use std::fs;
use std::io::Write;
use std::path::Path;
use tokio::runtime::Builder;

/// Writes the Evidence, and prints as whom kedged has identified us.
pub fn ask(
    nonce: &str,
    file: &Path,
    at: &AttestSocketArguments,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let digits = || Failure::Digits(nonce.to_owned(), "hexadecimal digits");
    let nonce = hex(nonce).ok_or_else(digits)?;
    let answer = call(at, async |mut client| {
        client.attest(AttestRequest { nonce }).await
    })?;
    fs::write(file, answer.evidence).map_err(|source| Failure::Write {
        path: file.to_owned(),
        source,
    })?;
    line(out, &answer.caller)
}

/// Prints the token.
pub fn result(at: &AttestSocketArguments, out: &mut impl Write) -> Result<Exit, Failure> {
    let answer = call(at, async |mut client| {
        client.get_result(GetResultRequest {}).await
    })?;
    line(out, &answer.token)
}

fn call<T>(
    AttestSocketArguments { socket }: &AttestSocketArguments,
    ask: impl AsyncFnOnce(
        AttestationClient<Channel>,
    ) -> Result<kedge_attest_api::tonic::Response<T>, Status>,
) -> Result<T, Failure> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::Runtime)?;
    runtime.block_on(async {
        let client = kedge_attest_api::connect(socket).await;
        let client = client.map_err(|source| Failure::AttestSocket {
            socket: socket.clone(),
            source,
        })?;
        let answer = ask(client).await;
        Ok(answer
            .map_err(|status| Failure::Attestation(Box::new(status)))?
            .into_inner())
    })
}

fn line(out: &mut impl Write, text: &str) -> Result<Exit, Failure> {
    out.write_all(format!("{text}\n").as_bytes())
        .map_err(Failure::Output)?;
    Ok(Exit::Done)
}
