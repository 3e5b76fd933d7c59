//! What anybody may cause, by kind: always counted, but told only a few times a second, so that
//! nobody can wash away the events that an operator looks for.

use crate::limits::EVENTS_PER_KIND;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Kinds are few: labels in the source, no bytes of a peer.
#[derive(Default)]
pub struct Tally(Mutex<BTreeMap<&'static str, Kind>>);

#[derive(Default)]
struct Kind {
    total: u64,
    /// The present second: when it began, and what was told in it.
    began: Option<Instant>,
    told: u32,
    untold: u64,
}

impl Tally {
    /// Counts one more. `Some`: tell it, and that so many before it were not told.
    pub fn note(&self, kind: &'static str, now: Instant) -> Option<u64> {
        let mut kinds = self.lock();
        let kind = kinds.entry(kind).or_default();
        kind.total += 1;
        let is_over = |began| now.saturating_duration_since(began) >= Duration::from_secs(1);
        if kind.began.is_none_or(is_over) {
            kind.began = Some(now);
            kind.told = 0;
        }
        if kind.told >= EVENTS_PER_KIND {
            kind.untold += 1;
            return None;
        }
        kind.told += 1;
        Some(std::mem::take(&mut kind.untold))
    }

    /// Each kind under its name behind `prefix`.
    pub fn counts(&self, prefix: &str) -> BTreeMap<String, u64> {
        let kinds = self.lock();
        let named = kinds.iter();
        named
            .map(|(name, kind)| (format!("{prefix}{name}"), kind.total))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Kind>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_and_told_a_few_times_a_second() {
        let (tally, start) = (Tally::default(), Instant::now());
        let told = (0..30_000).filter(|_| tally.note("flood", start).is_some());
        assert_eq!(told.count(), EVENTS_PER_KIND as usize);
        assert_eq!(tally.note("rare", start), Some(0), "another kind is heard");
        let untold = 30_000 - u64::from(EVENTS_PER_KIND);
        let later = start + Duration::from_secs(1);
        assert_eq!(tally.note("flood", later), Some(untold));
        assert_eq!(tally.note("flood", later), Some(0));
        let counts = tally.counts("links.failed.");
        assert_eq!(counts["links.failed.flood"], 30_002);
        assert_eq!(counts["links.failed.rare"], 1);
    }
}
