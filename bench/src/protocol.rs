//! What a connection's first byte means, and the messages of an exchange.

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};

/// Nonce, length and that many bytes with their SHA-256; the same back, with other bytes.
pub const EXCHANGE: u8 = b'E';
/// Bytes until the end; the answer is their number.
pub const BULK: u8 = b'B';
/// A size, then requests of that size, each echoed.
pub const ECHO: u8 = b'R';
/// One byte back.
pub const PING: u8 = b'C';
/// One byte back, then nothing until the end.
pub const HOLD: u8 = b'I';
/// The client's address as the server sees it, by accept() and by getpeername(); once more for
/// each further byte.
pub const PEER: u8 = b'P';
/// The client ends its direction after some bytes and then gets their SHA-256.
pub const CLIENT_ENDS_FIRST: u8 = b'U';
/// The server ends its direction after some bytes and then still takes the client's.
pub const SERVER_ENDS_FIRST: u8 = b'D';
/// One byte back, then the server resets.
pub const SERVER_RESETS: u8 = b'X';
/// One byte back, then the client resets.
pub const CLIENT_RESETS: u8 = b'Y';
/// Who sends until the connection dies: then one byte back.
pub const SILENCE: u8 = b'S';
pub const SILENCE_IDLE: u8 = b'i';
pub const SILENCE_UP: u8 = b'u';
pub const SILENCE_DOWN: u8 = b'd';
/// The client sends, and the server reads nothing.
pub const SILENCE_HELD: u8 = b'h';
/// What was seen so far.
pub const REPORT: u8 = b'Q';
/// Forget what was seen so far.
pub const CLEAR: u8 = b'Z';

pub const GREETING: &[u8] = b"220 kedge-load is ready\r\n";
/// Stands at the start of every payload: whoever sees it on a wire has found plaintext.
pub const MARKER: &[u8] = b"KEDGE-LAB-PLAINTEXT-MARKER";
/// Larger payloads are refused, so that nobody makes the server hold more.
pub const PAYLOAD_BYTES_MAX: u32 = 1 << 20;
/// Bytes that the server sends before it ends its direction first.
pub const SERVER_FIRST_BYTES: usize = 40_000;

pub const NONCE_LEN: usize = 16;
pub const HASH_LEN: usize = SHA256_OUTPUT_LEN;
pub type Nonce = [u8; NONCE_LEN];
pub type Hash = [u8; HASH_LEN];

/// Nonce, length, payload and hash, as they follow the first byte or come back.
#[must_use]
pub fn encode(nonce: &Nonce, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("payloads are bounded by PAYLOAD_BYTES_MAX");
    let mut message = Vec::with_capacity(NONCE_LEN + 4 + payload.len() + HASH_LEN);
    message.extend_from_slice(nonce);
    message.extend_from_slice(&length.to_be_bytes());
    message.extend_from_slice(payload);
    message.extend_from_slice(&hash(payload));
    message
}

#[must_use]
pub fn hash(bytes: &[u8]) -> Hash {
    digest(&SHA256, bytes)
        .as_ref()
        .try_into()
        .expect("SHA-256 has 32 bytes")
}

/// One value for a set of nonces, whatever their order: SHA-256 of the sorted list.
#[must_use]
pub fn fingerprint<'n>(nonces: impl IntoIterator<Item = &'n Nonce>) -> String {
    let mut sorted: Vec<_> = nonces.into_iter().copied().collect();
    sorted.sort_unstable();
    hex(&hash(sorted.as_flattened()))
}

#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Payload bytes: the marker, then splitmix64 from the seed. Compressible by nobody, cheap to make.
#[must_use]
pub fn payload(seed: &Nonce, length: usize) -> Vec<u8> {
    let (low, high) = seed.split_at(8);
    // Both halves count, also when they are alike.
    let mut state = u64::from_be_bytes(low.try_into().expect("8 of 16 bytes"));
    state = splitmix64(&mut state) ^ u64::from_be_bytes(high.try_into().expect("8 of 16 bytes"));
    let mut bytes = Vec::with_capacity(length + 8);
    bytes.extend_from_slice(&MARKER[..MARKER.len().min(length)]);
    while bytes.len() < length {
        bytes.extend_from_slice(&splitmix64(&mut state).to_be_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_knows_the_set_and_not_its_order() {
        let (one, two) = ([1; NONCE_LEN], [2; NONCE_LEN]);
        assert_eq!(fingerprint([&one, &two]), fingerprint([&two, &one]));
        assert_ne!(fingerprint([&one, &two]), fingerprint([&one, &one]));
    }

    #[test]
    fn payloads_have_their_length_and_differ_by_seed() {
        for length in [0, 1, 7, 8, 26, 27, 100] {
            assert_eq!(payload(&[3; NONCE_LEN], length).len(), length);
        }
        assert_ne!(payload(&[3; NONCE_LEN], 100), payload(&[4; NONCE_LEN], 100));
    }
}
