//! What can be wrong with a directory: always the writer's fault, so every error says where.

use kedge_model::{NodeName, SpiffeId};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryError {
    /// Not TOML, an unknown or missing key, or a value of the wrong form.
    #[error("directory line {line}: {}", cause.message())]
    Syntax {
        line: usize,
        cause: Box<toml::de::Error>,
    },
    /// Well-formed, but it cannot be true.
    #[error("directory line {line}: {problem}")]
    Content { line: usize, problem: Problem },
    #[error("directory is larger than {limit} bytes")]
    TooLarge { limit: usize },
    /// Two different directories with versions that do not grow.
    #[error(
        "directory version {offered} does not follow version {have}: raise `version` with every \
         change"
    )]
    NotNewer { have: u64, offered: u64 },
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    #[error("{second} has address {address}, which {first} has already")]
    AddressTaken {
        address: IpAddr,
        first: Owner,
        second: Owner,
    },
    #[error(
        "{owner} has address {address}: loopback, link-local, metadata, multicast and unspecified addresses are nobody's place"
    )]
    NotDeliverable { owner: Owner, address: IpAddr },
    #[error("{0} has no address")]
    NoAddress(Owner),
    #[error("{0} is there twice")]
    Duplicate(Owner),
    #[error("two services answer at {address} port {port}: {first} and {second}")]
    ServiceTaken {
        address: IpAddr,
        port: u16,
        first: String,
        second: String,
    },
    #[error(
        "{workload} is on node {node}, which is not in the directory: add a [[node]] named {node}"
    )]
    UnknownNode { workload: Owner, node: NodeName },
    #[error("{service} has an endpoint with uid {uid:?}, which no [[workload]] has")]
    UnknownUid { service: Owner, uid: String },
    #[error("{owner} has id {id}: identities below /kedge/ belong to daemons")]
    ReservedId { owner: Owner, id: SpiffeId },
    #[error("{owner} has cgroup {cgroup:?}: it must be a path below cgroup_root without '..'")]
    Cgroup { owner: Owner, cgroup: String },
    #[error("{second} has cgroup {cgroup:?}, which {first} has already")]
    CgroupTaken {
        cgroup: String,
        first: Owner,
        second: Owner,
    },
    #[error("{0} has port 0")]
    PortZero(Owner),
    #[error("a uid has 1 to {limit} bytes, this one has {len}")]
    UidLength { len: usize, limit: usize },
    #[error("more than {limit} {what}")]
    TooMany { what: &'static str, limit: usize },
}

/// Whose entry a problem is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    Node(NodeName),
    Workload(Arc<str>),
    Service(String),
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(name) => write!(f, "node {name}"),
            Self::Workload(uid) => write!(f, "workload {uid}"),
            Self::Service(name) => write!(f, "service {name}"),
        }
    }
}

/// The line, from 1, in which byte `offset` of `text` stands.
pub(crate) fn line_at(text: &str, offset: usize) -> usize {
    let before = &text.as_bytes()[..offset.min(text.len())];
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}
