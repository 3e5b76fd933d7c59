//! The kernel's side of the traits, for tests on the host.

use crate::guard::Opener;
use crate::{Ancestry, Connection, Packet, Tables};
use kedge_abi::queue::NOBODY;
use kedge_abi::{
    Address, CgroupEntry, Endpoint, Place, PortKey, ProbePort, Queued, Refusal, RefusalKey, Root,
    Tuple, VerdictEntry, VerdictKey, limits, place,
};
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::vec::Vec;

pub fn end(text: &str) -> Endpoint {
    text.parse::<SocketAddr>().expect("literal").into()
}

fn address(text: &str) -> Address {
    text.parse::<IpAddr>().expect("literal").into()
}

/// A cgroup and those above it, from the root on.
pub struct Path<'p>(pub &'p [u64]);

impl Ancestry for Path<'_> {
    fn own(&self) -> u64 {
        *self.0.last().expect("not empty")
    }

    fn at_level(&self, level: u32) -> u64 {
        self.0.get(level as usize).copied().unwrap_or(0)
    }
}

pub struct World {
    pub root: Root,
    pub has_root: bool,
    pub beats: [u64; limits::WORKERS as usize],
    cgroups: HashMap<u64, CgroupEntry>,
    probe_ports: HashSet<ProbePort>,
    verdicts: Vec<(u32, Address, u32, VerdictEntry)>,
    ports: HashMap<PortKey, u32>,
    places: HashMap<Address, Place>,
    refusals: HashMap<RefusalKey, Refusal>,
    pub pending: HashMap<u64, i64>,
    pub waiting: HashMap<Queued, i64>,
}

impl World {
    pub fn new() -> Self {
        Self {
            root: Root {
                netns_cookie: 1,
                workers: 2,
                addresses: 1022,
                capture_v4: address("169.254.76.0"),
                capture_v4_mask: address("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fc00"),
                capture_v6: address("fd6b:6564:6765::"),
                capture_v6_mask: address("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fc00"),
                port_base: 15001,
                peer_port: 15443,
                queue_places: 100,
                ..Root::default()
            },
            has_root: true,
            beats: [0; limits::WORKERS as usize],
            cgroups: HashMap::new(),
            probe_ports: HashSet::new(),
            verdicts: Vec::new(),
            ports: HashMap::new(),
            places: HashMap::new(),
            refusals: HashMap::new(),
            pending: HashMap::new(),
            waiting: HashMap::new(),
        }
    }

    pub fn add_cgroup(&mut self, id: u64, class: u32, kind: u32) {
        self.cgroups.insert(id, CgroupEntry { class, kind });
    }

    pub fn add_probe_port(&mut self, cgroup: u64, port: u16) {
        self.probe_ports.insert(ProbePort::new(cgroup, port.into()));
    }

    pub fn add_place(&mut self, at: &str, kind: u32, peer_port: u32) {
        let place = Place {
            kind,
            peer_port,
            cgroup_id: 0,
        };
        self.places.insert(address(at), place);
    }

    pub fn add_own_address(&mut self, at: &str, cgroup_id: u64) {
        let place = Place {
            kind: place::LOCAL_POD,
            peer_port: 0,
            cgroup_id,
        };
        self.places.insert(address(at), place);
    }

    pub fn refuse_again(&mut self, key: RefusalKey, refusal: Refusal) {
        self.refusals.insert(key, refusal);
    }

    pub fn rule(&mut self, class: u32, net: &str, length: u32, default: u32) {
        let net = address(net);
        let length = if net.is_v4() { 96 + length } else { length };
        let entry = VerdictEntry {
            default,
            port_set: 0,
        };
        self.verdicts.push((class, net, length, entry));
    }

    /// Adds a port to the rule that is there for the prefix.
    pub fn port_rule(&mut self, class: u32, net: &str, length: u32, port: u32, verdict: u32) {
        let net = address(net);
        let length = if net.is_v4() { 96 + length } else { length };
        let found = self
            .verdicts
            .iter_mut()
            .enumerate()
            .find(|(_, (c, n, l, _))| (*c, *n, *l) == (class, net, length));
        let (index, rule) = found.expect("the prefix has a rule");
        rule.3.port_set = u32::try_from(index).expect("few") + 1;
        let port_set = rule.3.port_set;
        self.ports.insert(PortKey { port_set, port }, verdict);
    }
}

fn bits(address: &Address) -> u128 {
    address
        .words_be
        .iter()
        .fold(0, |all, word| all << 32 | u128::from(u32::from_be(*word)))
}

impl Tables for World {
    fn root(&self) -> Option<&Root> {
        self.has_root.then_some(&self.root)
    }

    fn cgroup(&self, id: u64) -> Option<CgroupEntry> {
        self.cgroups.get(&id).copied()
    }

    fn is_probe_port(&self, at: ProbePort) -> bool {
        self.probe_ports.contains(&at)
    }

