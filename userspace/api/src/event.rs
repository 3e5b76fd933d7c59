//! `kedge event follow`: what an operator would want to know, when it happens.

use crate::timestamp::Timestamp;
use kedge_model::{Refusal, SpiffeId};
use kedge_policy::PolicyVersion;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;

/// The query of [`crate::path::EVENTS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsQuery {
    /// Whether the answer goes on as events happen, or ends after those that the daemon has kept.
    #[serde(default)]
    pub follow: bool,
    /// Only events with a greater number; without it, all that the daemon has kept.
    pub since: Option<u64>,
}

/// The directory and the policy that something was decided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    pub directory: u64,
    pub policy: PolicyVersion,
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "directory {}, policy {}", self.directory, self.policy)
    }
}

/// Something that happened, with its cause and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Grows by one with every event of a daemon; a gap means that events were dropped.
    pub number: u64,
    pub time: Timestamp,
    pub kind: EventKind,
    pub cause: String,
    /// What to do; null when there is nothing to do.
    pub remedy: Option<String>,
    /// Why, for kind `refused`, and for `capture-refused` where a daemon had refused before.
    pub refusal: Option<Refusal>,
    /// Of this node, and not necessarily the newest by now; null where the verdict did not follow
    /// from them, such as for a link that failed or when the other node refused.
    pub decided_by: Option<Versions>,
    /// The connecting workload.
    pub source: Option<SpiffeId>,
    /// The workload that was asked for.
    pub destination: Option<SpiffeId>,
    pub client: Option<SocketAddr>,
    pub original_destination: Option<SocketAddr>,
    /// The other node's daemon.
    pub peer: Option<SpiffeId>,
    pub flow: Option<u64>,
}

impl Event {
    /// An event that is about no connection in particular.
    #[must_use]
    pub fn new(number: u64, time: Timestamp, kind: EventKind, cause: impl Into<String>) -> Self {
        Self {
            number,
            time,
            kind,
            cause: cause.into(),
            remedy: None,
            refusal: None,
            decided_by: None,
            source: None,
            destination: None,
            client: None,
            original_destination: None,
            peer: None,
            flow: None,
        }
    }

    /// A refused connection, with the refusal's own cause and remedy.
    #[must_use]
    pub fn refused(number: u64, time: Timestamp, refusal: Refusal) -> Self {
        Self {
            remedy: Some(refusal.remedy().to_owned()),
            refusal: Some(refusal),
            ..Self::new(number, time, EventKind::Refused, refusal.cause())
        }
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $label:literal;)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum EventKind {
            $($(#[$doc])* #[serde(rename = $label)] $name,)*
            /// One that this version of the reader does not know.
            #[serde(other, rename = "unknown")]
            Unknown,
        }

        impl EventKind {
            /// Short, stable name: metrics label and `--json` value.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* Self::Unknown => "unknown" }
            }
        }
    };
}

kinds! {
    /// The daemon serves.
    Started = "started";
    /// The daemon takes no new flows and ends.
    Stopping = "stopping";
    /// A daemon, here or at the other end, refused a connection.
    Refused = "refused";
    /// An open flow ended in an error.
    FlowBroken = "flow-broken";
    LinkUp = "link-up";
    LinkDown = "link-down";
    LinkFailed = "link-failed";
    LinkRenewed = "link-renewed";
    SvidReloaded = "svid-reloaded";
    /// New certificate files are not used: the last good ones stay.
    SvidRejected = "svid-rejected";
    SvidExpiring = "svid-expiring";
    /// Another bundle or revocation list is in force.
    TrustChanged = "trust-changed";
    /// A new bundle or revocation list is not used: the last good one stays.
    TrustRejected = "trust-rejected";
    DirectoryChanged = "directory-changed";
    /// A new directory is not used: the last good one stays.
    DirectoryRejected = "directory-rejected";
    PolicyChanged = "policy-changed";
    /// New policy documents are not used: the last good ones stay.
    PolicyRejected = "policy-rejected";
    /// A generation of programs was attached.
    CaptureStarted = "capture-started";
    CaptureFailed = "capture-failed";
    /// The kernel cannot do what `records.mode = "kernel"` asks of it.
    KernelRecordsMissing = "kernel-records-missing";
    /// A program refused a connect().
    CaptureRefused = "capture-refused";
    /// A program let a connection pass in plaintext.
    CapturePassed = "capture-passed";
    /// A worker has not worked for so long that connect() passes it over.
    WorkerStalled = "worker-stalled";
    /// A worker that had stalled works again.
    WorkerBack = "worker-back";
    /// A guard dropped plaintext of a workload in `require`.
    GuardDropped = "guard-dropped";
    /// A workload in `require` has connections that are older than that.
    OlderPlaintext = "older-plaintext";
    /// A workload's connections cannot be captured.
    Uncapturable = "uncapturable";
    /// A connection of a workload that was uncapturable has arrived.
    Capturable = "capturable";
    /// The node's TPM is not to be had.
    AttestationMissing = "attestation-missing";
    /// The node has an Attestation Result, for the first time or again.
    Attested = "attested";
    /// The node gets no Attestation Result.
    AttestationRefused = "attestation-refused";
    /// Somebody at the attestation socket cannot be told from others.
    CallerUnidentified = "caller-unidentified";
    /// Somebody at the attestation socket asks for more than his share.
    CallerOverShare = "caller-over-share";
    /// A peer's Result is not believed, where none is required.
    PeerUnattested = "peer-unattested";
    /// Another file of Verifiers is in force.
    VerifiersChanged = "verifiers-changed";
    /// A new file of Verifiers is not used: the last good one stays.
    VerifiersRejected = "verifiers-rejected";
    /// Events were lost: more happened than could be kept.
    EventsLost = "events-lost";
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_of_a_newer_daemon_is_read_as_unknown() {
        let kind: EventKind = serde_json::from_str("\"of-tomorrow\"").expect("any text");
        assert_eq!(kind, EventKind::Unknown);
        let text = serde_json::to_string(&EventKind::LinkUp).expect("a plain name");
        assert_eq!(text, "\"link-up\"");
    }

    #[test]
    fn a_refusal_carries_its_cause_and_remedy() {
        let event = Event::refused(1, Timestamp::from_unix_s(0), Refusal::Denied);
        assert_eq!(event.cause, Refusal::Denied.cause());
        assert_eq!(event.remedy.as_deref(), Some(Refusal::Denied.remedy()));
    }
}
