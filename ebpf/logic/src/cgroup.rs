//! Whose connection it is: the nearest configured ancestor of a cgroup.

use crate::Tables;
use kedge_abi::{CgroupEntry, kind, limits};

/// The cgroup of a task or of a packet's socket, with those above it.
pub trait Ancestry {
    /// The cgroup itself.
    fn own(&self) -> u64;
    /// Its ancestor at `level`, the root being level 0; 0 where the cgroup is not that deep.
    fn at_level(&self, level: u32) -> u64;
}

/// A configured cgroup and what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub id: u64,
    pub class: u32,
    pub kind: u32,
}

impl Owner {
    #[inline(always)]
    fn new(id: u64, entry: CgroupEntry) -> Self {
        Self {
            id,
            class: entry.class,
            kind: entry.kind,
        }
    }

    #[inline(always)]
    #[must_use]
    pub fn is_daemon(&self) -> bool {
        self.kind == kind::DAEMON
    }
}

/// The nearest configured ancestor, the cgroup itself included; `None`: kedge has no business
/// with it. The own cgroup is tried first, since for most sockets it is the one.
#[inline(always)]
pub fn nearest<A: Ancestry, T: Tables>(cgroup: &A, tables: &T) -> Option<Owner> {
    let own = cgroup.own();
    if let Some(entry) = tables.cgroup(own) {
        return Some(Owner::new(own, entry));
    }
    let mut level = limits::CGROUP_DEPTH;
    while level > 0 {
        level -= 1;
        let id = cgroup.at_level(level);
        if id == 0 || id == own {
            continue;
        }
        if let Some(entry) = tables.cgroup(id) {
            return Some(Owner::new(id, entry));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{Path, World};
    use kedge_abi::class;

    #[test]
    fn a_configured_cgroup_is_its_own_owner() {
        let mut world = World::new();
        world.add_cgroup(5, class::REQUIRE, kind::WORKLOAD);
        world.add_cgroup(3, class::OFF, kind::MANAGED_ROOT);
        let owner = nearest(&Path(&[1, 3, 5]), &world).expect("configured");
        assert_eq!((owner.id, owner.class), (5, class::REQUIRE));
    }

    #[test]
    fn an_unknown_cgroup_belongs_to_the_nearest_one_above_not_to_the_highest() {
        let mut world = World::new();
        world.add_cgroup(3, class::REQUIRE, kind::MANAGED_ROOT);
        world.add_cgroup(4, class::OFF, kind::WORKLOAD);
        let owner = nearest(&Path(&[1, 3, 4, 8, 9]), &world).expect("configured");
        assert_eq!(owner.id, 4);
        let owner = nearest(&Path(&[1, 3, 7]), &world).expect("configured");
        assert_eq!((owner.id, owner.class), (3, class::REQUIRE));
    }

    #[test]
    fn a_cgroup_with_nothing_configured_above_is_nobodys() {
        assert_eq!(nearest(&Path(&[1, 2, 3]), &World::new()), None);
    }

    #[test]
    fn below_the_depth_that_is_searched_the_deepest_searched_ancestor_counts() {
        let mut world = World::new();
        world.add_cgroup(16, class::REQUIRE, kind::WORKLOAD);
        let deep: std::vec::Vec<u64> = (1..=40).collect();
        assert_eq!(
            nearest(&Path(&deep), &world).map(|owner| owner.id),
            Some(16)
        );
    }
}
