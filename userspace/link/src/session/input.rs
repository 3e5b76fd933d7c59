//! From received bytes to frames, and from frames to events.

use super::{Phase, Session};
use crate::error::{LinkError, PeerIncompatible, PeerMisbehaved, PeerUnauthenticated};
use crate::event::SessionEvent;
use crate::limits::TLS_MESSAGE_MAX;
use crate::tls;
use crate::wire::{Frame, RejectTarget, Role};
use rustls::HandshakeKind;
use std::io::Read;
use std::time::Instant;

impl Session {
    pub(super) fn read(&mut self, now: Instant, mut bytes: &[u8]) -> Result<(), LinkError> {
        while !bytes.is_empty() {
            let taken = self
                .tls
                .read_tls(&mut bytes)
                .map_err(|_| PeerMisbehaved::TooMany {
                    what: "bytes of one TLS message",
                    limit: TLS_MESSAGE_MAX,
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

    fn check_shows_results(&self, frame: &'static str) -> Result<(), PeerMisbehaved> {
        match self.shows_results {
            true => Ok(()),
            false => Err(PeerMisbehaved::NotAgreed(frame)),
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
            Frame::Result(shown) => {
                self.check_shows_results("result")?;
                SessionEvent::Shown(shown)
            }
            Frame::Verdict(verdict) => {
                self.check_shows_results("verdict")?;
                SessionEvent::Verdict(verdict)
            }
            Frame::Unknown => return Ok(()),
            Frame::Hello(_) => return Err(PeerMisbehaved::SecondHello.into()),
        };
        self.push(event)
    }
}
