//! What was refused a moment ago and would be again: the programs are told, so that the next
//! connect() fails by itself, as it would without kedge, instead of succeeding and being reset.
//!
//! An entry stands while somebody meets it and each look at its place (see
//! [`looks`](super::looks)) says the same. It holds for [`REFUSAL_VALID`] only, so that a daemon
//! that dies makes nothing unreachable for longer than that.

use crate::dataplane::classify::Refused;
use crate::errno::{ECONNREFUSED, EHOSTUNREACH};
use crate::limits::{
    LOOK_ENDPOINTS, LOOK_EVERY, LOOKS_AT_ONCE, REFUSAL_IDLE, REFUSAL_VALID, REFUSALS,
    REFUSALS_PER_WORKLOAD,
};
use kedge_api::Versions;
use kedge_model::{OriginalDst, Refusal, SourceAddr};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Who asks for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Asked {
    pub cgroup_id: u64,
    pub to: OriginalDst,
}

/// The node's refusals that stand: a cheap handle, one for each worker. It is locked when a
/// connection is refused, never while one is carried.
#[derive(Clone)]
pub struct Refusals(Arc<Shared>);

struct Shared {
    programs: kedge_capture::Refusals,
    table: Mutex<Table>,
}

/// How a refusal is repeated by connect().
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lasting {
    errno: u16,
    /// From the first time on. Otherwise only once a look has confirmed it: a peer that has just
    /// been restarted is there again a moment later.
    at_once: bool,
}

/// `None` for what says nothing about the next connection.
fn lasting(refusal: Refusal) -> Option<Lasting> {
    let (errno, at_once) = match refusal {
        Refusal::WorkloadRefused | Refusal::NoEndpoint => (ECONNREFUSED, true),
        Refusal::Denied | Refusal::NodeUnmanaged | Refusal::DestinationUnknown => {
            (EHOSTUNREACH, true)
        }
        Refusal::WorkloadUnreachable | Refusal::LinkFailed => (EHOSTUNREACH, false),
        _ => return None,
    };
    Some(Lasting { errno, at_once })
}

/// Whether it follows from the node's own snapshot, so that a new snapshot may end it.
fn is_decided(refusal: Refusal) -> bool {
    !matches!(
        refusal,
        Refusal::WorkloadRefused | Refusal::WorkloadUnreachable | Refusal::LinkFailed
    )
}

impl Refusals {
    pub fn new(programs: kedge_capture::Refusals) -> Self {
        Self(Arc::new(Shared {
            programs,
            table: Mutex::default(),
        }))
    }

    /// A connection was refused. `choices`: from how many endpoints its own was picked; what one
    /// of several did says nothing about the others until they have been looked at.
    pub fn learn(&self, asked: Asked, client: SourceAddr, refused: &Refused, choices: usize) {
        let Some(lasting) = lasting(refused.refusal).filter(|_| choices <= LOOK_ENDPOINTS) else {
            return;
        };
        let at_once = lasting.at_once && choices <= 1;
        let mut table = self.table();
        if table.add(asked, client, refused, Instant::now()) && at_once {
            self.tell(&mut table, asked, refused.refusal, lasting);
        }
    }

    /// A client had gone before its connection was opened, as health checkers do that only want
    /// connect()'s outcome: the place is looked at in its stead, and the next one knows.
    pub fn suspect(&self, asked: Asked, client: SourceAddr) {
        self.table().suspect(asked, client, Instant::now());
    }

    /// The entries whose places are to be looked at now; [`settle`](Self::settle) each.
    pub fn due(&self) -> Vec<(Asked, SourceAddr)> {
        let now = Instant::now();
        let mut table = self.table();
        let (due, idle) = table.due(now, |asked| {
            let last = self
                .0
                .programs
                .last_asked(asked.cgroup_id, asked.to.socket_addr());
            last.ok().flatten().and_then(|age| now.checked_sub(age))
        });
        for asked in idle {
            self.forget(&mut table, asked);
        }
        due
    }

