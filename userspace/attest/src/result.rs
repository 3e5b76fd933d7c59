//! Attestation Results: what a Verifier says of a node, signed, for five minutes.
//!
//! A Result is a JWT by ES256, since Relying Parties other than kedge are to read it with what they
//! have. Its claims are those of EAT (RFC 9711) with the names of draft-ietf-rats-ear and the vector of
//! draft-ietf-rats-ar4si, and a few of our own; docs/attestation.md lists them.

use crate::ak::AkName;
use crate::attest::Counters;
use crate::claims::NodeKey;
use crate::digest::Sha256;
use crate::error::LedgerError;
use crate::limits::{
    CLOCK_SKEW_MAX, PINNED_KEYS_MAX, RESULT_BYTES_MAX, RESULT_HARD_LIFETIME_MAX, RESULT_LIFETIME,
};
use crate::result_claims::Body;
use crate::verify::Verified;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use kedge_model::SpiffeId;
use rustls_pki_types::UnixTime;
use std::collections::BTreeMap;
use std::time::Duration;

/// Why a Result is not believed. Each has a label for metrics, a cause (its text) and a remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResultError {
    #[error("Attestation Result of {0} bytes, more than {RESULT_BYTES_MAX}")]
    TooLarge(usize),
    #[error("Attestation Result is malformed")]
    Malformed,
    #[error("Attestation Result is signed by a key that is not pinned")]
    UnknownVerifier,
    #[error("Attestation Result's signature does not verify")]
    Signature,
    #[error("Attestation Result says that it is of Verifier {found}, and the key is {expected}'s")]
    OtherVerifier { found: String, expected: String },
    #[error("Attestation Result is of the node itself: a Verifier has to be another")]
    OwnVerifier,
    #[error("Attestation Result is of a node whose SVID has another key")]
    OtherNodeKey,
    #[error("Attestation Result is about {found}, not {expected}")]
    OtherNode { found: SpiffeId, expected: SpiffeId },
    #[error("Attestation Result was issued {0} s from now")]
    FromTheFuture(u64),
    #[error("Attestation Result ended {ended_s} s ago; {max_stale_s} s are allowed")]
    Ended { ended_s: u64, max_stale_s: u64 },
    #[error("Attestation Result is past its hard expiry, {0} s ago")]
    PastHardExpiry(u64),
    #[error("Attestation Result is good for longer than a Result may be")]
    TooLong,
    #[error("Attestation Result was made by policy {0}, which is not the one required")]
    OtherPolicy(Sha256),
    #[error("Attestation Result does not affirm the node")]
    NotAffirming,
    #[error(transparent)]
    Counters(#[from] LedgerError),
    #[error("more than {0} Verifier keys, or none")]
    Pins(usize),
    #[error("Verifier {0} has the key of a CA or of this node; a Verifier needs one of its own")]
    PinnedForbidden(String),
    #[error("not a key of a Verifier: ECDSA P-256 in PKCS #8")]
    NotAKey,
}

impl ResultError {
    /// Short, stable name: a metric's label.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::TooLarge(_) | Self::Malformed | Self::TooLong => "result-malformed",
            Self::UnknownVerifier | Self::Signature | Self::OtherVerifier { .. } => {
                "result-untrusted"
            }
            Self::OwnVerifier => "result-own-verifier",
            Self::OtherNodeKey => "result-other-node-key",
            Self::OtherNode { .. } => "result-other-node",
            Self::FromTheFuture(_) => "result-from-the-future",
            Self::Ended { .. } | Self::PastHardExpiry(_) => "result-ended",
            Self::OtherPolicy(_) => "result-other-policy",
            Self::NotAffirming => "result-not-affirming",
            Self::Counters(error) => error.label(),
            Self::Pins(_) | Self::PinnedForbidden(_) | Self::NotAKey => "verifier-keys",
        }
    }

    /// What an operator can do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::TooLarge(_) | Self::Malformed | Self::TooLong => {
                "update node and Verifier to the same version of kedge"
            }
            Self::UnknownVerifier | Self::Signature | Self::OtherVerifier { .. } => {
                "pin the key of the Verifier that this node is to believe, by its name"
            }
            Self::OwnVerifier => "let another node, or a service of its own, verify this node",
            Self::OtherNodeKey => {
                "if the node has just renewed its certificate, none: it asks for another Result; \
                 else somebody uses a Result of another node"
            }
            Self::OtherNode { .. } => "none on this node: somebody uses a Result of another node",
            Self::FromTheFuture(_) => {
                "set the clocks of Verifier and node, for example with chrony"
            }
            Self::Ended { .. } | Self::PastHardExpiry(_) => {
                "find out why the node gets no new Result: see `kedge attest status` there"
            }
            Self::OtherPolicy(_) => "give the Verifier the policy that this node requires",
            Self::NotAffirming => "see the Verifier's log for why",
            Self::Counters(error) => error.remedy(),
            Self::Pins(_) | Self::PinnedForbidden(_) | Self::NotAKey => {
                "make a key for the Verifier alone, and pin its public half"
            }
        }
    }
}

