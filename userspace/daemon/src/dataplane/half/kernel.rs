//! From our words for keys to the kernel's.

use kedge_model::Suite;
use kedge_record::DirectionKey;
use kedge_sys::ktls::{Cipher, Key};

pub fn cipher(suite: Suite) -> Cipher {
    match suite {
        Suite::Aes128Gcm => Cipher::Aes128Gcm,
        Suite::Aes256Gcm => Cipher::Aes256Gcm,
        Suite::ChaCha20Poly1305 => Cipher::ChaCha20Poly1305,
    }
}

pub fn kernel_key(key: &DirectionKey) -> Key {
    Key::new(
        cipher(key.suite()),
        key.key(),
        key.iv(),
        key.record_number(),
    )
}
