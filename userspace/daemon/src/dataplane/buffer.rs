//! What flows borrow while bytes are on their way, and give back when they are idle: buffers, and
//! pipes where the kernel seals.

use crate::limits::{
    BUFFERS_PER_WORKER, PIPE_BYTES, PIPES_PER_WORKER, RECORDS_PER_BUFFER, SPARE_BUFFERS,
    SPARE_PIPES,
};
use kedge_record::{OVERHEAD, PLAINTEXT_MAX};
use kedge_sys::pipe::Pipe;
use std::cell::RefCell;
use std::io;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Room in front of the records: for a first flight's opening, header and record 0, or for a
/// KeyUpdate, so that they leave in the same write.
pub const FRONT: usize = 640;
/// Bytes of one full record.
pub const SLOT: usize = PLAINTEXT_MAX + OVERHEAD;
pub const BUFFER_LEN: usize = FRONT + RECORDS_PER_BUFFER * SLOT;

/// What a pool lends.
pub trait Loan: Sized {
    /// How many are lent at once; whoever comes then waits.
    const LENT_MAX: usize;
    /// How many are kept unused.
    const SPARE_MAX: usize;

    /// # Errors
    /// When the system has none left.
    fn fresh() -> io::Result<Self>;

    /// Whether the next one may have it.
    fn is_clean(&self) -> bool {
        true
    }
}

impl Loan for Box<[u8]> {
    const LENT_MAX: usize = BUFFERS_PER_WORKER;
    const SPARE_MAX: usize = SPARE_BUFFERS;

    fn fresh() -> io::Result<Self> {
        Ok(vec![0; BUFFER_LEN].into_boxed_slice())
    }
}

impl Loan for Pipe {
    const LENT_MAX: usize = PIPES_PER_WORKER;
    const SPARE_MAX: usize = SPARE_PIPES;

    fn fresh() -> io::Result<Self> {
        Self::with_room(PIPE_BYTES)
    }

    fn is_clean(&self) -> bool {
        self.held() == 0
    }
}

/// One worker's buffers.
pub type Pool = Lending<Box<[u8]>>;
/// One buffer; returns to its pool on drop.
pub type Buffer = Lent<Box<[u8]>>;

/// One worker's pipes.
#[derive(Clone)]
pub struct Pipes {
    lending: Lending<Pipe>,
    hold_several: bool,
}

/// What one worker lends of a kind.
pub struct Lending<T>(Rc<RefCell<Shelf<T>>>);

struct Shelf<T> {
    spare: Vec<T>,
    lent: usize,
    limit: usize,
    /// The system had none left when it was last asked.
    refused: bool,
    /// One of each task that found nothing.
    waiting: Vec<Waker>,
}

/// Returns to where it was lent on drop.
pub struct Lent<T: Loan> {
    /// Always there until drop.
    loan: Option<T>,
    lending: Lending<T>,
}

impl<T: Loan> Default for Lending<T> {
    fn default() -> Self {
        Self::with_limit(T::LENT_MAX)
    }
}

impl<T> Clone for Lending<T> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<T: Loan> Lending<T> {
    fn with_limit(limit: usize) -> Self {
        Self(Rc::new(RefCell::new(Shelf {
            spare: Vec::with_capacity(T::SPARE_MAX),
            lent: 0,
            limit,
            refused: false,
            waiting: Vec::new(),
        })))
    }

    /// One of them, or a wake-up when one comes back.
    ///
    /// # Errors
    /// When the system has none left and none is lent that could come back.
    pub fn poll_take(&self, cx: &Context<'_>) -> Poll<io::Result<Lent<T>>> {
        let mut shelf = self.0.borrow_mut();
        if shelf.lent == shelf.limit {
            return shelf.wait(cx);
        }
        let loan = shelf.spare.pop().map_or_else(T::fresh, Ok);
        shelf.refused = loan.is_err();
        let loan = match loan {
            Err(_) if shelf.lent > 0 => return shelf.wait(cx),
            loan => Some(loan?),
        };
        shelf.lent += 1;
        let lending = self.clone();
        Poll::Ready(Ok(Lent { loan, lending }))
    }

    /// Whether whoever may have to keep one for long should not.
    fn is_short(&self) -> bool {
        let shelf = self.0.borrow();
        shelf.refused || shelf.lent * 2 > shelf.limit
    }

    /// How many flows hold now.
    pub fn lent(&self) -> usize {
        self.0.borrow().lent
    }
}

impl<T> Shelf<T> {
    fn wait<L>(&mut self, cx: &Context<'_>) -> Poll<L> {
        let waker = cx.waker();
        if !self.waiting.iter().any(|other| other.will_wake(waker)) {
            self.waiting.push(waker.clone());
        }
        Poll::Pending
    }
}

