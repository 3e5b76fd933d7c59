//! The look-ups. `resolve` and `places` are on the way of every new connection.

use crate::changes::Changes;
use crate::check::check;
use crate::entry::{Entries, Node, Service, Workload};
use crate::error::DirectoryError;
use crate::raw;
use ipnet::IpNet;
use kedge_model::{NodeName, OriginalDst, Refusal, SpiffeId};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// One version of who is where.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    entries: Entries,
    node_by_name: HashMap<NodeName, usize>,
    node_by_ip: HashMap<IpAddr, usize>,
    workload_by_ip: HashMap<IpAddr, usize>,
    workload_by_uid: HashMap<Arc<str>, usize>,
    service_by_address: HashMap<SocketAddr, usize>,
    /// For each service the workloads and ports to pick from.
    service_targets: Vec<Vec<(usize, u16)>>,
}

/// Where a connection goes: which workload, on which node, at which address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint<'d> {
    pub workload: &'d Workload,
    pub node: &'d Node,
    pub address: SocketAddr,
}

impl Directory {
    /// # Errors
    /// When the text is not a directory; the error names the line and who stands there.
    pub fn parse(text: &str) -> Result<Self, DirectoryError> {
        let entries = check(text, raw::parse(text)?)?;
        Ok(Self::index(entries))
    }

    /// `next` if it may follow this directory: `None` when it says exactly the same.
    ///
    /// # Errors
    /// When `next` differs and its version is not greater.
    pub fn accept_newer(&self, next: Self) -> Result<Option<Self>, DirectoryError> {
        let (have, offered) = (self.version(), next.version());
        if self.entries == next.entries {
            return Ok(None);
        }
        if offered <= have {
            return Err(DirectoryError::NotNewer { have, offered });
        }
        Ok(Some(next))
    }

    /// What differs from `old`.
    #[must_use]
    pub fn changes_since(&self, old: &Self) -> Changes {
        Changes::between(&old.entries, &self.entries)
    }

    #[must_use]
    pub fn version(&self) -> u64 {
        self.entries.version
    }

    /// Prefixes in which an unknown address is not somebody else's business but an error.
    #[must_use]
    pub fn managed(&self) -> &[IpNet] {
        &self.entries.managed
    }

    #[must_use]
    pub fn is_managed(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.managed().iter().any(|prefix| prefix.contains(&ip))
    }

