//! Who talks to whom, and may they: a pure function of the snapshot, for both ends of a flow.

use crate::dataplane::registry::Parties;
use crate::world::World;
use kedge_capture::Claim;
use kedge_link::wire::Record0;
use kedge_model::{NodeName, OriginalDst, Refusal, SourceAddr, SpiffeId, is_deliverable};
use kedge_policy::Request;
use std::net::IpAddr;
use std::sync::Arc;

/// Where an allowed flow goes.
#[derive(Clone, Debug)]
pub struct Route {
    pub parties: Parties,
    pub node: NodeName,
    /// The destination instance that was looked up.
    pub uid: Arc<str>,
}

impl Route {
    /// The endpoint as if the application had asked for it itself, past any service.
    pub fn direct(&self) -> OriginalDst {
        OriginalDst::new(self.parties.endpoint)
    }
}

/// A refusal with what is known about the parties, for its event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub refusal: Refusal,
    pub source: Option<SpiffeId>,
    pub destination: Option<SpiffeId>,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self {
            refusal,
            source: None,
            destination: None,
        }
    }
}

/// The opener's verdict on a captured connection. `pick` chooses among a service's endpoints.
pub fn classify_captured(
    world: &World,
    claim: &Claim,
    client: SourceAddr,
    pick: u64,
) -> Result<Route, Refused> {
    let source = world
        .workload_in(claim.cgroup_id)
        .ok_or(Refusal::SourceUnknown)?;
    let refused = |refusal| Refused {
        refusal,
        source: Some(source.id.clone()),
        destination: None,
    };
    if !source.addresses.contains(&client.ip()) {
        return Err(refused(Refusal::SourceMismatch));
    }
    let endpoint = world
        .directory
        .resolve(claim.original_dst, pick)
        .map_err(refused)?;
    let destination = &endpoint.workload.id;
    let refused = |refusal| Refused {
        destination: Some(destination.clone()),
        ..refused(refusal)
    };
    if endpoint.node.name != world.node && !endpoint.node.kedge {
        return Err(refused(Refusal::NodeUnmanaged));
    }
    let port = endpoint.address.port();
    check_policy(world, &source.id, destination, port).map_err(refused)?;
    Ok(Route {
        parties: Parties {
            source: source.id.clone(),
            destination: destination.clone(),
            client,
            original_dst: claim.original_dst,
            endpoint: endpoint.address,
        },
        node: endpoint.node.name.clone(),
        uid: endpoint.workload.uid.clone(),
    })
}

/// The acceptor's verdict on what a peer's record 0 says, with the identities that its handles
/// stand for. The peer is trusted for nothing but its own workloads.
pub fn classify_flight(
    world: &World,
    peer: &NodeName,
    record0: &Record0,
    source: &SpiffeId,
    destination: &SpiffeId,
) -> Result<Parties, Refusal> {
    let client = record0.source_address;
    if !world.directory.places(peer, source, client.ip()) {
        return Err(Refusal::SourceMismatch);
    }
    let endpoint = record0.destination_address;
    if !is_deliverable(endpoint.ip()) || is_host(world, endpoint.ip()) {
        return Err(Refusal::NotDeliverable);
    }
    if !world
        .directory
        .places(&world.node, destination, endpoint.ip())
    {
        return Err(Refusal::Misplaced);
    }
    let placed = world
        .directory
        .workload_at(endpoint.ip())
        .ok_or(Refusal::Misplaced)?;
    if placed.uid.as_bytes() != record0.destination_instance {
        return Err(Refusal::Stale);
    }
    check_policy(world, source, destination, endpoint.port())?;
    Ok(Parties {
        source: source.clone(),
        destination: destination.clone(),
        client,
        original_dst: endpoint,
        endpoint: endpoint.socket_addr(),
    })
}

/// Whether the address is a node's own.
fn is_host(world: &World, ip: IpAddr) -> bool {
    world
        .directory
        .nodes()
        .iter()
        .any(|node| node.addresses.contains(&ip))
}

fn check_policy(
    world: &World,
    source: &SpiffeId,
    destination: &SpiffeId,
    port: u16,
) -> Result<(), Refusal> {
    let request = Request {
        source,
        destination,
        port,
    };
    if world.policy.decide(&request).allow {
        Ok(())
    } else {
        Err(Refusal::Denied)
    }
}
