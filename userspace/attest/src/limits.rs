//! Every bound of this crate, with its unit.

use std::time::Duration;

/// Bytes of one piece of Evidence, event log and certificates included.
pub const EVIDENCE_BYTES_MAX: usize = 512 * 1024;
/// Bytes of an event log; firmware of today writes 20 to 60 KiB.
pub const EVENT_LOG_BYTES_MAX: usize = 256 * 1024;
/// Events in an event log.
pub const EVENTS_MAX: usize = 8_192;
/// Digests of one event: one a bank.
pub const EVENT_DIGESTS_MAX: usize = 8;
/// Bytes of a TPMS_ATTEST, a TPMT_SIGNATURE or a TPMT_PUBLIC, each.
pub const TPM_STRUCTURE_BYTES_MAX: usize = 1_024;
/// Certificates of an AK's or an EK's chain: the leaf and its intermediates.
pub const CHAIN_CERTIFICATES_MAX: usize = 4;
/// Bytes of one certificate.
pub const CERTIFICATE_BYTES_MAX: usize = 8_192;

/// Bytes of a nonce.
pub const NONCE_BYTES_MIN: usize = 16;
pub const NONCE_BYTES_MAX: usize = 64;
/// Bytes of a caller's identity.
pub const CALLER_BYTES_MAX: usize = 512;

/// PCRs that a policy may name: 0 to 23 (TCG PC Client Platform TPM Profile).
pub const PCRS: u8 = 24;
/// Values that a policy may allow for one PCR.
pub const VALUES_PER_PCR_MAX: usize = 256;
/// Bytes of a policy document.
pub const POLICY_BYTES_MAX: usize = 1 << 20;

/// Challenges of callers on the node that may wait for the next quote.
pub const LOCAL_WAITING_MAX: usize = 4_096;
/// Challenges of the daemon itself (links, Results, enrolment) that may wait for the next quote: room
/// that nobody on the node can fill.
pub const OWN_WAITING_MAX: usize = 1_024;
/// Leaves of the largest tree: all that may wait.
pub const LEAVES_MAX: usize = LOCAL_WAITING_MAX + OWN_WAITING_MAX;
/// Callers whose rate is remembered.
pub const CALLERS_MAX: usize = 8_192;
/// Challenges that one caller may ask at once, and how many each second gives back.
pub const CALLER_BURST: u32 = 64;
pub const CALLER_PER_SECOND: u32 = 16;

/// How long a Result is fresh.
pub const RESULT_LIFETIME: Duration = Duration::from_secs(5 * 60);
/// The longest time from a Result's issue to its hard expiry.
pub const RESULT_HARD_LIFETIME_MAX: Duration = Duration::from_secs(24 * 3600);
/// Bytes of a Result's token.
pub const RESULT_BYTES_MAX: usize = 4_096;
/// How far the clocks of Verifier and Relying Party may be apart.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(30);
/// Verifier keys that a Relying Party may pin.
pub const PINNED_KEYS_MAX: usize = 16;
/// AKs whose counters are remembered, and nodes whose Results are cached.
pub const AKS_MAX: usize = 65_536;

/// The first wait after a Verifier failed, and the longest.
pub const BACKOFF_MIN: Duration = Duration::from_secs(1);
pub const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// How long a Verifier is waited for.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
