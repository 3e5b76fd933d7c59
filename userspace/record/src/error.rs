//! Errors by whose fault they are: [`SealError`] is ours, [`FrameError`] and [`OpenError`] are
//! the peer's or the network's.

use crate::limits::{CIPHERTEXT_MAX, CIPHERTEXT_MIN, PLAINTEXT_MAX};

/// The caller misused a [`Sealer`](crate::Sealer), or let its budget run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error("seal record: {0} bytes of content, more than {PLAINTEXT_MAX}")]
    TooLong(usize),
    #[error("seal record: the slot has {have} bytes, the record needs {need}")]
    SlotTooSmall { need: usize, have: usize },
    #[error("seal record: the key's budget of {0} records is used up without an update")]
    BudgetExhausted(u64),
    #[error("seal record: this direction was closed by an alert or a Continue already")]
    Closed,
    #[error("seal record: the cryptographic library failed")]
    Library,
}

/// The bytes are not a TLS 1.3 record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("read record header: type {0} instead of 23")]
    Type(u8),
    #[error("read record header: version {0:#06x} instead of 0x0303")]
    Version(u16),
    #[error("read record header: length {0} is not {CIPHERTEXT_MIN} to {CIPHERTEXT_MAX}")]
    Length(usize),
    #[error("read record: {have} bytes where the header says {need}")]
    Incomplete { need: usize, have: usize },
}

/// A record that ends its flow: it is forged, or its sender breaks the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Nothing of this record was authenticated; it may come from anybody on the path.
    #[error("open record {0}: it was altered on the way, or sealed under another key")]
    Forged(u64),
    #[error("open record: the peer misbehaved: {0}")]
    PeerMisbehaved(#[from] PeerMisbehaved),
    /// The peer ended the flow with an alert that is neither close_notify nor user_canceled.
    #[error("open record: the peer sent alert {0} (RFC 8446, 6): see the peer's log")]
    PeerAlert(u8),
}

/// What an authenticated peer did that the protocol forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerMisbehaved {
    #[error("more than {0} records under one key")]
    BudgetExceeded(u64),
    #[error("a KeyUpdate or Continue after {0} records, sooner than allowed")]
    UpdateTooEarly(u64),
    #[error("content of {0} bytes, more than {PLAINTEXT_MAX}")]
    TooLong(usize),
    #[error("inner content type {0} is not alert, handshake or application data")]
    ContentType(u8),
    #[error("a record of nothing but padding")]
    NoContent,
    #[error("a handshake message that is not the KeyUpdate or Continue agreed on for this link")]
    Handshake,
    #[error("an alert that is not two bytes long")]
    Alert,
    #[error("a record after the alert or Continue that ended its direction")]
    AfterClose,
}
