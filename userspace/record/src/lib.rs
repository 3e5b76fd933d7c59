//! TLS 1.3 records (RFC 8446, section 5) under traffic secrets that did not come from a TLS
//! handshake of this connection but from a link's.
//!
//! ```text
//!   TrafficSecret ──moved into──► Sealer    plaintext in a slot ──► record in the same slot
//!   TrafficSecret ──moved into──► Unsealer  record in a buffer  ──► plaintext in the same buffer
//! ```
//!
//! A secret is neither `Clone` nor `Debug` and is moved into the one [`Sealer`] or [`Unsealer`]
//! that uses it: one (key, direction) has one owner, so no record number is sealed twice.
//! Sealing and opening allocate nothing. There is no I/O and no clock here.
//!
//! The bytes are exactly those of TLS 1.3, so that the kernel (kTLS) or another TLS library can
//! take over at any record boundary.

#![forbid(unsafe_code)]

mod content;
mod error;
mod frame;
mod hkdf;
mod kernel;
mod key;
pub mod limits;
mod open;
mod seal;
#[cfg(feature = "seal-log")]
pub mod seal_log;
mod secret;

pub use content::ContentType;
pub use error::{FrameError, OpenError, PeerMisbehaved, SealError};
pub use frame::{deframe, missing};
pub use hkdf::{Hash, expand_label, expand_label_from};
pub use kernel::{DirectionKey, OpenLedger, SealLedger};
pub use limits::{HEADER_LEN, Limits, OVERHEAD, PLAINTEXT_MAX, Rekey};
pub use open::{Opened, Unsealer};
pub use seal::Sealer;
pub use secret::TrafficSecret;
