//! The file's form, before its content is checked. docs/directory.md describes it.

use crate::error::{DirectoryError, line_at};
use crate::limits::TEXT_BYTES_MAX;
use ipnet::IpNet;
use kedge_model::{NodeName, SpiffeId};
use serde::Deserialize;
use std::net::IpAddr;
use toml::Spanned;

const PEER_PORT_DEFAULT: u16 = 15443;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawDirectory {
    pub version: u64,
    #[serde(default)]
    pub managed: Vec<IpNet>,
    #[serde(default, rename = "node")]
    pub nodes: Vec<Spanned<RawNode>>,
    #[serde(default, rename = "workload")]
    pub workloads: Vec<Spanned<RawWorkload>>,
    #[serde(default, rename = "service")]
    pub services: Vec<Spanned<RawService>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawNode {
    pub name: NodeName,
    pub addresses: Vec<Spanned<IpAddr>>,
    #[serde(default = "peer_port_default")]
    pub peer_port: u16,
    #[serde(default = "kedge_default")]
    pub kedge: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawWorkload {
    pub uid: String,
    pub id: SpiffeId,
    pub node: NodeName,
    pub addresses: Vec<Spanned<IpAddr>>,
    pub cgroup: String,
    #[serde(default)]
    pub ports: Vec<u16>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawService {
    pub name: String,
    pub addresses: Vec<Spanned<IpAddr>>,
    pub port: u16,
    #[serde(default)]
    pub endpoints: Vec<Spanned<RawEndpoint>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawEndpoint {
    pub uid: String,
    pub port: u16,
}

fn peer_port_default() -> u16 {
    PEER_PORT_DEFAULT
}

fn kedge_default() -> bool {
    true
}

pub(crate) fn parse(text: &str) -> Result<RawDirectory, DirectoryError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(DirectoryError::TooLarge {
            limit: TEXT_BYTES_MAX,
        });
    }
    toml::from_str(text).map_err(|cause| DirectoryError::Syntax {
        line: line_at(text, cause.span().map_or(0, |span| span.start)),
        cause: Box::new(cause),
    })
}
