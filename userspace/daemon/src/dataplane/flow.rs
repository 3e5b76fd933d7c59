//! An established flow: two sockets and two halves. A plain value that is polled, so that it can
//! be inspected, moved and, later, handed to another process at a record boundary.

use crate::dataplane::half::{Broken, Copy, KernelOpen, KernelSeal, Open, Seal, Turn};
use crate::dataplane::registry::Meter;
use crate::limits::PARTING;
use kedge_sys::ktls;
use kedge_sys::socket::{end_on_close, reset_on_close};
use std::future::poll_fn;
use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use tokio::net::TcpStream;

/// Bytes between a workload and something that leads to the other one.
pub struct Flow {
    /// The captured socket, or the one that delivers.
    near: TcpStream,
    /// The carrier, or the other workload's socket.
    far: TcpStream,
    out: Way,
    back: Way,
    opener: bool,
    records: Records,
}

/// Who seals and opens the records behind the first flight and its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Records {
    #[default]
    Userspace,
    /// The kernel, as soon as it can take over a direction that has carried `after` bytes;
    /// `attached`: the carrier has been prepared.
    Kernel { after: u64, attached: bool },
}

impl Records {
    pub const AT_ONCE: Self = Self::kernel_after(0);

    #[must_use]
    pub const fn kernel_after(after: u64) -> Self {
        Self::Kernel {
            after,
            attached: false,
        }
    }
}

/// One direction, and whether it has ended.
struct Way {
    half: Half,
    done: bool,
}

enum Half {
    Seal(Box<Seal>),
    Open(Box<Open>),
    KernelSeal(Box<KernelSeal>),
    KernelOpen(Box<KernelOpen>),
    Copy(Copy),
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
        let way = |half| Way { half, done: false };
        Self {
            near,
            far,
            out: way(out),
            back: way(back),
            opener,
            records: Records::Userspace,
        }
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

    pub fn legs(&self) -> [&TcpStream; 2] {
        [&self.near, &self.far]
    }

    /// Whether bytes wait until a leg takes them.
    pub fn is_stalled(&self) -> bool {
        self.out.is_stalled() || self.back.is_stalled()
    }

    /// Carries bytes until both directions have ended cleanly, or the flow is broken: then
    /// [`abort`](Self::abort) it.
    pub fn poll(&mut self, cx: &mut Context<'_>, turn: &Turn<'_>) -> Poll<Result<(), Broken>> {
        if self.records != Records::Userspace && self.answered() {
            self.hand_over(turn.meter)?;
        }
        let out = self.out.poll(cx, &self.near, &self.far, turn)?;
        let back = self.back.poll(cx, &self.far, &self.near, turn)?;
        match (out, back) {
            (Poll::Ready(()), Poll::Ready(())) => Poll::Ready(self.end().map_err(Broken::Plain)),
            _ => Poll::Pending,
        }
    }

    /// Gives each direction to the kernel when it stands between two records. A kernel that cannot
    /// prepare the carrier has taken nothing yet: then the records stay where they are.
    fn hand_over(&mut self, meter: &Meter) -> Result<(), Broken> {
        let Records::Kernel { after, attached } = &mut self.records else {
            return Ok(());
        };
        let out_due = meter.sent_bytes.load(Relaxed) >= *after;
        let back_due = meter.received_bytes.load(Relaxed) >= *after;
        if !*attached && (out_due || back_due) {
            if ktls::attach(&self.far).is_err() {
                self.records = Records::Userspace;
                return Ok(());
            }
            *attached = true;
        }
        if out_due && self.out.give_to_kernel(&self.far)? {
            meter.sent_by_kernel.store(true, Relaxed);
        }
        if back_due && self.back.give_to_kernel(&self.far)? {
            meter.received_by_kernel.store(true, Relaxed);
        }
        Ok(())
    }

    /// Both directions have ended cleanly, and only now may close() say so: until here the sockets
    /// of workloads are such that an end of this process is a reset.
    fn end(&self) -> io::Result<()> {
        if let Half::Copy(_) = self.out.half {
            end_on_close(&self.far)?;
        }
        end_on_close(&self.near)
    }

    /// Ends both sockets so that nobody takes a broken flow for a finished one. Where our own
    /// workload reset, the peer's learns it by a sealed alert.
    pub fn abort(&mut self, broken: &Broken) {
        match (broken, &mut self.out.half) {
            (Broken::Plain(_), Half::Seal(seal)) => seal.reset(&self.far),
            (Broken::Plain(_), Half::KernelSeal(seal)) => seal.reset(&self.far),
            _ => {
                // The carrier has nothing more to say; a failure means that it is gone already.
                let _ = reset_on_close(&self.far);
            }
        }
        let _ = reset_on_close(&self.near);
    }

    /// After a clean end the opener waits for the acceptor's FIN, so that TIME_WAIT is the
    /// acceptor's and costs no port here.
    pub fn into_parting(self) -> Option<Parting> {
        self.opener.then_some(Parting { carrier: self.far })
    }
}

impl Way {
    fn is_stalled(&self) -> bool {
        match &self.half {
            Half::Seal(seal) => !seal.is_written(),
            Half::Open(open) => open.holds_content(),
            Half::KernelSeal(seal) => seal.holds_content(),
            Half::KernelOpen(open) => open.holds_content(),
            Half::Copy(copy) => copy.holds_content(),
        }
    }

    /// If it is at rest, and says whether it was; an opening direction is asked to come to rest.
    fn give_to_kernel(&mut self, carrier: &TcpStream) -> Result<bool, Broken> {
        if let Half::Open(open) = &mut self.half {
            open.stop_at_boundary(!self.done);
        }
        let at_rest = match &self.half {
            Half::Seal(seal) => seal.is_at_rest(),
            Half::Open(open) => open.is_at_boundary(),
            _ => false,
        };
        if self.done || !at_rest {
            return Ok(false);
        }
        // Whatever becomes of it: the key moves, and a flow that has lost it ends.
        let taken = std::mem::replace(&mut self.half, Half::Copy(Copy::default()));
        self.half = match taken {
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

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
        to: &TcpStream,
        turn: &Turn<'_>,
    ) -> Result<Poll<()>, Broken> {
        if self.done {
            return Ok(Poll::Ready(()));
        }
        let polled = match &mut self.half {
            Half::Seal(seal) => seal.poll(cx, from, to, turn),
            Half::Open(open) => open.poll(cx, from, to, turn),
            Half::KernelSeal(seal) => seal.poll(cx, from, to, turn),
            Half::KernelOpen(open) => open.poll(cx, from, to, turn),
            Half::Copy(copy) => copy.poll(cx, from, to, turn),
        };
        Ok(match polled {
            Poll::Ready(result) => {
                result?;
                self.done = true;
                Poll::Ready(())
            }
            Poll::Pending => Poll::Pending,
        })
    }
}

/// A finished opener's carrier.
pub struct Parting {
    carrier: TcpStream,
}

impl Parting {
    /// Whether the acceptor's FIN is there already, as it is nearly always.
    pub fn is_over(&self) -> bool {
        !matches!(self.carrier.try_read(&mut [0]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Waits for it, with a bound.
    pub async fn wait(self) {
        let fin = poll_fn(|cx| {
            loop {
                let _ = ready!(self.carrier.poll_read_ready(cx));
                if self.is_over() {
                    return Poll::Ready(());
                }
            }
        });
        let _ = tokio::time::timeout(PARTING, fin).await;
    }
}
