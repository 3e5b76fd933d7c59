//! `kedge socket list`: TCP that goes past kedge where it should not.

use kedge_model::SpiffeId;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sockets {
    /// Of workloads in mode `require`: connections with managed places that kedge does not carry,
    /// because they are older than the mode. The guard drops their packets.
    pub sockets: Vec<Socket>,
    /// Processes, or whole cgroups, that could not be looked at.
    pub unseen: u64,
    /// Whether there are more than were listed.
    pub truncated: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Socket {
    /// The workload's.
    pub uid: String,
    pub id: SpiffeId,
    pub local: SocketAddr,
    pub remote: SocketAddr,
    /// One that has it open, as the daemon's PID namespace counts.
    pub pid: u32,
    pub command: String,
}
