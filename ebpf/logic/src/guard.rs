//! Which packets a guarded cgroup may send and be given.

use crate::cgroup::Owner;
use crate::packet::{Packet, Parsed, Segment, parse};
use crate::queue;
use crate::tables::{Tables, is_capture_end, is_same, verdict_for};
use kedge_abi::{Endpoint, ProbePort, Tuple, class, place, verdict};

/// What is filed about the connection that a packet belongs to.
pub trait Connection {
    /// Whether the packet's socket is one that was admitted when it was established.
    fn is_admitted_socket(&self) -> bool;
    /// Who on this node filed this connection, while it is being established.
    fn filed(&self, tuple: &Tuple) -> Option<Opener>;
    /// Whether the packet's socket listens.
    fn is_listener(&self) -> bool;
    /// The cgroup that filed the claim of a captured connection that is being established, or
    /// [`kedge_abi::queue::NOBODY`].
    fn claimant(&self, tuple: &Tuple) -> u64;
}

/// Who may open a connection to a `require` workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opener {
    /// kedged, with a delivery.
    Daemon,
    /// A socket of a probe cgroup: at the ports that the workload declares.
    Probe,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ruling {
    Pass,
    /// Not TCP, of a guarded cgroup; passes, counted.
    PassOther,
    /// Dropped; the ends are known if it is a segment.
    Drop(Option<Segment>),
    /// Dropped: of a probe, to a port that the workload does not declare.
    DropProbe(Segment),
    /// Dropped: it opens nothing and is of no connection that is there. Most often something else
    /// has overtaken it, the last FIN's acknowledgement for instance.
    DropStray,
    /// A SYN for which its workload has no room left in this queue: its TCP will repeat it.
    Hold,
}

/// Scope of tuples that the guard looks up: admitted connections come over the routed way.
const ROUTED: u64 = 0;

/// Whether the packet may reach a socket of `owner`. An address alone is never a reason: whoever
/// opens a connection to a `require` workload must have been filed by his own socket's program.
#[inline(always)]
pub fn ingress<P: Packet, T: Tables, C: Connection>(
    owner: &Owner,
    packet: &P,
    tables: &T,
    connection: &C,
) -> Ruling {
    match owner.class {
        class::REQUIRE => {}
        class::DAEMON if connection.is_listener() => {
            return by_segment(packet, |segment| knock(tables, connection, segment));
        }
        _ => return Ruling::Pass,
    }
    by_segment(packet, |segment| {
        if stays_here(segment) || connection.is_admitted_socket() {
            return Ruling::Pass;
        }
        match connection.filed(&opened_by_source(segment)) {
            Some(opener) => admit(tables, owner, opener, segment.destination.port, segment),
            None if segment.opens => Ruling::Drop(Some(*segment)),
            None if is_answer(tables, owner, &segment.source) => Ruling::Pass,
            None if connection.is_listener() => Ruling::DropStray,
            None => Ruling::Drop(Some(*segment)),
        }
    })
}

/// No workload fills a worker's accept queue: beyond its share it waits outside, as everybody
/// would if the queue were full.
#[inline(always)]
fn knock<T: Tables, C: Connection>(tables: &T, connection: &C, segment: &Segment) -> Ruling {
    let Some(root) = tables.root() else {
        return Ruling::Pass;
    };
    if !segment.opens || !is_capture_end(root, &segment.destination) {
        return Ruling::Pass;
    }
    let claimant = connection.claimant(&opened_by_source(segment));
    match queue::has_room(tables, root, claimant, segment.destination.port) {
        true => Ruling::Pass,
        false => Ruling::Hold,
    }
}

/// Whether who filed a connection to `port` of `owner` may have it.
#[inline(always)]
fn admit<T: Tables>(
    tables: &T,
    owner: &Owner,
    opener: Opener,
    port: u32,
    segment: &Segment,
) -> Ruling {
    match opener {
        Opener::Probe if !tables.is_probe_port(ProbePort::new(owner.id, port)) => {
            Ruling::DropProbe(*segment)
        }
        _ => Ruling::Pass,
    }
}

/// Whether `source` is one that `owner` may have opened a connection to: the daemon by capture, or
/// a place that kedge does not manage. Whoever forges such an address opens nothing by it.
#[inline(always)]
fn is_answer<T: Tables>(tables: &T, owner: &Owner, source: &Endpoint) -> bool {
    is_capture(tables, source) || verdict_for(tables, owner.class, source) == verdict::PASS
}

#[inline(always)]
fn is_capture<T: Tables>(tables: &T, end: &Endpoint) -> bool {
    tables.root().is_some_and(|root| is_capture_end(root, end))
}

