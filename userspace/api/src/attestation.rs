//! `kedge attest`: what this node attests, and what it believes of others.

use crate::timestamp::Timestamp;
use kedge_model::SpiffeId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What happens on links without attestation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttestationMode {
    /// The TPM is not opened, and links show nothing and ask for nothing.
    #[default]
    Off,
    /// Results are shown and looked at; nobody is refused for want of one.
    Optional,
    /// No flow in either direction before both nodes are attested.
    Required,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttestationStatus {
    pub mode: AttestationMode,
    /// SHA-256 of the AK's public area, once the TPM has been opened.
    pub ak: Option<String>,
    /// Why the TPM is not to be had.
    pub tpm_error: Option<String>,
    /// What peers are shown.
    pub result: Option<OwnResult>,
    /// Why there is no newer Result.
    pub result_error: Option<String>,
    /// What peers have shown.
    pub peers: Vec<PeerResult>,
    pub counters: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnResult {
    pub verifier: String,
    pub issued: Timestamp,
    /// Below zero when it is stale.
    pub fresh_for_s: i64,
    /// SHA-256 of the policy that the PCRs were judged by.
    pub policy: String,
    /// How often the TPM has begun anew.
    pub reset: u32,
    pub restart: u32,
    /// As it goes to peers: a JWT.
    pub token: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerResult {
    pub peer: SpiffeId,
    /// `fresh`, `stale`, `ended`, or `none`.
    pub standing: String,
    pub verifier: Option<String>,
    pub ak: Option<String>,
    pub policy: Option<String>,
    /// Why there is none.
    pub error: Option<String>,
}

/// What a node shows that wants its AK certified; bytes are hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolmentRequest {
    pub node: SpiffeId,
    /// The EK's certificate, DER.
    pub ek_certificate: String,
    /// The AK's TPMT_PUBLIC.
    pub ak: String,
}

/// What only the TPM of that EK and AK opens; bytes are hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolmentChallenge {
    pub blob: String,
    pub seed: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolmentAnswer {
    /// Hexadecimal.
    pub opened: String,
}

/// The query of [`crate::path::ATTEST_QUOTE`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuoteQuery {
    /// 16 to 64 bytes, hexadecimal.
    pub nonce: String,
}
