//! A worker's rounds. In one of them each direction of a flow that has more to move than its turns
//! allow moves its part of them; then the worker asks the kernel what else is ready. As many
//! as there are turns in a round make it no longer than one does, and so the wait of whoever opens a
//! flow meanwhile; of more, each has one turn.

use crate::limits::TURNS_PER_ROUND;
use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use tokio::task::yield_now;

#[derive(Clone, Default)]
pub struct Rounds(Rc<State>);

#[derive(Default)]
struct State {
    /// How many directions wait for the next round.
    waiting: Cell<usize>,
    /// Whether the one that is being polled does.
    gave_way: Cell<bool>,
}

/// A direction that waits for the next round, until this is dropped.
pub struct Waiting(Rounds);

impl Rounds {
    /// Turns of one direction beside those that wait.
    pub fn part(&self) -> usize {
        (TURNS_PER_ROUND / (self.0.waiting.get() + 1)).max(1)
    }

    /// Ends a poll that has used up its turns; the next one comes in the next round. A task that
    /// wakes itself would come before that, up to 61 times (tokio's `LocalSet`).
    pub fn give_way<T>(&self, cx: &mut Context<'_>) -> Poll<T> {
        self.0.gave_way.set(true);
        let _ = pin!(yield_now()).poll(cx);
        Poll::Pending
    }

    /// After a poll that is pending: whether it gave way.
    pub fn waiting(&self) -> Option<Waiting> {
        self.0.gave_way.take().then(|| {
            self.0.waiting.update(|waiting| waiting + 1);
            Waiting(self.clone())
        })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Self(Rounds(state)) = self;
        state.waiting.update(|waiting| waiting - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::task::Waker;
    use tokio::runtime::Builder;
    use tokio::task::{LocalSet, spawn_local};

    #[test]
    fn a_direction_that_is_never_idle_has_one_poll_before_others_have_theirs() {
        let runtime = Builder::new_current_thread().enable_io().build();
        LocalSet::new().block_on(&runtime.expect("a runtime"), async {
            let polls = Rc::new(Cell::new(0));
            let (counted, rounds) = (Rc::clone(&polls), Rounds::default());
            spawn_local(poll_fn(move |cx| {
                counted.update(|polls| polls + 1);
                rounds.give_way::<()>(cx)
            }));
            let (near, mut far) = UnixStream::pair().expect("a pair");
            near.set_nonblocking(true).expect("a mode");
            let near = tokio::net::UnixStream::from_std(near).expect("a runtime");
            far.write_all(b"hello").expect("room");
            near.readable().await.expect("bytes are there");
            assert!((1..=2).contains(&polls.get()), "{} polls", polls.get());
        });
    }

    #[test]
    fn a_round_is_shared_by_those_that_wait_and_each_has_a_turn() {
        let rounds = Rounds::default();
        let wait = || {
            let cx = &mut Context::from_waker(Waker::noop());
            assert!(rounds.give_way::<()>(cx).is_pending());
            rounds.waiting().expect("it gave way")
        };
        assert_eq!(rounds.part(), TURNS_PER_ROUND);
        let mut waiting: Vec<_> = (0..3).map(|_| wait()).collect();
        assert_eq!(rounds.part(), TURNS_PER_ROUND / 4);
        assert!(rounds.waiting().is_none(), "nobody else gave way");
        waiting.extend((0..2 * TURNS_PER_ROUND).map(|_| wait()));
        assert_eq!(rounds.part(), 1);
        drop(waiting);
        assert_eq!(rounds.part(), TURNS_PER_ROUND);
    }
}
