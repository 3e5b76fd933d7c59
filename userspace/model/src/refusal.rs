//! Why a connection was refused: one closed list with a wire code, a cause and a remedy each, so
//! that every refusal reads the same in an answer, an event, a metric and the command line.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Whose fault a refusal is: who has to do something about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fault {
    /// The operator's policy says so.
    Policy,
    /// The directory does not know, or does not agree.
    Directory,
    /// The workload at the destination.
    Workload,
    /// The peer daemon broke the protocol or is not what it claims.
    Peer,
    /// This node or its limits.
    Node,
}

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $label:literal, $fault:ident,
       $cause:literal, $remedy:literal;)*) => {
        /// Why a connection was refused. The code is the one in a sealed `denied` answer
        /// (docs/protocol.md, "Answer").
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        #[non_exhaustive]
        pub enum Refusal { $($(#[$doc])* $name,)* }

        impl Refusal {
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The code of a `denied` answer.
            #[must_use]
            pub fn code(self) -> u16 {
                match self { $(Self::$name => $code,)* }
            }

            /// Short, stable name: metrics label and `--json` value.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }

            #[must_use]
            pub fn fault(self) -> Fault {
                match self { $(Self::$name => Fault::$fault,)* }
            }

            /// What happened.
            #[must_use]
            pub fn cause(self) -> &'static str {
                match self { $(Self::$name => $cause,)* }
            }

            /// What an operator can do about it.
            #[must_use]
            pub fn remedy(self) -> &'static str {
                match self { $(Self::$name => $remedy,)* }
            }

            /// The refusal with this wire code; one that we do not know yet is the peer's own.
            #[must_use]
            pub fn from_code(code: u16) -> Self {
                match code { $($code => Self::$name,)* _ => Self::PeerSaysNo }
            }
        }
    };
}

refusals! {
    /// No policy document allows it, or one denies it.
    Denied = 1, "denied", Policy,
        "policy does not allow this source to reach this destination and port",
        "run `kedge policy explain SRC DST PORT`; add an [[allow]] if it should be";
    SourceUnknown = 2, "source-unknown", Directory,
        "the connecting workload is not in the directory",
        "add the workload with its cgroup and addresses to the directory, or wait for it to catch up";
    SourceMismatch = 3, "source-mismatch", Directory,
        "the source address is not one that the directory gives to the source identity on that node",
        "compare `addresses` of the source workload in both nodes' directories";
    DestinationUnknown = 4, "destination-unknown", Directory,
        "the destination address is neither a workload nor a service of the directory",
        "add the destination to the directory, or take its prefix out of `managed`";
    NoEndpoint = 5, "no-endpoint", Directory,
        "the service has no endpoint",
        "start a workload behind the service, or correct its endpoints in the directory";
    NodeUnmanaged = 6, "node-unmanaged", Directory,
        "the destination's node has no kedge and the source is in mode require",
        "install kedge on that node and set `kedge = true`, or put the source in mode permissive";
    Misplaced = 7, "misplaced", Directory,
        "the destination is not placed on the answering node under that identity",
        "compare the directory versions of both nodes with `kedge status`";
    Stale = 8, "stale", Directory,
        "the destination address has changed hands since it was looked up",
        "none: the next connection looks it up again";
    NotDeliverable = 9, "not-deliverable", Peer,
        "the destination is a loopback, link-local, metadata, multicast or host address",
        "none: a daemon is no relay; an honest peer never asks for this";
    UnknownIdentity = 10, "unknown-identity", Peer,
        "record 0 names an identity handle that is not proven on this link",
        "update both nodes to the same version of kedge; if it stays, treat the peer as compromised";
    WorkloadRefused = 20, "workload-refused", Workload,
        "the destination workload refused the connection",
        "check that it listens on this address and port";
    WorkloadUnreachable = 21, "workload-unreachable", Workload,
        "the destination workload did not answer in time",
        "check that the pod is running and its network is up";
    LinkFailed = 30, "link-failed", Peer,
        "no link to the destination's node could be made",
        "run `kedge link list` on both nodes: it shows the last error of the handshake";
    LinkLost = 31, "link-lost", Peer,
        "the peer daemon ended the connection before it answered",
        "run `kedge status` on the peer's node";
    Replayed = 32, "replayed", Peer,
        "a first flight was seen twice, or its number is older than the window",
        "none on this node: somebody repeats recorded traffic, or the peer is faulty";
    BadFlight = 33, "bad-flight", Peer,
        "a first flight does not open under the link's keys, or is malformed",
        "none on this node: the sender is not a daemon of this link, or is faulty";
    UnknownLink = 34, "unknown-link", Peer,
        "a carrier names a link that this daemon does not have",
        "none: after a restart the peer makes a new link by itself";
    PeerSaysNo = 35, "peer-says-no", Peer,
        "the peer refused with a reason that this version does not know",
        "update kedge on this node";
    PeerExpired = 36, "peer-expired", Peer,
        "the certificate of the other node has expired",
        "issue that node a new certificate: `kedge ca issue`; its kedged takes it by itself";
    PeerUntrusted = 37, "peer-untrusted", Peer,
        "the certificate of the other node is not of an authority in this node's trust bundle",
        "issue that node a certificate of a CA in the bundle, or put its CA back into `svid.bundle`";
    PeerRevoked = 38, "peer-revoked", Peer,
        "the certificate of the other node is revoked on this node",
        "issue that node a new certificate, or take its line out of the file that `svid.revoked` names";
    PeerUnattested = 46, "peer-unattested", Peer,
        "the other node shows no Attestation Result, and this node requires one",
        "run `kedge attest status` on that node: it says why it has none";
    PeerAttestationRefused = 47, "peer-attestation-refused", Peer,
        "the other node's Attestation Result is not believed here",
        "the event `link-failed` or `link-down` names the reason; `kedge attest show` on both nodes";
    AttestationEnded = 48, "attestation-ended", Peer,
        "the other node's Attestation Result has ended, and it has shown no newer one",
        "run `kedge attest status` on that node: it says why it gets none";
    AttestationRevoked = 49, "attestation-revoked", Peer,
        "the other node's AK, or whoever verified it, is no longer believed here",
        "see the file that `attestation.verifiers` names: its pins, policies and revoked AKs";
    NotCaptured = 40, "not-captured", Node,
        "a connection arrived at the capture port that no program had redirected",
        "connect to the service itself, not to kedged's capture port";
    OverLimit = 41, "over-limit", Node,
        "this daemon is at its limit of flows, descriptors or pending connections",
        "raise LimitNOFILE of kedged, or look in `kedge flow list` for who holds the flows";
    Draining = 42, "draining", Node,
        "this daemon is shutting down",
        "none: its successor takes the next connection";
    Internal = 43, "internal", Node,
        "a system call of the daemon failed",
        "read the daemon's log: it names the call and the object";
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.cause())
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn codes_and_labels_are_unique_and_round_trip() {
        let codes: HashSet<_> = Refusal::ALL.iter().map(|r| r.code()).collect();
        let labels: HashSet<_> = Refusal::ALL.iter().map(|r| r.label()).collect();
        assert_eq!(
            (codes.len(), labels.len()),
            (Refusal::ALL.len(), Refusal::ALL.len())
        );
        for refusal in Refusal::ALL {
            assert_eq!(Refusal::from_code(refusal.code()), *refusal);
        }
        assert_eq!(Refusal::from_code(u16::MAX), Refusal::PeerSaysNo);
    }
}