/// Whether a socket of `owner` may send the packet.
#[inline(always)]
pub fn egress<P: Packet, T: Tables, C: Connection>(
    owner: &Owner,
    packet: &P,
    tables: &T,
    connection: &C,
) -> Ruling {
    match owner.class {
        class::REQUIRE => by_segment(packet, |segment| {
            let free = stays_here(segment)
                || is_capture(tables, &segment.destination)
                || connection.is_admitted_socket()
                || verdict_for(tables, owner.class, &segment.destination) == verdict::PASS;
            match connection.filed(&opened_by_destination(segment)) {
                Some(opener) if !free => admit(tables, owner, opener, segment.source.port, segment),
                _ => pass_if(free, segment),
            }
        }),
        class::DAEMON => by_segment(packet, |segment| {
            pass_if(may_daemon_send(tables, segment), segment)
        }),
        _ => Ruling::Pass,
    }
}

#[inline(always)]
fn by_segment<P: Packet>(packet: &P, rule: impl FnOnce(&Segment) -> Ruling) -> Ruling {
    match parse(packet) {
        Parsed::Tcp(segment) => rule(&segment),
        Parsed::Other => Ruling::PassOther,
        Parsed::Unclear => Ruling::Drop(None),
    }
}

#[inline(always)]
fn pass_if(may_pass: bool, segment: &Segment) -> Ruling {
    match may_pass {
        true => Ruling::Pass,
        false => Ruling::Drop(Some(*segment)),
    }
}

/// Loopback, or an address speaking to itself: no wire is involved.
#[inline(always)]
fn stays_here(segment: &Segment) -> bool {
    is_same(&segment.source.address, &segment.destination.address)
        || (segment.source.address.is_loopback() && segment.destination.address.is_loopback())
}

/// The daemon answers captured clients, delivers to local workloads, and otherwise speaks to
/// nodes only, on a peer port at either end.
#[inline(always)]
fn may_daemon_send<T: Tables>(tables: &T, segment: &Segment) -> bool {
    if stays_here(segment) {
        return true;
    }
    let Some(root) = tables.root() else {
        return false;
    };
    if is_capture_end(root, &segment.source) {
        return true;
    }
    tables
        .place(&segment.destination.address)
        .is_some_and(|to| match to.kind {
            place::LOCAL_POD => true,
            place::NODE => {
                segment.destination.port == to.peer_port || segment.source.port == root.peer_port
            }
            _ => false,
        })
}

#[inline(always)]
fn opened_by_source(segment: &Segment) -> Tuple {
    Tuple::new(segment.source, segment.destination, ROUTED)
}

