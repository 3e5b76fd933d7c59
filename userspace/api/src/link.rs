//! `kedge link list`: the sessions with other nodes.

use kedge_model::{SpiffeId, Suite};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Links {
    pub links: Vec<Link>,
}

/// A live link, or the last attempt to make one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    pub peer: SpiffeId,
    pub state: LinkState,
    /// 32 hexadecimal digits, once established.
    pub link_id: Option<String>,
    /// Which side of the handshake this daemon is.
    pub role: TlsRole,
    /// The key exchange group, such as `X25519MLKEM768`.
    pub group: Option<String>,
    pub tls_suite: Option<String>,
    pub flow_suite: Option<Suite>,
    /// Since it was established, or since the attempt began.
    pub age_s: u64,
    /// Flows that this daemon opened over it.
    pub flows_opened: u64,
    /// Flows that the peer opened over it.
    pub flows_accepted: u64,
    /// The peer's workload identities that are proven on it.
    pub identities: u64,
    /// Full handshakes with this peer since the daemon started.
    pub handshakes_total: u64,
    pub last_error: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkState {
    Connecting,
    Established,
    /// Takes no new flows; a successor is there or the daemon ends.
    Draining,
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsRole {
    Client,
    Server,
}
