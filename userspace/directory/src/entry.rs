//! What a directory holds.

use ipnet::IpNet;
use kedge_model::{NodeAddr, NodeName, SpiffeId};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// A machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub name: NodeName,
    /// Its own addresses, canonical.
    pub addresses: Vec<IpAddr>,
    /// The TCP port of its kedged.
    pub peer_port: u16,
    /// Whether a kedged runs there.
    pub kedge: bool,
}

impl Node {
    /// Where its kedged listens, in the order of the file.
    pub fn peer_addresses(&self) -> impl Iterator<Item = NodeAddr> {
        self.addresses
            .iter()
            .map(|ip| NodeAddr::new(SocketAddr::new(*ip, self.peer_port)))
    }
}

/// What runs in a pod or a cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Names this instance: a pod that is made anew gets another one.
    pub uid: Arc<str>,
    pub id: SpiffeId,
    pub node: NodeName,
    /// Canonical; never empty.
    pub addresses: Vec<IpAddr>,
    /// Relative to the `cgroup_root` of its node's kedged.
    pub cgroup: String,
    /// The ports at which probes of its node may reach it past kedge.
    pub ports: Vec<u16>,
}

/// An address and port that stand for the workloads behind them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub name: String,
    /// Canonical; never empty.
    pub addresses: Vec<IpAddr>,
    pub port: u16,
    pub endpoints: Vec<ServiceEndpoint>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceEndpoint {
    /// The uid of a workload of the same directory.
    pub uid: Arc<str>,
    pub port: u16,
}

/// All entries of a directory, checked.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Entries {
    pub version: u64,
    pub managed: Vec<IpNet>,
    pub nodes: Vec<Node>,
    pub workloads: Vec<Workload>,
    pub services: Vec<Service>,
}