impl Pipes {
    /// `hold_several`: a record may come into a pipe that has not all the room for it.
    pub fn new(hold_several: bool) -> Self {
        Self::with_limit(PIPES_PER_WORKER, hold_several)
    }

    /// With fewer of them.
    pub fn with_limit(limit: usize, hold_several: bool) -> Self {
        Self {
            lending: Lending::with_limit(limit),
            hold_several,
        }
    }

    /// See [`Lending::poll_take`].
    pub fn poll_take(&self, cx: &Context<'_>) -> Poll<io::Result<Lent<Pipe>>> {
        self.lending.poll_take(cx)
    }

    /// Whether more than half of them are lent, or the system has none left: whoever waits for a slow
    /// reader keeps none then.
    pub fn are_short(&self) -> bool {
        self.lending.is_short()
    }

    pub fn hold_several(&self) -> bool {
        self.hold_several
    }
}

impl Pool {
    pub async fn take(&self) -> Buffer {
        std::future::poll_fn(|cx| self.poll_take(cx))
            .await
            .expect("a buffer is nothing but memory")
    }
}

impl<T: Loan> Drop for Lent<T> {
    fn drop(&mut self) {
        let mut shelf = self.lending.0.borrow_mut();
        shelf.lent -= 1;
        let clean = self.loan.take().filter(T::is_clean);
        if shelf.spare.len() < T::SPARE_MAX {
            shelf.spare.extend(clean);
        }
        // All of them: whoever is woken may have ended or been served meanwhile, and would then
        // keep the news from those who still wait.
        shelf.waiting.drain(..).for_each(Waker::wake);
    }
}

impl<T: Loan> Deref for Lent<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.loan.as_ref().expect("there until drop")
    }
}

impl<T: Loan> DerefMut for Lent<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.loan.as_mut().expect("there until drop")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::task::Wake;

    #[test]
    fn a_pool_past_its_bound_makes_the_next_wait_its_turn() {
        let pool = Pool::with_limit(2);
        let cx = Context::from_waker(Waker::noop());
        let Poll::Ready(Ok(first)) = pool.poll_take(&cx) else {
            panic!("the pool is empty")
        };
        let Poll::Ready(Ok(_second)) = pool.poll_take(&cx) else {
            panic!("the pool is empty")
        };
        assert!(pool.poll_take(&cx).is_pending());
        drop(first);
        assert!(pool.poll_take(&cx).is_ready());
    }

    /// The system has one of them.
    #[derive(Debug)]
    struct Rare;

    thread_local! {
        static TAKEN: Cell<bool> = const { Cell::new(false) };
    }

    impl Loan for Rare {
        const LENT_MAX: usize = 8;
        const SPARE_MAX: usize = 0;

        fn fresh() -> io::Result<Self> {
            match TAKEN.replace(true) {
                false => Ok(Self),
                true => Err(io::ErrorKind::OutOfMemory.into()),
            }
        }
    }

    impl Drop for Rare {
        fn drop(&mut self) {
            TAKEN.set(false);
        }
    }

    #[test]
    fn what_the_system_refuses_is_waited_for_if_it_can_come_back() {
        let lending = Lending::<Rare>::default();
        let cx = Context::from_waker(Waker::noop());
        let only = lending.poll_take(&cx);
        assert!(only.is_ready() && !lending.is_short());
        assert!(lending.poll_take(&cx).is_pending());
        assert!(lending.is_short());
        drop(only);
        let elsewhere = Rare::fresh();
        assert!(matches!(lending.poll_take(&cx), Poll::Ready(Err(_))));
        drop(elsewhere);
        assert!(matches!(lending.poll_take(&cx), Poll::Ready(Ok(_))));
        assert!(!lending.is_short());
    }

    #[test]
    fn a_returned_buffer_wakes_whoever_still_waits_and_each_waits_once() {
        let pool = Pool::with_limit(1);
        let Poll::Ready(Ok(first)) = pool.poll_take(&Context::from_waker(Waker::noop())) else {
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

    #[test]
    fn a_pipe_with_bytes_in_it_is_nobody_elses() {
        let pipes: Lending<Pipe> = Lending::default();
        let cx = Context::from_waker(Waker::noop());
        let take = || match pipes.poll_take(&cx) {
            Poll::Ready(Ok(pipe)) => pipe,
            _ => panic!("no pipe"),
        };
        drop(take());
        assert_eq!(pipes.0.borrow().spare.len(), 1);
        let (near, mut far) = UnixStream::pair().expect("a pair");
        far.write_all(b"somebody's").expect("room");
        let mut pipe = take();
        pipe.fill(&near, 64).expect("spliced");
        drop(pipe);
        assert_eq!(pipes.0.borrow().spare.len(), 0);
        assert_eq!(pipes.lent(), 0);
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
