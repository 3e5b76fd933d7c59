//! The admin API: HTTP/1.1 and JSON over the Unix socket `<run_dir>/admin.sock` (0600).
//!
//! kedged answers with these types and `kedge` reads them; `kedge --json` prints them as they are.
//! They are stable: a field may be added, none changes its meaning. Units stand last in the names
//! (`age_s`, `bytes_sent`); moments are RFC 3339 in UTC. What does not exist (yet) is null.

#![forbid(unsafe_code)]

pub mod appraisal;
mod attestation;
mod doctor;
mod event;
mod feature;
mod flow;
mod link;
pub mod path;
mod probe;
mod socket;
mod status;
mod timestamp;

pub use attestation::{
    AttestationMode, AttestationStatus, EnrolmentAnswer, EnrolmentChallenge, EnrolmentRequest,
    OwnResult, PeerResult, QuoteQuery,
};
pub use doctor::{Diagnosis, Finding, Verdict};
pub use event::{Event, EventKind, EventsQuery, Versions};
pub use feature::{Feature, Features};
pub use flow::{Flow, FlowPhase, FlowRole, Flows};
pub use kedge_policy::{Effect, Explanation, NearMiss, PolicyVersion, RuleReference};
pub use link::{Link, LinkState, Links, TlsRole};
pub use probe::Probe;
pub use socket::{Socket, Sockets};
pub use status::{
    CaptureStatus, DirectoryStatus, Listener, ListenerRole, PolicyStatus, SealedBy, Status,
    SuiteRecords, SvidStatus, Uncapturable, Unenforceable, WorkerStatus,
};
pub use timestamp::{NotATimestamp, Timestamp};

use serde::{Deserialize, Serialize};

/// The body of every answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    pub cause: String,
    pub remedy: Option<String>,
}

/// The query of [`path::POLICY_EXPLAIN`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainQuery {
    pub source: kedge_model::SpiffeId,
    pub destination: kedge_model::SpiffeId,
    pub port: u16,
}
