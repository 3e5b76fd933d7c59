//! Who waits for the workers, as the programs of this generation count it in rounds: one begins
//! each time that they are put on their hooks, and who has waited before is not counted in it.

use crate::table::Table;
use kedge_abi::queue::{EVERYBODY, NOBODY};
use kedge_abi::{CgroupEntry, Queued, Root};
use std::collections::HashMap;
use std::io;

pub(crate) struct Queues {
    root: Root,
    roots: Table<u32, Root>,
    counts: Table<Queued, i64>,
}

impl Queues {
    pub(crate) fn new(root: Root, roots: Table<u32, Root>, counts: Table<Queued, i64>) -> Self {
        Self {
            root,
            roots,
            counts,
        }
    }

    pub(crate) fn write_root(&self) -> io::Result<()> {
        self.roots.insert(&0, &self.root)
    }

    pub(crate) fn begin_round(&mut self) -> io::Result<()> {
        self.root.round += 1;
        self.write_root()?;
        self.forget(|queued, _| queued.round != self.root.round)
    }

    /// A cgroup that is gone needs no count once none of its connections waits.
    pub(crate) fn forget_others(&self, wanted: &HashMap<u64, CgroupEntry>) -> io::Result<()> {
        let stays =
            |cgroup: &u64| [NOBODY, EVERYBODY].contains(cgroup) || wanted.contains_key(cgroup);
        self.forget(|queued, count| count == 0 && !stays(&queued.cgroup_id))
    }

    fn forget(&self, is_over: impl Fn(&Queued, i64) -> bool) -> io::Result<()> {
        for queued in self.counts.keys()? {
            let count = self.counts.look_up(&queued)?;
            if count.is_some_and(|count| is_over(&queued, count)) {
                self.counts.remove(&queued)?;
            }
        }
        Ok(())
    }
}
