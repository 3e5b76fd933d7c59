//! Errors by whose fault they are. Texts say what an operator can do.

use crate::wire::{Handle, WireError};
use kedge_identity::SvidError;
use kedge_model::{Refusal, SpiffeId};
use std::sync::Arc;

/// Why a link ended or was never made. Final for its [`Session`](crate::Session), except for
/// `ApiMisuse` and too many identities of our own: send what `poll_transmit` still gives (an
/// alert), then close the connection.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The peer is not who it must be. Never retried with less.
    #[error("authenticate peer: {0}")]
    PeerUnauthenticated(#[from] PeerUnauthenticated),
    /// Both are honest, but speak nothing in common.
    #[error("agree with peer: {0}")]
    PeerIncompatible(#[from] PeerIncompatible),
    /// The peer breaks the protocol.
    #[error("read from peer: {0}")]
    PeerMisbehaved(#[from] PeerMisbehaved),
    /// The peer ended the handshake with an alert. Before it authenticated itself anybody on the
    /// path can send one, so it never lowers what is offered next.
    #[error(
        "handshake: the peer refused with alert {0:?}: its log, or `kedge event follow` there, says why"
    )]
    RefusedByPeer(rustls::AlertDescription),
    #[error(
        "handshake: not finished within 5 s: check that kedged runs on the peer's node and that no firewall drops its peer port"
    )]
    TimedOut,
    /// The connection ended without close_notify.
    #[error(
        "control connection: cut without close_notify: look whether the peer's kedged was killed, or the path is broken"
    )]
    ConnectionLost,
    /// Our caller's fault.
    #[error("use of link: {0}")]
    ApiMisuse(&'static str),
    #[error("use of link: at the limit of {limit} {what}")]
    OverLimit { what: &'static str, limit: usize },
    /// Our certificate, key or crypto library.
    #[error("own TLS configuration")]
    Internal(#[source] rustls::Error),
}

#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeerUnauthenticated {
    #[error("its certificate is refused: {0}; {remedy}", remedy = .0.remedy())]
    Svid(#[source] Arc<SvidError>),
    #[error(
        "dialled {expected}, found {found}: compare the node's addresses in the directory with where its kedged listens"
    )]
    OtherNode { expected: SpiffeId, found: SpiffeId },
    #[error(
        "it presents our own identity {0}: two nodes have the same certificate, or the directory gives our address to another node"
    )]
    OurOwnId(SpiffeId),
    #[error("it presents no certificate: it is not a kedged, or has no SVID yet")]
    NoCertificate,
    #[error(
        "its handshake signature does not verify under its certificate: treat the peer, or the path to it, as compromised"
    )]
    Signature,
}

#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeerIncompatible {
    #[error(
        "no key exchange group in common; kedge requires X25519MLKEM768: update kedge on the older node"
    )]
    NoPostQuantumGroup,
    #[error(
        "no application protocol {protocol:?} in common: what listens there is not kedged, or of another major version",
        protocol = "kedge/1"
    )]
    NoProtocol,
    #[error("no link version in common: update kedge on the older node")]
    NoVersion,
    #[error("no record suite in common: compare `[records] suites` of both nodes")]
    NoRecordSuite,
    #[error("TLS 1.3 is not possible: {0:?}")]
    Tls(rustls::PeerIncompatible),
}