    /// What a look at an entry's place came to.
    pub fn settle(&self, asked: Asked, looked: Result<(), Refused>) {
        let mut table = self.table();
        let Err(refused) = looked else {
            return self.forget(&mut table, asked);
        };
        match lasting(refused.refusal) {
            Some(lasting) if table.keep(asked, &refused, Instant::now()) => {
                self.tell(&mut table, asked, refused.refusal, lasting);
            }
            _ => self.forget(&mut table, asked),
        }
    }

    /// Ends those that `stands` does not give again, of those that a snapshot decided.
    pub fn decide_again(&self, stands: impl Fn(&Asked, SourceAddr) -> bool) {
        let mut table = self.table();
        for asked in table.ended(stands) {
            self.forget(&mut table, asked);
        }
    }

    /// What the refusal that connect() repeated at `met` was decided by, where that is certain.
    pub fn decided_by(&self, asked: Asked, met: Instant) -> Option<Versions> {
        self.table().decided_by(asked, met)
    }

    /// How many stand.
    pub fn count(&self) -> usize {
        self.table().count
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A map without room leaves connect() as it was: captured, and refused by us.
    fn tell(&self, table: &mut Table, asked: Asked, refusal: Refusal, lasting: Lasting) {
        let refusal = kedge_capture::Refusal {
            errno: lasting.errno,
            reason: refusal.code(),
        };
        let to = asked.to.socket_addr();
        let programs = &self.0.programs;
        let told = programs.file(asked.cgroup_id, to, refusal, REFUSAL_VALID);
        if told.is_err() {
            self.forget(table, asked);
        }
    }

    /// An entry that cannot be removed from the map runs out there.
    fn forget(&self, table: &mut Table, asked: Asked) {
        table.remove(asked);
        let to = asked.to.socket_addr();
        let _ = self.0.programs.withdraw(asked.cgroup_id, to);
    }
}

#[derive(Clone, Copy, Debug)]
struct Standing {
    /// A client that was refused: looks are made in its place.
    client: SourceAddr,
    /// `None`: nobody knows yet.
    refusal: Option<Refusal>,
    /// What decided that, and when.
    decided: Option<(Versions, Instant)>,
    /// When somebody came to us last.
    refused_at: Instant,
    /// `None`: somebody is looking.
    due: Option<Instant>,
}

impl Standing {
    fn refuse(&mut self, refused: &Refused, now: Instant) {
        let same = self.refusal == Some(refused.refusal)
            && self.decided.map(|(by, _)| by) == refused.decided_by;
        if !same {
            self.refusal = Some(refused.refusal);
            self.decided = refused.decided_by.map(|by| (by, now));
        }
    }
}

/// By workload, so that none can take another's room.
#[derive(Default)]
struct Table {
    workloads: HashMap<u64, HashMap<OriginalDst, Standing>>,
    count: usize,
    looking: usize,
}

impl Table {
    /// Adds or renews an entry. `false`: its workload, or the node, has too many.
    fn add(&mut self, asked: Asked, client: SourceAddr, refused: &Refused, now: Instant) -> bool {
        let due = now + LOOK_EVERY;
        let Some(standing) = self.entry(asked, client, due) else {
            return false;
        };
        standing.client = client;
        standing.refuse(refused, now);
        standing.refused_at = now;
        true
    }

    fn suspect(&mut self, asked: Asked, client: SourceAddr, now: Instant) {
        if let Some(standing) = self.entry(asked, client, now) {
            standing.refused_at = now;
        }
    }

    /// The entry that there is, or a new one.
    fn entry(&mut self, asked: Asked, client: SourceAddr, due: Instant) -> Option<&mut Standing> {
        let places = self.workloads.entry(asked.cgroup_id).or_default();
        if !places.contains_key(&asked.to) {
            if places.len() >= REFUSALS_PER_WORKLOAD || self.count >= REFUSALS {
                return None;
            }
            self.count += 1;
        }
        Some(places.entry(asked.to).or_insert(Standing {
            client,
            refusal: None,
            decided: None,
            refused_at: due,
            due: Some(due),
        }))
    }

