//! Every bound of the record layer, with its unit.

/// Bytes of a record's header: type, legacy version, length (RFC 8446, 5.2).
pub const HEADER_LEN: usize = 5;
/// Bytes of the authentication tag of all three suites.
pub const TAG_LEN: usize = 16;
/// Most content bytes of one record (RFC 8446, 5.1).
pub const PLAINTEXT_MAX: usize = 16_384;
/// What sealing adds to the content: header, inner content type, tag.
pub const OVERHEAD: usize = HEADER_LEN + 1 + TAG_LEN;
/// Most bytes after the header: content, its type, padding and tag (RFC 8446, 5.2).
pub const CIPHERTEXT_MAX: usize = PLAINTEXT_MAX + 256;
/// Fewest bytes after the header: the inner content type and the tag.
pub const CIPHERTEXT_MIN: usize = 1 + TAG_LEN;
/// Longest whole record that a peer may send.
pub const RECORD_MAX: usize = HEADER_LEN + CIPHERTEXT_MAX;

/// Records under one key, the last of which can only be a KeyUpdate, a Continue or an alert. RFC 8446, 5.5,
/// allows 2^24.5 full-size records for AES-GCM; ChaCha20-Poly1305 bears more, but one number for
/// all is easier to check and an update costs microseconds.
pub const RECORDS_PER_KEY_MAX: u64 = 1 << 24;
/// A sender begins to want an update this many records before the budget ends, so that a batch
/// in flight never meets the hard end.
pub const KEY_UPDATE_MARGIN: u64 = 1 << 10;
/// Records that a key must have carried before its update is accepted: a peer cannot make us
/// derive keys faster than this.
pub const RECORDS_PER_UPDATE_MIN: u64 = 1 << 16;

/// The budget of one key. Both sides enforce it; only tests set it lower than the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Records under one key.
    pub records_per_key: u64,
    /// Distance from the end of the budget at which the sender wants an update, in records.
    pub update_margin: u64,
    /// Records that a key must have carried before its update is accepted.
    pub records_per_update_min: u64,
    pub rekey: Rekey,
}

/// What a direction does at the end of its key's budget; the same for all flows of a link
/// (docs/protocol.md, "Hello").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rekey {
    /// A KeyUpdate: the next secret, on the same connection.
    #[default]
    InPlace,
    /// A Continue: the next secret, on another connection.
    Continue,
}

#[cfg(feature = "seal-log")]
static LOWERED: std::sync::OnceLock<Limits> = std::sync::OnceLock::new();

impl Limits {
    /// The protocol's numbers (docs/protocol.md, "Record budget").
    pub const PROTOCOL: Self = Self {
        records_per_key: RECORDS_PER_KEY_MAX,
        update_margin: KEY_UPDATE_MARGIN,
        records_per_update_min: RECORDS_PER_UPDATE_MIN,
        rekey: Rekey::InPlace,
    };

    /// What new directions are held to: the protocol's numbers, in everything but test builds.
    #[cfg(not(feature = "seal-log"))]
    #[must_use]
    pub const fn in_force() -> Self {
        Self::PROTOCOL
    }

    /// What new directions are held to: the protocol's numbers, unless a test has lowered them.
    #[cfg(feature = "seal-log")]
    #[must_use]
    pub fn in_force() -> Self {
        LOWERED.get().copied().unwrap_or(Self::PROTOCOL)
    }

    /// From now on all new directions of this process have these; the first ones stay.
    #[cfg(feature = "seal-log")]
    pub fn lower(self) {
        let _ = LOWERED.set(self);
    }

    /// What to do if the key's end is near for a sender whose next record is `number`.
    pub(crate) fn wants_rekey(&self, number: u64) -> Option<Rekey> {
        let near = number >= self.records_per_key.saturating_sub(self.update_margin);
        near.then_some(self.rekey)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::PROTOCOL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_honest_sender_never_updates_too_early_nor_too_late() {
        let limits = Limits::PROTOCOL;
        let update_at = limits.records_per_key - limits.update_margin;
        assert!(update_at >= limits.records_per_update_min);
        assert!(update_at < limits.records_per_key);
    }
}
