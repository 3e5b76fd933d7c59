//! The sending half of a direction.

use crate::content::{CLOSE_NOTIFY, CONTINUE, ContentType, KEY_UPDATE, USER_CANCELED};
use crate::error::SealError;
use crate::frame;
use crate::kernel::{DirectionKey, SealLedger};
use crate::key::RecordKey;
use crate::limits::{HEADER_LEN, Limits, OVERHEAD, PLAINTEXT_MAX, Rekey, TAG_LEN};
use crate::secret::TrafficSecret;

/// Seals the records of one direction under one traffic secret and its successors.
pub struct Sealer {
    secret: TrafficSecret,
    key: RecordKey,
    generation: u32,
    limits: Limits,
    closed: bool,
}

impl Sealer {
    /// Takes the secret; the first record is number 0.
    #[must_use]
    pub fn new(secret: TrafficSecret) -> Self {
        Self::with_limits(secret, Limits::in_force())
    }

    /// A sealer whose budget is smaller than the protocol's, for tests of its end.
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

    /// Seals the content in `slot[HEADER_LEN..][..len]` in place, writes header, inner type and
    /// tag around it, and returns the record's length, `len + OVERHEAD`.
    ///
    /// # Errors
    /// All are the caller's: the slot is too small, the content too long, the budget used up
    /// (see [`wants_rekey`](Self::wants_rekey)) or the direction closed. Nothing was
    /// sealed then and no number was used.
    #[inline]
    pub fn seal(
        &mut self,
        content: ContentType,
        slot: &mut [u8],
        len: usize,
    ) -> Result<usize, SealError> {
        let record_len = self.check(content, slot.len(), len)?;
        let (header, rest) = slot[..record_len].split_at_mut(HEADER_LEN);
        let (text, tag) = rest.split_at_mut(len + 1);
        header.copy_from_slice(&frame::header(text.len() + TAG_LEN));
        text[len] = content as u8;
        tag.copy_from_slice(&self.key.seal(text).map_err(|_| SealError::Library)?);
        Ok(record_len)
    }

    /// Seals close_notify: this direction ends here, cleanly.
    ///
    /// # Errors
    /// As [`seal`](Self::seal).
    pub fn seal_close_notify(&mut self, slot: &mut [u8]) -> Result<usize, SealError> {
        let len = self.seal_message(ContentType::Alert, &CLOSE_NOTIFY, slot)?;
        self.closed = true;
        Ok(len)
    }

    /// Seals the fatal alert user_canceled: the workload reset its connection.
    ///
    /// # Errors
    /// As [`seal`](Self::seal).
    pub fn seal_reset(&mut self, slot: &mut [u8]) -> Result<usize, SealError> {
        let len = self.seal_message(ContentType::Alert, &USER_CANCELED, slot)?;
        self.closed = true;
        Ok(len)
    }

    /// How the key must be changed before much more is sealed: the budget's end is near.
    #[inline]
    #[must_use]
    pub fn wants_rekey(&self) -> Option<Rekey> {
        self.limits.wants_rekey(self.key.number())
    }

    /// Gives the key away, at the next record's number: the kernel seals from there.
    ///
    /// # Panics
    /// When this direction was closed by an alert: it has no next record.
    #[must_use]
    pub fn hand_over(self) -> (DirectionKey, SealLedger) {
        assert!(!self.closed, "a closed direction has no next record");
        let number = self.key.number();
        let ledger = SealLedger::new(&self.secret, self.generation, self.limits, number);
        (DirectionKey::of(&self.secret, number), ledger)
    }

    /// Seals a KeyUpdate under the used key, then moves to the next secret. The next secret is
    /// computed first; the used one is erased.
    ///
    /// # Errors
    /// As [`seal`](Self::seal); the keys are unchanged then.
    pub fn seal_key_update(&mut self, slot: &mut [u8]) -> Result<usize, SealError> {
        let next = self.secret.next();
        let len = self.seal_message(ContentType::Handshake, &KEY_UPDATE, slot)?;
        self.move_to(next);
        Ok(len)
    }

    /// Seals Continue: the last record on this connection. The rest of the direction is for
    /// [`into_next`](Self::into_next).
    ///
    /// # Errors
    /// As [`seal`](Self::seal).
    pub fn seal_continue(&mut self, slot: &mut [u8]) -> Result<usize, SealError> {
        let len = self.seal_message(ContentType::Handshake, &CONTINUE, slot)?;
        self.closed = true;
        Ok(len)
    }

    /// What seals the records on the next connection, after [`seal_continue`](Self::seal_continue).
    #[must_use]
    pub fn into_next(mut self) -> Self {
        let next = self.secret.next();
        self.move_to(next);
        self.closed = false;
        self
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

    /// Seals from record 0 of a later key on.
    pub(crate) fn of_generation(secret: TrafficSecret, generation: u32, limits: Limits) -> Self {
        Self {
            generation,
            ..Self::with_limits(secret, limits)
        }
    }

    fn move_to(&mut self, next: TrafficSecret) {
        self.key = RecordKey::new(&next);
        self.secret = next;
        self.generation += 1;
    }

    fn seal_message(
        &mut self,
        content: ContentType,
        message: &[u8],
        slot: &mut [u8],
    ) -> Result<usize, SealError> {
        self.check(content, slot.len(), message.len())?;
        slot[HEADER_LEN..][..message.len()].copy_from_slice(message);
        self.seal(content, slot, message.len())
    }

    /// The record's length, if it may be sealed at all. The last number of a key is kept for a
    /// message that ends it.
    #[inline]
    fn check(&self, content: ContentType, have: usize, len: usize) -> Result<usize, SealError> {
        let kept = u64::from(content == ContentType::ApplicationData);
        let need = len + OVERHEAD;
        if self.closed {
            return Err(SealError::Closed);
        }
        if self.key.number() + kept >= self.limits.records_per_key {
            return Err(SealError::BudgetExhausted(self.limits.records_per_key));
        }
        if len > PLAINTEXT_MAX {
            return Err(SealError::TooLong(len));
        }
        if have < need {
            return Err(SealError::SlotTooSmall { need, have });
        }
        Ok(need)
    }
}
