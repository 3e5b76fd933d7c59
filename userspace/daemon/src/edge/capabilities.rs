//! Workloads that could go round a guard which sits at their cgroup: by packets that pass no
//! socket of an address family that it sees, by other routes, or by programs of their own.

use crate::config::Config;
use crate::limits::PROCESSES_LOOKED_AT;
use crate::processes::{Budget, Processes};
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

/// The local workloads with a process that has such a capability, or one that cannot be seen.
pub fn unenforceable(config: &Config, world: &World) -> Vec<Unenforceable> {
    let mut budget = Budget::new(PROCESSES_LOOKED_AT);
    let local = world.directory.workloads_on(&world.node);
    local
        .filter_map(|workload| look(&config.cgroup_root, workload, &mut budget))
        .collect()
}

fn look(cgroup_root: &Path, workload: &Workload, budget: &mut Budget) -> Option<Unenforceable> {
    let processes = Processes::of(&cgroup_root.join(&workload.cgroup), budget);
    let (mut capabilities, mut unseen) = (BTreeSet::new(), processes.unseen);
    for pid in &processes.pids {
        // One that has ended holds nothing.
        if let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) {
            match permitted(&status) {
                Some(bits) => capabilities.extend(powerful(bits)),
                None => unseen += 1,
            }
        }
    }
    let found = !capabilities.is_empty() || unseen > 0;
    found.then(|| Unenforceable {
        uid: workload.uid.to_string(),
        id: workload.id.clone(),
        capabilities: capabilities.into_iter().map(str::to_owned).collect(),
        unseen,
    })
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
}
