//! One flow's secrets: from its header and record 0 to the two traffic secrets that it lives on.
//!
//! The opener holds a [`NewFlow`], the acceptor a [`PendingFlow`]. They are different types, so
//! that record 0's key, which both ends know, seals exactly one record.

use crate::continuation::ContinuationKey;
use crate::error::FlightError;
use crate::limits::RECORD0_PLAINTEXT_MAX;
use crate::schedule::Secret;
use crate::wire::{Header, Record0, WireError};
use aws_lc_rs::digest::{Context, Digest, SHA384};
use kedge_model::Suite;
use kedge_record::{ContentType, HEADER_LEN, OVERHEAD, Opened, Sealer, TrafficSecret, Unsealer};

/// The traffic secrets of one flow, at record number 0 each.
pub struct FlowKeys {
    /// Opener to acceptor: application data from record 0 on.
    pub opener: TrafficSecret,
    /// Acceptor to opener: its record 0 is the answer.
    pub acceptor: TrafficSecret,
    /// For links whose flows continue.
    pub continuation: ContinuationKey,
}

/// A flow number taken by the opener, to be used for one first flight.
pub struct NewFlow {
    header: Header,
    secret: Secret,
}

/// A first flight whose header names a secret of this link, not opened yet.
pub struct PendingFlow {
    header: Header,
    secret: Secret,
}

/// A first flight that was opened. Its content and keys come out of
/// [`Inbound::commit`](crate::Inbound::commit) only.
pub struct OpenedFlight {
    pub(crate) flight: Flight,
}

/// A first flight that was taken, once.
pub struct Flight {
    pub header: Header,
    pub record0: Record0,
    pub keys: FlowKeys,
}

impl NewFlow {
    pub(crate) fn new(header: Header, secret: Secret) -> Self {
        Self { header, secret }
    }

    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Appends the clear header and the sealed record 0 to `out`. Application data may follow at
    /// once, sealed under `opener`.
    pub fn seal_record0(self, record0: &Record0, out: &mut Vec<u8>) -> FlowKeys {
        let header = self.header.encode();
        out.extend_from_slice(&header);
        let start = out.len();
        out.resize(start + HEADER_LEN, 0);
        record0.encode(out);
        let content_len = out.len() - start - HEADER_LEN;
        debug_assert!(content_len <= RECORD0_PLAINTEXT_MAX);
        let context = context(&header, &out[start + HEADER_LEN..]);
        out.resize(start + content_len + OVERHEAD, 0);
        Sealer::new(record0_secret(&self.secret, self.header.suite))
            .seal(ContentType::ApplicationData, &mut out[start..], content_len)
            .expect("the slot fits the content, and the key is new");
        flow_keys(&self.secret, &self.header, &context)
    }
}

impl PendingFlow {
    pub(crate) fn new(header: Header, secret: Secret) -> Self {
        Self { header, secret }
    }

    /// Opens record 0, in place in `record`, which is exactly one record.
    ///
    /// # Errors
    /// When it does not open under this flow's key, or is not well-formed. No state has changed.
    pub fn open_record0(self, record: &mut [u8]) -> Result<OpenedFlight, FlightError> {
        let suite = self.header.suite;
        let mut unsealer = Unsealer::new(record0_secret(&self.secret, suite));
        let Ok(Opened::Data(content)) = unsealer.open(record) else {
            return Err(FlightError::Forged);
        };
        if content.len() > RECORD0_PLAINTEXT_MAX {
            return Err(WireError::TooLong("record 0").into());
        }
        let record0 = Record0::parse(content)?;
        let context = context(&self.header.encode(), content);
        let keys = flow_keys(&self.secret, &self.header, &context);
        Ok(OpenedFlight {
            flight: Flight {
                header: self.header,
                record0,
                keys,
            },
        })
    }
}

/// SHA-384(header ‖ plaintext of record 0): binds both directions to who talks to whom.
fn context(header: &[u8; Header::LEN], record0: &[u8]) -> Digest {
    let mut hash = Context::new(&SHA384);
    hash.update(header);
    hash.update(record0);
    hash.finish()
}

fn record0_secret(flow: &Secret, suite: Suite) -> TrafficSecret {
    TrafficSecret::derive(suite, |out| flow.expand_into("kedge record 0", b"", out))
}

fn flow_keys(flow: &Secret, header: &Header, context: &Digest) -> FlowKeys {
    let context = context.as_ref();
    let direction =
        |label| TrafficSecret::derive(header.suite, |out| flow.expand_into(label, context, out));
    FlowKeys {
        opener: direction("kedge o ap"),
        acceptor: direction("kedge a ap"),
        continuation: ContinuationKey::new(header.flow(), &flow.expand("kedge continue", context)),
    }
}
