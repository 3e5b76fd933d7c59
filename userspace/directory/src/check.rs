//! From the file's form to entries that can be true together.

use crate::entry::{Entries, Node, Service, ServiceEndpoint, Workload};
use crate::error::{DirectoryError, Owner, Problem, line_at};
use crate::limits::{
    ADDRESSES_MAX, ENDPOINTS_MAX, MANAGED_PREFIXES_MAX, NODES_MAX, SERVICES_MAX, UID_BYTES_MAX,
    WORKLOADS_MAX,
};
use crate::raw::{RawDirectory, RawNode, RawService, RawWorkload};
use kedge_model::{IdKind, NodeName, is_deliverable};
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use toml::Spanned;

/// A problem and the byte at which it stands.
type Found<T> = Result<T, (usize, Problem)>;

pub(crate) fn check(text: &str, raw: RawDirectory) -> Result<Entries, DirectoryError> {
    Checker::default()
        .run(raw)
        .map_err(|(at, problem)| DirectoryError::Content {
            line: line_at(text, at),
            problem,
        })
}

/// What has been seen so far, to find the second of two.
#[derive(Default)]
struct Checker {
    owners: HashMap<IpAddr, Owner>,
    nodes: HashSet<NodeName>,
    uids: HashSet<Arc<str>>,
    cgroups: HashMap<(NodeName, String), Owner>,
    services: HashMap<(IpAddr, u16), String>,
    service_names: HashSet<String>,
}

impl Checker {
    fn run(mut self, raw: RawDirectory) -> Found<Entries> {
        at_most(
            raw.managed.len(),
            MANAGED_PREFIXES_MAX,
            "managed prefixes",
            0,
        )?;
        at_most(raw.nodes.len(), NODES_MAX, "nodes", 0)?;
        at_most(raw.workloads.len(), WORKLOADS_MAX, "workloads", 0)?;
        at_most(raw.services.len(), SERVICES_MAX, "services", 0)?;
        let nodes = each(raw.nodes, |at, node| self.node(at, node))?;
        let mut workloads = each(raw.workloads, |at, workload| self.workload(at, workload))?;
        let services = each(raw.services, |at, service| self.service(at, service))?;
        workloads.sort_by(|a, b| a.uid.cmp(&b.uid));
        let mut managed: Vec<_> = raw.managed.iter().map(ipnet::IpNet::trunc).collect();
        managed.sort_unstable();
        managed.dedup();
        Ok(Entries {
            version: raw.version,
            managed,
            nodes,
            workloads,
            services,
        })
    }

    fn node(&mut self, at: usize, raw: RawNode) -> Found<Node> {
        let owner = Owner::Node(raw.name.clone());
        if !self.nodes.insert(raw.name.clone()) {
            return Err((at, Problem::Duplicate(owner)));
        }
        if raw.peer_port == 0 {
            return Err((at, Problem::PortZero(owner)));
        }
        let addresses = self.own_addresses(at, &owner, raw.addresses)?;
        Ok(Node {
            name: raw.name,
            addresses,
            peer_port: raw.peer_port,
            kedge: raw.kedge,
        })
    }

    fn workload(&mut self, at: usize, raw: RawWorkload) -> Found<Workload> {
        let uid: Arc<str> = raw.uid.into();
        let owner = Owner::Workload(uid.clone());
        if !(1..=UID_BYTES_MAX).contains(&uid.len()) {
            return Err((
                at,
                Problem::UidLength {
                    len: uid.len(),
                    limit: UID_BYTES_MAX,
                },
            ));
        }
        if !self.uids.insert(uid.clone()) {
            return Err((at, Problem::Duplicate(owner)));
        }
        if !self.nodes.contains(&raw.node) {
            return Err((
                at,
                Problem::UnknownNode {
                    workload: owner,
                    node: raw.node,
                },
            ));
        }
        if raw.id.kind() == IdKind::Node {
            return Err((at, Problem::ReservedId { owner, id: raw.id }));
        }
        if raw.ports.contains(&0) {
            return Err((at, Problem::PortZero(owner)));
        }
        self.own_cgroup(at, &owner, &raw.node, &raw.cgroup)?;
        let addresses = self.own_addresses(at, &owner, raw.addresses)?;
        let RawWorkload {
            id,
            node,
            cgroup,
            ports,
            ..
        } = raw;
        Ok(Workload {
            uid,
            id,
            node,
            addresses,
            cgroup,
            ports,
        })
    }

