//! HKDF-Expand-Label (RFC 8446, 7.1).

use aws_lc_rs::hkdf::{self, Prk};
use kedge_model::Suite;

/// The hash functions of the TLS 1.3 suites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    Sha256,
    Sha384,
}

impl Hash {
    /// The hash of a suite's own key schedule.
    #[must_use]
    pub fn of(suite: Suite) -> Self {
        match suite {
            Suite::Aes256Gcm => Self::Sha384,
            Suite::Aes128Gcm | Suite::ChaCha20Poly1305 => Self::Sha256,
        }
    }

    /// Bytes of the hash, and of every secret of its schedule.
    #[must_use]
    pub fn len_bytes(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
        }
    }

    fn algorithm(self) -> hkdf::Algorithm {
        match self {
            Self::Sha256 => hkdf::HKDF_SHA256,
            Self::Sha384 => hkdf::HKDF_SHA384,
        }
    }
}

/// Fills `out` with HKDF-Expand-Label(`secret`, `label`, `context`, `out.len()`). The prefix
/// "tls13 " is added to the label here.
///
/// # Panics
/// When label, context or output are longer than the construction allows (249, 255 and 255
/// hashes), which is a mistake in our own key schedule.
pub fn expand_label(hash: Hash, secret: &[u8], label: &str, context: &[u8], out: &mut [u8]) {
    expand_label_from(
        &Prk::new_less_safe(hash.algorithm(), secret),
        label,
        context,
        out,
    );
}

/// [`expand_label`] from a pseudorandom key that the library already holds.
///
/// # Panics
/// As [`expand_label`].
pub fn expand_label_from(prk: &Prk, label: &str, context: &[u8], out: &mut [u8]) {
    const PREFIX: &[u8] = b"tls13 ";
    let out_len = u16::try_from(out.len()).expect("an output is at most 255 hashes long");
    let label_len = u8::try_from(PREFIX.len() + label.len()).expect("labels are short literals");
    let context_len = u8::try_from(context.len()).expect("a context is a hash or a header");
    let info: [&[u8]; 6] = [
        &out_len.to_be_bytes(),
        &[label_len],
        PREFIX,
        label.as_bytes(),
        &[context_len],
        context,
    ];
    prk.expand(&info, OutputLen(out.len()))
        .and_then(|okm| okm.fill(out))
        .expect("HKDF-Expand fails only for more than 255 hashes of output");
}

struct OutputLen(usize);

impl hkdf::KeyType for OutputLen {
    fn len(&self) -> usize {
        self.0
    }
}
