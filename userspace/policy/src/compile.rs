//! What BPF is told: verdicts by class, prefix and port. It holds verdicts, never policy.
//!
//! Only *whether to capture* is compiled; who may talk to whom is decided by the daemons at both
//! ends, for every captured connection.

use crate::policy::{Policy, PolicyVersion};
use ipnet::IpNet;
use kedge_directory::{Directory, Service, Workload};
use kedge_model::{Mode, NodeName};
use std::net::IpAddr;
use std::sync::Arc;

/// What happens to a connect().
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Redirected to kedged.
    Capture,
    /// Left alone, in plaintext.
    Pass,
    /// Fails with EHOSTUNREACH.
    Refuse,
    /// Fails with ECONNREFUSED: a service that nobody serves.
    Unserved,
}

/// One line of a class. Of those that match a destination, one that names the port comes before
/// one that does not, then the longest prefix; what no entry names passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerdictEntry {
    pub prefix: IpNet,
    /// `None`: every port.
    pub port: Option<u16>,
    pub verdict: Verdict,
}

/// A workload of this node and the class that its cgroup gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalWorkload {
    pub uid: Arc<str>,
    /// Relative to the node's `cgroup_root`.
    pub cgroup: String,
    pub mode: Mode,
    /// Canonical.
    pub addresses: Vec<IpAddr>,
    /// The ports at which probes of this node may reach it.
    pub probe_ports: Vec<u16>,
}

/// Everything that the capture programs of one node need. The class `off` has no entries: it
/// passes everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdicts {
    pub directory_version: u64,
    pub policy_version: PolicyVersion,
    pub permissive: Vec<VerdictEntry>,
    pub require: Vec<VerdictEntry>,
    pub workloads: Vec<LocalWorkload>,
    /// Addresses of the nodes that run kedge, this one included: where sealed traffic goes.
    pub peers: Vec<IpAddr>,
    /// Guarded prefixes: plaintext to and from them is dropped for workloads in `require`.
    pub managed: Vec<IpNet>,
}

/// Compiles what `node` has to do. Pure: the same inputs give the same lists, in the same order.
#[must_use]
pub fn compile(directory: &Directory, policy: &Policy, node: &NodeName) -> Verdicts {
    let class = |without_kedge| entries(directory, without_kedge);
    let workloads = directory
        .workloads_on(node)
        .map(|workload| local(policy, workload));
    let peers = directory.nodes().iter().filter(|node| node.kedge);
    Verdicts {
        directory_version: directory.version(),
        policy_version: policy.version(),
        permissive: class(Verdict::Pass),
        require: class(Verdict::Refuse),
        workloads: workloads.collect(),
        peers: peers
            .flat_map(|node| node.addresses.iter().copied())
            .collect(),
        managed: directory.managed().to_vec(),
    }
}

/// A class: captured where kedge is, `without_kedge` at everything else that is managed.
fn entries(directory: &Directory, without_kedge: Verdict) -> Vec<VerdictEntry> {
    let verdict = |has_kedge| {
        if has_kedge {
            Verdict::Capture
        } else {
            without_kedge
        }
    };
    let managed = directory.managed().iter().map(|prefix| VerdictEntry {
        prefix: *prefix,
        port: None,
        verdict: without_kedge,
    });
    let workloads = directory.workloads().iter().flat_map(|workload| {
        let verdict = verdict(has_kedge(directory, workload));
        workload
            .addresses
            .iter()
            .map(move |ip| host(*ip, None, verdict))
    });
    let services = directory.services().iter().flat_map(|service| {
        let verdict = match service.endpoints.is_empty() {
            true => Verdict::Unserved,
            false => verdict(is_served(directory, service)),
        };
        service
            .addresses
            .iter()
            .map(move |ip| host(*ip, Some(service.port), verdict))
    });
    managed.chain(workloads).chain(services).collect()
}

fn host(ip: IpAddr, port: Option<u16>, verdict: Verdict) -> VerdictEntry {
    VerdictEntry {
        prefix: IpNet::from(ip),
        port,
        verdict,
    }
}

fn has_kedge(directory: &Directory, workload: &Workload) -> bool {
    directory
        .node(&workload.node)
        .is_some_and(|node| node.kedge)
}

/// A service is captured unless all of its endpoints are on nodes without kedge.
fn is_served(directory: &Directory, service: &Service) -> bool {
    let mut workloads = service
        .endpoints
        .iter()
        .filter_map(|endpoint| directory.workload_by_uid(&endpoint.uid));
    workloads.any(|workload| has_kedge(directory, workload))
}

fn local(policy: &Policy, workload: &Workload) -> LocalWorkload {
    LocalWorkload {
        uid: workload.uid.clone(),
        cgroup: workload.cgroup.clone(),
        mode: policy.mode_of(&workload.id, &workload.addresses),
        addresses: workload.addresses.clone(),
        probe_ports: workload.ports.clone(),
    }
}
