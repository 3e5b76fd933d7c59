//! The attestation socket: what kedged answers to whoever runs on its node, by gRPC over a Unix
//! socket. `proto/kedge/attest/v1/attest.proto` is the definition, for clients in any language.
//!
//! ```no_run
//! # async fn ask() -> Result<(), Box<dyn std::error::Error>> {
//! let mut attestation = kedge_attest_api::connect("/run/kedge/attest/attest.sock".as_ref()).await?;
//! let answer = attestation.get_result(kedge_attest_api::GetResultRequest {}).await?;
//! println!("{}", answer.get_ref().token);
//! # Ok(()) }
//! ```

#![forbid(unsafe_code)]

mod generated {
    #![allow(clippy::all, clippy::pedantic, missing_docs)]
    tonic::include_proto!("kedge.attest.v1");
}

pub use generated::attestation_client::AttestationClient;
pub use generated::attestation_server::{Attestation, AttestationServer};
pub use generated::{AttestRequest, AttestResponse, GetResultRequest, GetResultResponse};
pub use tonic;

use std::path::Path;
use tonic::transport::{Channel, Endpoint, Error};

/// Below kedged's `run_dir`; the folder has nothing else in it, and is what pods mount.
pub const SOCKET: &str = "attest/attest.sock";

/// Connects to the socket at `path`.
///
/// # Errors
/// When nobody listens there, or the path is no UTF-8 and so no URI.
pub async fn connect(path: &Path) -> Result<AttestationClient<Channel>, Error> {
    let uri = format!("unix://{}", path.display());
    let channel = Endpoint::from_shared(uri)?.connect().await?;
    Ok(AttestationClient::new(channel))
}
