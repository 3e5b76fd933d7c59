//! Who is in the lab, and where: plain constants, so that every part of it and every test agrees.
//!
//! ```text
//!  pods of a                     node a            wire            node b                  pods of b
//!  client 10.244.1.10 ─┐    ┌─────────────┐ 192.0.2.1   192.0.2.2 ┌─────────────┐    ┌─ web    10.244.2.10
//!  local  10.244.1.11 ─┼────┤ kedged      ├───────────────────────┤      kedged ├────┼─ db     10.244.2.20
//!  bare   10.244.1.12 ─┘    └─────────────┘ 2001:db8::1       ::2 └─────────────┘    ├─ cache  10.244.2.30
//!                                                                                    ├─ mail   10.244.2.40
//!                                                                                    ├─ load   10.244.2.50
//!                                                                                    └─ bareload 10.244.2.60
//! ```
//! `bare` and `bareload` are in mode off: the direct baseline, over the same wire.

use super::Run;
use anyhow::{Result, bail};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub const TRUST_DOMAIN: &str = "lab.kedge";
pub const PEER_PORT: u16 = 15_443;
/// What the directory says kedge manages: all pods and all service addresses.
pub const MANAGED: [&str; 4] = [
    "10.244.0.0/16",
    "10.96.0.0/16",
    "fd00:244::/32",
    "fd00:96::/32",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    A,
    B,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Pod {
    pub name: &'static str,
    pub node: Node,
    /// Last number of its addresses.
    pub host: u8,
    pub mode: &'static str,
}

/// A service address, and the one pod behind it.
#[derive(Debug, PartialEq, Eq)]
pub struct Service {
    pub pod: &'static Pod,
    pub port: u16,
    pub pod_port: u16,
}

pub const NODES: [Node; 2] = [Node::A, Node::B];

pub static CLIENT: Pod = Pod {
    name: "client",
    node: Node::A,
    host: 10,
    mode: "require",
};
pub static LOCAL: Pod = Pod {
    name: "local",
    node: Node::A,
    host: 11,
    mode: "require",
};
pub static BARE: Pod = Pod {
    name: "bare",
    node: Node::A,
    host: 12,
    mode: "off",
};
pub static WEB: Pod = Pod {
    name: "web",
    node: Node::B,
    host: 10,
    mode: "require",
};
pub static DB: Pod = Pod {
    name: "db",
    node: Node::B,
    host: 20,
    mode: "require",
};
pub static CACHE: Pod = Pod {
    name: "cache",
    node: Node::B,
    host: 30,
    mode: "require",
};
pub static MAIL: Pod = Pod {
    name: "mail",
    node: Node::B,
    host: 40,
    mode: "require",
};
pub static LOAD: Pod = Pod {
    name: "load",
    node: Node::B,
    host: 50,
    mode: "require",
};
pub static BARELOAD: Pod = Pod {
    name: "bareload",
    node: Node::B,
    host: 60,
    mode: "off",
};

pub static PODS: [&Pod; 9] = [
    &CLIENT, &LOCAL, &BARE, &WEB, &DB, &CACHE, &MAIL, &LOAD, &BARELOAD,
];

pub const LOAD_PORT: u16 = 7000;
pub const WEB_PORT: u16 = 8080;
pub const DB_PORT: u16 = 5432;
pub const CACHE_PORT: u16 = 6379;
pub const MAIL_PORT: u16 = 25;

pub static SERVICES: [Service; 5] = [
    Service {
        pod: &WEB,
        port: 80,
        pod_port: WEB_PORT,
    },
    Service {
        pod: &DB,
        port: DB_PORT,
        pod_port: DB_PORT,
    },
    Service {
        pod: &CACHE,
        port: CACHE_PORT,
        pod_port: CACHE_PORT,
    },
    Service {
        pod: &MAIL,
        port: MAIL_PORT,
        pod_port: MAIL_PORT,
    },
    Service {
        pod: &LOAD,
        port: LOAD_PORT,
        pod_port: LOAD_PORT,
    },
];

impl Node {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    fn number(self) -> u8 {
        match self {
            Self::A => 1,
            Self::B => 2,
        }
    }

    /// Its address on the wire.
    #[must_use]
    pub fn v4(self) -> Ipv4Addr {
        Ipv4Addr::new(192, 0, 2, self.number())
    }

    #[must_use]
    pub fn v6(self) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, self.number().into())
    }

    /// The gateway of its pods.
    #[must_use]
    pub fn gateway_v4(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 244, self.number(), 1)
    }

    #[must_use]
    pub fn pods_v4(self) -> String {
        format!("10.244.{}.0/24", self.number())
    }

    #[must_use]
    pub fn pods_v6(self) -> String {
        format!("fd00:244:{}::/64", self.number())
    }

    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    pub fn pods(self) -> impl Iterator<Item = &'static Pod> {
        PODS.into_iter().filter(move |pod| pod.node == self)
    }
}