/// What signs Results. The key is erased when dropped.
pub struct VerifierKey {
    name: String,
    key: EncodingKey,
    id: Sha256,
}

/// How long a Result is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// How long it is fresh: five minutes at most.
    pub fresh: Duration,
    /// At the Relying Party's risk: at least as long, a day at most.
    pub hard: Duration,
}

impl Lifetimes {
    fn within_bounds(self) -> Self {
        let fresh = self.fresh.min(RESULT_LIFETIME);
        let hard = self.hard.max(fresh).min(RESULT_HARD_LIFETIME_MAX);
        Self { fresh, hard }
    }
}

/// The public half of a Verifier's key, and the name of the one who has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    pub name: String,
    /// 0x04 ‖ x ‖ y, on P-256.
    pub point: [u8; 65],
}

/// The Verifiers that a Relying Party believes, by their keys.
pub struct PinnedKeys(BTreeMap<Sha256, (String, DecodingKey)>);

/// A Result that was believed. Only [`PinnedKeys::verify`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttestationResult {
    pub(crate) verifier: String,
    pub(crate) node: SpiffeId,
    pub(crate) node_key: NodeKey,
    pub(crate) ak: AkName,
    pub(crate) counters: Counters,
    pub(crate) policy: Sha256,
    /// Seconds since 1970.
    pub(crate) issued: u64,
    pub(crate) fresh_until: u64,
    pub(crate) hard_expiry: u64,
}

/// What a Relying Party asks of a Result.
#[derive(Clone, Debug)]
pub struct Required {
    pub node: SpiffeId,
    /// Of the SVID that the node has just shown in its handshake.
    pub node_key: NodeKey,
    /// The policies that may have been applied; none for whatever the Verifier has.
    pub policies: Vec<Sha256>,
    /// How long after its five minutes a Result is still taken, while no newer one is to be had.
    pub max_stale: Duration,
}

impl VerifierKey {
    /// # Errors
    /// When it is no ECDSA P-256 key in PKCS #8 (DER).
    pub fn from_pkcs8(name: &str, pkcs8: &[u8]) -> Result<(Self, Pin), ResultError> {
        use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8)
            .map_err(|_| ResultError::NotAKey)?;
        let point = pair.public_key().as_ref();
        let pin = Pin {
            name: name.to_owned(),
            point: point.try_into().map_err(|_| ResultError::NotAKey)?,
        };
        Ok((
            Self {
                name: name.to_owned(),
                key: EncodingKey::from_ec_der(pkcs8),
                id: pin.id(),
            },
            pin,
        ))
    }

    /// A token about a node whose Evidence was believed.
    ///
    /// # Errors
    /// When the library does not sign.
    pub fn issue(
        &self,
        verified: &Verified,
        lifetimes: Lifetimes,
        now: UnixTime,
    ) -> Result<String, ResultError> {
        let body = Body::new(&self.name, verified, lifetimes.within_bounds(), now);
        let header = Header {
            kid: Some(self.id.to_string()),
            ..Header::new(Algorithm::ES256)
        };
        jsonwebtoken::encode(&header, &body, &self.key).map_err(|_| ResultError::NotAKey)
    }
}

impl Pin {
    /// SHA-256 of the key's SubjectPublicKeyInfo: the `kid` of its tokens.
    #[must_use]
    pub fn id(&self) -> Sha256 {
        Sha256::of(&[&crate::ak::spki_p256(&self.point)])
    }
}