    fn verdict(&self, key: VerdictKey) -> Option<VerdictEntry> {
        let covers = |net: &Address, length: u32| {
            let differing = bits(net) ^ bits(&key.address);
            differing.checked_shr(128 - length).unwrap_or(0) == 0
        };
        self.verdicts
            .iter()
            .filter(|(class, net, length, _)| class.to_be() == key.class_be && covers(net, *length))
            .max_by_key(|(_, _, length, _)| *length)
            .map(|(_, _, _, entry)| *entry)
    }

    fn port(&self, key: PortKey) -> Option<u32> {
        self.ports.get(&key).copied()
    }

    fn place(&self, address: &Address) -> Option<Place> {
        self.places.get(address).copied()
    }

    fn refusal(&self, key: &RefusalKey) -> Option<Refusal> {
        self.refusals.get(key).copied()
    }

    fn pending(&self, cgroup_id: u64) -> i64 {
        self.pending.get(&cgroup_id).copied().unwrap_or(0)
    }

    fn waiting(&self, queued: &Queued) -> i64 {
        self.waiting.get(queued).copied().unwrap_or(0)
    }

    fn beat(&self, worker: u32) -> u64 {
        self.beats[worker as usize]
    }

    fn first(&self, count: u32, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        (0..count).find(|number| is_it(*number))
    }
}

/// What is filed about a packet's connection.
#[derive(Default)]
pub struct Filed {
    socket: bool,
    /// The packet comes to a listener, from this cgroup.
    listener: Option<u64>,
    tuples: HashMap<Tuple, Opener>,
}

impl Filed {
    pub fn socket() -> Self {
        Self {
            socket: true,
            ..Self::default()
        }
    }

    pub fn tuple(client: &str, server: &str) -> Self {
        Self::by(Opener::Daemon, client, server)
    }

    pub fn probe(client: &str, server: &str) -> Self {
        Self::by(Opener::Probe, client, server)
    }

    fn by(opener: Opener, client: &str, server: &str) -> Self {
        let tuple = Tuple::new(end(client), end(server), 0);
        Self {
            tuples: HashMap::from([(tuple, opener)]),
            ..Self::default()
        }
    }

    pub fn knock(cgroup_id: u64) -> Self {
        Self {
            listener: Some(cgroup_id),
            ..Self::default()
        }
    }
}

impl Connection for Filed {
    fn is_admitted_socket(&self) -> bool {
        self.socket
    }

    fn filed(&self, tuple: &Tuple) -> Option<Opener> {
        self.tuples.get(tuple).copied()
    }

    fn is_listener(&self) -> bool {
        self.listener.is_some()
    }

    fn claimant(&self, _: &Tuple) -> u64 {
        self.listener.unwrap_or(NOBODY)
    }
}

impl Packet for Vec<u8> {
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let offset = offset as usize;
        self.get(offset..offset + N)?.try_into().ok()
    }
}

fn tcp(from: SocketAddr, to: SocketAddr, flags: u8) -> [u8; 20] {
    let mut header = [0; 20];
    header[..2].copy_from_slice(&from.port().to_be_bytes());
    header[2..4].copy_from_slice(&to.port().to_be_bytes());
    header[13] = flags;
    header
}

/// A segment over IPv4 with `options` bytes of IP options.
pub fn tcp4(from: &str, to: &str, flags: u8, options: usize) -> Vec<u8> {
    let (from, to): (SocketAddr, SocketAddr) =
        (from.parse().expect("literal"), to.parse().expect("literal"));
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (from.ip(), to.ip()) else {
        panic!("not IPv4");
    };
    let mut packet = std::vec![0; 20 + options];
    packet[0] = 0x40 | u8::try_from((20 + options) / 4).expect("at most 60 bytes");
    packet[9] = 6;
    packet[12..16].copy_from_slice(&source.octets());
    packet[16..20].copy_from_slice(&destination.octets());
    packet.extend(tcp(from, to, flags));
    packet
}

/// A segment over IPv6 behind these extension headers of eight bytes each.
pub fn tcp6(from: &str, to: &str, flags: u8, extensions: &[u8]) -> Vec<u8> {
    let (from, to): (SocketAddr, SocketAddr) =
        (from.parse().expect("literal"), to.parse().expect("literal"));
    let (IpAddr::V6(source), IpAddr::V6(destination)) = (from.ip(), to.ip()) else {
        panic!("not IPv6");
    };
    let kinds: Vec<u8> = extensions.iter().copied().chain([6]).collect();
    let mut packet = std::vec![0; 40];
    packet[0] = 0x60;
    packet[6] = kinds[0];
    packet[8..24].copy_from_slice(&source.octets());
    packet[24..40].copy_from_slice(&destination.octets());
    for next in &kinds[1..] {
        packet.extend([*next, 0, 0, 0, 0, 0, 0, 0]);
    }
    packet.extend(tcp(from, to, flags));
    packet
}
