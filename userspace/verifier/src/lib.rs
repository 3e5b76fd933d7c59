//! The Verifier (RFC 9334): Evidence comes in, and an Attestation Result goes out, or the one reason
//! why not.
//!
//! ```text
//!   POST /v1/nonce                          ─► a nonce that only this Verifier makes
//!   POST /v1/appraise?node=…, Evidence      ─► nonce, AK, quote, PCRs, revocations ─► token
//! ```
//!
//! It needs no TPM, no privilege and no secret of the nodes: only a key of its own, which must be no
//! node's and no CA's. docs/attestation.md describes both ends.

#![forbid(unsafe_code)]

pub mod config;
pub mod judge;
pub mod limits;
mod nonce;
mod serve;

pub use serve::serve;
