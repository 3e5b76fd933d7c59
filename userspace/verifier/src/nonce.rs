//! Nonces that are not kept: a nonce says when it was made, under a key that only this process has.
//! So nobody who asks for one costs memory.
//!
//! One that is answered twice within its time leads to the same statement twice, about the same key.

use crate::limits::NONCE_TIME;
use aws_lc_rs::hmac;
use kedge_attest::Nonce;
use rustls_pki_types::UnixTime;

/// Time, 8 bytes; random, 8 bytes; tag, 16 bytes.
const STATED: usize = 16;
const TAG: usize = 16;

pub struct Nonces(hmac::Key);

impl Nonces {
    /// # Errors
    /// When the library has no random bytes.
    pub fn new() -> Result<Self, aws_lc_rs::error::Unspecified> {
        let mut key = [0; 32];
        aws_lc_rs::rand::fill(&mut key)?;
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &key)))
    }

    /// # Errors
    /// When the library has no random bytes.
    pub fn make(&self, now: UnixTime) -> Result<Nonce, aws_lc_rs::error::Unspecified> {
        let mut bytes = now.as_secs().to_be_bytes().to_vec();
        bytes.resize(STATED, 0);
        aws_lc_rs::rand::fill(&mut bytes[8..])?;
        let tag = self.tag(&bytes);
        bytes.extend_from_slice(&tag);
        Ok(Nonce::new(bytes).expect("32 bytes are within bounds"))
    }

    /// Whether it was made here, and not too long ago.
    #[must_use]
    pub fn is_ours(&self, nonce: &Nonce, now: UnixTime) -> bool {
        let bytes = nonce.as_bytes();
        let Some((stated, tag)) = bytes.split_at_checked(STATED) else {
            return false;
        };
        let (Some(made), true) = (stated.first_chunk(), tag.len() == TAG) else {
            return false;
        };
        let age = now.as_secs().checked_sub(u64::from_be_bytes(*made));
        let tagged = aws_lc_rs::constant_time::verify_slices_are_equal(tag, &self.tag(stated));
        tagged.is_ok() && age.is_some_and(|age| age < NONCE_TIME.as_secs())
    }

    fn tag(&self, stated: &[u8]) -> [u8; TAG] {
        let tag = hmac::sign(&self.0, stated);
        *tag.as_ref().first_chunk().expect("SHA-256 has 32 bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    #[test]
    fn a_nonce_is_good_for_its_time_and_no_changed_byte_of_it_is() {
        let nonces = Nonces::new().expect("random bytes");
        let nonce = nonces.make(at(1_000)).expect("random bytes");
        assert!(nonces.is_ours(&nonce, at(1_000)) && nonces.is_ours(&nonce, at(1_059)));
        assert!(!nonces.is_ours(&nonce, at(1_060)) && !nonces.is_ours(&nonce, at(999)));
        for changed in 0..nonce.as_bytes().len() {
            let mut bytes = nonce.as_bytes().to_vec();
            bytes[changed] ^= 1;
            let other = Nonce::new(bytes).expect("as long");
            assert!(!nonces.is_ours(&other, at(1_000)), "byte {changed}");
        }
        let others = Nonces::new().expect("random bytes");
        assert!(!others.is_ours(&nonce, at(1_000)));
        let short = Nonce::new(vec![0; 16]).expect("within bounds");
        assert!(!nonces.is_ours(&short, at(0)));
    }
}
