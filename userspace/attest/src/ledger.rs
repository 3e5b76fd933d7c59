//! Counters that never go back: per AK the highest (reset, restart, time) wins.

use crate::ak::AkName;
use crate::attest::Counters;
use crate::error::LedgerError;
use crate::limits::AKS_MAX;
use std::collections::HashMap;

/// What is newest of each AK. Verifiers keep one for Evidence, Relying Parties one for Results.
pub struct Ledger {
    newest: HashMap<AkName, (Counters, u64)>,
    limit: usize,
}

/// Where a statement stands among those seen of its AK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// None was newer.
    Newest,
    /// Of the same boot, and made before one that was seen already. No fault: keep the other.
    Older,
}

impl Default for Ledger {
    fn default() -> Self {
        Self::with_limit(AKS_MAX)
    }
}

impl Ledger {
    /// One that remembers at most `limit` AKs.
    #[must_use]
    pub fn with_limit(limit: usize) -> Self {
        Self {
            newest: HashMap::new(),
            limit,
        }
    }

    /// Takes note of a statement that has been verified. `at` grows within a boot: the TPM's clock
    /// in milliseconds for Evidence, the time of issue in seconds for a Result.
    ///
    /// # Errors
    /// When the AK's TPM has been further already. Nothing is noted then.
    pub fn admit(&mut self, ak: AkName, found: Counters, at: u64) -> Result<Order, LedgerError> {
        let Some(newest) = self.newest.get_mut(&ak) else {
            if self.newest.len() >= self.limit {
                return Err(LedgerError::Full(self.limit));
            }
            self.newest.insert(ak, (found, at));
            return Ok(Order::Newest);
        };
        if found < newest.0 {
            return Err(LedgerError::RolledBack {
                ak,
                newest: newest.0,
                found,
            });
        }
        if (found, at) < *newest {
            return Ok(Order::Older);
        }
        *newest = (found, at);
        Ok(Order::Newest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Sha256;

    fn ak(n: u8) -> AkName {
        AkName(Sha256([n; 32]))
    }

    fn at(reset: u32, restart: u32) -> Counters {
        Counters { reset, restart }
    }

    #[test]
    fn counters_that_went_back_are_refused_and_change_nothing() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.admit(ak(1), at(5, 2), 100), Ok(Order::Newest));
        for back in [at(5, 1), at(4, 9)] {
            let refused = LedgerError::RolledBack {
                ak: ak(1),
                newest: at(5, 2),
                found: back,
            };
            assert_eq!(ledger.admit(ak(1), back, 999), Err(refused));
        }
        assert_eq!(ledger.admit(ak(1), at(5, 2), 99), Ok(Order::Older));
        assert_eq!(ledger.admit(ak(1), at(5, 2), 100), Ok(Order::Newest));
        assert_eq!(ledger.admit(ak(1), at(6, 0), 1), Ok(Order::Newest));
        assert_eq!(ledger.admit(ak(2), at(0, 0), 0), Ok(Order::Newest));
    }

    #[test]
    fn aks_past_the_bound_are_refused_and_those_known_go_on() {
        let mut ledger = Ledger::with_limit(2);
        assert!(ledger.admit(ak(1), at(0, 0), 0).is_ok());
        assert!(ledger.admit(ak(2), at(0, 0), 0).is_ok());
        assert_eq!(ledger.admit(ak(3), at(0, 0), 0), Err(LedgerError::Full(2)));
        assert!(ledger.admit(ak(1), at(1, 0), 0).is_ok());
    }
}
