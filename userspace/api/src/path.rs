//! Where things are.

/// The directory of kedged's sockets, unless its configuration says otherwise.
pub const RUN_DIR_DEFAULT: &str = "/run/kedge";
/// The admin socket, in the run directory.
pub const SOCKET_FILE: &str = "admin.sock";

/// Answers [`crate::Status`].
pub const STATUS: &str = "/v1/status";
/// Answers [`crate::Links`].
pub const LINKS: &str = "/v1/links";
/// Answers [`crate::Flows`].
pub const FLOWS: &str = "/v1/flows";
/// Answers [`crate::Sockets`].
pub const SOCKETS: &str = "/v1/sockets";
/// Takes [`crate::ExplainQuery`], answers [`crate::Explanation`].
pub const POLICY_EXPLAIN: &str = "/v1/policy/explain";
/// Answers [`crate::Features`].
pub const FEATURES: &str = "/v1/features";
/// Takes [`crate::EventsQuery`], answers one [`crate::Event`] a line (NDJSON).
pub const EVENTS: &str = "/v1/events";
/// Answers [`crate::AttestationStatus`].
pub const ATTESTATION: &str = "/v1/attestation";
/// Takes [`crate::QuoteQuery`]; POST: answers Evidence (CBOR) for the one who has the admin socket.
pub const ATTEST_QUOTE: &str = "/v1/attestation/quote";
/// POST: answers [`crate::EnrolmentRequest`].
pub const ATTEST_REQUEST: &str = "/v1/attestation/request";
/// POST of [`crate::EnrolmentChallenge`]: answers [`crate::EnrolmentAnswer`].
pub const ATTEST_ACTIVATE: &str = "/v1/attestation/activate";
/// Answers OpenMetrics text.
pub const METRICS: &str = "/metrics";
