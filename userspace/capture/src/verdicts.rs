//! Verdicts in words, and their compilation to the entries of the maps.

use ipnet::IpNet;
use kedge_abi::{Address, LpmKey, Place, PortKey, VerdictEntry, VerdictKey, class, place, verdict};
use kedge_model::Mode;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

/// What connect() does with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// It goes where it asked.
    Pass,
    /// It goes to the daemon.
    Capture,
    /// It fails with this errno.
    Refuse(u16),
}

impl Verdict {
    fn word(self) -> u32 {
        match self {
            Self::Pass => verdict::PASS,
            Self::Capture => verdict::CAPTURE,
            Self::Refuse(errno) => verdict::refuse(errno),
        }
    }
}

/// A verdict for a prefix, or for one port of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    pub net: IpNet,
    /// `None`: every port that no other rule of the same prefix names.
    pub port: Option<u16>,
    pub verdict: Verdict,
}

/// An address of a workload of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalPod {
    pub ip: IpAddr,
    /// The cgroup whose connections to this address stay within the pod and are not captured.
    pub cgroup_id: Option<u64>,
}

/// Everything that the programs decide by. The longest prefix wins alone: the ports of a shorter
/// one do not show through it, only its default does where the longer one has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdicts {
    /// Rules of mode `permissive`; where none matches: pass.
    pub permissive: Vec<Rule>,
    /// Rules of mode `require`; where none matches: pass, as unmanaged.
    pub require: Vec<Rule>,
    /// Addresses of this node's workloads: the only places where the daemon may speak plaintext.
    pub local_pods: Vec<LocalPod>,
    /// Where peer daemons listen: the only other places where the daemon may speak.
    pub nodes: Vec<SocketAddr>,
}

impl Verdicts {
    fn of_classes(&self) -> [(u32, &[Rule]); 2] {
        [
            (class::PERMISSIVE, &self.permissive),
            (class::REQUIRE, &self.require),
        ]
    }
}

/// The mode class of a cgroup.
#[must_use]
pub(crate) fn class_of(mode: Mode) -> u32 {
    match mode {
        Mode::Off => class::OFF,
        Mode::Permissive => class::PERMISSIVE,
        Mode::Require => class::REQUIRE,
    }
}

/// The entries of `VERDICTS` and `PORTS`.
#[derive(Debug, Default)]
pub(crate) struct Compiled {
    pub(crate) verdicts: HashMap<LpmKey, VerdictEntry>,
    pub(crate) ports: HashMap<PortKey, u32>,
}

/// Port sets keep their number while their content stays; a changed one gets a new number, so
/// that its ports can be written before any prefix points to them.
#[derive(Debug)]
pub(crate) struct Compiler {
    sets: BTreeMap<Vec<(u16, Verdict)>, u32>,
    last_set: u32,
}

impl Compiler {
    /// Numbers after those that the map already holds.
    pub(crate) fn after(held: &HashMap<PortKey, u32>) -> Self {
        Self {
            sets: BTreeMap::new(),
            last_set: held.keys().map(|key| key.port_set).max().unwrap_or(0),
        }
    }

    pub(crate) fn compile(&mut self, verdicts: &Verdicts) -> Compiled {
        let mut compiled = Compiled::default();
        for (class, rules) in verdicts.of_classes() {
            let defaults = defaults_of(rules);
            for (net, prefix) in by_prefix(rules) {
                let entry = VerdictEntry {
                    default: default_of(&net, &defaults).word(),
                    port_set: self.number(&prefix, &mut compiled.ports),
                };
                compiled.verdicts.insert(lpm_key(class, &net), entry);
            }
        }
        compiled
    }

    fn number(&mut self, ports: &BTreeMap<u16, Verdict>, to: &mut HashMap<PortKey, u32>) -> u32 {
        if ports.is_empty() {
            return 0;
        }
        let content: Vec<_> = ports
            .iter()
            .map(|(port, verdict)| (*port, *verdict))
            .collect();
        let port_set = *self.sets.entry(content).or_insert_with(|| {
            self.last_set += 1;
            self.last_set
        });
        to.extend(ports.iter().map(|(port, verdict)| {
            let port = u32::from(*port);
            (PortKey { port_set, port }, verdict.word())
        }));
        port_set
    }
}

fn by_prefix(rules: &[Rule]) -> HashMap<IpNet, BTreeMap<u16, Verdict>> {
    let mut prefixes: HashMap<IpNet, BTreeMap<u16, Verdict>> = HashMap::new();
    for rule in rules {
        let ports = prefixes.entry(rule.net.trunc()).or_default();
        if let Some(port) = rule.port {
            ports.insert(port, rule.verdict);
        }
    }
    prefixes
}

