//! `kedge status`: one daemon at a glance.

use crate::attestation::AttestationStatus;
use crate::timestamp::Timestamp;
use kedge_model::{NodeName, SpiffeId, Suite, TrustDomain};
use kedge_policy::PolicyVersion;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub node: NodeName,
    pub trust_domain: TrustDomain,
    pub version: String,
    pub pid: u32,
    pub uptime_s: u64,
    pub svid: SvidStatus,
    pub directory: DirectoryStatus,
    pub policy: PolicyStatus,
    pub capture: CaptureStatus,
    pub records: Vec<SuiteRecords>,
    #[serde(default)]
    pub attestation: AttestationStatus,
    pub workers: Vec<WorkerStatus>,
    pub listeners: Vec<Listener>,
    /// The daemon's counters since its start, by name; refusals as `refused.<label>`.
    pub counters: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SvidStatus {
    pub id: SpiffeId,
    pub not_after: Timestamp,
    /// Below zero when it has expired.
    pub expires_in_s: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryStatus {
    pub version: u64,
    /// Since it was read.
    pub age_s: u64,
    pub nodes: u64,
    pub workloads: u64,
    pub services: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyStatus {
    pub version: PolicyVersion,
    /// Since it was read.
    pub age_s: u64,
    pub rules: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureStatus {
    /// Null while nothing is attached.
    pub generation: Option<u64>,
    /// The programs' counters since the generation began, by name.
    pub counters: BTreeMap<String, u64>,
    /// Workloads whose connections cannot be captured.
    pub uncapturable: Vec<Uncapturable>,
    /// Workloads that could go round what is enforced at their cgroup.
    pub unenforceable: Vec<Unenforceable>,
}

/// Who seals and opens the records of flows with this suite.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuiteRecords {
    pub suite: Suite,
    pub by: SealedBy,
    pub reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SealedBy {
    Userspace,
    Kernel,
    /// The kernel, in a direction that has carried a mebibyte.
    KernelInBulk,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uncapturable {
    pub uid: String,
    pub id: SpiffeId,
    pub reason: String,
}

/// A workload with processes that have capabilities which no guard at a cgroup can hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unenforceable {
    pub uid: String,
    pub id: SpiffeId,
    /// Those of CAP_NET_RAW, CAP_NET_ADMIN, CAP_BPF and CAP_SYS_ADMIN that a process has.
    pub capabilities: Vec<String>,
    /// Processes that could not be looked at: what they have is unknown.
    pub unseen: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStatus {
    pub worker: u16,
    pub flows: u64,
    /// Since it last told the programs that it works.
    pub beat_age_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    pub role: ListenerRole,
    pub address: SocketAddr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ListenerRole {
    /// Links and carriers of other daemons.
    Peer,
    /// Redirected connections of this node's workloads.
    Capture,
}
