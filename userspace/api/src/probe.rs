//! What kedged says to a connection that was made to itself: see `kedge doctor`.

use kedge_model::{NodeName, Refusal, SpiffeId};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// One line of JSON, after which the connection ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    pub node: NodeName,
    /// Whom the daemon accepted.
    pub client: SocketAddr,
    /// Network namespace of the connecting socket, as the programs filed it (SO_NETNS_COOKIE).
    pub netns_cookie: u64,
    /// The workload that the daemon takes it for.
    pub workload: Option<SpiffeId>,
    /// Why every connection from there is refused, if it is.
    pub refusal: Option<Refusal>,
}
