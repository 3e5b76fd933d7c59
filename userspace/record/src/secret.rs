//! The secret of one direction, from which its keys and its successor are derived.

use crate::hkdf::{Hash, expand_label};
use kedge_model::Suite;
use zeroize::Zeroizing;

const SECRET_LEN_MAX: usize = 48;

/// A traffic secret (RFC 8446, 7.1) for one suite and one direction. Moved into a
/// [`Sealer`](crate::Sealer) or [`Unsealer`](crate::Unsealer); erased when dropped.
pub struct TrafficSecret {
    suite: Suite,
    bytes: Zeroizing<[u8; SECRET_LEN_MAX]>,
}

impl TrafficSecret {
    /// # Panics
    /// When `bytes` is not as long as the suite's hash.
    #[must_use]
    pub fn new(suite: Suite, bytes: &[u8]) -> Self {
        Self::derive(suite, |secret| secret.copy_from_slice(bytes))
    }

    /// Lets `fill` write the secret where it will stay, so that no copy is left elsewhere.
    pub fn derive(suite: Suite, fill: impl FnOnce(&mut [u8])) -> Self {
        let mut bytes = Zeroizing::new([0; SECRET_LEN_MAX]);
        fill(&mut bytes[..suite.secret_len()]);
        Self { suite, bytes }
    }

    #[must_use]
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The secret after a KeyUpdate (RFC 8446, 7.2).
    pub(crate) fn next(&self) -> Self {
        Self::derive(self.suite, |next| self.expand("traffic upd", next))
    }

    pub(crate) fn expand(&self, label: &str, out: &mut [u8]) {
        expand_label(Hash::of(self.suite), self.bytes(), label, b"", out);
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.suite.secret_len()]
    }
}
