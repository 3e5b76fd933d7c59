//! Who may ask how much: a rate for each caller, and room that one caller leaves for the others.

use crate::claims::Caller;
use crate::error::BatchError;
use crate::limits::{CALLER_BURST, CALLER_PER_SECOND, CALLERS_MAX};
use std::collections::HashMap;
use std::time::Duration;

/// What a caller has left to ask, in thousandths of a challenge, and when that was counted.
struct Bucket {
    left: u64,
    at: Duration,
}

const FULL: u64 = CALLER_BURST as u64 * 1_000;

/// A token bucket for each caller that is not at rest.
#[derive(Default)]
pub(crate) struct Rates {
    buckets: HashMap<Caller, Bucket>,
}

impl Rates {
    /// Takes one challenge from `caller`'s bucket. `now` is any clock that does not go back.
    pub(crate) fn take(&mut self, caller: &Caller, now: Duration) -> Result<(), BatchError> {
        if !self.buckets.contains_key(caller) {
            self.make_room(now)?;
        }
        let bucket = self.buckets.entry(caller.clone()).or_insert(Bucket {
            left: FULL,
            at: now,
        });
        bucket.refill(now);
        match bucket.left.checked_sub(1_000) {
            Some(left) => bucket.left = left,
            None => return Err(BatchError::TooFast(CALLER_PER_SECOND)),
        }
        Ok(())
    }

    /// Forgets who has rested long enough to be as one that never came.
    fn make_room(&mut self, now: Duration) -> Result<(), BatchError> {
        if self.buckets.len() < CALLERS_MAX {
            return Ok(());
        }
        self.buckets.retain(|_, bucket| {
            bucket.refill(now);
            bucket.left < FULL
        });
        match self.buckets.len() < CALLERS_MAX {
            true => Ok(()),
            false => Err(BatchError::TooManyCallers(CALLERS_MAX)),
        }
    }
}

impl Bucket {
    fn refill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.at).as_millis();
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        let gained = passed.saturating_mul(u64::from(CALLER_PER_SECOND));
        self.left = self.left.saturating_add(gained).min(FULL);
        self.at = self.at.max(now);
    }
}

/// How many places of a room each caller holds. A caller that holds as many as are free gets no
/// more: one that floods ends at half, the next at half of what is left.
pub(crate) struct Places {
    room: usize,
    taken: usize,
    by_caller: HashMap<Caller, usize>,
}

impl Places {
    pub(crate) fn new(room: usize) -> Self {
        Self {
            room,
            taken: 0,
            by_caller: HashMap::new(),
        }
    }

    pub(crate) fn take(&mut self, caller: &Caller) -> Result<(), BatchError> {
        let free = self.room - self.taken;
        if free == 0 {
            return Err(BatchError::Full(self.room));
        }
        let held = self.by_caller.get(caller).copied().unwrap_or(0);
        if held >= free {
            return Err(BatchError::OverShare(held));
        }
        self.by_caller.insert(caller.clone(), held + 1);
        self.taken += 1;
        Ok(())
    }

    /// Everybody who waited is being answered.
    pub(crate) fn clear(&mut self) {
        self.by_caller.clear();
        self.taken = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(n: usize) -> Caller {
        Caller::new(format!("caller-{n}")).expect("short")
    }

    #[test]
    fn a_caller_that_asks_too_fast_is_refused_until_it_has_rested() {
        let mut rates = Rates::default();
        for _ in 0..CALLER_BURST {
            assert_eq!(rates.take(&caller(1), Duration::ZERO), Ok(()));
        }
        let refused = rates.take(&caller(1), Duration::ZERO);
        assert_eq!(refused, Err(BatchError::TooFast(CALLER_PER_SECOND)));
        assert_eq!(rates.take(&caller(2), Duration::ZERO), Ok(()));
        let later = Duration::from_millis(1_000 / u64::from(CALLER_PER_SECOND) + 1);
        assert_eq!(rates.take(&caller(1), later), Ok(()));
        assert!(rates.take(&caller(1), later).is_err());
    }

    #[test]
    fn callers_past_the_bound_are_refused_until_others_have_rested() {
        let mut rates = Rates::default();
        for n in 0..CALLERS_MAX {
            assert_eq!(rates.take(&caller(n), Duration::ZERO), Ok(()));
        }
        let refused = rates.take(&caller(CALLERS_MAX), Duration::ZERO);
        assert_eq!(refused, Err(BatchError::TooManyCallers(CALLERS_MAX)));
        let later = Duration::from_secs(1);
        assert_eq!(rates.take(&caller(CALLERS_MAX), later), Ok(()));
        assert_eq!(rates.buckets.len(), 1);
    }

    #[test]
    fn a_caller_that_floods_ends_at_half_and_the_next_at_half_of_what_is_left() {
        let mut places = Places::new(64);
        let fill = |places: &mut Places, n| {
            (0..64)
                .take_while(|_| places.take(&caller(n)).is_ok())
                .count()
        };
        assert_eq!(fill(&mut places, 1), 32);
        assert_eq!(places.take(&caller(1)), Err(BatchError::OverShare(32)));
        assert_eq!(fill(&mut places, 2), 16);
        let many = (3..100)
            .filter(|n| places.take(&caller(*n)).is_ok())
            .count();
        assert_eq!((many, places.taken), (16, 64));
        assert_eq!(places.take(&caller(200)), Err(BatchError::Full(64)));
        places.clear();
        assert_eq!(places.take(&caller(1)), Ok(()));
    }
}
