//! What can be wrong, by whose fault it is: Evidence's ([`Rejection`]), a caller's
//! ([`ChallengeError`], [`BatchError`]), the TPM's ([`TpmError`]).

use crate::ak::AkName;
use crate::attest::Counters;
use crate::claims::Purpose;
use crate::digest::Sha256;
use crate::limits::{CALLER_BYTES_MAX, CHAIN_CERTIFICATES_MAX, NONCE_BYTES_MAX, NONCE_BYTES_MIN};
use crate::tree::ProofError;
use kedge_model::SpiffeId;

/// Bytes that are not the structure that they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is malformed")]
pub struct Malformed(pub &'static str);

/// A challenge that nobody can be asked.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ChallengeError {
    #[error("a nonce of {0} bytes, not {NONCE_BYTES_MIN} to {NONCE_BYTES_MAX}")]
    Nonce(usize),
    #[error("a caller's name of {0} bytes, not 1 to {CALLER_BYTES_MAX}")]
    Caller(usize),
    #[error("the link has no exporter yet")]
    Exporter(#[source] rustls::Error),
}

/// Why a certificate chain is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    #[error("no certificate")]
    Missing,
    #[error("{0} certificates, more than {CHAIN_CERTIFICATES_MAX}, or one of them too large")]
    TooLong(usize),
    #[error("a certificate that is not well-formed X.509")]
    Malformed,
    #[error("a certificate that is not valid at this time")]
    Time,
    #[error("no root that is configured signed it")]
    UnknownRoot,
    #[error("its extended key usage is not {0}")]
    Usage(&'static str),
    #[error("it names no node")]
    NoNode,
    #[error("the chain does not verify")]
    Chain(#[source] webpki::Error),
}

/// Why Evidence is not believed. Each has a label for metrics, a cause (its text) and a remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("Evidence of version {0}, which is not known here")]
    Version(u16),
    #[error("Evidence of {0} bytes, more than allowed")]
    TooLarge(usize),
    #[error("Evidence made for purpose {found}, not {expected}")]
    OtherPurpose { found: Purpose, expected: Purpose },
    #[error("Evidence made for caller {0:?}")]
    OtherCaller(String),
    #[error("Evidence of a node whose SVID has another key")]
    OtherNode,
    #[error("Evidence made on another link")]
    OtherLink,
    #[error("Evidence answers another nonce: it is older than the question, or of another one")]
    OtherNonce,
    #[error("the inclusion proof does not hold: {0}")]
    Inclusion(#[from] ProofError),
    #[error("the quote does not answer this challenge: the tree that it signs is another")]
    OtherTree,
    #[error("the AK lacks the attribute {0}")]
    AkLacks(&'static str),
    #[error("the AK has the attribute decrypt")]
    AkDecrypts,
    #[error("the AK's certificate: {0}")]
    AkChain(#[source] ChainError),
    #[error("the AK's certificate is of another key")]
    AkOfOtherKey,
    #[error("the AK is certified for {found}, not {expected}")]
    AkOfOtherNode { found: SpiffeId, expected: SpiffeId },
    #[error("the quote is not signed by the AK")]
    Signature,
    #[error("what is signed was not made by a TPM")]
    NotFromTpm,
    #[error("what is signed is no quote but structure {0:#06x}")]
    NotAQuote(u16),
    #[error("the quote names another signer than the AK in the endorsement hierarchy")]
    OtherSigner,
    #[error("the PCR values are not those that the quote states")]
    PcrDigest,
    #[error("PCR {index} is {found}, which the policy does not allow")]
    Pcr { index: u8, found: Sha256 },
    #[error("PCR {0} is in the policy and not in the quote")]
    PcrNotQuoted(u8),
    #[error("there is no event log, and the policy requires one")]
    NoEventLog,
    #[error("the event log replays PCR {index} to {replayed}, and the quote states {quoted}")]
    EventLog {
        index: u8,
        replayed: Sha256,
        quoted: Sha256,
    },
    #[error(transparent)]
    Counters(#[from] LedgerError),
}

/// Why what is said of a TPM is not taken note of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    #[error(
        "the TPM of AK {ak} was at reset {}, restart {} before, and says reset {}, restart {} now",
        newest.reset, newest.restart, found.reset, found.restart
    )]
    RolledBack {
        ak: AkName,
        newest: Counters,
        found: Counters,
    },
    #[error("there are {0} AKs already whose counters are remembered")]
    Full(usize),
}

impl LedgerError {
    /// Short, stable name: a metric's label.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::RolledBack { .. } => "counters-rolled-back",
            Self::Full(_) => "too-many-aks",
        }
    }

    /// What an operator can do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::RolledBack { .. } => {
                "none if something old came late; if the TPM was replaced or cleared, enrol the node \
                 again"
            }
            Self::Full(_) => {
                "AKs of machines that are gone are remembered: start the Verifier anew"
            }
        }
    }
}

