//! One AEAD key with its IV and its record counter: what protects the records of one direction
//! between two key updates.

use crate::frame;
use crate::limits::{HEADER_LEN, TAG_LEN};
use crate::secret::TrafficSecret;
use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::error::Unspecified;
use kedge_model::Suite;
use zeroize::Zeroizing;

pub(crate) const KEY_LEN_MAX: usize = 32;
pub(crate) const IV_LEN: usize = aead::NONCE_LEN;

/// The library's key context is built once per key; sealing and opening only use it.
pub(crate) struct RecordKey {
    aead: LessSafeKey,
    iv: Zeroizing<[u8; IV_LEN]>,
    number: u64,
    #[cfg(feature = "seal-log")]
    fingerprint: crate::seal_log::Fingerprint,
}

impl RecordKey {
    /// Derives key and IV (RFC 8446, 7.3); the next record is number 0.
    pub(crate) fn new(secret: &TrafficSecret) -> Self {
        let algorithm = algorithm(secret.suite());
        let (key, iv) = derive(secret);
        let unbound = UnboundKey::new(algorithm, &key[..algorithm.key_len()])
            .expect("the key has its algorithm's length");
        Self {
            aead: LessSafeKey::new(unbound),
            iv,
            number: 0,
            #[cfg(feature = "seal-log")]
            fingerprint: crate::seal_log::fingerprint(secret),
        }
    }

    #[inline]
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Seals `text` (content and inner type) in place, and moves to the next number.
    #[inline]
    pub(crate) fn seal(&mut self, text: &mut [u8]) -> Result<[u8; TAG_LEN], Unspecified> {
        #[cfg(feature = "seal-log")]
        crate::seal_log::note(&self.fingerprint, self.number);
        let aad = Aad::from(frame::header(text.len() + TAG_LEN));
        let tag = self
            .aead
            .seal_in_place_separate_tag(self.nonce(), aad, text)?;
        self.number += 1;
        Ok(tag
            .as_ref()
            .try_into()
            .expect("all three suites have tags of 16 bytes"))
    }

    /// Opens `ciphertext` (with its tag) in place, and moves to the next number if it was
    /// authentic.
    #[inline]
    pub(crate) fn open<'c>(
        &mut self,
        header: [u8; HEADER_LEN],
        ciphertext: &'c mut [u8],
    ) -> Result<&'c mut [u8], Unspecified> {
        let text = self
            .aead
            .open_in_place(self.nonce(), Aad::from(header), ciphertext)?;
        self.number += 1;
        Ok(text)
    }

    /// The IV with the record number xored into its last eight bytes (RFC 8446, 5.3).
    #[inline]
    fn nonce(&self) -> Nonce {
        let mut nonce = *self.iv;
        for (byte, number) in nonce[4..].iter_mut().zip(self.number.to_be_bytes()) {
            *byte ^= number;
        }
        Nonce::assume_unique_for_key(nonce)
    }
}

/// Key, in its first bytes, and IV of a secret.
pub(crate) fn derive(
    secret: &TrafficSecret,
) -> (Zeroizing<[u8; KEY_LEN_MAX]>, Zeroizing<[u8; IV_LEN]>) {
    let mut key = Zeroizing::new([0; KEY_LEN_MAX]);
    secret.expand("key", &mut key[..len(secret.suite())]);
    let mut iv = Zeroizing::new([0; IV_LEN]);
    secret.expand("iv", &mut *iv);
    (key, iv)
}

/// Bytes of a suite's key.
pub(crate) fn len(suite: Suite) -> usize {
    algorithm(suite).key_len()
}

fn algorithm(suite: Suite) -> &'static aead::Algorithm {
    match suite {
        Suite::Aes256Gcm => &aead::AES_256_GCM,
        Suite::Aes128Gcm => &aead::AES_128_GCM,
        Suite::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
    }
}
