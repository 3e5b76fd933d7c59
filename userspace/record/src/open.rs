//! The receiving half of a direction.

use crate::content::{ContentType, consume_alert, consume_handshake};
use crate::error::{FrameError, OpenError, PeerMisbehaved};
use crate::frame;
use crate::kernel::{DirectionKey, OpenLedger};
use crate::key::RecordKey;
use crate::limits::{HEADER_LEN, Limits, PLAINTEXT_MAX};
use crate::secret::TrafficSecret;

/// Opens the records of one direction under one traffic secret and its successors.
pub struct Unsealer {
    secret: TrafficSecret,
    key: RecordKey,
    generation: u32,
    limits: Limits,
    closed: bool,
}

/// What an authentic record said.
#[derive(Debug, PartialEq, Eq)]
pub enum Opened<'r> {
    /// Application bytes, in place in the record's own buffer. May be empty.
    Data(&'r [u8]),
    /// The peer has sent its last byte: the one clean end of a direction.
    CloseNotify,
    /// The peer's workload reset its connection (user_canceled).
    Reset,
    /// The peer moved to its next key; so have we.
    KeyUpdate,
    /// The peer goes on under its next key on another connection, and sends no more on this one:
    /// see [`Unsealer::into_next`].
    Continue,
}

impl Unsealer {
    /// Takes the secret; the first record is number 0.
    #[must_use]
    pub fn new(secret: TrafficSecret) -> Self {
        Self::with_limits(secret, Limits::in_force())
    }

    /// An unsealer whose budget is smaller than the protocol's, for tests of its end.
    #[must_use]
    pub fn with_limits(secret: TrafficSecret, limits: Limits) -> Self {
        let key = RecordKey::new(&secret);
        Self {
            secret,
            key,
            generation: 0,
            limits,
            closed: false,
        }
    }

    /// Opens one whole record, as measured by [`deframe`](crate::deframe), in place.
    ///
    /// # Errors
    /// Every error ends the flow: the record is not the next one of this direction, or its
    /// sender breaks the protocol. The buffer's content is unspecified then.
    #[inline]
    pub fn open<'r>(&mut self, record: &'r mut [u8]) -> Result<Opened<'r>, OpenError> {
        if self.closed {
            return Err(PeerMisbehaved::AfterClose.into());
        }
        let number = self.key.number();
        if number >= self.limits.records_per_key {
            return Err(PeerMisbehaved::BudgetExceeded(self.limits.records_per_key).into());
        }
        let (header, ciphertext) = split(record)?;
        let text = self
            .key
            .open(header, ciphertext)
            .map_err(|_| OpenError::Forged(number))?;
        let (content_type, content) = strip_padding(text)?;
        match content_type {
            ContentType::ApplicationData => Ok(Opened::Data(content)),
            ContentType::Alert => {
                self.closed = true;
                consume_alert(content)
            }
            ContentType::Handshake => {
                let opened = consume_handshake(content, number, &self.limits)?;
                match opened {
                    Opened::Continue => self.closed = true,
                    _ => self.update(),
                }
                Ok(opened)
            }
        }
    }

    /// What opens the records on the next connection, after a [`Continue`](Opened::Continue).
    #[must_use]
    pub fn into_next(mut self) -> Self {
        self.update();
        self.closed = false;
        self
    }

    /// Gives the key away, at the next record's number: the kernel opens from there.
    #[must_use]
    pub fn hand_over(self) -> (DirectionKey, OpenLedger) {
        let number = self.key.number();
        let ledger = OpenLedger::new(&self.secret, self.generation, self.limits, number);
        (DirectionKey::of(&self.secret, number), ledger)
    }

    /// Opens from record 0 of a later key on.
    pub(crate) fn of_generation(secret: TrafficSecret, generation: u32, limits: Limits) -> Self {
        Self {
            generation,
            ..Self::with_limits(secret, limits)
        }
    }

    /// The number of the next record under the present key.
    #[inline]
    #[must_use]
    pub fn record_number(&self) -> u64 {
        self.key.number()
    }

    /// How many keys there were before the present one.
    #[must_use]
    pub fn key_generation(&self) -> u32 {
        self.generation
    }

    fn update(&mut self) {
        let next = self.secret.next();
        self.key = RecordKey::new(&next);
        self.secret = next;
        self.generation += 1;
    }
}

/// Header and ciphertext of a record that must be exactly as long as its header says.
#[inline]
fn split(record: &mut [u8]) -> Result<([u8; HEADER_LEN], &mut [u8]), FrameError> {
    let have = record.len();
    let (header, ciphertext) =
        record
            .split_first_chunk_mut::<HEADER_LEN>()
            .ok_or(FrameError::Incomplete {
                need: HEADER_LEN,
                have,
            })?;
    let need = HEADER_LEN + frame::parse_header(*header)?;
    if need != have {
        return Err(FrameError::Incomplete { need, have });
    }
    Ok((*header, ciphertext))
}

/// The content is followed by its type and any number of zeros (RFC 8446, 5.4).
#[inline]
fn strip_padding(text: &[u8]) -> Result<(ContentType, &[u8]), PeerMisbehaved> {
    let last = text
        .iter()
        .rposition(|byte| *byte != 0)
        .ok_or(PeerMisbehaved::NoContent)?;
    let content_type = ContentType::try_from(text[last]).map_err(PeerMisbehaved::ContentType)?;
    let content = &text[..last];
    if content.len() > PLAINTEXT_MAX {
        return Err(PeerMisbehaved::TooLong(content.len()));
    }
    Ok((content_type, content))
}