impl Rejection {
    /// Short, stable name: a metric's label.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Malformed(_) | Self::Version(_) | Self::TooLarge(_) => "evidence-malformed",
            Self::OtherPurpose { .. } => "other-purpose",
            Self::OtherCaller(_) => "other-caller",
            Self::OtherNode => "other-node-key",
            Self::OtherLink => "other-link",
            Self::OtherNonce => "other-nonce",
            Self::Inclusion(_) | Self::OtherTree => "inclusion",
            Self::AkLacks(_) | Self::AkDecrypts => "ak-attributes",
            Self::AkChain(_) => "ak-untrusted",
            Self::AkOfOtherKey => "ak-other-key",
            Self::AkOfOtherNode { .. } => "ak-other-node",
            Self::Signature => "quote-signature",
            Self::NotFromTpm | Self::NotAQuote(_) | Self::OtherSigner => "not-a-quote",
            Self::PcrDigest => "pcr-digest",
            Self::Pcr { .. } => "pcr-not-allowed",
            Self::PcrNotQuoted(_) => "pcr-not-quoted",
            Self::NoEventLog => "no-event-log",
            Self::EventLog { .. } => "event-log",
            Self::Counters(error) => error.label(),
        }
    }

    /// What an operator can do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Malformed(_) | Self::Version(_) | Self::TooLarge(_) => {
                "update both nodes to the same version of kedge; if it stays, treat the node as \
                 compromised"
            }
            Self::OtherPurpose { .. } | Self::OtherCaller(_) | Self::OtherLink => {
                "none on this node: somebody passes on Evidence that was made for another"
            }
            Self::OtherNonce => "none: ask again; if it stays, somebody repeats old Evidence",
            Self::OtherNode => {
                "if the node has just renewed its certificate, none: the next Evidence has the new \
                 key; else somebody passes on Evidence of another node"
            }
            Self::Inclusion(_) | Self::OtherTree | Self::Signature | Self::PcrDigest => {
                "none on this node: the Evidence is forged, or was damaged on the way"
            }
            Self::AkLacks(_) | Self::AkDecrypts | Self::OtherSigner => {
                "let the node make its AK itself (kedged does), and enrol it again"
            }
            Self::NotFromTpm | Self::NotAQuote(_) => {
                "none on this node: treat the node that sent it as compromised"
            }
            Self::AkChain(_) => {
                "enrol the node's AK with a CA whose certificate is among the attestation roots"
            }
            Self::AkOfOtherKey | Self::AkOfOtherNode { .. } => {
                "enrol the AK of this node again; a machine that was given another name has to be"
            }
            Self::Pcr { .. } => {
                "find out what changed on the node (the event log names it); if it is meant to be, \
                 add the value to the policy, or learn the policy again"
            }
            Self::PcrNotQuoted(_) => {
                "let the node quote every PCR of the policy, or take this one out of it"
            }
            Self::NoEventLog => {
                "let kedged read the node's event log, or make it optional in the policy"
            }
            Self::EventLog { .. } => {
                "treat the node as compromised: firmware measured other events than its log shows"
            }
            Self::Counters(error) => error.remedy(),
        }
    }
}

/// Why a challenge may not wait for a quote. The caller is told at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    #[error("attest: {0} challenges wait already: ask again in a second")]
    Full(usize),
    #[error("attest: this caller has {0} challenges waiting, as many as are left for all others")]
    OverShare(usize),
    #[error("attest: this caller asks too fast: {0} challenges a second, 64 at once")]
    TooFast(u32),
    #[error("attest: {0} callers ask already: ask again in a second")]
    TooManyCallers(usize),
}

/// Why a TPM did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TpmError {
    #[error("{operation}: the TPM answers {code:#010x}: {remedy}", remedy = self.remedy())]
    Failed { operation: &'static str, code: u32 },
    #[error("{0}: the TPM is locked out after wrong authorizations: wait, or clear the lockout")]
    Lockout(&'static str),
    #[error("{0}: the TPM is not to be reached: look at the device and who may open it")]
    Unreachable(&'static str),
    #[error("{0}: the TPM gave an answer that makes no sense: look for another user of the device")]
    Nonsense(&'static str),
    #[error("the PCRs changed during each of {0} quotes: try again")]
    PcrsRestless(usize),
    #[error(
        "handle {0:#010x} holds a key that is no AK of kedge: free it, or configure another handle"
    )]
    HandleTaken(u32),
    #[error(
        "there is no EK certificate in the TPM: ask its maker, or give the certificate by file"
    )]
    NoEkCertificate,
    #[error("the thread that owns the TPM has ended: start kedged again")]
    Gone,
    #[error("too many ask the TPM at once: {0} wait already")]
    Busy(usize),
}

impl TpmError {
    fn remedy(&self) -> &'static str {
        "look the code up with `tpm2_rc_decode`"
    }
}