impl Pod {
    #[must_use]
    pub fn v4(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 244, self.node.number(), self.host)
    }

    /// Reads like the IPv4 address: `fd00:244:1::10` beside `10.244.1.10`.
    #[must_use]
    pub fn v6(&self) -> Ipv6Addr {
        let last = same_digits(self.host);
        Ipv6Addr::new(0xfd00, 0x244, self.node.number().into(), 0, 0, 0, 0, last)
    }

    #[must_use]
    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.v4().into(), self.v6().into()]
    }

    #[must_use]
    pub fn spiffe_id(&self) -> String {
        format!("spiffe://{TRUST_DOMAIN}/ns/default/sa/{}", self.name)
    }

    /// The directory's instance of it.
    #[must_use]
    pub fn uid(&self) -> String {
        format!("{}-1", self.name)
    }
}

impl Service {
    #[must_use]
    pub fn v4(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 96, 0, self.pod.host)
    }

    #[must_use]
    pub fn v6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, same_digits(self.pod.host))
    }
}

/// The number whose hexadecimal digits are `number`'s decimal ones.
fn same_digits(number: u8) -> u16 {
    let number = u16::from(number);
    ((number / 100) << 8) | ((number / 10 % 10) << 4) | (number % 10)
}

/// Where a process runs: a node itself, or one of its pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Node(Node),
    Pod(&'static Pod),
}

impl Place {
    /// # Errors
    /// When nothing in the lab has that name.
    pub fn parse(name: &str) -> Result<Self> {
        if let Some(node) = NODES.into_iter().find(|node| node.name() == name) {
            return Ok(Self::Node(node));
        }
        let Some(pod) = PODS.into_iter().find(|pod| pod.name == name) else {
            let names: Vec<_> = PODS.iter().map(|pod| pod.name).collect();
            bail!(
                "{name:?} is neither a node (a, b) nor a pod ({})",
                names.join(", ")
            );
        };
        Ok(Self::Pod(pod))
    }

    #[must_use]
    pub fn node(self) -> Node {
        match self {
            Self::Node(node) => node,
            Self::Pod(pod) => pod.node,
        }
    }

    #[must_use]
    pub fn netns(self, run: &Run) -> String {
        format!("kedge-{run}-{self}")
    }
}

impl From<Node> for Place {
    fn from(node: Node) -> Self {
        Self::Node(node)
    }
}

impl From<&'static Pod> for Place {
    fn from(pod: &'static Pod) -> Self {
        Self::Pod(pod)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Node(node) => node.name(),
            Self::Pod(pod) => pod.name,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn both_families_read_alike() {
        assert_eq!(CLIENT.v4().to_string(), "10.244.1.10");
        assert_eq!(CLIENT.v6().to_string(), "fd00:244:1::10");
        assert_eq!(SERVICES[0].v6().to_string(), "fd00:96::10");
    }

    #[test]
    fn no_address_or_name_is_given_twice() {
        let addresses: HashSet<_> = PODS.iter().flat_map(|pod| pod.addresses()).collect();
        let names: HashSet<_> = PODS
            .iter()
            .map(|pod| pod.name)
            .chain(NODES.map(Node::name))
            .collect();
        assert_eq!(addresses.len(), 2 * PODS.len());
        assert_eq!(names.len(), PODS.len() + NODES.len());
    }

    #[test]
    fn an_unknown_place_lists_the_known_ones() {
        let error = Place::parse("moon").expect_err("no such place").to_string();
        assert!(
            error.contains("client") && error.contains("bareload"),
            "{error}"
        );
    }
}
