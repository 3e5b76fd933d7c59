//! An established flow: two sockets and two halves. A plain value that is polled, so that it can
//! be inspected, moved and, later, handed to another process at a record boundary.

use crate::dataplane::continuation::{Between, Continuing, Keys, Next};
use crate::dataplane::half::{Broken, Copy, KernelOpen, KernelSeal, Open, Over, Seal, Turn};
use crate::dataplane::registry::Meter;
use crate::dataplane::rounds::Waiting;
use crate::limits::PARTING;
use kedge_link::wire::{Direction, Point};
use kedge_sys::ktls;
use kedge_sys::socket::{end_on_close, reset_on_close};
use socket2::SockRef;
use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use tokio::net::TcpStream;

/// Bytes between a workload and something that leads to the other one.
pub struct Flow {
    /// The captured socket, or the one that delivers.
    near: TcpStream,
    out: Way,
    back: Way,
    opener: bool,
    records: Records,
    continuing: Option<Continuing>,
}

/// Who seals and opens the records behind the first flight and its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Records {
    #[default]
    Userspace,
    /// The kernel, as soon as it can take over a direction that has carried `after` bytes.
    Kernel { after: u64 },
}

impl Records {
    pub const AT_ONCE: Self = Self::Kernel { after: 0 };
}

/// One direction, and whether it has ended.
struct Way {
    half: Half,
    /// From the near leg to the far one.
    outward: bool,
    direction: Direction,
    far: Rc<Far>,
    done: bool,
    /// It has more to move than its last turns allowed.
    waiting: Option<Waiting>,
}

/// A carrier, or the other workload's socket. Both directions share it, until one of them continues
/// on another one.
struct Far {
    stream: Rc<TcpStream>,
    /// Whether the kernel is prepared to seal and open.
    attached: Cell<bool>,
}

enum Half {
    Seal(Box<Seal>),
    Open(Box<Open>),
    KernelSeal(Box<KernelSeal>),
    KernelOpen(Box<KernelOpen>),
    Copy(Copy),
    /// Nothing moves: the direction has left one carrier and awaits the next.
    Between(Box<Between>),
}

impl Flow {
    /// Our workload connected; `carrier` leads to the acceptor.
    pub fn opener(near: TcpStream, carrier: TcpStream, out: Seal, back: Open) -> Self {
        Self::new(
            near,
            carrier,
            Half::Seal(Box::new(out)),
            Half::Open(Box::new(back)),
            true,
        )
    }

    /// The peer's workload connected; `near` is our workload.
    pub fn acceptor(near: TcpStream, carrier: TcpStream, out: Seal, back: Open) -> Self {
        Self::new(
            near,
            carrier,
            Half::Seal(Box::new(out)),
            Half::Open(Box::new(back)),
            false,
        )
    }

    /// Both workloads are on this node.
    pub fn local(near: TcpStream, far: TcpStream) -> Self {
        let (out, back) = (Half::Copy(Copy::default()), Half::Copy(Copy::default()));
        Self::new(near, far, out, back, false)
    }

    fn new(near: TcpStream, far: TcpStream, out: Half, back: Half, opener: bool) -> Self {
        let far = Rc::new(Far::new(far));
        let way = |half, outward| Way {
            half,
            outward,
            direction: match outward == opener {
                true => Direction::FromOpener,
                false => Direction::FromAcceptor,
            },
            far: Rc::clone(&far),
            done: false,
            waiting: None,
        };
        Self {
            near,
            out: way(out, true),
            back: way(back, false),
            opener,
            records: Records::Userspace,
            continuing: None,
        }
    }

    /// Lets directions go on on other carriers when their keys end.
    pub fn with_continuing(mut self, continuing: Option<Continuing>) -> Self {
        self.continuing = continuing;
        self
    }

    /// Lets the kernel seal and open the records, once the peer has answered.
    pub fn with_records(mut self, records: Records) -> Self {
        self.records = records;
        self
    }

    pub fn answered(&self) -> bool {
        match &self.back.half {
            Half::Open(open) => open.answered(),
            _ => true,
        }
    }

    /// The near one, and the one or two carriers.
    pub fn legs(&self) -> [&TcpStream; 3] {
        [&self.near, self.out.far(), self.back.far()]
    }

    /// Whether bytes wait until a leg takes them.
    pub fn is_stalled(&self) -> bool {
        self.out.is_stalled() || self.back.is_stalled()
    }

    /// Carries bytes until both directions have ended cleanly, or the flow is broken: then
    /// [`abort`](Self::abort) it.
    pub fn poll(&mut self, cx: &mut Context<'_>, turn: &Turn<'_>) -> Poll<Result<(), Broken>> {
        let answered = self.answered();
        if answered && self.records != Records::Userspace {
            self.hand_over(turn.meter)?;
        }
        // Where the acceptor has not taken the flow yet, it cannot go on.
        let stopped = !answered && matches!(self.out.half, Half::Between(_));
        let continuing = self.continuing.as_ref();
        let out = match stopped {
            true => Poll::Pending,
            false => self.out.poll(cx, &self.near, continuing, turn)?,
        };
        let back = self.back.poll(cx, &self.near, continuing, turn)?;
        if !answered && self.answered() {
            cx.waker().wake_by_ref();
        }
        match (out, back) {
            (Poll::Ready(()), Poll::Ready(())) => Poll::Ready(self.end().map_err(Broken::Plain)),
            _ => Poll::Pending,
        }
    }

