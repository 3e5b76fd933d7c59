//! Fair shares of a worker's room among workloads, without a fixed quota: nobody may hold more
//! than there is room left (the dynamic thresholds of shared-memory switches). One that floods
//! ends at half of the room, two at a third each, and somebody new always finds some.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// Room for so many, shared by cgroup id.
#[derive(Clone)]
pub struct Shares {
    room: usize,
    held: Rc<RefCell<Held>>,
}

#[derive(Default)]
struct Held {
    all: usize,
    by_workload: HashMap<u64, usize>,
}

/// One place; given back on drop.
pub struct Share {
    held: Rc<RefCell<Held>>,
    cgroup_id: u64,
}

impl Shares {
    pub fn of(room: usize) -> Self {
        Self {
            room,
            held: Rc::default(),
        }
    }

    /// `None`: this workload has as much as is left for everybody.
    pub fn take(&self, cgroup_id: u64) -> Option<Share> {
        let mut held = self.held.borrow_mut();
        let left = self.room.saturating_sub(held.all);
        let mine = held.by_workload.get(&cgroup_id).copied().unwrap_or(0);
        if mine >= left {
            return None;
        }
        held.all += 1;
        held.by_workload.insert(cgroup_id, mine + 1);
        Some(Share {
            held: Rc::clone(&self.held),
            cgroup_id,
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.held.borrow_mut();
        held.all -= 1;
        let mine = held.by_workload.get(&self.cgroup_id).copied().unwrap_or(0);
        match mine {
            0 | 1 => held.by_workload.remove(&self.cgroup_id),
            _ => held.by_workload.insert(self.cgroup_id, mine - 1),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take_all(shares: &Shares, cgroup_id: u64) -> Vec<Share> {
        std::iter::from_fn(|| shares.take(cgroup_id)).collect()
    }

    #[test]
    fn one_that_floods_ends_at_half_and_the_next_at_half_of_what_is_left() {
        let shares = Shares::of(100);
        let flood = take_all(&shares, 1);
        assert_eq!(flood.len(), 50);
        let second = take_all(&shares, 2);
        assert_eq!(second.len(), 25);
        assert!(shares.take(1).is_none(), "more than is left");
        assert!(shares.take(3).is_some(), "somebody new finds room");
    }

    #[test]
    fn room_that_was_given_back_is_there_for_everybody() {
        let shares = Shares::of(10);
        drop(take_all(&shares, 1));
        assert_eq!(take_all(&shares, 2).len(), 5);
        assert_eq!(take_all(&shares, 1).len(), 5);
        assert!(shares.held.borrow().by_workload.is_empty());
    }

    #[test]
    fn whatever_many_workloads_do_the_room_is_never_exceeded() {
        let shares = Shares::of(64);
        let held: Vec<_> = (0..1_000).flat_map(|id| take_all(&shares, id)).collect();
        assert!(held.len() <= 64);
        assert!(shares.take(1_000).is_none(), "full for everybody");
    }
}
