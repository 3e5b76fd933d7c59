//! By which versions the programs decided at what time: their events are read a little later.

use crate::limits::TABLES_REMEMBERED;
use kedge_api::Versions;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The last few fillings of the programs' tables. While they are filled, and when that has failed,
/// they are a mixture, which is no version.
#[derive(Default)]
pub struct Tables(Mutex<VecDeque<Filling>>);

struct Filling {
    versions: Versions,
    since: Instant,
    until: Option<Instant>,
}

impl Tables {
    /// From now on the tables are being filled anew.
    pub fn end(&self, now: Instant) {
        if let Some(last) = self.fillings().back_mut() {
            last.until.get_or_insert(now);
        }
    }

    /// From now on every verdict of the programs is one of these versions.
    pub fn begin(&self, versions: Versions, now: Instant) {
        self.end(now);
        let mut fillings = self.fillings();
        if fillings.len() == TABLES_REMEMBERED {
            fillings.pop_front();
        }
        fillings.push_back(Filling {
            versions,
            since: now,
            until: None,
        });
    }

    /// The programs that ask these tables have only now been attached: what was told before was
    /// told by others.
    pub fn attached(&self, now: Instant) {
        if let Some(last) = self.fillings().back_mut() {
            last.since = now;
        }
    }

    /// What a program decided by, where that is certain.
    pub fn at(&self, when: Instant) -> Option<Versions> {
        let fillings = self.fillings();
        let mut in_force = fillings.iter().filter(|filling| {
            filling.since <= when && filling.until.is_none_or(|until| when < until)
        });
        in_force.next().map(|filling| filling.versions)
    }

    fn fillings(&self) -> MutexGuard<'_, VecDeque<Filling>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kedge_api::PolicyVersion;
    use std::time::Duration;

    fn versions(directory: u64) -> Versions {
        let policy = PolicyVersion(1);
        Versions { directory, policy }
    }

    #[test]
    fn what_a_program_told_is_named_by_the_tables_of_its_time_and_by_none_between_two() {
        let (tables, start) = (Tables::default(), Instant::now());
        let after = |s| start + Duration::from_secs(s);
        tables.begin(versions(1), start);
        tables.attached(after(10));
        tables.end(after(20));
        tables.begin(versions(2), after(30));
        let at = [5, 15, 25, 35].map(|s| tables.at(after(s)));
        assert_eq!(at, [None, Some(versions(1)), None, Some(versions(2))]);
        // A filling that failed ends nothing but what was.
        tables.end(after(40));
        tables.end(after(50));
        assert_eq!(tables.at(after(35)), Some(versions(2)));
        assert_eq!(tables.at(after(45)), None);
    }

    #[test]
    fn of_many_fillings_the_last_few_are_remembered() {
        let (tables, start) = (Tables::default(), Instant::now());
        let at = |number| start + Duration::from_secs(number);
        let bound = TABLES_REMEMBERED as u64;
        for number in 0..=bound {
            tables.begin(versions(number), at(number));
        }
        assert_eq!(tables.at(at(0)), None);
        assert_eq!(tables.at(at(1)), Some(versions(1)));
        assert_eq!(tables.at(at(bound)), Some(versions(bound)));
    }
}
