//! Whether the workers accept connections. All accept loops of a daemon pass through one gate.

use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// Arrivals wait in their listening sockets.
    Shut,
    /// For good: the loops end, and their listening sockets with them.
    Gone,
}

#[derive(Clone)]
pub struct Gate(Arc<Shared>);

struct Shared {
    state: watch::Sender<State>,
    at_rest: watch::Sender<usize>,
    loops: usize,
}

impl Gate {
    /// For so many accept loops, none of which accepts before it is opened.
    pub fn shut_for(loops: usize) -> Self {
        Self(Arc::new(Shared {
            state: watch::Sender::new(State::Shut),
            at_rest: watch::Sender::new(0),
            loops,
        }))
    }

    /// One for each accept loop.
    pub fn keeper(&self) -> Keeper {
        Keeper {
            state: self.0.state.subscribe(),
            shared: Arc::clone(&self.0),
        }
    }

    /// Waits until no loop accepts any more. `false`: one did not stop in time.
    pub async fn shut(&self, limit: Duration) -> bool {
        self.0.state.send_replace(State::Shut);
        let mut at_rest = self.0.at_rest.subscribe();
        let all = at_rest.wait_for(|count| *count == self.0.loops);
        timeout(limit, all).await.is_ok()
    }

    pub fn open(&self) {
        self.0.state.send_replace(State::Open);
    }

    pub fn remove(&self) {
        self.0.state.send_replace(State::Gone);
    }
}

pub struct Keeper {
    state: watch::Receiver<State>,
    shared: Arc<Shared>,
}

impl Keeper {
    /// The next arrival, taken only while the gate is open. `None`: there will be none any more.
    pub async fn admit<T>(&mut self, next: impl AsyncFn() -> T) -> Option<T> {
        loop {
            let state = *self.state.borrow_and_update();
            match state {
                State::Open => tokio::select! {
                    biased;
                    changed = self.state.changed() => changed.ok()?,
                    arrived = next() => return Some(arrived),
                },
                State::Shut => {
                    let _rest = Rest::begin(&self.shared.at_rest);
                    self.state.changed().await.ok()?;
                }
                State::Gone => return None,
            }
        }
    }
}

/// Counted as long as it lives.
struct Rest<'a>(&'a watch::Sender<usize>);

impl<'a> Rest<'a> {
    fn begin(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count)
    }
}

impl Drop for Rest<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    const LIMIT: Duration = Duration::from_millis(100);

    #[tokio::test]
    async fn nothing_is_taken_while_the_gate_is_shut() {
        let (gate, taken) = (Gate::shut_for(1), Cell::new(0));
        gate.open();
        let mut keeper = gate.keeper();
        let take = async || {
            tokio::task::yield_now().await;
            taken.set(taken.get() + 1);
        };
        assert_eq!(keeper.admit(take).await, Some(()));
        assert!(!gate.shut(LIMIT).await, "a loop that does not look");
        let (shut, _) = tokio::join!(gate.shut(LIMIT), timeout(LIMIT, keeper.admit(take)));
        assert!(shut);
        assert_eq!(taken.get(), 1);
        gate.open();
        assert_eq!(keeper.admit(take).await, Some(()));
        gate.remove();
        assert_eq!(keeper.admit(take).await, None);
    }
}
