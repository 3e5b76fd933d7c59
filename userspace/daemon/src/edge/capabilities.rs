//! Workloads that could go round a guard which sits at their cgroup: by packets that pass no
//! socket of an address family that it sees, by other routes, or by programs of their own.

use crate::config::Config;
use crate::limits::{CGROUP_DEPTH, PROCESSES_LOOKED_AT};
use crate::world::World;
use kedge_api::Unenforceable;
use kedge_directory::Workload;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// By number, as in include/uapi/linux/capability.h. CAP_SYS_ADMIN contains CAP_BPF.
const POWERFUL: [(u32, &str); 4] = [
    (12, "CAP_NET_ADMIN"),
    (13, "CAP_NET_RAW"),
    (21, "CAP_SYS_ADMIN"),
    (39, "CAP_BPF"),
];

/// What one look has left: it reads a file for each process, and a node has many.
struct Budget(usize);

impl Budget {
    fn spend(&mut self) -> bool {
        let left = self.0 > 0;
        self.0 = self.0.saturating_sub(1);
        left
    }
}

/// The local workloads with a process that has such a capability, or one that cannot be seen.
pub fn unenforceable(config: &Config, world: &World) -> Vec<Unenforceable> {
    let mut budget = Budget(PROCESSES_LOOKED_AT);
    let local = world.directory.workloads_on(&world.node);
    local
        .filter_map(|workload| look(&config.cgroup_root, workload, &mut budget))
        .collect()
}

fn look(cgroup_root: &Path, workload: &Workload, budget: &mut Budget) -> Option<Unenforceable> {
    let mut seen = Seen::default();
    seen.cgroup(&cgroup_root.join(&workload.cgroup), CGROUP_DEPTH, budget);
    let found = !seen.capabilities.is_empty() || seen.unseen > 0;
    found.then(|| Unenforceable {
        uid: workload.uid.to_string(),
        id: workload.id.clone(),
        capabilities: seen
            .capabilities
            .iter()
            .map(|name| (*name).to_owned())
            .collect(),
        unseen: seen.unseen,
    })
}

#[derive(Default)]
struct Seen {
    capabilities: BTreeSet<&'static str>,
    /// Processes, or whole cgroups, of which nothing could be said.
    unseen: u64,
}

impl Seen {
    /// A cgroup that is not there holds nobody.
    fn cgroup(&mut self, path: &Path, depth: usize, budget: &mut Budget) {
        if depth == 0 || !budget.spend() {
            self.unseen += 1;
            return;
        }
        let processes = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
        for pid in processes.lines() {
            self.process(pid, budget);
        }
        let below = fs::read_dir(path).into_iter().flatten().flatten();
        for entry in below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            self.cgroup(&entry.path(), depth - 1, budget);
        }
    }

    /// A process outside of our PID namespace has number 0; one that has ended holds nothing.
    fn process(&mut self, pid: &str, budget: &mut Budget) {
        if pid == "0" || !budget.spend() {
            self.unseen += 1;
            return;
        }
        if let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) {
            match permitted(&status) {
                Some(bits) => self.capabilities.extend(powerful(bits)),
                None => self.unseen += 1,
            }
        }
    }
}

/// What the process may use whenever it wants to (capabilities(7)).
fn permitted(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapPrm:"));
    u64::from_str_radix(line?.trim(), 16).ok()
}

fn powerful(bits: u64) -> impl Iterator<Item = &'static str> {
    let held = POWERFUL.iter().filter(move |(bit, _)| bits >> bit & 1 == 1);
    held.map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(permitted_line: &str) -> Vec<&'static str> {
        let status = format!("Name:\tx\nCapInh:\t0000000000000000\n{permitted_line}\n");
        powerful(permitted(&status).expect("a line of the kernel")).collect()
    }

    #[test]
    fn capabilities_are_read_by_their_bits() {
        assert!(held("CapPrm:\t0000000000000000").is_empty());
        // What container runtimes leave by default.
        assert_eq!(held("CapPrm:\t00000000a80425fb"), ["CAP_NET_RAW"]);
        assert_eq!(held("CapPrm:\t000001ffffffffff").len(), POWERFUL.len());
        assert_eq!(
            held("CapPrm:\t0000008000001000"),
            ["CAP_NET_ADMIN", "CAP_BPF"]
        );
    }

    #[test]
    fn a_status_without_the_line_says_nothing() {
        assert_eq!(permitted("Name:\tx\n"), None);
    }

    #[test]
    fn a_process_of_another_pid_namespace_and_one_past_the_bound_are_unseen() {
        let mut seen = Seen::default();
        seen.process("0", &mut Budget(1));
        seen.process("1", &mut Budget(0));
        assert_eq!((seen.unseen, seen.capabilities.len()), (2, 0));
    }
}