/// The verdict of the longest prefix round `net`, itself included, that has one for all ports.
fn default_of(net: &IpNet, defaults: &HashMap<IpNet, Verdict>) -> Verdict {
    std::iter::successors(Some(*net), IpNet::supernet)
        .find_map(|net| defaults.get(&net).copied())
        .unwrap_or(Verdict::Pass)
}

fn defaults_of(rules: &[Rule]) -> HashMap<IpNet, Verdict> {
    let for_all_ports = rules.iter().filter(|rule| rule.port.is_none());
    for_all_ports
        .map(|rule| (rule.net.trunc(), rule.verdict))
        .collect()
}

pub(crate) fn lpm_key(class: u32, net: &IpNet) -> LpmKey {
    let family_bits = match net {
        IpNet::V4(_) => 96,
        IpNet::V6(_) => 0,
    };
    LpmKey {
        prefix_bits: VerdictKey::CLASS_BITS + family_bits + u32::from(net.prefix_len()),
        key: VerdictKey::new(class, net.network().into()),
    }
}

/// The entries of `PLACES`. An address that is both is a node: the stricter of the two.
pub(crate) fn places(verdicts: &Verdicts) -> HashMap<Address, Place> {
    let pods = verdicts.local_pods.iter().map(|pod| {
        let place = Place {
            kind: place::LOCAL_POD,
            peer_port: 0,
            cgroup_id: pod.cgroup_id.unwrap_or(0),
        };
        (Address::from(pod.ip), place)
    });
    let nodes = verdicts.nodes.iter().map(|node| {
        let place = Place {
            kind: place::NODE,
            peer_port: u32::from(node.port()),
            cgroup_id: 0,
        };
        (Address::from(node.ip()), place)
    });
    pods.chain(nodes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(net: &str, port: Option<u16>, verdict: Verdict) -> Rule {
        Rule {
            net: net.parse().expect("literal"),
            port,
            verdict,
        }
    }

    fn require(rules: Vec<Rule>) -> Verdicts {
        Verdicts {
            require: rules,
            ..Verdicts::default()
        }
    }

    fn entry(compiled: &Compiled, net: &str) -> VerdictEntry {
        compiled.verdicts[&lpm_key(class::REQUIRE, &net.parse().expect("literal"))]
    }

    #[test]
    fn a_prefix_with_ports_only_takes_its_default_from_the_prefix_round_it() {
        let mut compiler = Compiler::after(&HashMap::new());
        let compiled = compiler.compile(&require(vec![
            rule("10.0.0.0/8", None, Verdict::Refuse(113)),
            rule("10.1.2.3/32", Some(80), Verdict::Capture),
        ]));
        let inner = entry(&compiled, "10.1.2.3/32");
        assert_eq!(inner.default, verdict::refuse(113));
        let port_set = inner.port_set;
        let port = PortKey { port_set, port: 80 };
        assert_eq!(compiled.ports[&port], verdict::CAPTURE);
    }

    #[test]
    fn a_port_set_keeps_its_number_while_its_content_stays_and_never_reuses_one() {
        let held = HashMap::from([(
            PortKey {
                port_set: 7,
                port: 1,
            },
            0,
        )]);
        let mut compiler = Compiler::after(&held);
        let mut number = |verdict| {
            let rules = vec![rule("10.1.2.3/32", Some(80), verdict)];
            entry(&compiler.compile(&require(rules)), "10.1.2.3/32").port_set
        };
        assert_eq!(number(Verdict::Capture), 8);
        assert_eq!(number(Verdict::Capture), 8);
        assert_eq!(number(Verdict::Pass), 9);
    }

    #[test]
    fn a_v4_prefix_is_counted_behind_the_class_and_the_mapping() {
        let key = lpm_key(class::REQUIRE, &"10.0.0.0/8".parse().expect("literal"));
        assert_eq!(key.prefix_bits, 32 + 96 + 8);
        assert_eq!(key.key.class_be, class::REQUIRE.to_be());
    }

    #[test]
    fn an_address_that_is_pod_and_node_is_guarded_as_a_node() {
        let verdicts = Verdicts {
            local_pods: vec![LocalPod {
                ip: "10.0.0.1".parse().expect("literal"),
                cgroup_id: Some(7),
            }],
            nodes: vec!["10.0.0.1:15443".parse().expect("literal")],
            ..Verdicts::default()
        };
        let ip: IpAddr = "10.0.0.1".parse().expect("literal");
        let place = places(&verdicts)[&ip.into()];
        assert_eq!((place.kind, place.cgroup_id), (place::NODE, 0));
    }
}
