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
    /// Where it stands in the tree; not known of a cgroup that is its own owner.
    pub level: Option<u32>,
}

impl Owner {
    #[inline(always)]
    fn new(id: u64, entry: CgroupEntry, level: Option<u32>) -> Self {
        Self {
            id,
            class: entry.class,
            kind: entry.kind,
            level,
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
        return Some(Owner::new(own, entry, None));
    }
    let mut level = limits::CGROUP_DEPTH;
    while level > 0 {
        level -= 1;
        let id = cgroup.at_level(level);
        if id == 0 || id == own {
            continue;
        }
        if let Some(entry) = tables.cgroup(id) {
            return Some(Owner::new(id, entry, Some(level)));
        }
    }
    None
}

/// The cgroups below a managed root that own a task of nobody known, from the root's child on;
/// see [`kedge_abi::Original::lineage`].
#[inline(always)]
pub fn lineage<A: Ancestry>(cgroup: &A, owner: &Owner) -> [u64; limits::LINEAGE] {
    match owner.level {
        Some(root) if owner.kind == kind::MANAGED_ROOT => [
            cgroup.at_level(root + 1),
            cgroup.at_level(root + 2),
            cgroup.at_level(root + 3),
            cgroup.at_level(root + 4),
        ],
        _ => [0; limits::LINEAGE],
    }
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
    fn only_what_a_managed_root_owns_has_a_lineage_and_it_begins_below_the_root() {
        let mut world = World::new();
        world.add_cgroup(3, class::REQUIRE, kind::MANAGED_ROOT);
        world.add_cgroup(4, class::REQUIRE, kind::WORKLOAD);
        let lineage = |path: &[u64]| {
            let owner = nearest(&Path(path), &world).expect("configured");
            lineage(&Path(path), &owner)
        };
        assert_eq!(lineage(&[1, 2, 3, 7, 8]), [7, 8, 0, 0]);
        assert_eq!(lineage(&[1, 3, 7, 8, 9, 10, 11]), [7, 8, 9, 10]);
        assert_eq!(lineage(&[1, 3]), [0; 4]);
        assert_eq!(lineage(&[1, 3, 4, 8]), [0; 4]);
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
