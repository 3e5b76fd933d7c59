//! Every bound of a link, with its unit. docs/protocol.md states the same numbers.

use std::time::Duration;

/// From the first byte to both hellos; a link that is not established then is closed.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Most bytes of a control frame's value.
pub const FRAME_VALUE_MAX: usize = 16_384;
/// Most bytes of one TLS handshake message, which bounds a peer's certificate chain. Enforced by
/// rustls; named here for the error's text.
pub const TLS_MESSAGE_MAX: usize = 0xffff;
/// Most bytes of an Attestation Result, and of what is said to people in place of one.
pub const ATTESTATION_RESULT_MAX: usize = 4_096;
pub const ATTESTATION_TEXT_MAX: usize = 512;
/// Bytes of sealed control frames that may wait for the caller to take them.
pub const TRANSMIT_BACKLOG_MAX: usize = 1 << 20;
/// Events that may wait for the caller to take them.
pub const EVENTS_MAX: usize = 1 << 16;
/// Workload identities that one side of a link may announce.
pub const IDENTITIES_MAX: usize = 1 << 16;
/// Entries in one list of a hello.
pub const OFFERS_MAX: usize = 64;

/// Numbers that a replay window remembers, below and including the highest seen.
pub const WINDOW_NUMBERS: u64 = 1 << 16;

/// Flow numbers that an opener takes from one epoch.
pub const EPOCH_NUMBERS: u64 = 4_096;
/// Age of an epoch after which the next flow begins a new one.
pub const EPOCH_AGE: Duration = Duration::from_secs(60);
/// Epochs beyond the newest authenticated one that an acceptor will derive.
pub const EPOCHS_AHEAD_MAX: u32 = 64;
/// How long an epoch's secret outlives the first authenticated flow of a newer epoch.
pub const EPOCH_GRACE: Duration = Duration::from_secs(10);

/// Most plaintext bytes of record 0, so that header and record 0 fit into 2 KiB.
pub const RECORD0_PLAINTEXT_MAX: usize = 1_024;
/// Most bytes of a destination instance in record 0.
pub const DESTINATION_INSTANCE_MAX: usize = 64;
/// Most plaintext bytes of an answer.
pub const ANSWER_PLAINTEXT_MAX: usize = 1_024;
/// Most bytes of a denial's text.
pub const DENIAL_TEXT_MAX: usize = 256;

/// How long the loser of two links, or a renewed link, keeps opening and accepting flows.
pub const DRAIN: Duration = Duration::from_secs(10);
