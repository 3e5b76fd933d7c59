//! Attestation in the words of RFC 9334: what a node is, proven by its TPM.
//!
//! ```text
//!   Attester                          Verifier                     Relying Party
//!   Challenge ─► Batcher ─► Tpm
//!                   │  one quote over the root of a tree, a leaf for each challenge
//!                   ▼
//!                Evidence ─────────► Verifier::verify
//!                                       │ Verified
//!                                       ▼
//!                                    VerifierKey::issue ── token ─► PinnedKeys::verify ─► Held
//!
//!   once, before that:  Request ─► Enrolment (the CA) ─► ApprovedAk ─► the AK's certificate
//! ```
//!
//! Pure: times are arguments, the TPM is behind the trait [`Tpm`], and what verifies needs none. Only
//! enrolment takes randomness from the crypto library's generator, as TLS does for its keys.
//! docs/attestation.md gives every format.

#![forbid(unsafe_code)]

mod ak;
mod attest;
mod batch;
mod chain;
mod claims;
mod credential;
mod digest;
mod enrol;
mod error;
mod event_log;
mod evidence;
mod held;
mod ledger;
pub mod limits;
mod pcr;
mod policy;
mod reader;
mod refresh;
mod result;
mod result_claims;
mod share;
#[cfg(feature = "testing")]
pub mod testing;
mod tpm;
mod tree;
mod verify;

pub use ak::{AkName, AkPublic, attributes};
pub use attest::{Attest, ClockInfo, Counters};
pub use batch::{Answers, Batch, BatchCounters, Batcher};
pub use chain::Roots;
pub use claims::{
    Caller, Challenge, Claims, LinkExporter, NodeKey, Nonce, Purpose, qualifying_data,
};
pub use credential::Credential;
pub use digest::Sha256;
pub use enrol::{ApprovedAk, EnrolError, Enrolment, Request};
pub use error::{
    BatchError, ChainError, ChallengeError, LedgerError, Malformed, Rejection, TpmError,
};
pub use event_log::{Event, EventLog};
pub use evidence::{Evidence, Quoted, VERSION};
pub use held::{BootTime, Held, MemoryResults, Results, Standing};
pub use ledger::{Ledger, Order};
pub use pcr::{PcrSelection, PcrValues};
pub use policy::{EventLogPolicy, PcrPolicy, PolicyError};
pub use refresh::{Attempt, RefreshCounters, RefreshPolicy, Refresher, Step};
pub use result::{
    AttestationResult, Lifetimes, Pin, PinnedKeys, Required, ResultError, VerifierKey,
};
pub use tpm::{Quote, Tpm};
pub use tree::{Inclusion, ProofError, Tree};
pub use verify::{Expected, Verified, Verifier};
