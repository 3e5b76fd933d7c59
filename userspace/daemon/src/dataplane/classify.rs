//! Who talks to whom, and may they: a pure function of the snapshot, for both ends of a flow.

use crate::dataplane::registry::Parties;
use crate::world::World;
use kedge_api::Versions;
use kedge_capture::Claim;
use kedge_directory::Workload;
use kedge_link::wire::Record0;
use kedge_model::{NodeName, OriginalDst, Refusal, SourceAddr, SpiffeId, is_deliverable};
use kedge_policy::Request;
use std::net::IpAddr;

/// Where an allowed flow goes.
#[derive(Clone, Debug)]
pub struct Route {
    pub parties: Parties,
    pub node: NodeName,
}

impl Route {
    /// The endpoint as if the application had asked for it itself, past any service.
    pub fn direct(&self) -> OriginalDst {
        OriginalDst::new(self.parties.endpoint)
    }
}

/// A refusal with what is known about the parties, and what decided it, for its event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub refusal: Refusal,
    pub source: Option<SpiffeId>,
    pub destination: Option<SpiffeId>,
    /// None for what does not follow from the snapshot.
    pub decided_by: Option<Versions>,
}

impl Refused {
    /// By this snapshot.
    pub fn by(world: &World, refusal: Refusal) -> Self {
        Self {
            decided_by: Some(world.versions()),
            ..refusal.into()
        }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self {
            refusal,
            source: None,
            destination: None,
            decided_by: None,
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
    let source = source_of(world, claim, client)?;
    let refused = |refusal| Refused {
        refusal,
        source: Some(source.id.clone()),
        ..Refused::by(world, refusal)
    };
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
            uid: endpoint.workload.uid.clone(),
        },
        node: endpoint.node.name.clone(),
    })
}

/// The workload that a captured connection comes from: the nearest of the filed cgroups, if the address
/// is its own.
pub fn source_of<'w>(
    world: &'w World,
    claim: &Claim,
    client: SourceAddr,
) -> Result<&'w Workload, Refused> {
    let source = claim
        .cgroups()
        .find_map(|cgroup| world.workload_in(cgroup))
        .ok_or_else(|| Refused::by(world, Refusal::SourceUnknown))?;
    if source.addresses.contains(&client.ip()) {
        return Ok(source);
    }
    Err(Refused {
        source: Some(source.id.clone()),
        ..Refused::by(world, Refusal::SourceMismatch)
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
        uid: placed.uid.clone(),
    })
}