#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeerMisbehaved {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("TLS: {0}")]
    Tls(rustls::Error),
    #[error("{what} {got:#06x} was negotiated where {best:#06x} is the best that both offer")]
    BelowCommonBest {
        what: &'static str,
        got: u16,
        best: u16,
    },
    #[error("a frame before its hello")]
    FrameBeforeHello,
    #[error("a second hello")]
    SecondHello,
    #[error("{0} sent by the wrong side of the link")]
    WrongSide(&'static str),
    #[error("a frame {0}, which was not agreed on")]
    NotAgreed(&'static str),
    #[error("handle {} was announced before, or out of order", .0.0)]
    HandleReused(Handle),
    #[error("handle {} was never announced to it", .0.0)]
    UnknownHandle(Handle),
    #[error("more than {limit} {what}")]
    TooMany { what: &'static str, limit: usize },
}

/// Why a carrier opening or a first flight is not taken. None of them changes any state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlightError {
    #[error("first flight: {0}")]
    Wire(#[from] WireError),
    #[error("first flight: of another link")]
    OtherLink,
    #[error("first flight: carries our own role, so it was reflected")]
    Reflected,
    #[error("first flight: suite is not the one agreed for this link")]
    OtherSuite,
    #[error("first flight: number {0} was taken before")]
    Replayed(u64),
    #[error("first flight: number {0} is older than the window")]
    TooOld(u64),
    #[error("first flight: epoch {0} is more than 64 ahead of any that was authenticated")]
    EpochTooFar(u32),
    #[error("first flight: the secret of epoch {0} is erased")]
    EpochErased(u32),
    #[error("first flight: does not open under this link's keys")]
    Forged,
}

impl FlightError {
    /// As events and answers name it.
    #[must_use]
    pub fn refusal(self) -> Refusal {
        match self {
            Self::Replayed(_) | Self::TooOld(_) | Self::EpochErased(_) => Refusal::Replayed,
            Self::OtherLink => Refusal::UnknownLink,
            Self::Wire(_)
            | Self::Reflected
            | Self::OtherSuite
            | Self::EpochTooFar(_)
            | Self::Forged => Refusal::BadFlight,
        }
    }
}

/// Why a continuation is not taken. None of them changes any state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContinuationError {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("continuation: its tag is not that of the flow that it names")]
    Forged,
    #[error("continuation: that of generation {0} was taken before")]
    Replayed(u32),
    #[error("continuation: generation {0} is not the next one")]
    TooFar(u32),
}

impl ContinuationError {
    /// As events name it.
    #[must_use]
    pub fn refusal(self) -> Refusal {
        match self {
            Self::Replayed(_) => Refusal::Replayed,
            Self::Wire(_) | Self::Forged | Self::TooFar(_) => Refusal::BadFlight,
        }
    }
}

/// The link has no flow number or epoch left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("open flow: the link has used up its flow numbers; a new link is needed")]
pub struct Exhausted;

impl LinkError {
    /// Short, stable name: a metric's label.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::PeerUnauthenticated(reason) => reason.label(),
            Self::PeerIncompatible(reason) => reason.label(),
            Self::PeerMisbehaved(reason) => reason.label(),
            Self::RefusedByPeer(_) => "refused-by-peer",
            Self::TimedOut => "timed-out",
            Self::ConnectionLost => "connection-lost",
            Self::ApiMisuse(_) | Self::OverLimit { .. } | Self::Internal(_) => "internal",
        }
    }

    /// What TLS said, by fault.
    pub(crate) fn from_tls(error: rustls::Error) -> Self {
        use rustls::{CertificateError, Error};
        match error {
            Error::InvalidCertificate(CertificateError::Other(other)) => {
                match other.0.downcast_ref::<PeerUnauthenticated>() {
                    Some(ours) => ours.clone().into(),
                    None => PeerUnauthenticated::Signature.into(),
                }
            }
            Error::InvalidCertificate(_) => PeerUnauthenticated::Signature.into(),
            Error::NoCertificatesPresented => PeerUnauthenticated::NoCertificate.into(),
            Error::NoApplicationProtocol => PeerIncompatible::NoProtocol.into(),
            Error::PeerIncompatible(reason) => PeerIncompatible::from_tls(reason).into(),
            Error::AlertReceived(alert) => Self::RefusedByPeer(alert),
            error @ (Error::PeerMisbehaved(_)
            | Error::InvalidMessage(_)
            | Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. }
            | Error::DecryptError
            | Error::PeerSentOversizedRecord) => PeerMisbehaved::Tls(error).into(),
            other => Self::Internal(other),
        }
    }
}

impl PeerUnauthenticated {
    fn label(&self) -> &'static str {
        match self {
            Self::Svid(error) => error.label(),
            Self::OtherNode { .. } => "other-node",
            Self::OurOwnId(_) => "our-own-identity",
            Self::NoCertificate => "no-certificate",
            Self::Signature => "bad-signature",
        }
    }
}

impl PeerMisbehaved {
    fn label(&self) -> &'static str {
        match self {
            Self::Wire(_) => "malformed-frame",
            Self::Tls(_) => "malformed-tls",
            Self::BelowCommonBest { .. } => "below-common-best",
            Self::FrameBeforeHello
            | Self::SecondHello
            | Self::WrongSide(_)
            | Self::NotAgreed(_) => "unexpected-frame",
            Self::HandleReused(_) | Self::UnknownHandle(_) => "unknown-handle",
            Self::TooMany { .. } => "too-much-at-once",
        }
    }
}

impl PeerIncompatible {
    fn label(&self) -> &'static str {
        match self {
            Self::NoPostQuantumGroup => "no-post-quantum-group",
            Self::NoProtocol => "no-protocol-in-common",
            Self::NoVersion => "no-version-in-common",
            Self::NoRecordSuite => "no-suite-in-common",
            Self::Tls(_) => "no-tls-1.3",
        }
    }

    fn from_tls(reason: rustls::PeerIncompatible) -> Self {
        match reason {
            rustls::PeerIncompatible::NoKxGroupsInCommon
            | rustls::PeerIncompatible::NamedGroupsExtensionRequired
            | rustls::PeerIncompatible::KeyShareExtensionRequired => Self::NoPostQuantumGroup,
            other => Self::Tls(other),
        }
    }
}

impl From<WireError> for LinkError {
    fn from(error: WireError) -> Self {
        PeerMisbehaved::Wire(error).into()
    }
}