    /// Entries to look at, and those that nobody has asked for in a while. `asked_at` knows who
    /// met an entry in connect().
    fn due(
        &mut self,
        now: Instant,
        asked_at: impl Fn(&Asked) -> Option<Instant>,
    ) -> (Vec<(Asked, SourceAddr)>, Vec<Asked>) {
        let (mut due, mut idle) = (Vec::new(), Vec::new());
        for (cgroup_id, places) in &mut self.workloads {
            for (to, standing) in places {
                let asked = Asked {
                    cgroup_id: *cgroup_id,
                    to: *to,
                };
                if self.looking >= LOOKS_AT_ONCE || standing.due.is_none_or(|due| due > now) {
                    continue;
                }
                let last =
                    asked_at(&asked).map_or(standing.refused_at, |at| at.max(standing.refused_at));
                if now.duration_since(last) > REFUSAL_IDLE {
                    idle.push(asked);
                } else {
                    standing.due = None;
                    self.looking += 1;
                    due.push((asked, standing.client));
                }
            }
        }
        (due, idle)
    }

    /// The look is over, and said the same as before, or another refusal.
    fn keep(&mut self, asked: Asked, refused: &Refused, now: Instant) -> bool {
        let places = self.workloads.get_mut(&asked.cgroup_id);
        let Some(standing) = places.and_then(|places| places.get_mut(&asked.to)) else {
            return false;
        };
        if standing.due.replace(now + LOOK_EVERY).is_none() {
            self.looking -= 1;
        }
        standing.refuse(refused, now);
        true
    }

    fn decided_by(&self, asked: Asked, met: Instant) -> Option<Versions> {
        let standing = self.workloads.get(&asked.cgroup_id)?.get(&asked.to)?;
        let (versions, since) = standing.decided?;
        (since <= met).then_some(versions)
    }

    fn ended(&self, stands: impl Fn(&Asked, SourceAddr) -> bool) -> Vec<Asked> {
        let all = self.workloads.iter().flat_map(|(cgroup_id, places)| {
            places.iter().map(|(to, standing)| {
                let (cgroup_id, to) = (*cgroup_id, *to);
                (Asked { cgroup_id, to }, standing)
            })
        });
        all.filter(|(asked, standing)| {
            standing.refusal.is_some_and(is_decided) && !stands(asked, standing.client)
        })
        .map(|(asked, _)| asked)
        .collect()
    }

