//! One control connection: TLS, hello, identities, renewal.

use crate::agreement::{self, Negotiated};
use crate::config::LinkConfig;
use crate::error::{LinkError, PeerIncompatible, PeerMisbehaved, PeerUnauthenticated};
use crate::event::{ClientStart, Established, SessionEvent, Start};
use crate::identities::Identities;
use crate::inbound::Inbound;
use crate::limits::{EVENTS_MAX, HANDSHAKE_TIMEOUT, TRANSMIT_BACKLOG_MAX};
use crate::outbound::Outbound;
use crate::schedule::{EXPORTER_LABEL, LinkSecrets, SECRET_LEN};
use crate::tls;
use crate::verify::NodeVerifier;
use crate::wire::{Frame, Handle, Hello, ProofKind, RejectTarget, Role};
use aws_lc_rs::digest::{Context, Digest, SHA384};
use kedge_model::{Refusal, SpiffeId, Suite};
use rustls::{Connection, HandshakeKind};
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Instant;
use zeroize::Zeroizing;

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
            bytes_sent: 0,
            bytes_received: 0,
        }
    }

    fn read(&mut self, now: Instant, mut bytes: &[u8]) -> Result<(), LinkError> {
        while !bytes.is_empty() {
            let taken = self
                .tls
                .read_tls(&mut bytes)
                .map_err(|_| PeerMisbehaved::TooMany {
                    what: "bytes of one TLS message",
                    limit: TRANSMIT_BACKLOG_MAX,
                })?;
            if taken == 0 {
                // RFC 8446, 6.1: what follows a close_notify is ignored.
                return Ok(());
            }
            self.bytes_received += taken as u64;
            let state = self
                .tls
                .process_new_packets()
                .map_err(LinkError::from_tls)?;
            self.leave_handshake()?;
            self.take_plaintext(state.plaintext_bytes_to_read());
            self.handle_frames(now)?;
            if state.peer_has_closed() {
                self.leave_open()?;
            }
        }
        Ok(())
    }

    fn take_plaintext(&mut self, len: usize) {
        let start = self.plaintext.len();
        self.plaintext.resize(start + len, 0);
        let fresh = &mut self.plaintext[start..];
        self.tls
            .reader()
            .read_exact(fresh)
            .expect("TLS said that so many bytes are there");
    }

    /// Once TLS is done, checks what it negotiated and sends our hello.
    fn leave_handshake(&mut self) -> Result<(), LinkError> {
        if self.tls.is_handshaking() {
            return Ok(());
        }
        let Phase::Handshaking(hello) = &self.phase else {
            return Ok(());
        };
        let hello = hello.clone();
        self.check_tls()?;
        self.send(&Frame::Hello(hello.clone()))?;
        self.phase = Phase::AwaitingHello(hello);
        Ok(())
    }

    fn check_tls(&self) -> Result<(), LinkError> {
        if self.tls.alpn_protocol() != Some(tls::ALPN) {
            return Err(PeerIncompatible::NoProtocol.into());
        }
        if self.verifier.peer().is_none() {
            return Err(PeerUnauthenticated::NoCertificate.into());
        }
        assert!(
            self.tls.handshake_kind() != Some(HandshakeKind::Resumed),
            "no session is ever stored, so none can be resumed"
        );
        Ok(())
    }

    fn leave_open(&mut self) -> Result<(), LinkError> {
        match self.phase {
            Phase::Established => {
                self.phase = Phase::Closed;
                self.push(SessionEvent::Closed)
            }
            Phase::Closed => Ok(()),
            _ => Err(LinkError::ConnectionLost),
        }
    }

    fn handle_frames(&mut self, now: Instant) -> Result<(), LinkError> {
        let mut plaintext = std::mem::take(&mut self.plaintext);
        let mut taken = 0;
        while let Some((frame, len)) = Frame::parse(&plaintext[taken..])? {
            taken += len;
            self.handle_frame(now, frame)?;
        }
        plaintext.drain(..taken);
        self.plaintext = plaintext;
        Ok(())
    }

    fn handle_frame(&mut self, now: Instant, frame: Frame) -> Result<(), LinkError> {
        match (&self.phase, frame) {
            (Phase::AwaitingHello(ours), Frame::Hello(theirs)) => {
                let ours = ours.clone();
                self.establish(now, &ours, &theirs)
            }
            (Phase::Established, Frame::Hello(_)) => Err(PeerMisbehaved::SecondHello.into()),
            (Phase::Established, frame) => self.handle_established(frame),
            _ => Err(PeerMisbehaved::FrameBeforeHello.into()),
        }
    }

    fn handle_established(&mut self, frame: Frame) -> Result<(), LinkError> {
        let event = match frame {
            Frame::Announce { handle, proof, id } => {
                self.identities.announced(handle)?;
                SessionEvent::Announced { handle, id, proof }
            }
            Frame::Request { id } => SessionEvent::Requested { id },
            Frame::Accept { handle } => {
                self.identities.check_ours(handle)?;
                SessionEvent::Accepted { handle }
            }
            Frame::Reject { target, refusal } => {
                if let RejectTarget::Handle(handle) = target {
                    self.identities.rejected(handle)?;
                }
                SessionEvent::Rejected { target, refusal }
            }
            Frame::Renew if self.role == Role::TlsServer => {
                return Err(PeerMisbehaved::WrongSide("renew").into());
            }
            Frame::Renew => SessionEvent::RenewalAsked,
            Frame::Drain => SessionEvent::Draining,
            Frame::Unknown => return Ok(()),
            Frame::Hello(_) => return Err(PeerMisbehaved::SecondHello.into()),
        };
        self.push(event)
    }

    /// Both hellos are there: derive everything, then make the exporter alone worthless.
    fn establish(&mut self, now: Instant, ours: &Hello, theirs: &Hello) -> Result<(), LinkError> {
        let negotiated = self.negotiated();
        let flow_suite = agreement::consume_hello(self.role, ours, theirs, negotiated)?;
        let secrets = self.derive_secrets(ours, theirs)?;
        self.tls
            .refresh_traffic_keys()
            .map_err(LinkError::Internal)?;
        let (link_id, our_secrets, peer_secrets) = secrets.split(self.role);
        let peer = self
            .verifier
            .peer()
            .expect("checked when the handshake ended")
            .clone();
        let (tls_client, renews) = match self.role {
            Role::TlsClient => (self.config.id.clone(), ours.renews),
            Role::TlsServer => (peer.id().clone(), theirs.renews),
        };
        self.phase = Phase::Established;
        self.push(SessionEvent::Established(Box::new(Established {
            peer,
            peer_instance: theirs.instance,
            peer_successor_of: theirs.successor_of,
            link_id,
            role: self.role,
            tls_client,
            renews,
            group: format!("{:?}", rustls::NamedGroup::from(negotiated.group)),
            tls_suite: Suite::try_from(negotiated.tls_suite)
                .expect("only kedge's suites are in the provider"),
            flow_suite,
            bytes_sent: self.bytes_sent,
            bytes_received: self.bytes_received,
            outbound: Outbound::new(link_id, self.role, flow_suite, our_secrets, now),
            inbound: Inbound::new(link_id, self.role.peer(), flow_suite, peer_secrets),
        })))
    }

    fn negotiated(&self) -> Negotiated {
        let group = self.tls.negotiated_key_exchange_group();
        let suite = self.tls.negotiated_cipher_suite();
        Negotiated {
            group: group.expect("the handshake is complete").name().into(),
            tls_suite: suite.expect("the handshake is complete").suite().into(),
        }
    }

    fn derive_secrets(&self, ours: &Hello, theirs: &Hello) -> Result<LinkSecrets, LinkError> {
        let exporter = self
            .tls
            .export_keying_material(
                Zeroizing::new([0; SECRET_LEN]),
                EXPORTER_LABEL,
                Some(self.leaves().as_ref()),
            )
            .map_err(LinkError::Internal)?;
        let (client, server) = match self.role {
            Role::TlsClient => (ours, theirs),
            Role::TlsServer => (theirs, ours),
        };
        Ok(LinkSecrets::derive(
            &exporter,
            &client.random,
            &server.random,
        ))
    }

    /// SHA-384(TLS client's leaf ‖ TLS server's leaf), both DER.
    fn leaves(&self) -> Digest {
        let ours = self.config.certified_key.cert.first();
        let theirs = self.tls.peer_certificates().and_then(<[_]>::first);
        let leaves = match self.role {
            Role::TlsClient => [ours, theirs],
            Role::TlsServer => [theirs, ours],
        };
        let mut hash = Context::new(&SHA384);
        for leaf in leaves {
            hash.update(leaf.expect("both sides have shown a certificate"));
        }
        hash.finish()
    }

    fn send_established(&mut self, frame: &Frame) -> Result<(), LinkError> {
        self.check_established()?;
        self.send(frame)
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
