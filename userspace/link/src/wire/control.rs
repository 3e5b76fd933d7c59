//! The frames of the control connection.

use crate::limits::FRAME_VALUE_MAX;
use crate::wire::attestation::{encode_verdict, parse_verdict};
use crate::wire::tlv::{FIELD_HEADER_LEN, Field, Fields, once, put, required};
use crate::wire::{Handle, Hello, ProofKind, Shown, Verdict, WireError};
use kedge_model::{Refusal, SpiffeId};

mod number {
    pub(super) const HELLO: u16 = 1;
    pub(super) const ANNOUNCE: u16 = 2;
    pub(super) const REQUEST: u16 = 3;
    pub(super) const ACCEPT: u16 = 4;
    pub(super) const REJECT: u16 = 5;
    pub(super) const RENEW: u16 = 6;
    pub(super) const DRAIN: u16 = 7;
    pub(super) const RESULT: u16 = 8;
    pub(super) const VERDICT: u16 = 9;
}

mod identity_field {
    pub(super) const HANDLE: u16 = 1;
    pub(super) const PROOF: u16 = 2;
    pub(super) const SPIFFE_ID: u16 = 3;
    pub(super) const REASON: u16 = 4;
}

/// One frame of the control connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The first frame of each side, and only the first.
    Hello(Hello),
    /// "`id` runs on my node, and `handle` will name it in flows on this link."
    Announce {
        handle: Handle,
        proof: ProofKind,
        id: SpiffeId,
    },
    /// "Announce `id` to me: I have a flow for it."
    Request { id: SpiffeId },
    /// "Flows may name your `handle`."
    Accept { handle: Handle },
    /// "Flows may not name your handle", or "I will not announce this identity".
    Reject {
        target: RejectTarget,
        refusal: Refusal,
    },
    /// The TLS server asks the TLS client for a new link.
    Renew,
    /// "I open no more flows on this link, and shall erase it soon."
    Drain,
    /// "This is what a Verifier says of my node."
    Result(Shown),
    /// "So I take flows on this link", or not.
    Verdict(Verdict),
    /// A frame that this version does not know and may skip.
    Unknown,
}

/// What a reject answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RejectTarget {
    /// An announcement of the receiver.
    Handle(Handle),
    /// A request of the receiver.
    Id(SpiffeId),
}

impl Frame {
    /// The frame at the start of `bytes` and its length; `None` when it is not whole yet.
    ///
    /// # Errors
    /// When the frame is too long, malformed, or unknown and critical.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, WireError> {
        if let Some(header) = bytes.first_chunk::<FIELD_HEADER_LEN>() {
            let value_len = usize::from(u16::from_be_bytes([header[2], header[3]]));
            if value_len > FRAME_VALUE_MAX {
                return Err(WireError::TooLong("control frame"));
            }
        }
        let Some((field, rest)) = Field::split(bytes) else {
            return Ok(None);
        };
        Ok(Some((Self::parse_value(field)?, bytes.len() - rest.len())))
    }

    /// Appends the frame to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut value = Vec::new();
        let number = self.encode_value(&mut value);
        debug_assert!(value.len() <= FRAME_VALUE_MAX);
        put(out, number, &value);
    }

    fn parse_value(field: Field<'_>) -> Result<Self, WireError> {
        match field.number {
            number::HELLO => Hello::parse(field.value).map(Self::Hello),
            number::ANNOUNCE => {
                let raw = Identity::parse("announce", field.value)?;
                Ok(Self::Announce {
                    handle: raw.handle()?,
                    proof: raw.proof()?,
                    id: raw.id()?,
                })
            }
            number::REQUEST => Ok(Self::Request {
                id: Identity::parse("request", field.value)?.id()?,
            }),
            number::ACCEPT => Ok(Self::Accept {
                handle: Identity::parse("accept", field.value)?.handle()?,
            }),
            number::REJECT => {
                let raw = Identity::parse("reject", field.value)?;
                Ok(Self::Reject {
                    target: raw.target()?,
                    refusal: raw.refusal()?,
                })
            }
            number::RENEW => empty("renew", field.value).map(|()| Self::Renew),
            number::DRAIN => empty("drain", field.value).map(|()| Self::Drain),
            number::RESULT => Shown::parse(field.value).map(Self::Result),
            number::VERDICT => parse_verdict(field.value).map(Self::Verdict),
            _ => field.skip("control connection").map(|()| Self::Unknown),
        }
    }

    /// # Panics
    /// For [`Frame::Unknown`], which is only ever received.
    fn encode_value(&self, out: &mut Vec<u8>) -> u16 {
        match self {
            Self::Hello(hello) => {
                hello.encode(out);
                number::HELLO
            }
            Self::Announce { handle, proof, id } => {
                put(out, identity_field::HANDLE, &handle.0.to_be_bytes());
                put(out, identity_field::PROOF, &[*proof as u8]);
                put(out, identity_field::SPIFFE_ID, id.as_str().as_bytes());
                number::ANNOUNCE
            }
            Self::Request { id } => {
                put(out, identity_field::SPIFFE_ID, id.as_str().as_bytes());
                number::REQUEST
            }
            Self::Accept { handle } => {
                put(out, identity_field::HANDLE, &handle.0.to_be_bytes());
                number::ACCEPT
            }
            Self::Reject { target, refusal } => {
                match target {
                    RejectTarget::Handle(handle) => {
                        put(out, identity_field::HANDLE, &handle.0.to_be_bytes());
                    }
                    RejectTarget::Id(id) => {
                        put(out, identity_field::SPIFFE_ID, id.as_str().as_bytes());
                    }
                }
                put(out, identity_field::REASON, &refusal.code().to_be_bytes());
                number::REJECT
            }
            Self::Renew => number::RENEW,
            Self::Drain => number::DRAIN,
            Self::Result(shown) => {
                shown.encode(out);
                number::RESULT
            }
            Self::Verdict(verdict) => {
                encode_verdict(verdict, out);
                number::VERDICT
            }
            Self::Unknown => panic!("an unknown frame is received, never sent"),
        }
    }
}

