//! What goes into a session at its start, and what comes out of it.

use crate::inbound::Inbound;
use crate::outbound::Outbound;
use crate::wire::{
    Attesting, Handle, InstanceId, LinkId, ProofKind, RejectTarget, Role, Shown, Verdict,
};
use kedge_identity::PeerIdentity;
use kedge_model::{Refusal, SpiffeId, Suite};
use kedge_record::Rekey;
use rustls_pki_types::UnixTime;
use std::time::Instant;

/// What every session needs from outside.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    pub now: Instant,
    /// For the validity of certificates.
    pub unix_time: UnixTime,
    /// Fresh for each session.
    pub random: [u8; 32],
}

/// What the dialling side needs besides.
#[derive(Clone, Debug)]
pub struct ClientStart {
    pub start: Start,
    /// The node that must answer.
    pub expected_peer: SpiffeId,
    /// The link that this one replaces, if any.
    pub renews: Option<LinkId>,
}

/// What happened on the control connection.
pub enum SessionEvent {
    /// Once, after both hellos.
    Established(Box<Established>),
    /// The peer says that `id` runs on its node: check the directory, then
    /// [`accept`](crate::Session::accept) or [`reject`](crate::Session::reject).
    Announced {
        handle: Handle,
        id: SpiffeId,
        proof: ProofKind,
    },
    /// The peer has a flow for `id`: [`announce`](crate::Session::announce) it, or
    /// [`reject_request`](crate::Session::reject_request).
    Requested { id: SpiffeId },
    /// Our flows may name this handle of ours.
    Accepted { handle: Handle },
    /// The peer takes no flows under our handle, or will not announce what we asked for.
    Rejected {
        target: RejectTarget,
        refusal: Refusal,
    },
    /// The peer, TLS server of this link, asks us for a new one.
    RenewalAsked,
    /// The peer opens no more flows on this link.
    Draining,
    /// The peer shows what it has been attested, which the caller is to judge.
    Shown(Shown),
    /// What the peer makes of what it was shown.
    Verdict(Verdict),
    /// The peer closed the control connection cleanly.
    Closed,
}

/// A link, established. The keys are in `outbound` and `inbound` and nowhere else.
pub struct Established {
    pub peer: PeerIdentity,
    pub peer_instance: InstanceId,
    /// The instance of the peer's node that this one takes over from, if any.
    pub peer_successor_of: Option<InstanceId>,
    pub link_id: LinkId,
    /// Ours.
    pub role: Role,
    /// The node that dialled: ours or the peer's.
    pub tls_client: SpiffeId,
    /// The link that this one replaces, as the TLS client said.
    pub renews: Option<LinkId>,
    /// The key exchange group, such as `X25519MLKEM768`.
    pub group: String,
    /// The suite of the control connection.
    pub tls_suite: Suite,
    /// The suite of all flows.
    pub flow_suite: Suite,
    /// What all flows do at the end of a key.
    pub rekey: Rekey,
    /// What we and the peer do about attestation. Where either says nothing, neither shows anything.
    pub attesting: [Option<Attesting>; 2],
    /// TLS bytes until both hellos were there.
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub outbound: Outbound,
    pub inbound: Inbound,
}
