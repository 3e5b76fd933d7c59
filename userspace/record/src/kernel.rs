//! Directions whose records the kernel seals or opens (kTLS): the key moves there, the rules stay
//! here. A ledger keeps what only we know: the next secret, and how much of the budget is used.
//!
//! ```text
//!   Sealer::hand_over ──► DirectionKey (to the kernel)  +  SealLedger
//!   Unsealer::hand_over ─► DirectionKey (to the kernel)  +  OpenLedger
//! ```
//! The secret of the key that was handed over is erased: only its successor is kept.

use crate::content::{self, ContentType, KEY_UPDATE};
use crate::error::{OpenError, PeerMisbehaved, SealError};
use crate::key::{self, IV_LEN, KEY_LEN_MAX};
use crate::limits::{Limits, Rekey};
use crate::open::{Opened, Unsealer};
use crate::seal::Sealer;
use crate::secret::TrafficSecret;
use kedge_model::Suite;
use zeroize::Zeroizing;

/// One direction's key, IV and next record number. It exists once, is not `Clone`, and is erased
/// when dropped: whoever takes it is the direction's only owner.
pub struct DirectionKey {
    suite: Suite,
    key: Zeroizing<[u8; KEY_LEN_MAX]>,
    iv: Zeroizing<[u8; IV_LEN]>,
    record_number: u64,
}

impl DirectionKey {
    pub(crate) fn of(secret: &TrafficSecret, record_number: u64) -> Self {
        let (key, iv) = key::derive(secret);
        Self {
            suite: secret.suite(),
            key,
            iv,
            record_number,
        }
    }

    #[must_use]
    pub fn suite(&self) -> Suite {
        self.suite
    }

    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.key[..key::len(self.suite)]
    }

    #[must_use]
    pub fn iv(&self) -> &[u8; IV_LEN] {
        &self.iv
    }

    #[must_use]
    pub fn record_number(&self) -> u64 {
        self.record_number
    }
}

/// What is left of a [`Sealer`](crate::Sealer) whose key the kernel has.
pub struct SealLedger {
    next: TrafficSecret,
    generation: u32,
    limits: Limits,
    /// Records under the present key, or more than there were.
    at_most: u64,
}

impl SealLedger {
    pub(crate) fn new(used: &TrafficSecret, generation: u32, limits: Limits, number: u64) -> Self {
        Self {
            next: used.next(),
            generation,
            limits,
            at_most: number,
        }
    }

    /// Notes that the kernel was given work for no more than so many records.
    pub fn sealed_at_most(&mut self, records: u64) {
        self.at_most = self.at_most.saturating_add(records);
    }

    /// Puts the kernel's own count in the place of ours, which may be too high.
    pub fn correct(&mut self, record_number: u64) {
        self.at_most = record_number;
    }

    /// How the key must be changed before much more is sealed, if our count is right.
    #[must_use]
    pub fn wants_rekey(&self) -> Option<Rekey> {
        self.limits.wants_rekey(self.at_most)
    }

    /// Whether `records` more fit into the budget. The last number is kept for a message that ends
    /// the key.
    ///
    /// # Errors
    /// When they may not, by our count.
    pub fn check(&self, records: u64) -> Result<(), SealError> {
        if self.at_most.saturating_add(records) < self.limits.records_per_key {
            Ok(())
        } else {
            Err(SealError::BudgetExhausted(self.limits.records_per_key))
        }
    }

    /// The next key, for a kernel that has just sealed [`KEY_UPDATE`](Self::KEY_UPDATE).
    pub fn update(&mut self) -> DirectionKey {
        let key = DirectionKey::of(&self.next, 0);
        self.next = self.next.next();
        self.generation += 1;
        self.at_most = 0;
        key
    }

    /// At least the number of the next record under the present key.
    #[must_use]
    pub fn record_number(&self) -> u64 {
        self.at_most
    }

    /// How many keys there were before the present one.
    #[must_use]
    pub fn key_generation(&self) -> u32 {
        self.generation
    }

    /// What seals the records on the next connection, where the kernel has just sealed
    /// [`CONTINUE`](Self::CONTINUE) on this one.
    #[must_use]
    pub fn into_next(self) -> Sealer {
        Sealer::of_generation(self.next, self.generation + 1, self.limits)
    }

    /// The record that announces the next key.
    pub const KEY_UPDATE: (ContentType, &[u8]) = (ContentType::Handshake, &KEY_UPDATE);
    /// The record that announces the next key on another connection.
    pub const CONTINUE: (ContentType, &[u8]) = (ContentType::Handshake, &content::CONTINUE);
    /// The record that ends a direction cleanly.
    pub const CLOSE_NOTIFY: (ContentType, &[u8]) = (ContentType::Alert, &content::CLOSE_NOTIFY);
    /// The record that says that the workload reset its connection.
    pub const RESET: (ContentType, &[u8]) = (ContentType::Alert, &content::USER_CANCELED);
}

/// What is left of an [`Unsealer`](crate::Unsealer) whose key the kernel has.
pub struct OpenLedger {
    next: TrafficSecret,
    generation: u32,
    limits: Limits,
    at_most: u64,
}

impl OpenLedger {
    pub(crate) fn new(used: &TrafficSecret, generation: u32, limits: Limits, number: u64) -> Self {
        Self {
            next: used.next(),
            generation,
            limits,
            at_most: number,
        }
    }

    /// Notes that content of one record more came out of the kernel, or of a part of one.
    pub fn opened_at_most(&mut self, records: u64) {
        self.at_most = self.at_most.saturating_add(records);
    }

    /// Puts the kernel's own count in the place of ours, which may be too high.
    pub fn correct(&mut self, record_number: u64) {
        self.at_most = record_number;
    }

    /// # Errors
    /// When the peer, by our count, has used more than the key's budget.
    pub fn check(&self) -> Result<(), OpenError> {
        if self.at_most <= self.limits.records_per_key {
            Ok(())
        } else {
            Err(PeerMisbehaved::BudgetExceeded(self.limits.records_per_key).into())
        }
    }

    /// Takes a record that is no application data; `number` is its own, as the kernel counts.
    /// A [`KeyUpdate`](Opened::KeyUpdate) is to be followed by [`update`](Self::update), a
    /// [`Continue`](Opened::Continue) by [`into_next`](Self::into_next).
    ///
    /// # Errors
    /// Every error ends the flow, as those of [`Unsealer::open`](crate::Unsealer::open) do.
    pub fn consume(
        &self,
        content_type: u8,
        bytes: &[u8],
        number: u64,
    ) -> Result<Opened<'static>, OpenError> {
        match ContentType::try_from(content_type) {
            Ok(ContentType::Alert) => content::consume_alert(bytes),
            Ok(ContentType::Handshake) => {
                Ok(content::consume_handshake(bytes, number, &self.limits)?)
            }
            _ => Err(PeerMisbehaved::ContentType(content_type).into()),
        }
    }

    /// The next key, after the peer's KeyUpdate.
    pub fn update(&mut self) -> DirectionKey {
        let key = DirectionKey::of(&self.next, 0);
        self.next = self.next.next();
        self.generation += 1;
        self.at_most = 0;
        key
    }

    /// What opens the records on the next connection, after the peer's Continue.
    #[must_use]
    pub fn into_next(self) -> Unsealer {
        Unsealer::of_generation(self.next, self.generation + 1, self.limits)
    }

    /// At least the number of the next record under the present key.
    #[must_use]
    pub fn record_number(&self) -> u64 {
        self.at_most
    }

    /// How many keys there were before the present one.
    #[must_use]
    pub fn key_generation(&self) -> u32 {
        self.generation
    }
}
