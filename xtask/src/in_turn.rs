//! A queue of things to do, and some that take from it at once.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Does `one` with all of them, in their order and `at_once` at a time, and answers in their order.
/// `one` is told which of the `at_once` it is, from 0, and what to do.
pub fn in_turn<T: Sync, R: Send>(
    all: &[T],
    at_once: usize,
    one: impl Fn(usize, &T) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let work = |worker| {
        let turns = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
        let mine = turns.map_while(|turn| Some((turn, one(worker, all.get(turn)?))));
        mine.collect::<Vec<_>>()
    };
    let mut done: Vec<_> = thread::scope(|scope| {
        let work = &work;
        let workers: Vec<_> = (0..at_once)
            .map(|worker| scope.spawn(move || work(worker)))
            .collect();
        let done = workers.into_iter().map(|worker| worker.join());
        done.flat_map(|done| done.unwrap_or_else(|panicked| resume_unwind(panicked)))
            .collect()
    });
    done.sort_by_key(|(turn, _)| *turn);
    done.into_iter().map(|(_, answer)| answer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Barrier, Mutex};

    #[test]
    fn they_are_done_at_once_by_different_workers_and_answered_in_order() {
        const AT_ONCE: usize = 2;
        let all_of_them = Barrier::new(AT_ONCE);
        let workers = Mutex::new(Vec::new());
        let one = |worker, number: &usize| {
            all_of_them.wait();
            workers.lock().expect("no worker panics").push(worker);
            number * 10
        };
        assert_eq!(in_turn(&[1, 2, 3, 4], AT_ONCE, one), [10, 20, 30, 40]);
        let mut workers = workers.into_inner().expect("no worker panics");
        workers.sort_unstable();
        assert_eq!(workers, [0, 0, 1, 1]);
    }
}