    /// Gives each direction to the kernel when it stands between two records. A kernel that cannot
    /// prepare the carrier has taken nothing yet: then the records stay where they are.
    fn hand_over(&mut self, meter: &Meter) -> Result<(), Broken> {
        let Records::Kernel { after } = self.records else {
            return Ok(());
        };
        let out_due = meter.sent_bytes.load(Relaxed) >= after;
        let back_due = meter.received_bytes.load(Relaxed) >= after;
        if (out_due && self.out.attach().is_err()) || (back_due && self.back.attach().is_err()) {
            self.records = Records::Userspace;
            self.out.stop_for_kernel(false);
            self.back.stop_for_kernel(false);
            return Ok(());
        }
        if out_due && self.out.give_to_kernel()? {
            meter.sent_by_kernel.store(true, Relaxed);
        }
        if back_due && self.back.give_to_kernel()? {
            meter.received_by_kernel.store(true, Relaxed);
        }
        Ok(())
    }

    /// Both directions have ended cleanly, and only now may close() say so: until here the sockets
    /// of workloads are such that an end of this process is a reset.
    fn end(&self) -> io::Result<()> {
        if let Half::Copy(_) = self.out.half {
            end_on_close(self.out.far())?;
        }
        end_on_close(&self.near)
    }

    /// Ends both sockets so that nobody takes a broken flow for a finished one. Where our own
    /// workload reset, the peer's learns it by a sealed alert.
    pub fn abort(&mut self, broken: &Broken) {
        let (out, back) = (self.out.far.clone(), self.back.far.clone());
        match (broken, &mut self.out.half) {
            (Broken::Plain(_), Half::Seal(seal)) => seal.reset(&out.stream),
            (Broken::Plain(_), Half::KernelSeal(seal)) => seal.reset(&out.stream),
            _ => {
                // The carrier has nothing more to say; a failure means that it is gone already.
                let _ = reset_on_close(&*out.stream);
            }
        }
        if !Rc::ptr_eq(&out, &back) {
            let _ = reset_on_close(&*back.stream);
        }
        let _ = reset_on_close(&self.near);
    }

    /// After a clean end the opener waits for the acceptor's FIN, so that TIME_WAIT is the
    /// acceptor's and costs no port here.
    pub fn into_parting(self) -> Option<Parting> {
        self.opener.then_some(Parting {
            carriers: [self.out.far, self.back.far],
        })
    }
}

impl Far {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream: Rc::new(stream),
            attached: Cell::new(false),
        }
    }

    /// Prepares the kernel, once.
    fn attach(&self) -> io::Result<()> {
        if !self.attached.get() {
            ktls::attach(&*self.stream)?;
            self.attached.set(true);
        }
        Ok(())
    }
}

impl Way {
    fn far(&self) -> &TcpStream {
        &self.far.stream
    }

    /// Prepares the kernel for what is still to come.
    fn attach(&self) -> io::Result<()> {
        match self.done {
            true => Ok(()),
            false => self.far.attach(),
        }
    }

    fn is_stalled(&self) -> bool {
        match &self.half {
            Half::Seal(seal) => !seal.is_written(),
            Half::Open(open) => open.holds_content(),
            Half::KernelSeal(seal) => seal.holds_content(),
            Half::KernelOpen(open) => open.holds_content(),
            Half::Copy(copy) => copy.holds_content(),
            // What was sent before may wait for its reader.
            Half::Between(_) => true,
        }
    }

    /// If it is at rest, and says whether it was; if not, it is asked to come to rest.
    fn give_to_kernel(&mut self) -> Result<bool, Broken> {
        self.stop_for_kernel(!self.done);
        let at_rest = match &self.half {
            Half::Seal(seal) => seal.is_at_rest(),
            Half::Open(open) => open.is_at_boundary(),
            _ => false,
        };
        if self.done || !at_rest {
            return Ok(false);
        }
        let far = Rc::clone(&self.far);
        let carrier = &*far.stream;
        // Whatever becomes of it: the key moves, and a flow that has lost it ends.
        self.half = match self.take_half() {
            Half::Seal(seal) => {
                let (sealer, fin) = seal.into_sealer();
                Half::KernelSeal(Box::new(KernelSeal::take_over(carrier, sealer, fin)?))
            }
            Half::Open(open) => Half::KernelOpen(Box::new(KernelOpen::take_over(
                carrier,
                open.into_unsealer(),
            )?)),
            other => other,
        };
        Ok(true)
    }