    fn own_cgroup(&mut self, at: usize, owner: &Owner, node: &NodeName, cgroup: &str) -> Found<()> {
        let (owner, cgroup) = (owner.clone(), cgroup.to_owned());
        if cgroup
            .split('/')
            .any(|part| matches!(part, "" | "." | ".."))
        {
            return Err((at, Problem::Cgroup { owner, cgroup }));
        }
        match self
            .cgroups
            .insert((node.clone(), cgroup.clone()), owner.clone())
        {
            None => Ok(()),
            Some(first) => Err((
                at,
                Problem::CgroupTaken {
                    cgroup,
                    first,
                    second: owner,
                },
            )),
        }
    }

    fn service(&mut self, at: usize, raw: RawService) -> Found<Service> {
        let owner = Owner::Service(raw.name.clone());
        if !self.service_names.insert(raw.name.clone()) {
            return Err((at, Problem::Duplicate(owner)));
        }
        if raw.port == 0 {
            return Err((at, Problem::PortZero(owner)));
        }
        let addresses = places(at, &owner, raw.addresses)?;
        for (address_at, address) in &addresses {
            self.own_service_address(*address_at, *address, &raw.name, raw.port)?;
        }
        at_most(raw.endpoints.len(), ENDPOINTS_MAX, "endpoints", at)?;
        let endpoints = each(raw.endpoints, |at, endpoint| {
            if endpoint.port == 0 {
                return Err((at, Problem::PortZero(owner.clone())));
            }
            match self.uids.get(endpoint.uid.as_str()) {
                Some(uid) => Ok(ServiceEndpoint {
                    uid: uid.clone(),
                    port: endpoint.port,
                }),
                None => {
                    let (service, uid) = (owner.clone(), endpoint.uid);
                    Err((at, Problem::UnknownUid { service, uid }))
                }
            }
        })?;
        let addresses = addresses.into_iter().map(|(_, address)| address).collect();
        Ok(Service {
            name: raw.name,
            addresses,
            port: raw.port,
            endpoints,
        })
    }

    /// Services may share an address, port by port; a workload's or a node's is not theirs.
    fn own_service_address(
        &mut self,
        at: usize,
        address: IpAddr,
        name: &str,
        port: u16,
    ) -> Found<()> {
        if let Some(first) = self.owners.get(&address).cloned() {
            let second = Owner::Service(name.to_owned());
            return Err((
                at,
                Problem::AddressTaken {
                    address,
                    first,
                    second,
                },
            ));
        }
        match self.services.insert((address, port), name.to_owned()) {
            None => Ok(()),
            Some(first) => {
                let second = name.to_owned();
                Err((
                    at,
                    Problem::ServiceTaken {
                        address,
                        port,
                        first,
                        second,
                    },
                ))
            }
        }
    }

    fn own_addresses(
        &mut self,
        at: usize,
        owner: &Owner,
        raw: Vec<Spanned<IpAddr>>,
    ) -> Found<Vec<IpAddr>> {
        let addresses = places(at, owner, raw)?;
        for (at, address) in &addresses {
            if let Some(first) = self.owners.insert(*address, owner.clone()) {
                let (address, second) = (*address, owner.clone());
                return Err((
                    *at,
                    Problem::AddressTaken {
                        address,
                        first,
                        second,
                    },
                ));
            }
        }
        Ok(addresses.into_iter().map(|(_, address)| address).collect())
    }
}

/// Canonical addresses that a daemon may deliver to, each with its byte in the text.
fn places(at: usize, owner: &Owner, raw: Vec<Spanned<IpAddr>>) -> Found<Vec<(usize, IpAddr)>> {
    if raw.is_empty() {
        return Err((at, Problem::NoAddress(owner.clone())));
    }
    at_most(raw.len(), ADDRESSES_MAX, "addresses", at)?;
    raw.into_iter()
        .map(|address| {
            let at = address.span().start;
            let address = address.into_inner().to_canonical();
            if is_deliverable(address) {
                Ok((at, address))
            } else {
                Err((
                    at,
                    Problem::NotDeliverable {
                        owner: owner.clone(),
                        address,
                    },
                ))
            }
        })
        .collect()
}

fn each<R, T>(raw: Vec<Spanned<R>>, mut check: impl FnMut(usize, R) -> Found<T>) -> Found<Vec<T>> {
    raw.into_iter()
        .map(|entry| check(entry.span().start, entry.into_inner()))
        .collect()
}

fn at_most(count: usize, limit: usize, what: &'static str, at: usize) -> Found<()> {
    if count > limit {
        Err((at, Problem::TooMany { what, limit }))
    } else {
        Ok(())
    }
}