/// Whether what was allowed before still is: the verdict on a flow that was decided by an earlier
/// snapshot. `nodes` are those of source and destination.
pub fn reclassify(
    world: &World,
    parties: &Parties,
    nodes: (&NodeName, &NodeName),
) -> Result<(), Refusal> {
    let (source_node, destination_node) = nodes;
    let directory = &world.directory;
    let has_kedge = |name: &NodeName| *name == world.node || directory.has_kedge(name);
    let is_placed = directory.places(source_node, &parties.source, parties.client.ip());
    if !is_placed || !has_kedge(source_node) {
        return Err(Refusal::SourceMismatch);
    }
    let endpoint = parties.endpoint;
    let placed = world
        .directory
        .workload_at(endpoint.ip())
        .ok_or(Refusal::Stale)?;
    let same = placed.uid == parties.uid
        && placed.id == parties.destination
        && placed.node == *destination_node;
    if !same {
        return Err(Refusal::Stale);
    }
    if !has_kedge(destination_node) {
        return Err(Refusal::NodeUnmanaged);
    }
    check_policy(
        world,
        &parties.source,
        &parties.destination,
        endpoint.port(),
    )
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

#[cfg(test)]
mod tests {
    use super::*;
    use kedge_directory::Directory;
    use kedge_link::{Handle, ProofKind};
    use kedge_model::{OriginalDst, TrustDomain};
    use kedge_policy::{Document, Policy};

    const DIRECTORY: &str = r#"
version = 1
managed = ["10.0.0.0/8"]
node = [
  { name = "a", addresses = ["10.0.0.1"] },
  { name = "b", addresses = ["10.0.0.2"] },
  { name = "c", addresses = ["10.0.0.3"] },
  { name = "old", addresses = ["10.0.0.4"], kedge = false },
]
workload = [
  { uid = "client-1", id = "spiffe://td/ns/x/sa/client", node = "a", addresses = ["10.1.0.1"], cgroup = "pods/client" },
  { uid = "other-1", id = "spiffe://td/ns/x/sa/other", node = "a", addresses = ["10.1.0.2"], cgroup = "pods/other" },
  { uid = "web-1", id = "spiffe://td/ns/x/sa/web", node = "b", addresses = ["10.2.0.1"], cgroup = "pods/web" },
  { uid = "web-2", id = "spiffe://td/ns/x/sa/web", node = "c", addresses = ["10.3.0.1"], cgroup = "pods/web" },
  { uid = "legacy-1", id = "spiffe://td/ns/x/sa/web", node = "old", addresses = ["10.4.0.1"], cgroup = "pods/web" },
]
service = [
  { name = "web", addresses = ["10.9.0.1"], port = 80, endpoints = [{ uid = "web-1", port = 8080 }] },
  { name = "none", addresses = ["10.9.0.2"], port = 80, endpoints = [] },
]
"#;
    const POLICY: &str = r#"
allow = [
  { source = "spiffe://td/ns/x/sa/client", destination = "spiffe://td/ns/x/sa/web", ports = [80, 8080] },
]
"#;
    const CGROUP: u64 = 42;

    fn world(node: &str) -> World {
        let document = Document {
            name: "test.toml".to_owned(),
            text: POLICY.to_owned(),
        };
        World {
            node: NodeName::parse(node).expect("literal"),
            trust_domain: TrustDomain::parse("td").expect("literal"),
            directory: Directory::parse(DIRECTORY).expect("literal"),
            policy: Policy::parse(vec![document]).expect("literal"),
            cgroups: [(CGROUP, "client-1".into()), (CGROUP + 1, "other-1".into())].into(),
        }
    }

    fn captured(cgroup_id: u64, client: &str, asked: &str) -> Result<Route, Refusal> {
        captured_below(cgroup_id, [0; 4], client, asked)
    }

    fn captured_below(
        cgroup_id: u64,
        lineage: [u64; 4],
        client: &str,
        asked: &str,
    ) -> Result<Route, Refusal> {
        let claim = Claim {
            original_dst: OriginalDst::new(asked.parse().expect("literal")),
            cgroup_id,
            lineage,
            socket_cookie: 1,
            netns_cookie: 1,
            patience: Default::default(),
        };
        let client = SourceAddr::new(client.parse().expect("literal"));
        classify_captured(&world("a"), &claim, client, 0).map_err(|refused| refused.refusal)
    }

    /// A flight from a's client to b's web, changed by `change`, as b decides it.
    fn flight(change: impl FnOnce(&mut Record0)) -> Result<Parties, Refusal> {
        let mut record0 = Record0 {
            source: Handle(1),
            source_proof: ProofKind::AssertedByNode,
            destination: Handle(2),
            source_address: SourceAddr::new("10.1.0.1:5000".parse().expect("literal")),
            destination_address: OriginalDst::new("10.2.0.1:8080".parse().expect("literal")),
            destination_instance: b"web-1".to_vec(),
        };
        change(&mut record0);
        let id = |name| SpiffeId::parse(&format!("spiffe://td/ns/x/sa/{name}")).expect("literal");
        let peer = NodeName::parse("a").expect("literal");
        classify_flight(&world("b"), &peer, &record0, &id("client"), &id("web"))
    }

    fn to(destination: &str) -> Result<Parties, Refusal> {
        flight(|record0| {
            record0.destination_address = OriginalDst::new(destination.parse().expect("literal"));
        })
    }

    #[test]
    fn a_service_is_resolved_to_its_endpoint_and_node() {
        let route = captured(CGROUP, "10.1.0.1:5000", "10.9.0.1:80").expect("allowed");
        assert_eq!(route.node.as_str(), "b");
        assert_eq!(&*route.parties.uid, "web-1");
        assert_eq!(
            route.parties.endpoint,
            "10.2.0.1:8080".parse().expect("literal")
        );
        assert_eq!(route.parties.original_dst.to_string(), "10.9.0.1:80");
    }

    #[test]
    fn a_workload_that_became_known_after_connect_is_found_by_its_lineage() {
        const ROOT: u64 = 7;
        let source = |lineage| {
            let route = captured_below(ROOT, lineage, "10.1.0.1:5000", "10.9.0.1:80");
            route.map(|route| route.parties.source.to_string())
        };
        let client = Ok("spiffe://td/ns/x/sa/client".to_owned());
        assert_eq!(source([CGROUP, 0, 0, 0]), client);
        assert_eq!(source([99, CGROUP, 98, 0]), client);
        // The nearest counts: `other` within `client` is not `client`.
        assert_eq!(
            source([CGROUP, CGROUP + 1, 0, 0]),
            Err(Refusal::SourceMismatch)
        );
        assert_eq!(source([99, 98, 0, 0]), Err(Refusal::SourceUnknown));
    }

    #[test]
    fn what_the_opener_refuses() {
        let cases = [
            (7, "10.1.0.1:5000", "10.2.0.1:80", Refusal::SourceUnknown),
            (
                CGROUP,
                "10.1.0.2:5000",
                "10.2.0.1:80",
                Refusal::SourceMismatch,
            ),
            (CGROUP + 1, "10.1.0.2:5000", "10.2.0.1:80", Refusal::Denied),
            (CGROUP, "10.1.0.1:5000", "10.2.0.1:81", Refusal::Denied),
            (
                CGROUP,
                "10.1.0.1:5000",
                "10.8.0.1:80",
                Refusal::DestinationUnknown,
            ),
            (CGROUP, "10.1.0.1:5000", "10.9.0.2:80", Refusal::NoEndpoint),
            (
                CGROUP,
                "10.1.0.1:5000",
                "10.4.0.1:80",
                Refusal::NodeUnmanaged,
            ),
        ];
        for (cgroup, client, asked, refusal) in cases {
            let verdict = captured(cgroup, client, asked).map(drop);
            assert_eq!(verdict, Err(refusal), "{client} to {asked}");
        }
    }

    #[test]
    fn a_refusal_names_the_snapshot_that_decided_and_not_a_newer_one() {
        let claim = Claim {
            original_dst: OriginalDst::new("10.2.0.1:81".parse().expect("literal")),
            cgroup_id: CGROUP,
            lineage: Default::default(),
            socket_cookie: 1,
            netns_cookie: 1,
            patience: Default::default(),
        };
        let client = SourceAddr::new("10.1.0.1:5000".parse().expect("literal"));
        let shared = crate::world::SharedWorld::new(world("a"));
        let old = shared.load_full();
        let mut new = world("a");
        new.directory = Directory::parse(&DIRECTORY.replace("version = 1", "version = 2"))
            .expect("a directory");
        shared.replace(new);
        let by = |world: &World| {
            let refused = classify_captured(world, &claim, client, 0).expect_err("denied");
            refused.decided_by.expect("a snapshot decided").directory
        };
        assert_eq!((by(&old), by(&shared.load())), (1, 2));
    }

    #[test]
    fn the_acceptor_takes_an_honest_flight() {
        let parties = flight(|_| {}).expect("allowed");
        assert_eq!(parties.endpoint, "10.2.0.1:8080".parse().expect("literal"));
    }

    #[test]
    fn a_daemon_is_no_relay_to_loopback_link_local_metadata_or_hosts() {
        for destination in [
            "127.0.0.1:8080",
            "[::1]:8080",
            "[::ffff:127.0.0.1]:8080",
            "169.254.169.254:80",
            "[fd00:ec2::254]:80",
            "169.254.76.1:15001",
            "[fe80::1]:80",
            "224.0.0.1:80",
            "0.0.0.0:80",
            "10.0.0.1:15443",
            "10.0.0.2:22",
        ] {
            assert_eq!(
                to(destination).map(drop),
                Err(Refusal::NotDeliverable),
                "{destination}"
            );
        }
    }

    #[test]
    fn a_destination_on_a_third_node_or_nowhere_is_refused() {
        assert_eq!(to("10.3.0.1:8080").map(drop), Err(Refusal::Misplaced));
        assert_eq!(to("10.1.0.2:8080").map(drop), Err(Refusal::Misplaced));
        assert_eq!(to("10.8.0.1:8080").map(drop), Err(Refusal::Misplaced));
        assert_eq!(to("8.8.8.8:53").map(drop), Err(Refusal::Misplaced));
    }

    #[test]
    fn a_source_address_that_is_not_the_source_identitys_is_refused() {
        for client in [
            "10.1.0.2:5000",
            "10.2.0.1:5000",
            "10.0.0.1:5000",
            "127.0.0.1:5000",
        ] {
            let verdict = flight(|record0| {
                record0.source_address = SourceAddr::new(client.parse().expect("literal"));
            });
            assert_eq!(verdict.map(drop), Err(Refusal::SourceMismatch), "{client}");
        }
    }

    #[test]
    fn another_instance_at_the_same_address_is_stale() {
        let verdict = flight(|record0| record0.destination_instance = b"web-0".to_vec());
        assert_eq!(verdict.map(drop), Err(Refusal::Stale));
    }

    #[test]
    fn an_open_flow_is_decided_again_by_what_is_known_now() {
        let route = captured(CGROUP, "10.1.0.1:5000", "10.9.0.1:80").expect("allowed");
        let again = |change: &dyn Fn(&str) -> String, policy: &str| {
            let mut world = world("a");
            world.directory = Directory::parse(&change(DIRECTORY)).expect("a directory");
            let document = Document {
                name: "test.toml".to_owned(),
                text: policy.to_owned(),
            };
            world.policy = Policy::parse(vec![document]).expect("a policy");
            reclassify(&world, &route.parties, (&world.node, &route.node))
        };
        let same = |text: &str| text.to_owned();
        assert_eq!(again(&same, POLICY), Ok(()));
        assert_eq!(again(&same, ""), Err(Refusal::Denied));
        let anew = |text: &str| text.replace("\"web-1\"", "\"web-1b\"");
        assert_eq!(again(&anew, POLICY), Err(Refusal::Stale));
        let moved = |text: &str| text.replace("10.2.0.1", "10.2.0.7");
        assert_eq!(again(&moved, POLICY), Err(Refusal::Stale));
        let b = "[\"10.0.0.2\"]";
        let without_kedge = |text: &str| text.replace(b, &format!("{b}, kedge = false"));
        assert_eq!(again(&without_kedge, POLICY), Err(Refusal::NodeUnmanaged));
        let client_gone = |text: &str| text.replace("10.1.0.1", "10.1.0.7");
        assert_eq!(again(&client_gone, POLICY), Err(Refusal::SourceMismatch));
    }

    /// Everything is read anew each time, with other seeds in every hash table.
    #[test]
    fn the_same_inputs_read_anew_give_the_same_verdict() {
        let recorded = |cgroup_id, client: &str, asked: &str, pick| {
            let claim = Claim {
                original_dst: OriginalDst::new(asked.parse().expect("literal")),
                cgroup_id,
                lineage: Default::default(),
                socket_cookie: 1,
                netns_cookie: 1,
                patience: Default::default(),
            };
            let client = SourceAddr::new(client.parse().expect("literal"));
            let verdict = classify_captured(&world("a"), &claim, client, pick);
            verdict.map(|route| (route.node, route.parties.endpoint, route.parties.uid))
        };
        let clients = ["10.1.0.1:5000", "10.1.0.2:5000", "10.2.0.1:5000"];
        let asked = [
            "10.9.0.1:80",
            "10.9.0.2:80",
            "10.2.0.1:81",
            "10.3.0.1:80",
            "10.8.0.1:80",
        ];
        for (cgroup, pick) in (CGROUP..CGROUP + 3).flat_map(|c| (0..3).map(move |p| (c, p))) {
            for (client, asked) in clients.iter().flat_map(|c| asked.map(|a| (*c, a))) {
                let first = recorded(cgroup, client, asked, pick);
                for _ in 0..8 {
                    assert_eq!(recorded(cgroup, client, asked, pick), first, "{asked}");
                }
            }
        }
    }

    #[test]
    fn the_acceptor_applies_policy_itself() {
        assert_eq!(to("10.2.0.1:22").map(drop), Err(Refusal::Denied));
    }
}
