//! One control connection: TLS, hello, identities, renewal.

mod establish;
mod input;

use crate::agreement;
use crate::config::LinkConfig;
use crate::error::{LinkError, PeerMisbehaved, PeerUnauthenticated};
use crate::event::{ClientStart, SessionEvent, Start};
use crate::identities::Identities;
use crate::limits::{EVENTS_MAX, HANDSHAKE_TIMEOUT, TRANSMIT_BACKLOG_MAX};
use crate::tls;
use crate::verify::NodeVerifier;
use crate::wire::{Frame, Handle, Hello, ProofKind, RejectTarget, Role, Shown, Verdict};
use kedge_model::{Refusal, SpiffeId};
use rustls::Connection;
use std::collections::VecDeque;
use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

/// The state machine of one control connection. After an error every call fails with it again;
/// [`poll_transmit`](Self::poll_transmit) still gives the alert that tells the peer.
pub struct Session {
    config: Arc<LinkConfig>,
    verifier: Arc<NodeVerifier>,
    tls: Connection,
    role: Role,
    phase: Phase,
    deadline: Instant,
    plaintext: Vec<u8>,
    events: VecDeque<SessionEvent>,
    identities: Identities,
    /// Whether both hellos say that Results are shown.
    shows_results: bool,
    bytes_sent: u64,
    bytes_received: u64,
}

enum Phase {
    /// TLS is not done. Our hello is ready.
    Handshaking(Hello),
    /// Our hello is sent.
    AwaitingHello(Hello),
    Established,
    /// The peer sent close_notify.
    Closed,
    Failed(LinkError),
}

impl Session {
    /// Begins to dial: [`poll_transmit`](Self::poll_transmit) gives the ClientHello.
    ///
    /// # Errors
    /// When our own certificate or configuration is unusable, or the peer is to be ourselves.
    pub fn client(config: &Arc<LinkConfig>, dial: ClientStart) -> Result<Self, LinkError> {
        let ClientStart {
            start,
            expected_peer,
            renews,
        } = dial;
        if expected_peer == config.id {
            return Err(PeerUnauthenticated::OurOwnId(expected_peer).into());
        }
        let verifier = NodeVerifier::new(config, Some(expected_peer));
        let tls = tls::connect(config, Arc::clone(&verifier), start.unix_time)
            .map_err(LinkError::Internal)?;
        let hello = agreement::create_hello(config, start.random, renews);
        Ok(Self::new(config, verifier, tls, hello, start.now))
    }

    /// Awaits a ClientHello.
    ///
    /// # Errors
    /// When our own certificate or configuration is unusable.
    pub fn server(config: &Arc<LinkConfig>, start: Start) -> Result<Self, LinkError> {
        let verifier = NodeVerifier::new(config, None);
        let tls = tls::accept(config, Arc::clone(&verifier), start.unix_time)
            .map_err(LinkError::Internal)?;
        let hello = agreement::create_hello(config, start.random, None);
        Ok(Self::new(config, verifier, tls, hello, start.now))
    }

    /// Takes all of `bytes`, as they came from the socket. Then ask for events and bytes to send.
    ///
    /// # Errors
    /// The link is over; whose fault it is says the error.
    pub fn handle_input(&mut self, now: Instant, bytes: &[u8]) -> Result<(), LinkError> {
        self.check_alive()?;
        let result = self.read(now, bytes);
        self.note(result)
    }

    /// The socket has reached its end.
    ///
    /// # Errors
    /// When the peer had not closed the connection in its own name.
    pub fn handle_end(&mut self) -> Result<(), LinkError> {
        self.check_alive()?;
        let result = match self.phase {
            Phase::Closed => Ok(()),
            _ => Err(LinkError::ConnectionLost),
        };
        self.note(result)
    }

