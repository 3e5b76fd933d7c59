//! The processes of a workload: those in its cgroup and in all below it.

use crate::limits::CGROUP_DEPTH;
use std::fs;
use std::path::Path;

/// What one look at the node's workloads has left: it reads files of each process, and a node has
/// many.
pub struct Budget(usize);

impl Budget {
    pub fn new(looks: usize) -> Self {
        Self(looks)
    }

    fn spend(&mut self) -> bool {
        let left = self.0 > 0;
        self.0 = self.0.saturating_sub(1);
        left
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Processes {
    pub pids: Vec<String>,
    /// Processes, or whole cgroups, of which nothing can be said.
    pub unseen: u64,
}

impl Processes {
    /// A cgroup that is not there holds nobody.
    pub fn of(cgroup: &Path, budget: &mut Budget) -> Self {
        let mut found = Self::default();
        found.add(cgroup, CGROUP_DEPTH, budget);
        found
    }

    fn add(&mut self, cgroup: &Path, depth: usize, budget: &mut Budget) {
        if depth == 0 || !budget.spend() {
            self.unseen += 1;
            return;
        }
        let processes = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
        for pid in processes.lines() {
            self.add_process(pid, budget);
        }
        let below = fs::read_dir(cgroup).into_iter().flatten().flatten();
        for entry in below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            self.add(&entry.path(), depth - 1, budget);
        }
    }

    /// A process outside of our PID namespace has number 0.
    fn add_process(&mut self, pid: &str, budget: &mut Budget) {
        if pid == "0" || !budget.spend() {
            self.unseen += 1;
        } else {
            self.pids.push(pid.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_of_another_pid_namespace_and_one_past_the_bound_are_unseen() {
        let mut found = Processes::default();
        found.add_process("0", &mut Budget::new(1));
        found.add_process("1", &mut Budget::new(0));
        assert_eq!((found.unseen, found.pids.len()), (2, 0));
    }
}
