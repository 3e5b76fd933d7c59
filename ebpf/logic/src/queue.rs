//! Fair shares of a worker's accept queue, without a fixed quota: no workload may have more
//! connections waiting there than there are places left. One that floods ends at half of the
//! queue, two at a third each, and whoever comes next finds places, however long the worker takes.

use crate::tables::Tables;
use kedge_abi::queue::EVERYBODY;
use kedge_abi::{Queued, Root};

/// The queue of the worker at `port`, as `cgroup_id` fills it.
#[inline(always)]
#[must_use]
pub fn of(root: &Root, cgroup_id: u64, port: u32) -> Queued {
    Queued {
        cgroup_id,
        port,
        round: root.round,
    }
}

/// Whether one more connection of `cgroup_id` may wait for the worker at `port`.
#[inline(always)]
#[must_use]
pub fn has_room<T: Tables>(tables: &T, root: &Root, cgroup_id: u64, port: u32) -> bool {
    let all = tables.waiting(&of(root, EVERYBODY, port));
    let own = tables.waiting(&of(root, cgroup_id, port));
    own < i64::from(root.queue_places) - all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::World;

    const PORT: u32 = 15_001;

    fn fill(world: &mut World, cgroup_id: u64, port: u32) -> i64 {
        let mut waiting = 0;
        while has_room(world, &world.root, cgroup_id, port) {
            for whose in [cgroup_id, EVERYBODY] {
                let queued = of(&world.root, whose, port);
                *world.waiting.entry(queued).or_default() += 1;
            }
            waiting += 1;
        }
        waiting
    }

    #[test]
    fn a_flood_ends_at_half_of_a_queue_and_the_next_at_half_of_what_is_left() {
        let mut world = World::new();
        assert_eq!(fill(&mut world, 1, PORT), 50);
        assert_eq!(fill(&mut world, 2, PORT), 25);
        assert!(has_room(&world, &world.root, 3, PORT), "somebody new");
    }

    #[test]
    fn a_full_queue_of_one_worker_leaves_the_others_queues_alone() {
        let mut world = World::new();
        fill(&mut world, 1, PORT);
        assert_eq!(fill(&mut world, 1, PORT + 1), 50);
    }

    #[test]
    fn who_waited_before_a_round_is_not_counted_in_it() {
        let mut world = World::new();
        fill(&mut world, 1, PORT);
        world.root.round += 1;
        assert_eq!(fill(&mut world, 1, PORT), 50);
    }
}