    /// When [`handle_timeout`](Self::handle_timeout) should be called, if ever.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.is_establishing().then_some(self.deadline)
    }

    /// # Errors
    /// When the link is not established in time.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), LinkError> {
        self.check_alive()?;
        let late = self.is_establishing() && now >= self.deadline;
        self.note(if late {
            Err(LinkError::TimedOut)
        } else {
            Ok(())
        })
    }

    /// Appends what is to be sent; whether there was anything.
    pub fn poll_transmit(&mut self, out: &mut Vec<u8>) -> bool {
        let before = out.len();
        while self.tls.wants_write() {
            self.tls.write_tls(out).expect("a Vec takes every byte");
        }
        self.bytes_sent += (out.len() - before) as u64;
        out.len() > before
    }

    /// The next event, until there is none.
    pub fn poll_event(&mut self) -> Option<SessionEvent> {
        self.events.pop_front()
    }

    /// Says that `id` runs on our node. The same identity gives the same handle, and is sent
    /// once, unless the peer rejected it meanwhile.
    ///
    /// # Errors
    /// When the link is not established, or has too many identities.
    pub fn announce(&mut self, id: &SpiffeId) -> Result<Handle, LinkError> {
        self.check_established()?;
        let (handle, is_new) = self.identities.announce(id)?;
        if is_new {
            let proof = ProofKind::AssertedByNode;
            self.send(&Frame::Announce {
                handle,
                proof,
                id: id.clone(),
            })?;
        }
        Ok(handle)
    }

    /// Asks the peer to announce one of its workloads.
    ///
    /// # Errors
    /// When the link is not established.
    pub fn request(&mut self, id: &SpiffeId) -> Result<(), LinkError> {
        self.send_established(&Frame::Request { id: id.clone() })
    }

    /// Lets the peer's flows name its `handle`.
    ///
    /// # Errors
    /// When the link is not established, or the peer never announced this handle.
    pub fn accept(&mut self, handle: Handle) -> Result<(), LinkError> {
        self.identities.check_theirs(handle)?;
        self.send_established(&Frame::Accept { handle })
    }

    /// Refuses an announcement of the peer.
    ///
    /// # Errors
    /// When the link is not established, or the peer never announced this handle.
    pub fn reject(&mut self, handle: Handle, refusal: Refusal) -> Result<(), LinkError> {
        self.identities.check_theirs(handle)?;
        self.send_established(&Frame::Reject {
            target: RejectTarget::Handle(handle),
            refusal,
        })
    }

    /// Refuses to announce what the peer requested.
    ///
    /// # Errors
    /// When the link is not established.
    pub fn reject_request(&mut self, id: &SpiffeId, refusal: Refusal) -> Result<(), LinkError> {
        self.send_established(&Frame::Reject {
            target: RejectTarget::Id(id.clone()),
            refusal,
        })
    }

    /// As TLS server, asks the peer to make a new link. A TLS client makes one itself.
    ///
    /// # Errors
    /// When the link is not established, or we are its TLS client.
    pub fn ask_renewal(&mut self) -> Result<(), LinkError> {
        if self.role == Role::TlsClient {
            return Err(LinkError::ApiMisuse(
                "only the TLS server asks for a new link",
            ));
        }
        self.send_established(&Frame::Renew)
    }

    /// Says that we open no more flows on this link.
    ///
    /// # Errors
    /// When the link is not established.
    pub fn drain(&mut self) -> Result<(), LinkError> {
        self.send_established(&Frame::Drain)
    }

    /// Shows the peer what we have been attested; again whenever there is something newer.
    ///
    /// # Errors
    /// When the link is not established, or not both sides show Results.
    pub fn show(&mut self, shown: Shown) -> Result<(), LinkError> {
        self.send_attestation(&Frame::Result(shown))
    }

    /// Tells the peer what we make of what it has shown.
    ///
    /// # Errors
    /// When the link is not established, or not both sides show Results.
    pub fn tell_verdict(&mut self, verdict: Verdict) -> Result<(), LinkError> {
        self.send_attestation(&Frame::Verdict(verdict))
    }

    /// Ends our direction cleanly. Nothing can be sent afterwards.
    pub fn close(&mut self) {
        self.tls.send_close_notify();
    }

    fn new(
        config: &Arc<LinkConfig>,
        verifier: Arc<NodeVerifier>,
        mut tls: Connection,
        hello: Hello,
        now: Instant,
    ) -> Self {
        tls.set_buffer_limit(Some(TRANSMIT_BACKLOG_MAX));
        let role = match tls {
            Connection::Client(_) => Role::TlsClient,
            Connection::Server(_) => Role::TlsServer,
        };
        Self {
            config: Arc::clone(config),
            verifier,
            tls,
            role,
            phase: Phase::Handshaking(hello),
            deadline: now + HANDSHAKE_TIMEOUT,
            plaintext: Vec::new(),
            events: VecDeque::new(),
            identities: Identities::default(),
            shows_results: false,
            bytes_sent: 0,
            bytes_received: 0,
        }
    }

    fn send_established(&mut self, frame: &Frame) -> Result<(), LinkError> {
        self.check_established()?;
        self.send(frame)
    }

    fn send_attestation(&mut self, frame: &Frame) -> Result<(), LinkError> {
        if !self.shows_results {
            return Err(LinkError::ApiMisuse("not both sides show Results"));
        }
        // It may have refused us and closed while we were still looking at what it shows.
        if matches!(self.phase, Phase::Closed) {
            return Ok(());
        }
        self.send_established(frame)
    }

    fn send(&mut self, frame: &Frame) -> Result<(), LinkError> {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        let full = LinkError::OverLimit {
            what: "bytes of control frames waiting to be sent",
            limit: TRANSMIT_BACKLOG_MAX,
        };
        let result = self.tls.writer().write_all(&bytes).map_err(|_| full);
        self.note(result)
    }

    fn push(&mut self, event: SessionEvent) -> Result<(), LinkError> {
        if self.events.len() >= EVENTS_MAX {
            return Err(PeerMisbehaved::TooMany {
                what: "frames at once",
                limit: EVENTS_MAX,
            }
            .into());
        }
        self.events.push_back(event);
        Ok(())
    }

    fn is_establishing(&self) -> bool {
        matches!(self.phase, Phase::Handshaking(_) | Phase::AwaitingHello(_))
    }

    fn check_established(&self) -> Result<(), LinkError> {
        self.check_alive()?;
        match self.phase {
            Phase::Established => Ok(()),
            _ => Err(LinkError::ApiMisuse(
                "the link is not established, or closed",
            )),
        }
    }

    fn check_alive(&self) -> Result<(), LinkError> {
        match &self.phase {
            Phase::Failed(error) => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// Remembers an error: a session that failed once stays failed.
    fn note(&mut self, result: Result<(), LinkError>) -> Result<(), LinkError> {
        if let Err(error) = &result {
            self.phase = Phase::Failed(error.clone());
        }
        result
    }
}