impl PinnedKeys {
    /// `forbidden` are keys (SHA-256 of the SubjectPublicKeyInfo) that must not verify: of the SVID
    /// CA, and of this node. Whoever issues identities must not be able to make machines honest too.
    ///
    /// # Errors
    /// When there are none or too many, or one is forbidden.
    pub fn new(pins: &[Pin], forbidden: &[Sha256]) -> Result<Self, ResultError> {
        if pins.is_empty() || pins.len() > PINNED_KEYS_MAX {
            return Err(ResultError::Pins(PINNED_KEYS_MAX));
        }
        let mut keys = BTreeMap::new();
        for pin in pins {
            if forbidden.contains(&pin.id()) {
                return Err(ResultError::PinnedForbidden(pin.name.clone()));
            }
            let key = DecodingKey::from_ec_der(&pin.point);
            keys.insert(pin.id(), (pin.name.clone(), key));
        }
        Ok(Self(keys))
    }

    /// Believes a token or says why not. `now` is the wall clock; what is kept then ages by another
    /// ([`Held`](crate::Held)). Counters are for the caller's [`Ledger`](crate::Ledger) to compare.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn verify(
        &self,
        token: &str,
        required: &Required,
        now: UnixTime,
    ) -> Result<AttestationResult, ResultError> {
        let result = self.open(token)?;
        if result.node_key != required.node_key {
            return Err(ResultError::OtherNodeKey);
        }
        if result.node != required.node {
            return Err(ResultError::OtherNode {
                found: result.node,
                expected: required.node.clone(),
            });
        }
        if !required.policies.is_empty() && !required.policies.contains(&result.policy) {
            return Err(ResultError::OtherPolicy(result.policy));
        }
        result.check_time(now.as_secs(), required.max_stale)?;
        Ok(result)
    }

    /// Who signed it, and what it says.
    fn open(&self, token: &str) -> Result<AttestationResult, ResultError> {
        if token.len() > RESULT_BYTES_MAX {
            return Err(ResultError::TooLarge(token.len()));
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| ResultError::Malformed)?;
        let id = header.kid.as_deref().and_then(Sha256::parse);
        let pinned = id.and_then(|id| self.0.get(&id));
        let (name, key) = pinned.ok_or(ResultError::UnknownVerifier)?;
        let body = jsonwebtoken::decode::<Body>(token, key, &signature_only())
            .map_err(|error| match error.kind() {
                jsonwebtoken::errors::ErrorKind::InvalidSignature => ResultError::Signature,
                _ => ResultError::Malformed,
            })?
            .claims;
        let result = body.into_result()?;
        if result.verifier != *name {
            return Err(ResultError::OtherVerifier {
                found: result.verifier,
                expected: name.clone(),
            });
        }
        match id == Some(result.node_key) || result.node.as_str() == *name {
            true => Err(ResultError::OwnVerifier),
            false => Ok(result),
        }
    }
}

/// The library checks the signature; times are arguments here, and it would read a clock.
fn signature_only() -> Validation {
    let mut validation = Validation::new(Algorithm::ES256);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}

impl AttestationResult {
    fn check_time(&self, now: u64, max_stale: Duration) -> Result<(), ResultError> {
        let skew = CLOCK_SKEW_MAX.as_secs();
        let life = self.hard_expiry.checked_sub(self.issued);
        let in_order = (self.issued..=self.hard_expiry).contains(&self.fresh_until);
        if !in_order || life.is_none_or(|life| life > RESULT_HARD_LIFETIME_MAX.as_secs()) {
            return Err(ResultError::TooLong);
        }
        if self.issued > now.saturating_add(skew) {
            return Err(ResultError::FromTheFuture(self.issued - now));
        }
        if now >= self.hard_expiry {
            return Err(ResultError::PastHardExpiry(now - self.hard_expiry));
        }
        let ended_s = now.saturating_sub(self.fresh_until);
        match now < self.fresh_until || ended_s < max_stale.as_secs() {
            true => Ok(()),
            false => Err(ResultError::Ended {
                ended_s,
                max_stale_s: max_stale.as_secs(),
            }),
        }
    }

    #[must_use]
    pub fn verifier(&self) -> &str {
        &self.verifier
    }

    #[must_use]
    pub fn node(&self) -> &SpiffeId {
        &self.node
    }

    #[must_use]
    pub fn node_key(&self) -> NodeKey {
        self.node_key
    }

    #[must_use]
    pub fn ak(&self) -> AkName {
        self.ak
    }

    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    #[must_use]
    pub fn policy(&self) -> Sha256 {
        self.policy
    }

    /// Seconds since 1970.
    #[must_use]
    pub fn hard_expiry(&self) -> u64 {
        self.hard_expiry
    }

    /// Seconds since 1970.
    #[must_use]
    pub fn issued(&self) -> u64 {
        self.issued
    }
}
