//! An established flow: two sockets and two halves. A plain value that is polled, so that it can
//! be inspected, moved and, later, handed to another process at a record boundary.

use crate::dataplane::half::{Broken, Copy, Open, Seal, Turn};
use crate::limits::PARTING;
use kedge_sys::socket::reset_on_close;
use std::future::poll_fn;
use std::io;
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
}

/// One direction, and whether it has ended.
struct Way {
    half: Half,
    done: bool,
}

enum Half {
    Seal(Box<Seal>),
    Open(Box<Open>),
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
        }
    }

    pub fn answered(&self) -> bool {
        match &self.back.half {
            Half::Open(open) => open.answered(),
            _ => true,
        }
    }

    /// Carries bytes until both directions have ended cleanly, or the flow is broken: then
    /// [`abort`](Self::abort) it.
    pub fn poll(&mut self, cx: &mut Context<'_>, turn: &Turn<'_>) -> Poll<Result<(), Broken>> {
        let out = self.out.poll(cx, &self.near, &self.far, turn)?;
        let back = self.back.poll(cx, &self.far, &self.near, turn)?;
        match (out, back) {
            (Poll::Ready(()), Poll::Ready(())) => Poll::Ready(Ok(())),
            _ => Poll::Pending,
        }
    }

    /// Ends both sockets so that nobody takes a broken flow for a finished one. Where our own
    /// workload reset, the peer's learns it by a sealed alert.
    pub fn abort(&mut self, broken: &Broken) {
        if let (Broken::Plain(_), Half::Seal(seal)) = (broken, &mut self.out.half) {
            seal.reset(&self.far);
        } else {
            // The carrier has nothing more to say; a failure means that it is gone already.
            let _ = reset_on_close(&self.far);
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
