//! The formulas of docs/protocol.md, written down again with nothing but HMAC, SHA-384 and the
//! AEADs: what somebody would write who has only that document.

use aws_lc_rs::{aead, digest, hmac};
use kedge_model::Suite;

pub const APPLICATION_DATA: u8 = 23;
pub const ALERT: u8 = 21;
pub const HANDSHAKE: u8 = 22;
/// RFC 8446, 4.6.3: a KeyUpdate that asks for none back.
pub const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
/// The direction goes on on another connection.
pub const CONTINUE: [u8; 4] = [240, 0, 0, 0];

/// Content and inner type, as they were sealed.
pub type Sealed = (Vec<u8>, u8);

pub fn hmac_of(hash: hmac::Algorithm, key: &[u8], data: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hash, key), data)
        .as_ref()
        .to_vec()
}

/// HKDF-Expand-Label for outputs of at most one hash.
pub fn expand(
    hash: hmac::Algorithm,
    secret: &[u8],
    label: &str,
    context: &[u8],
    len: u8,
) -> Vec<u8> {
    let label = format!("tls13 {label}");
    let short = |n: usize| u8::try_from(n).expect("short");
    let mut info = vec![0, len, short(label.len())];
    info.extend_from_slice(label.as_bytes());
    info.push(short(context.len()));
    info.extend_from_slice(context);
    info.push(1);
    hmac_of(hash, secret, &info)[..usize::from(len)].to_vec()
}

pub fn expand_384(secret: &[u8], label: &str, context: &[u8], len: u8) -> Vec<u8> {
    expand(hmac::HMAC_SHA384, secret, label, context, len)
}

pub struct SuiteParts {
    pub hash: hmac::Algorithm,
    pub secret_len: u8,
    pub aead: &'static aead::Algorithm,
    pub key_len: u8,
}

pub fn parts(suite: Suite) -> SuiteParts {
    let (hash, secret_len, aead, key_len) = match suite {
        Suite::Aes256Gcm => (hmac::HMAC_SHA384, 48, &aead::AES_256_GCM, 32),
        Suite::Aes128Gcm => (hmac::HMAC_SHA256, 32, &aead::AES_128_GCM, 16),
        Suite::ChaCha20Poly1305 => (hmac::HMAC_SHA256, 32, &aead::CHACHA20_POLY1305, 32),
    };
    SuiteParts {
        hash,
        secret_len,
        aead,
        key_len,
    }
}

/// Key and nonce of one record under `secret`.
fn key_and_nonce(suite: Suite, secret: &[u8], number: u64) -> (aead::LessSafeKey, aead::Nonce) {
    let parts = parts(suite);
    let key = expand(parts.hash, secret, "key", b"", parts.key_len);
    let mut nonce = expand(parts.hash, secret, "iv", b"", 12);
    for (byte, number) in nonce[4..].iter_mut().zip(number.to_be_bytes()) {
        *byte ^= number;
    }
    let key = aead::UnboundKey::new(parts.aead, &key).expect("its length");
    let nonce = aead::Nonce::try_assume_unique_for_key(&nonce).expect("12 bytes");
    (aead::LessSafeKey::new(key), nonce)
}

/// Record number 0 of application data under `secret`.
pub fn seal(suite: Suite, secret: &[u8], content: &[u8]) -> Vec<u8> {
    let (key, nonce) = key_and_nonce(suite, secret, 0);
    let len = u16::try_from(content.len() + 17)
        .expect("short")
        .to_be_bytes();
    let header = [23, 3, 3, len[0], len[1]];
    let mut text = [content, &[23]].concat();
    key.seal_in_place_append_tag(nonce, aead::Aad::from(header), &mut text)
        .expect("sealed");
    [&header[..], &text].concat()
}

/// Content and inner type of a record, if it is number `number` under `secret`.
pub fn open(suite: Suite, secret: &[u8], number: u64, record: &[u8]) -> Option<(Vec<u8>, u8)> {
    let (header, body) = record.split_first_chunk::<5>()?;
    let (key, nonce) = key_and_nonce(suite, secret, number);
    let mut text = body.to_vec();
    let opened = key.open_in_place(nonce, aead::Aad::from(*header), &mut text);
    let (inner, content) = opened.ok()?.split_last()?;
    Some((content.to_vec(), *inner))
}

/// The secret of `opener` (its role) at epoch 0, and what the link is called.
pub fn opener_secret(master: &[u8], opener: u8) -> (Vec<u8>, Vec<u8>) {
    let link_id = expand_384(master, "kedge link id", b"", 16);
    (expand_384(master, "kedge opener", &[opener], 48), link_id)
}

/// SHA-384(header ‖ plaintext of record 0).
pub fn context(header: &[u8], record_0: &[u8]) -> Vec<u8> {
    let hashed = digest::digest(&digest::SHA384, &[header, record_0].concat());
    hashed.as_ref().to_vec()
}

/// All whole records of one connection, numbered from 0 under `secret` and, after a key update, its
/// successor.
pub fn read_records(suite: Suite, secret: &[u8], mut bytes: &[u8]) -> Vec<Sealed> {
    let (mut secret, mut number) = (secret.to_vec(), 0);
    let mut sealed: Vec<Sealed> = Vec::new();
    while let Some((record, rest)) = split_record(bytes) {
        let ended = sealed.last().is_some_and(|last| last.0 == CONTINUE);
        assert!(!ended, "a record after Continue");
        let opened = open(suite, &secret, number, record);
        let opened = opened.unwrap_or_else(|| panic!("record {number} does not open"));
        number += 1;
        if opened == (KEY_UPDATE.to_vec(), HANDSHAKE) {
            secret = next_secret(suite, &secret);
            number = 0;
        }
        sealed.push(opened);
        bytes = rest;
    }
    sealed
}

/// The secret after a KeyUpdate or a Continue.
pub fn next_secret(suite: Suite, secret: &[u8]) -> Vec<u8> {
    let parts = parts(suite);
    expand(parts.hash, secret, "traffic upd", b"", parts.secret_len)
}

pub fn split_record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let header = bytes.first_chunk::<5>()?;
    let len = usize::from(u16::from_be_bytes([header[3], header[4]]));
    bytes.split_at_checked(5 + len)
}