/// The fields of announce, request, accept and reject: one set, so that one parser serves all.
struct Identity<'a> {
    what: &'static str,
    handle: Option<u64>,
    proof: Option<u8>,
    id: Option<&'a [u8]>,
    reason: Option<u16>,
}

impl<'a> Identity<'a> {
    fn parse(what: &'static str, bytes: &'a [u8]) -> Result<Self, WireError> {
        use identity_field as f;
        let mut raw = Self {
            what,
            handle: None,
            proof: None,
            id: None,
            reason: None,
        };
        for field in Fields::of(what, bytes) {
            let field = field?;
            let n = field.number;
            match n {
                f::HANDLE => {
                    once(
                        &mut raw.handle,
                        what,
                        n,
                        u64::from_be_bytes(field.array(what)?),
                    )?;
                }
                f::PROOF => once(&mut raw.proof, what, n, field.array::<1>(what)?[0])?,
                f::SPIFFE_ID => once(&mut raw.id, what, n, field.value)?,
                f::REASON => {
                    once(
                        &mut raw.reason,
                        what,
                        n,
                        u16::from_be_bytes(field.array(what)?),
                    )?;
                }
                _ => field.skip(what)?,
            }
        }
        Ok(raw)
    }

    fn handle(&self) -> Result<Handle, WireError> {
        required(self.handle, self.what, identity_field::HANDLE).map(Handle)
    }

    fn proof(&self) -> Result<ProofKind, WireError> {
        ProofKind::parse(required(self.proof, self.what, identity_field::PROOF)?)
    }

    fn id(&self) -> Result<SpiffeId, WireError> {
        let bytes = required(self.id, self.what, identity_field::SPIFFE_ID)?;
        let text = str::from_utf8(bytes).map_err(|_| WireError::Malformed("SPIFFE ID"))?;
        SpiffeId::parse(text).map_err(|_| WireError::Malformed("SPIFFE ID"))
    }

    fn refusal(&self) -> Result<Refusal, WireError> {
        required(self.reason, self.what, identity_field::REASON).map(Refusal::from_code)
    }

    fn target(&self) -> Result<RejectTarget, WireError> {
        match (self.handle, self.id) {
            (Some(handle), None) => Ok(RejectTarget::Handle(Handle(handle))),
            (None, Some(_)) => self.id().map(RejectTarget::Id),
            _ => Err(WireError::Malformed(
                "reject names not exactly one of handle and identity",
            )),
        }
    }
}

fn empty(what: &'static str, bytes: &[u8]) -> Result<(), WireError> {
    Fields::of(what, bytes).try_for_each(|field| field?.skip(what))
}
