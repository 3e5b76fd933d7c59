//! What the server has seen: shared by its connections, asked for by `kedge-load report`.

use crate::protocol::{Nonce, fingerprint};
use crate::silence::unix_ms;
use serde::Serialize;
use std::collections::HashSet;

#[derive(Default)]
pub struct Seen {
    nonces: HashSet<Nonce>,
    duplicates: u64,
    hash_errors: u64,
    resets: u64,
    ends: u64,
    late_bytes: u64,
    deaths: u64,
    last_death_unix_ms: u64,
}

/// [`Seen`], in the form in which it is told.
#[derive(Serialize)]
pub struct Report {
    nonces: usize,
    nonces_sha256: String,
    /// Exchanges whose nonce had been seen before: bytes delivered twice.
    duplicates: u64,
    /// Payloads that did not arrive as they were sent.
    hash_errors: u64,
    /// Connections that the client was expected to reset, and did.
    resets: u64,
    /// Connections that the client was expected to reset, and that ended as if complete.
    ends: u64,
    /// Bytes taken after the server had ended its own direction.
    late_bytes: u64,
    /// Connections that waited for their peer's death and got an error.
    deaths: u64,
    last_death_unix_ms: u64,
}

impl Seen {
    pub fn exchange(&mut self, nonce: Nonce, hash_agrees: bool) {
        self.duplicates += u64::from(!self.nonces.insert(nonce));
        self.hash_errors += u64::from(!hash_agrees);
    }

    pub fn end_of_reset_connection(&mut self, was_reset: bool) {
        *(if was_reset {
            &mut self.resets
        } else {
            &mut self.ends
        }) += 1;
    }

    pub fn late_bytes(&mut self, count: usize) {
        self.late_bytes += count as u64;
    }

    pub fn death(&mut self) {
        self.deaths += 1;
        self.last_death_unix_ms = unix_ms();
    }

    pub fn report(&self) -> Report {
        Report {
            nonces: self.nonces.len(),
            nonces_sha256: fingerprint(&self.nonces),
            duplicates: self.duplicates,
            hash_errors: self.hash_errors,
            resets: self.resets,
            ends: self.ends,
            late_bytes: self.late_bytes,
            deaths: self.deaths,
            last_death_unix_ms: self.last_death_unix_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_seen_twice_is_a_duplicate() {
        let mut seen = Seen::default();
        seen.exchange([1; 16], true);
        seen.exchange([1; 16], true);
        let report = seen.report();
        assert_eq!(
            (report.nonces, report.duplicates, report.hash_errors),
            (1, 1, 0)
        );
    }
}
