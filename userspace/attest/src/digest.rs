//! SHA-256 values, which print as 64 hexadecimal digits.

use aws_lc_rs::digest::{Context, SHA256};
use data_encoding::HEXLOWER_PERMISSIVE;
use std::fmt;

/// SHA-256 of something.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256(pub [u8; 32]);

impl Sha256 {
    /// Of the parts one behind the other.
    #[must_use]
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut context = Context::new(&SHA256);
        parts.iter().for_each(|part| context.update(part));
        let hash = context.finish();
        Self(hash.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    /// 64 hexadecimal digits of either case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?;
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_read_as_it_is_printed() {
        let digest = Sha256::of(&[b"a", b"bc"]);
        assert_eq!(digest, Sha256::of(&[b"abc"]));
        assert_eq!(Sha256::parse(&digest.to_string()), Some(digest));
        assert_eq!(
            Sha256::parse(&digest.to_string().to_uppercase()),
            Some(digest)
        );
        assert_eq!(Sha256::parse("+1"), None);
        assert_eq!(Sha256::parse(&"+1".repeat(32)), None);
    }
}