#[inline(always)]
fn opened_by_destination(segment: &Segment) -> Tuple {
    Tuple::new(segment.destination, segment.source, ROUTED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{Filed, World, tcp4, tcp6};
    use kedge_abi::kind;
    use proptest::prelude::*;
    use std::vec::Vec;

    const SYN: u8 = 0x02;
    const SYN_ACK: u8 = 0x12;
    const ACK: u8 = 0x10;
    const POD: &str = "10.1.0.1:40000";

    fn owner(class: u32) -> Owner {
        Owner {
            id: 1,
            class,
            kind: kind::WORKLOAD,
            level: None,
        }
    }

    fn world() -> World {
        let mut world = World::new();
        world.rule(class::REQUIRE, "10.0.0.0", 8, verdict::refuse(113));
        world.rule(class::REQUIRE, "10.2.0.1", 32, verdict::CAPTURE);
        world.add_place("10.1.0.1", place::LOCAL_POD, 0);
        world.add_place("192.0.2.2", place::NODE, 15443);
        world
    }

    fn sends(from: &str, to: &str, flags: u8, filed: &Filed) -> bool {
        let packet = tcp4(from, to, flags, 0);
        egress(&owner(class::REQUIRE), &packet, &world(), filed) == Ruling::Pass
    }

    fn receives(from: &str, to: &str, flags: u8, filed: &Filed) -> bool {
        let packet = tcp4(from, to, flags, 0);
        ingress(&owner(class::REQUIRE), &packet, &world(), filed) == Ruling::Pass
    }

    #[test]
    fn a_daemons_listener_holds_the_syns_of_who_has_his_share_of_its_queue_and_nothing_else() {
        let mut world = world();
        let waits = queue::of(&world.root, 7, 15_001);
        world
            .waiting
            .insert(waits, i64::from(world.root.queue_places));
        let knock = |class, to, flags, filed: &Filed| {
            ingress(&owner(class), &tcp4(POD, to, flags, 0), &world, filed)
        };
        let (full, other) = (Filed::knock(7), Filed::knock(8));
        let own = "169.254.76.7:15001";
        assert_eq!(knock(class::DAEMON, own, SYN, &full), Ruling::Hold);
        assert_eq!(knock(class::DAEMON, own, ACK, &full), Ruling::Pass);
        assert_eq!(knock(class::DAEMON, own, SYN, &other), Ruling::Pass);
        let another = "169.254.76.7:15002";
        assert_eq!(knock(class::DAEMON, another, SYN, &full), Ruling::Pass);
        assert_eq!(
            knock(class::DAEMON, "192.0.2.1:15443", SYN, &full),
            Ruling::Pass
        );
        assert_eq!(knock(class::PERMISSIVE, own, SYN, &full), Ruling::Pass);
        let no_listener = Filed::default();
        assert_eq!(knock(class::DAEMON, own, SYN, &no_listener), Ruling::Pass);
    }

    #[test]
    fn require_sends_no_segment_to_a_managed_prefix_past_the_daemon() {
        let none = Filed::default();
        for to in ["10.2.0.1:80", "10.9.9.9:80"] {
            for flags in [SYN, ACK, SYN_ACK] {
                assert!(!sends(POD, to, flags, &none), "{to}");
            }
        }
        assert!(sends(POD, "169.254.76.7:15001", SYN, &none));
        assert!(sends(POD, "198.51.100.1:443", SYN, &none));
    }

    #[test]
    fn require_is_opened_only_by_who_was_filed_whatever_his_address() {
        let none = Filed::default();
        for from in [
            "10.2.0.1:40000",
            "198.51.100.1:40000",
            "192.0.2.2:40000",
            "169.254.76.7:15001",
        ] {
            assert!(!receives(from, "10.1.0.1:80", SYN, &none), "{from}");
        }
        let filed = Filed::tuple("192.0.2.1:40000", "10.1.0.1:80");
        assert!(receives("192.0.2.1:40000", "10.1.0.1:80", SYN, &filed));
        assert!(sends("10.1.0.1:80", "192.0.2.1:40000", SYN_ACK, &filed));
        assert!(!receives("192.0.2.1:40001", "10.1.0.1:80", SYN, &filed));
    }

    #[test]
    fn what_opens_nothing_and_finds_a_listener_is_a_stray_and_no_attempt() {
        let rules = |from, flags, filed: &Filed| {
            let packet = tcp4(from, "10.1.0.1:80", flags, 0);
            ingress(&owner(class::REQUIRE), &packet, &world(), filed)
        };
        let listener = Filed::knock(kedge_abi::queue::NOBODY);
        for flags in [ACK, SYN_ACK] {
            assert_eq!(rules("10.2.0.1:40000", flags, &listener), Ruling::DropStray);
        }
        let syn = rules("10.2.0.1:40000", SYN, &listener);
        assert!(matches!(syn, Ruling::Drop(Some(_))));
        let connected = rules("10.2.0.1:40000", ACK, &Filed::default());
        assert!(matches!(connected, Ruling::Drop(Some(_))));
        assert_eq!(rules("198.51.100.1:443", ACK, &listener), Ruling::Pass);
    }

    #[test]
    fn a_probe_enters_at_the_ports_that_its_workload_declares_and_at_no_other() {
        let mut world = world();
        world.add_probe_port(1, 80);
        world.add_probe_port(2, 81);
        let rules = |port: u16| {
            let (probe, pod) = ("10.1.0.254:40000", std::format!("10.1.0.1:{port}"));
            let filed = Filed::probe(probe, &pod);
            let owner = owner(class::REQUIRE);
            let comes = ingress(&owner, &tcp4(probe, &pod, SYN, 0), &world, &filed);
            let goes = egress(&owner, &tcp4(&pod, probe, SYN_ACK, 0), &world, &filed);
            (comes, goes)
        };
        assert_eq!(rules(80), (Ruling::Pass, Ruling::Pass));
        for undeclared in [22, 81] {
            let (comes, goes) = rules(undeclared);
            assert!(matches!(comes, Ruling::DropProbe(_)), "{undeclared}");
            assert!(matches!(goes, Ruling::DropProbe(_)), "{undeclared}");
        }
    }

    #[test]
    fn an_admitted_socket_speaks_until_it_ends_though_its_tuple_has_gone() {
        let admitted = Filed::socket();
        assert!(receives("10.0.0.254:40000", "10.1.0.1:80", ACK, &admitted));
        assert!(sends("10.1.0.1:80", "10.0.0.254:40000", ACK, &admitted));
    }

    #[test]
    fn replies_of_capture_and_of_unmanaged_servers_arrive() {
        let none = Filed::default();
        assert!(receives("169.254.76.7:15001", POD, SYN_ACK, &none));
        assert!(receives("198.51.100.1:443", POD, SYN_ACK, &none));
        assert!(!receives("10.2.0.1:80", POD, SYN_ACK, &none));
    }

    #[test]
    fn loopback_and_the_own_address_are_exempt() {
        let none = Filed::default();
        assert!(sends("127.0.0.1:1", "127.0.0.1:2", SYN, &none));
        assert!(receives("10.1.0.1:1", "10.1.0.1:2", SYN, &none));
    }

    #[test]
    fn fragments_are_dropped_and_other_protocols_pass() {
        let mut fragment = tcp4(POD, "198.51.100.1:443", ACK, 0);
        fragment[7] = 1;
        let mut udp = tcp4(POD, "10.2.0.1:53", ACK, 0);
        udp[9] = 17;
        let rule =
            |packet: &Vec<u8>| egress(&owner(class::REQUIRE), packet, &world(), &Filed::default());
        assert_eq!(rule(&fragment), Ruling::Drop(None));
        assert_eq!(rule(&udp), Ruling::PassOther);
    }

    #[test]
    fn permissive_and_off_are_not_guarded() {
        let packet = tcp4(POD, "10.2.0.1:80", SYN, 0);
        for class in [class::OFF, class::PERMISSIVE] {
            let none = Filed::default();
            assert_eq!(
                egress(&owner(class), &packet, &world(), &none),
                Ruling::Pass
            );
            assert_eq!(
                ingress(&owner(class), &packet, &world(), &none),
                Ruling::Pass
            );
        }
    }

    #[test]
    fn the_daemon_sends_plaintext_to_local_pods_only() {
        let daemon = |from: &str, to: &str| {
            let packet = tcp4(from, to, ACK, 0);
            egress(&owner(class::DAEMON), &packet, &world(), &Filed::default()) == Ruling::Pass
        };
        assert!(daemon("192.0.2.1:40000", "10.1.0.1:80"));
        assert!(daemon("169.254.76.9:15001", "10.1.0.77:40000"));
        assert!(daemon("192.0.2.1:40000", "192.0.2.2:15443"));
        assert!(daemon("192.0.2.1:15443", "192.0.2.2:40000"));
        assert!(!daemon("192.0.2.1:40000", "192.0.2.2:80"));
        assert!(!daemon("192.0.2.1:40000", "10.2.0.1:80"));
        assert!(!daemon("192.0.2.1:15443", "198.51.100.1:40000"));
    }

    #[test]
    fn without_a_root_the_guard_is_closed() {
        let mut world = world();
        world.has_root = false;
        let packet = tcp4(POD, "10.2.0.1:80", SYN, 0);
        let none = Filed::default();
        for class in [class::REQUIRE, class::DAEMON] {
            assert!(matches!(
                egress(&owner(class), &packet, &world, &none),
                Ruling::Drop(_)
            ));
        }
    }

    #[test]
    fn ipv6_is_guarded_alike() {
        let mut world = world();
        world.rule(class::REQUIRE, "fd00::", 8, verdict::refuse(113));
        let rule = |to| {
            let packet = tcp6("[fd00::1]:1", to, SYN, &[]);
            egress(&owner(class::REQUIRE), &packet, &world, &Filed::default())
        };
        assert!(matches!(rule("[fd00::2]:80"), Ruling::Drop(Some(_))));
        assert_eq!(rule("[fd6b:6564:6765::5]:15001"), Ruling::Pass);
        assert_eq!(rule("[2001:db8::1]:443"), Ruling::Pass);
    }

    proptest! {
        #[test]
        fn no_segment_to_a_captured_place_leaves_unfiled(
            from in any::<[u8; 4]>(), port: u16, flags: u8,
        ) {
            prop_assume!(from != [10, 2, 0, 1]);
            let from = std::format!("{}:{port}", std::net::Ipv4Addr::from(from));
            prop_assert!(!sends(&from, "10.2.0.1:80", flags, &Filed::default()));
        }

        #[test]
        fn no_opening_segment_enters_unfiled(from in any::<[u8; 4]>(), port: u16) {
            prop_assume!(from != [10, 1, 0, 1]);
            let from = std::format!("{}:{port}", std::net::Ipv4Addr::from(from));
            prop_assert!(!receives(&from, "10.1.0.1:80", SYN, &Filed::default()));
        }
    }
}
