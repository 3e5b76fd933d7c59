//! `kedge flow list`: the connections that are carried now.

use kedge_model::{SpiffeId, Suite};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flows {
    pub flows: Vec<Flow>,
    /// Whether there are more than the daemon lists at once.
    pub truncated: bool,
}

/// One captured connection, as this daemon sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// Among the flows that its worker carries now.
    pub id: u64,
    pub worker: u16,
    pub role: FlowRole,
    pub phase: FlowPhase,
    /// Null while the workload is not known yet.
    pub source: Option<SpiffeId>,
    pub destination: Option<SpiffeId>,
    /// The application that connected.
    pub client: SocketAddr,
    /// What it asked for.
    pub original_destination: SocketAddr,
    /// The workload's address that it is delivered to.
    pub endpoint: Option<SocketAddr>,
    /// The other daemon; null for a flow between two workloads of this node.
    pub peer: Option<SpiffeId>,
    /// Null for a flow that does not leave the node.
    pub suite: Option<Suite>,
    /// Application bytes from this daemon's workload.
    pub bytes_sent: u64,
    /// Application bytes to this daemon's workload.
    pub bytes_received: u64,
    /// Number of the next record, each way, under the present key.
    pub record_sent: u64,
    pub record_received: u64,
    /// Key updates so far, each way.
    pub key_generation_sent: u32,
    pub key_generation_received: u32,
    /// Whether the kernel seals, and opens, this flow's records (kTLS).
    pub kernel_sends: bool,
    pub kernel_receives: bool,
    pub age_s: u64,
    /// Since a byte moved either way.
    pub idle_s: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FlowRole {
    /// Captured here, carried to a peer.
    Opener,
    /// Carried from a peer, delivered here.
    Acceptor,
    /// Captured and delivered here.
    Local,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FlowPhase {
    /// Source and destination are being looked up.
    Classifying,
    /// Waits for a link to the destination's node.
    Linking,
    /// Waits for a connection: the carrier's, or the workload's.
    Connecting,
    /// The first flight is out, the answer is not in.
    Answering,
    Open,
    /// One direction has ended cleanly.
    HalfClosed,
    /// What is left is being delivered.
    Closing,
}
