//! Workloads whose captured connections do not arrive here. The programs tell of each one that
//! ended without an answer; the next one that arrives takes everything back.
//!
//! The daemon enters no pod to find out why: `kedge doctor` does.

use crate::limits::{FAILURES_UNCAPTURABLE, SUSPECTS};
use crate::world::World;
use kedge_api::Uncapturable as Listed;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A cheap handle: for workers, for the reader of the programs' events, and for the edge.
#[derive(Clone, Default)]
pub struct Uncapturable(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// How many there are, so that an arrival is not held up by a lock on a good day.
    count: AtomicUsize,
    suspects: Mutex<HashMap<u64, Suspect>>,
}

#[derive(Default)]
struct Suspect {
    failures: u32,
    /// Of one that is listed.
    reason: Option<String>,
}

impl Uncapturable {
    /// A connection of a workload did not arrive. `certain`: its SYN was repeated in vain; else
    /// it may be the application that gave up, and only several in a row tell. `true`: the
    /// workload is uncapturable from now on.
    pub fn failed(&self, world: &World, cgroup_id: u64, certain: bool, reason: &str) -> bool {
        let mut suspects = self.lock();
        if !suspects.contains_key(&cgroup_id) {
            suspects.retain(|known, _| world.cgroups.contains_key(known));
            if suspects.len() >= SUSPECTS || !world.cgroups.contains_key(&cgroup_id) {
                return false;
            }
        }
        let suspect = suspects.entry(cgroup_id).or_default();
        suspect.failures += 1;
        let is_new = suspect.reason.is_none();
        if certain || suspect.failures >= FAILURES_UNCAPTURABLE {
            suspect.reason = Some(reason.to_owned());
        }
        let is_listed = suspect.reason.is_some();
        self.0.count.store(suspects.len(), Relaxed);
        is_new && is_listed
    }

    /// A connection of this cgroup has arrived. `true`: it was uncapturable until now.
    pub fn arrived(&self, cgroup_id: u64) -> bool {
        if self.0.count.load(Relaxed) == 0 {
            return false;
        }
        let mut suspects = self.lock();
        let suspect = suspects.remove(&cgroup_id);
        self.0.count.store(suspects.len(), Relaxed);
        suspect.is_some_and(|suspect| suspect.reason.is_some())
    }

    /// Those that are workloads of this node, for `kedge status`.
    pub fn list(&self, world: &World) -> Vec<Listed> {
        let suspects = self.lock();
        let listed = suspects.iter().filter_map(|(cgroup_id, suspect)| {
            let workload = world.workload_in(*cgroup_id)?;
            Some(Listed {
                uid: workload.uid.to_string(),
                id: workload.id.clone(),
                reason: suspect.reason.clone()?,
            })
        });
        let mut listed: Vec<_> = listed.collect();
        listed.sort_by(|one, other| one.uid.cmp(&other.uid));
        listed
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Suspect>> {
        self.0
            .suspects
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kedge_directory::Directory;
    use kedge_model::{NodeName, TrustDomain};
    use kedge_policy::Policy;

    fn world() -> World {
        let workload = |number: u64| {
            format!(
                "[[workload]]\nuid = \"pod-{number}\"\nid = \"spiffe://td/ns/x/sa/p{number}\"\n\
                 node = \"a\"\naddresses = [\"10.1.0.{number}\"]\ncgroup = \"pods/{number}\"\n"
            )
        };
        let nodes = "[[node]]\nname = \"a\"\naddresses = [\"10.0.0.1\"]\n";
        let text = format!("version = 1\n{nodes}{}{}", workload(1), workload(2));
        let uid = |number: u64| (number, format!("pod-{number}").into());
        World {
            node: NodeName::parse("a").expect("literal"),
            trust_domain: TrustDomain::parse("td").expect("literal"),
            directory: Directory::parse(&text).expect("literal"),
            policy: Policy::parse(Vec::new()).expect("no document"),
            cgroups: [uid(1), uid(2)].into(),
        }
    }

    fn listed(uncapturable: &Uncapturable) -> Vec<(String, String)> {
        let listed = uncapturable.list(&world()).into_iter();
        listed.map(|one| (one.uid, one.reason)).collect()
    }

    #[test]
    fn one_syn_that_was_repeated_in_vain_is_enough_and_is_said_once() {
        let uncapturable = Uncapturable::default();
        assert!(uncapturable.failed(&world(), 1, true, "dropped"));
        assert!(!uncapturable.failed(&world(), 1, true, "dropped"));
        assert_eq!(listed(&uncapturable), [("pod-1".into(), "dropped".into())]);
    }

    #[test]
    fn a_connection_that_was_given_up_counts_only_in_a_row() {
        let uncapturable = Uncapturable::default();
        for _ in 0..3 {
            for _ in 1..FAILURES_UNCAPTURABLE {
                assert!(!uncapturable.failed(&world(), 1, false, "refused"));
            }
            assert!(!uncapturable.arrived(1), "it was not listed yet");
        }
        for failure in 1..=FAILURES_UNCAPTURABLE {
            let is_last = failure == FAILURES_UNCAPTURABLE;
            assert_eq!(uncapturable.failed(&world(), 2, false, "refused"), is_last);
        }
        assert_eq!(listed(&uncapturable), [("pod-2".into(), "refused".into())]);
    }

    #[test]
    fn one_arrival_takes_everything_back_and_is_said_once() {
        let uncapturable = Uncapturable::default();
        uncapturable.failed(&world(), 1, true, "dropped");
        uncapturable.failed(&world(), 2, true, "dropped");
        assert!(uncapturable.arrived(1));
        assert!(!uncapturable.arrived(1));
        assert_eq!(listed(&uncapturable), [("pod-2".into(), "dropped".into())]);
    }

    #[test]
    fn a_cgroup_that_is_no_workload_is_not_kept() {
        let uncapturable = Uncapturable::default();
        assert!(!uncapturable.failed(&world(), 99, true, "dropped"));
        assert_eq!(uncapturable.0.count.load(Relaxed), 0);
    }
}
