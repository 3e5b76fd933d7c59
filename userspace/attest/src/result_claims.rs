//! A Result's claims as they stand in the token.

use crate::ak::AkName;
use crate::attest::Counters;
use crate::digest::Sha256;
use crate::result::{AttestationResult, Lifetimes, ResultError};
use crate::verify::Verified;
use kedge_model::SpiffeId;
use rustls_pki_types::UnixTime;
use serde::{Deserialize, Serialize};

/// Names the form of these claims (RFC 9711, 4.3.2).
const PROFILE: &str = "tag:github.com,2026:kedge/attestation-result/1";
const AFFIRMING: &str = "affirming";
/// The values that AR4SI, 2.3.4, gives to a machine that is known, genuine, and booted what it should.
const TRUSTWORTHY_INSTANCE: i8 = 2;
const GENUINE_HARDWARE: i8 = 2;
const APPROVED_BOOT: i8 = 3;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Body {
    eat_profile: String,
    iss: String,
    /// The node's SPIFFE ID.
    sub: String,
    iat: u64,
    /// The hard expiry: no Relying Party goes beyond, whoever reads the token.
    exp: u64,
    cnf: Confirmation,
    #[serde(rename = "ear.verifier-id")]
    verifier: VerifierId,
    submods: Submods,
    #[serde(rename = "kedge.fresh-until")]
    fresh_until: u64,
    #[serde(rename = "kedge.ak")]
    ak: String,
    #[serde(rename = "kedge.reset")]
    reset: u32,
    #[serde(rename = "kedge.restart")]
    restart: u32,
}

/// RFC 7800, 3.4: whoever shows the Result has to have the key with this id, which is that of its SVID.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Confirmation {
    kid: String,
}

#[derive(Serialize, Deserialize)]
struct VerifierId {
    build: String,
    developer: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Submods {
    tpm: Appraisal,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Appraisal {
    #[serde(rename = "ear.status")]
    status: String,
    #[serde(rename = "ear.trustworthiness-vector")]
    vector: Vector,
    #[serde(rename = "ear.appraisal-policy-id")]
    policy: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Vector {
    instance_identity: i8,
    hardware: i8,
    executables: i8,
}

impl Body {
    pub(crate) fn new(
        name: &str,
        verified: &Verified,
        lifetimes: Lifetimes,
        now: UnixTime,
    ) -> Self {
        let now = now.as_secs();
        let Counters { reset, restart } = verified.counters();
        Self {
            eat_profile: PROFILE.to_owned(),
            iss: name.to_owned(),
            sub: verified.node().to_string(),
            iat: now,
            exp: now.saturating_add(lifetimes.hard.as_secs()),
            cnf: Confirmation {
                kid: verified.node_key().to_string(),
            },
            verifier: VerifierId {
                build: concat!("kedge-attest ", env!("CARGO_PKG_VERSION")).to_owned(),
                developer: env!("CARGO_PKG_REPOSITORY").to_owned(),
            },
            submods: Submods {
                tpm: Appraisal {
                    status: AFFIRMING.to_owned(),
                    vector: Vector {
                        instance_identity: TRUSTWORTHY_INSTANCE,
                        hardware: GENUINE_HARDWARE,
                        executables: APPROVED_BOOT,
                    },
                    policy: verified.policy().to_string(),
                },
            },
            fresh_until: now.saturating_add(lifetimes.fresh.as_secs()),
            ak: verified.ak().to_string(),
            reset,
            restart,
        }
    }

    pub(crate) fn into_result(self) -> Result<AttestationResult, ResultError> {
        let digest = |text: &str| Sha256::parse(text).ok_or(ResultError::Malformed);
        if self.eat_profile != PROFILE {
            return Err(ResultError::Malformed);
        }
        if self.submods.tpm.status != AFFIRMING {
            return Err(ResultError::NotAffirming);
        }
        let node = SpiffeId::parse(&self.sub).ok();
        Ok(AttestationResult {
            verifier: self.iss,
            node: node
                .filter(|id| id.node_name().is_some())
                .ok_or(ResultError::Malformed)?,
            node_key: digest(&self.cnf.kid)?,
            ak: AkName(digest(&self.ak)?),
            counters: Counters {
                reset: self.reset,
                restart: self.restart,
            },
            policy: digest(&self.submods.tpm.policy)?,
            issued: self.iat,
            fresh_until: self.fresh_until,
            hard_expiry: self.exp,
        })
    }
}