    /// Whether it goes no further than to the next place where the kernel could take over.
    fn stop_for_kernel(&mut self, stop: bool) {
        match &mut self.half {
            Half::Seal(seal) => seal.stop_at_rest(stop),
            Half::Open(open) => open.stop_at_boundary(stop),
            _ => {}
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        near: &TcpStream,
        continuing: Option<&Continuing>,
        turn: &Turn<'_>,
    ) -> Result<Poll<()>, Broken> {
        self.waiting = None;
        while !self.done {
            let far = &*self.far.stream;
            let (from, to) = match self.outward {
                true => (near, far),
                false => (far, near),
            };
            let polled = match &mut self.half {
                Half::Seal(seal) => seal.poll(cx, from, to, turn),
                Half::Open(open) => open.poll(cx, from, to, turn),
                Half::KernelSeal(seal) => seal.poll(cx, from, to, turn),
                Half::KernelOpen(open) => open.poll(cx, from, to, turn),
                Half::Copy(copy) => copy.poll(cx, from, to, turn),
                Half::Between(between) => match between.poll(cx)? {
                    Poll::Ready(next) => {
                        self.resume(next)?;
                        continue;
                    }
                    Poll::Pending => Poll::Pending,
                },
            };
            match polled {
                Poll::Pending => {
                    self.waiting = turn.rounds.waiting();
                    return Ok(Poll::Pending);
                }
                Poll::Ready(over) => match over? {
                    Over::Ended => self.done = true,
                    Over::Continues => {
                        self.stop(continuing);
                        // Whether it may go on yet is for the flow to say.
                        cx.waker().wake_by_ref();
                        return Ok(Poll::Pending);
                    }
                },
            }
        }
        Ok(Poll::Ready(()))
    }

    /// The carrier's last record has been sealed or opened.
    fn stop(&mut self, continuing: Option<&Continuing>) {
        let continuing = continuing.expect("no key ends by a Continue where flows do not continue");
        let (keys, last_record) = match self.take_half() {
            Half::Seal(seal) => {
                let (sealer, fin) = seal.into_sealer();
                let last_record = sealer.record_number() - 1;
                (Keys::Seal(sealer.into_next(), fin), last_record)
            }
            Half::KernelSeal(seal) => {
                let (sealer, fin, last_record) = seal.into_next();
                (Keys::Seal(sealer, fin), last_record)
            }
            Half::Open(open) => {
                let unsealer = open.into_unsealer();
                let last_record = unsealer.record_number() - 1;
                (Keys::Open(unsealer.into_next()), last_record)
            }
            Half::KernelOpen(open) => {
                let (unsealer, last_record) = open.into_next();
                (Keys::Open(unsealer), last_record)
            }
            Half::Copy(_) | Half::Between(_) => unreachable!("neither has records"),
        };
        let point = Point {
            direction: self.direction,
            generation: keys.generation(),
            last_record,
        };
        let old = Rc::clone(&self.far.stream);
        let between = Between::new(continuing, keys, point, old);
        self.half = Half::Between(Box::new(between));
    }

    /// Leaves the old carrier, which is closed if the other direction has left it too, before it
    /// says so on the new one: then it is the acceptor who keeps TIME_WAIT.
    fn resume(&mut self, next: Next) -> Result<(), Broken> {
        self.half = match self.take_half() {
            Half::Between(between) => match between.keys {
                Keys::Seal(sealer, fin) => Half::Seal(Box::new(Seal::new(sealer, fin))),
                Keys::Open(unsealer) => Half::Open(Box::new(Open::continuing(unsealer))),
            },
            other => other,
        };
        self.far = Rc::new(Far::new(next.stream));
        if let Some(confirmation) = next.confirmation {
            // An empty send buffer takes 16 bytes whole.
            let sent = SockRef::from(self.far()).send(&confirmation);
            sent.map_err(Broken::Carrier)?;
        }
        Ok(())
    }

    fn take_half(&mut self) -> Half {
        std::mem::replace(&mut self.half, Half::Copy(Copy::default()))
    }
}

/// A finished opener's carriers.
pub struct Parting {
    carriers: [Rc<Far>; 2],
}

impl Parting {
    /// Whether the acceptor's FIN is there already, as it is nearly always.
    pub fn is_over(&self) -> bool {
        self.carriers.iter().all(|carrier| is_over(&carrier.stream))
    }

    /// Waits for it, with a bound.
    pub async fn wait(self) {
        let fin = async {
            for carrier in &self.carriers {
                poll_fn(|cx| poll_over(cx, &carrier.stream)).await;
            }
        };
        let _ = tokio::time::timeout(PARTING, fin).await;
    }
}

fn poll_over(cx: &mut Context<'_>, carrier: &TcpStream) -> Poll<()> {
    loop {
        let _ = ready!(carrier.poll_read_ready(cx));
        if is_over(carrier) {
            return Poll::Ready(());
        }
    }
}

fn is_over(carrier: &TcpStream) -> bool {
    !matches!(carrier.try_read(&mut [0]),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}