    fn remove(&mut self, asked: Asked) {
        let Some(places) = self.workloads.get_mut(&asked.cgroup_id) else {
            return;
        };
        if let Some(standing) = places.remove(&asked.to) {
            self.count -= 1;
            self.looking -= usize::from(standing.due.is_none());
        }
        if places.is_empty() {
            self.workloads.remove(&asked.cgroup_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn asked(cgroup_id: u64, port: usize) -> Asked {
        let port = u16::try_from(port).expect("a port");
        let to = OriginalDst::new(([10, 0, 0, 1], port).into());
        Asked { cgroup_id, to }
    }

    fn client() -> SourceAddr {
        SourceAddr::new(([10, 0, 0, 2], 40_000).into())
    }

    fn add(table: &mut Table, asked: Asked, now: Instant) -> bool {
        table.add(asked, client(), &Refusal::WorkloadRefused.into(), now)
    }

    #[test]
    fn a_workload_past_its_bound_keeps_no_more_and_leaves_the_room_of_others() {
        let (mut table, now) = (Table::default(), Instant::now());
        for port in 0..REFUSALS_PER_WORKLOAD {
            assert!(add(&mut table, asked(1, port), now));
        }
        assert!(!add(&mut table, asked(1, REFUSALS_PER_WORKLOAD), now));
        assert!(add(&mut table, asked(1, 0), now), "renewed");
        assert!(add(&mut table, asked(2, 0), now));
        table.remove(asked(1, 7));
        assert!(add(&mut table, asked(1, REFUSALS_PER_WORKLOAD), now));
    }

    #[test]
    fn the_table_past_its_bound_keeps_no_more() {
        let (mut table, now) = (Table::default(), Instant::now());
        for number in 0..REFUSALS {
            let workload = (number / REFUSALS_PER_WORKLOAD) as u64;
            assert!(add(&mut table, asked(workload, number), now));
        }
        assert!(!add(&mut table, asked(u64::MAX, 1), now));
        assert_eq!(table.count, REFUSALS);
    }

    #[test]
    fn a_place_is_looked_at_once_a_second_and_by_one_at_a_time() {
        let (mut table, now) = (Table::default(), Instant::now());
        add(&mut table, asked(1, 80), now);
        let due = |table: &mut Table, after: Duration| table.due(now + after, |_| None).0.len();
        assert_eq!(due(&mut table, Duration::ZERO), 0, "just refused");
        assert_eq!(due(&mut table, LOOK_EVERY), 1);
        assert_eq!(due(&mut table, LOOK_EVERY * 5), 0, "somebody is looking");
        assert!(table.keep(
            asked(1, 80),
            &Refusal::WorkloadRefused.into(),
            now + LOOK_EVERY * 5
        ));
        assert_eq!(due(&mut table, LOOK_EVERY * 5), 0);
        assert_eq!(due(&mut table, LOOK_EVERY * 6), 1);
    }

    #[test]
    fn a_place_that_nobody_knows_about_is_looked_at_at_once_and_a_known_one_in_its_turn() {
        let (mut table, now) = (Table::default(), Instant::now());
        table.suspect(asked(1, 80), client(), now);
        assert_eq!(table.due(now, |_| None).0, [(asked(1, 80), client())]);
        assert!(table.keep(asked(1, 80), &Refusal::WorkloadRefused.into(), now));
        table.suspect(asked(1, 80), client(), now);
        assert!(table.due(now, |_| None).0.is_empty());
    }

    #[test]
    fn looks_under_way_are_bounded_and_an_ended_one_makes_room() {
        let (mut table, now) = (Table::default(), Instant::now());
        for number in 0..LOOKS_AT_ONCE + 10 {
            let workload = (number / REFUSALS_PER_WORKLOAD) as u64;
            add(&mut table, asked(workload, number), now);
        }
        let later = now + LOOK_EVERY;
        let first = table.due(later, |_| None).0;
        assert_eq!(first.len(), LOOKS_AT_ONCE);
        assert!(table.due(later, |_| None).0.is_empty());
        table.remove(first[0].0);
        assert!(table.keep(first[1].0, &Refusal::WorkloadRefused.into(), later));
        assert_eq!(table.due(later, |_| None).0.len(), 2);
    }

    #[test]
    fn what_nobody_has_met_for_a_minute_is_idle_and_what_somebody_meets_is_not() {
        let (mut table, now) = (Table::default(), Instant::now());
        add(&mut table, asked(1, 80), now);
        add(&mut table, asked(1, 81), now);
        let later = now + REFUSAL_IDLE + Duration::from_secs(1);
        let met = |asked: &Asked| (asked.to.socket_addr().port() == 81).then_some(later);
        let (due, idle) = table.due(later, met);
        assert_eq!(idle, [asked(1, 80)]);
        assert_eq!(due, [(asked(1, 81), client())]);
    }

    #[test]
    fn a_new_snapshot_ends_what_the_old_one_had_decided_and_nothing_else() {
        let (mut table, now) = (Table::default(), Instant::now());
        table.add(asked(1, 80), client(), &Refusal::Denied.into(), now);
        table.add(asked(1, 81), client(), &Refusal::Denied.into(), now);
        table.add(
            asked(1, 82),
            client(),
            &Refusal::WorkloadRefused.into(),
            now,
        );
        let still_denied = |asked: &Asked, _| asked.to.socket_addr().port() == 81;
        assert_eq!(table.ended(still_denied), [asked(1, 80)]);
    }

    #[test]
    fn only_refusals_that_would_come_again_are_repeated() {
        let repeated = Refusal::ALL.iter().filter(|r| lasting(**r).is_some());
        let labels: Vec<_> = repeated.map(|refusal| refusal.label()).collect();
        assert_eq!(
            labels,
            [
                "denied",
                "destination-unknown",
                "no-endpoint",
                "node-unmanaged",
                "workload-refused",
                "workload-unreachable",
                "link-failed"
            ]
        );
    }
}