    /// In the order of the file.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.entries.nodes
    }

    /// In the order of their uids.
    #[must_use]
    pub fn workloads(&self) -> &[Workload] {
        &self.entries.workloads
    }

    /// In the order of the file.
    #[must_use]
    pub fn services(&self) -> &[Service] {
        &self.entries.services
    }

    #[must_use]
    pub fn node(&self, name: &NodeName) -> Option<&Node> {
        self.node_by_name
            .get(name)
            .map(|at| &self.entries.nodes[*at])
    }

    /// Whether there is such a node, with a kedged on it.
    #[must_use]
    pub fn has_kedge(&self, name: &NodeName) -> bool {
        self.node(name).is_some_and(|node| node.kedge)
    }

    /// The node whose own address it is.
    #[must_use]
    pub fn node_at(&self, ip: IpAddr) -> Option<&Node> {
        self.node_by_ip
            .get(&ip.to_canonical())
            .map(|at| &self.entries.nodes[*at])
    }

    #[must_use]
    pub fn workload_at(&self, ip: IpAddr) -> Option<&Workload> {
        self.workload_by_ip
            .get(&ip.to_canonical())
            .map(|at| &self.entries.workloads[*at])
    }

    #[must_use]
    pub fn workload_by_uid(&self, uid: &str) -> Option<&Workload> {
        self.workload_by_uid
            .get(uid)
            .map(|at| &self.entries.workloads[*at])
    }

    pub fn workloads_on(&self, node: &NodeName) -> impl Iterator<Item = &Workload> {
        self.entries
            .workloads
            .iter()
            .filter(move |workload| workload.node == *node)
    }

    #[must_use]
    pub fn service_at(&self, ip: IpAddr, port: u16) -> Option<&Service> {
        let address = SocketAddr::new(ip.to_canonical(), port);
        self.service_by_address
            .get(&address)
            .map(|at| &self.entries.services[*at])
    }

    /// Who answers at `dst`; `pick` chooses among the endpoints of a service.
    ///
    /// # Errors
    /// [`Refusal::DestinationUnknown`] or [`Refusal::NoEndpoint`].
    pub fn resolve(&self, dst: OriginalDst, pick: u64) -> Result<Endpoint<'_>, Refusal> {
        if let Some(service) = self.service_by_address.get(&dst.socket_addr()) {
            return self.endpoint_of(*service, dst, pick);
        }
        let workload = self
            .workload_at(dst.ip())
            .ok_or(Refusal::DestinationUnknown)?;
        self.endpoint(workload, dst.socket_addr())
    }

    /// How many endpoints [`resolve`](Self::resolve) picks from.
    #[must_use]
    pub fn choices(&self, dst: OriginalDst) -> usize {
        match self.service_by_address.get(&dst.socket_addr()) {
            Some(service) => self.service_targets[*service].len(),
            None => usize::from(self.workload_at(dst.ip()).is_some()),
        }
    }

    /// Whether `ip` is an address of a workload with exactly that identity on that node.
    #[must_use]
    pub fn places(&self, node: &NodeName, id: &SpiffeId, ip: IpAddr) -> bool {
        self.workload_at(ip)
            .is_some_and(|found| found.node == *node && found.id == *id)
    }

    /// Endpoints on nodes with kedge come before those without, which only a `permissive` source
    /// may reach, in plaintext.
    fn endpoint_of(
        &self,
        service: usize,
        dst: OriginalDst,
        pick: u64,
    ) -> Result<Endpoint<'_>, Refusal> {
        let targets = &self.service_targets[service];
        let at = pick
            .checked_rem(targets.len() as u64)
            .ok_or(Refusal::NoEndpoint)?;
        let at = usize::try_from(at).map_err(|_| Refusal::NoEndpoint)?;
        let (workload, port) = targets[at];
        let workload = &self.entries.workloads[workload];
        let ip = address_like(workload, dst.ip()).ok_or(Refusal::NoEndpoint)?;
        self.endpoint(workload, SocketAddr::new(ip, port))
    }

    fn endpoint<'d>(
        &'d self,
        workload: &'d Workload,
        address: SocketAddr,
    ) -> Result<Endpoint<'d>, Refusal> {
        let node = self
            .node(&workload.node)
            .ok_or(Refusal::DestinationUnknown)?;
        Ok(Endpoint {
            workload,
            node,
            address,
        })
    }

    /// The endpoints on nodes with kedge or, when there is none, all.
    fn targets(&self, service: &Service) -> Vec<(usize, u16)> {
        let all = || {
            let endpoints = service.endpoints.iter();
            endpoints.filter_map(|endpoint| {
                self.workload_by_uid
                    .get(&endpoint.uid)
                    .map(|at| (*at, endpoint.port))
            })
        };
        let has_kedge = |(at, _): &(usize, u16)| {
            self.node(&self.entries.workloads[*at].node)
                .is_some_and(|node| node.kedge)
        };
        let sealed: Vec<_> = all().filter(has_kedge).collect();
        if sealed.is_empty() {
            all().collect()
        } else {
            sealed
        }
    }

    fn index(entries: Entries) -> Self {
        let mut directory = Self::default();
        for (at, node) in entries.nodes.iter().enumerate() {
            directory.node_by_name.insert(node.name.clone(), at);
            let addresses = node.addresses.iter();
            directory.node_by_ip.extend(addresses.map(|ip| (*ip, at)));
        }
        for (at, workload) in entries.workloads.iter().enumerate() {
            directory.workload_by_uid.insert(workload.uid.clone(), at);
            directory
                .workload_by_ip
                .extend(workload.addresses.iter().map(|ip| (*ip, at)));
        }
        for (at, service) in entries.services.iter().enumerate() {
            let addresses = service.addresses.iter();
            let keys = addresses.map(|ip| (SocketAddr::new(*ip, service.port), at));
            directory.service_by_address.extend(keys);
        }
        directory.entries = entries;
        let services = directory.entries.services.iter();
        directory.service_targets = services.map(|service| directory.targets(service)).collect();
        directory
    }
}

/// The workload's first address of the family that was asked for, else its first one.
fn address_like(workload: &Workload, asked: IpAddr) -> Option<IpAddr> {
    let same_family = |ip: &&IpAddr| ip.is_ipv4() == asked.is_ipv4();
    workload
        .addresses
        .iter()
        .find(same_family)
        .or(workload.addresses.first())
        .copied()
}
