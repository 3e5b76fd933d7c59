//! Buffers that flows borrow while bytes are on their way, and give back when they are idle.

use crate::limits::{BUFFERS_PER_WORKER, RECORDS_PER_BUFFER, SPARE_BUFFERS};
use kedge_record::{OVERHEAD, PLAINTEXT_MAX};
use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Room in front of the records: for a first flight's opening, header and record 0, or for a
/// KeyUpdate, so that they leave in the same write.
pub const FRONT: usize = 640;
/// Bytes of one full record.
pub const SLOT: usize = PLAINTEXT_MAX + OVERHEAD;
pub const BUFFER_LEN: usize = FRONT + RECORDS_PER_BUFFER * SLOT;

/// One worker's buffers.
#[derive(Clone)]
pub struct Pool(Rc<RefCell<Shelf>>);

struct Shelf {
    spare: Vec<Box<[u8]>>,
    lent: usize,
    limit: usize,
    /// One of each task that found nothing.
    waiting: Vec<Waker>,
}

/// One buffer; returns to its pool on drop.
pub struct Buffer {
    bytes: Box<[u8]>,
    pool: Pool,
}

impl Default for Pool {
    fn default() -> Self {
        Self::with_limit(BUFFERS_PER_WORKER)
    }
}

impl Pool {
    fn with_limit(limit: usize) -> Self {
        Self(Rc::new(RefCell::new(Shelf {
            spare: Vec::with_capacity(SPARE_BUFFERS),
            lent: 0,
            limit,
            waiting: Vec::new(),
        })))
    }

    /// A buffer, or a wake-up when one comes back.
    pub fn poll_take(&self, cx: &Context<'_>) -> Poll<Buffer> {
        let mut shelf = self.0.borrow_mut();
        if shelf.lent == shelf.limit {
            if !shelf
                .waiting
                .iter()
                .any(|other| other.will_wake(cx.waker()))
            {
                shelf.waiting.push(cx.waker().clone());
            }
            return Poll::Pending;
        }
        shelf.lent += 1;
        let bytes = shelf
            .spare
            .pop()
            .unwrap_or_else(|| vec![0; BUFFER_LEN].into_boxed_slice());
        Poll::Ready(Buffer {
            bytes,
            pool: self.clone(),
        })
    }

    /// Buffers that flows hold now.
    pub fn lent(&self) -> usize {
        self.0.borrow().lent
    }

    pub async fn take(&self) -> Buffer {
        std::future::poll_fn(|cx| self.poll_take(cx)).await
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let mut shelf = self.pool.0.borrow_mut();
        shelf.lent -= 1;
        if shelf.spare.len() < SPARE_BUFFERS {
            shelf.spare.push(bytes);
        }
        // All of them: whoever is woken may have ended or been served meanwhile, and would then
        // keep the buffer's news from those who still wait.
        shelf.waiting.drain(..).for_each(Waker::wake);
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::task::Wake;

    #[test]
    fn a_pool_past_its_bound_makes_the_next_wait_its_turn() {
        let pool = Pool::with_limit(2);
        let cx = Context::from_waker(Waker::noop());
        let Poll::Ready(first) = pool.poll_take(&cx) else {
            panic!("the pool is empty")
        };
        let Poll::Ready(_second) = pool.poll_take(&cx) else {
            panic!("the pool is empty")
        };
        assert!(pool.poll_take(&cx).is_pending());
        drop(first);
        assert!(pool.poll_take(&cx).is_ready());
    }

    #[test]
    fn a_returned_buffer_wakes_whoever_still_waits_and_each_waits_once() {
        let pool = Pool::with_limit(1);
        let Poll::Ready(first) = pool.poll_take(&Context::from_waker(Waker::noop())) else {
            panic!("the pool is empty")
        };
        let (gone, waits) = (Arc::new(Alarm::default()), Arc::new(Alarm::default()));
        for alarm in [&gone, &gone, &waits] {
            let waker = Waker::from(Arc::clone(alarm));
            assert!(pool.poll_take(&Context::from_waker(&waker)).is_pending());
        }
        assert_eq!(pool.0.borrow().waiting.len(), 2);
        drop(first);
        assert_eq!(waits.rung.load(Relaxed), 1);
    }

    #[derive(Default)]
    struct Alarm {
        rung: AtomicUsize,
    }

    impl Wake for Alarm {
        fn wake(self: Arc<Self>) {
            self.rung.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn spare_buffers_are_bounded() {
        let pool = Pool::default();
        let cx = Context::from_waker(Waker::noop());
        let lent: Vec<_> = (0..SPARE_BUFFERS * 2)
            .map(|_| pool.poll_take(&cx))
            .collect();
        drop(lent);
        assert_eq!(pool.0.borrow().spare.len(), SPARE_BUFFERS);
        assert_eq!(pool.lent(), 0);
    }
}
