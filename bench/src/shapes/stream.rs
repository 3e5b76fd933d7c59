//! The bytes of a stream. Both directions begin nowhere near the same bytes, and no two streams
//! share a pattern: what was lost, repeated, reordered or mixed up shows at its position.

use crate::protocol::{NONCE_LEN, Nonce, hash};

/// How many bytes are made at once.
const WORD: usize = size_of::<u64>();

/// One direction of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Up,
    Down,
}

/// Makes a direction's bytes, or checks them.
#[derive(Clone, Debug)]
pub struct Pattern {
    key: u64,
    position: u64,
}

impl Pattern {
    pub fn new(nonce: &Nonce, direction: Direction) -> Self {
        let mut seed = nonce.to_vec();
        seed.push(direction as u8);
        let digest = hash(&seed);
        let (key, _) = digest.split_at(8);
        Self {
            key: u64::from_be_bytes(key.try_into().expect("8 of 32 bytes")),
            position: 0,
        }
    }

    pub fn position(&self) -> u64 {
        self.position
    }

    pub fn fill(&mut self, bytes: &mut [u8]) {
        let to_boundary = (WORD - self.in_word()) % WORD;
        let (head, rest) = bytes.split_at_mut(to_boundary.min(bytes.len()));
        self.fill_part(head);
        let mut words = rest.chunks_exact_mut(WORD);
        for word in &mut words {
            word.copy_from_slice(&self.word());
            self.position += WORD as u64;
        }
        self.fill_part(words.into_remainder());
    }

    /// The first position whose byte is another one than it should be.
    pub fn check(&mut self, bytes: &[u8]) -> Result<(), u64> {
        let mut expected = [0; 1024];
        for bytes in bytes.chunks(expected.len()) {
            let (from, expected) = (self.position, &mut expected[..bytes.len()]);
            self.fill(expected);
            if bytes != expected {
                let same = bytes
                    .iter()
                    .zip(expected)
                    .take_while(|(is, should)| is == should);
                return Err(from + same.count() as u64);
            }
        }
        Ok(())
    }

    /// No more than is left of this word.
    fn fill_part(&mut self, bytes: &mut [u8]) {
        let from = self.in_word();
        bytes.copy_from_slice(&self.word()[from..][..bytes.len()]);
        self.position += bytes.len() as u64;
    }

    fn in_word(&self) -> usize {
        usize::try_from(self.position % WORD as u64).expect("less than a word")
    }

    fn word(&self) -> [u8; WORD] {
        mix(self.key ^ (self.position / WORD as u64)).to_le_bytes()
    }
}

/// The finalizer of splitmix64.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The first bytes of whoever speaks first.
pub const OPENING: usize = NONCE_LEN;

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(nonce: u8, direction: Direction, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        Pattern::new(&[nonce; NONCE_LEN], direction).fill(&mut bytes);
        bytes
    }

    #[test]
    fn loss_repetition_and_a_mix_up_are_found_where_they_are() {
        let right = bytes(1, Direction::Up, 100);
        let check = |bytes: &[u8]| Pattern::new(&[1; NONCE_LEN], Direction::Up).check(bytes);
        assert_eq!(check(&right), Ok(()));
        let lost = [&right[..40], &right[41..]].concat();
        assert!(check(&lost).is_err_and(|at| (40..45).contains(&at)));
        let twice = [&right[..40], &right[32..]].concat();
        assert!(check(&twice).is_err_and(|at| (40..45).contains(&at)));
        assert!(check(&bytes(1, Direction::Down, 100)).is_err());
        assert!(check(&bytes(2, Direction::Up, 100)).is_err());
    }

    #[test]
    fn pieces_make_the_same_bytes_as_the_whole() {
        let mut pattern = Pattern::new(&[1; NONCE_LEN], Direction::Up);
        let mut pieces = vec![0; 100];
        let (one, rest) = pieces.split_at_mut(13);
        pattern.fill(one);
        pattern.fill(rest);
        assert_eq!(pieces, bytes(1, Direction::Up, 100));
    }
}
