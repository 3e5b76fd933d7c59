//! One direction of a flow: bytes taken from one socket and put into another, sealed, opened or
//! copied on the way. A half is a value with explicit state; it holds a buffer only while bytes
//! are on their way.

mod content;
mod copy;
mod kernel;
mod kernel_open;
mod kernel_seal;
mod open;
mod seal;

pub use copy::Copy;
pub use kernel_open::KernelOpen;
pub use kernel_seal::KernelSeal;
pub use open::Open;
pub use seal::Seal;

use crate::dataplane::buffer::{Buffer, Pipes, Pool};
use crate::dataplane::continuation::Stopped;
use crate::dataplane::registry::Meter;
use crate::dataplane::rounds::Rounds;
use kedge_api::Versions;
use kedge_model::Refusal;
use kedge_record::{FrameError, OpenError, SealError};
use std::io;
use std::ops::Range;
use std::task::{Context, Poll, ready};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Why a flow ended other than by a clean close of both directions.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error("the workload's connection ended: {0}")]
    Plain(#[source] io::Error),
    #[error("the carrier ended: {0}")]
    Carrier(#[source] io::Error),
    #[error("the carrier ended without close_notify")]
    Truncated,
    #[error("the peer's workload reset its connection")]
    ResetByPeer,
    #[error("the peer denied the flow: {refusal} ({text})")]
    Denied { refusal: Refusal, text: String },
    #[error("the peer did not answer the first flight in time")]
    NoAnswer,
    #[error("no longer allowed: {refusal}")]
    Withdrawn {
        refusal: Refusal,
        /// None where a proof has ended.
        decided_by: Option<Versions>,
    },
    #[error("the peer's answer is malformed")]
    BadAnswer,
    #[error("kernel records")]
    Kernel(#[source] io::Error),
    #[error("continue on another carrier")]
    Continue(#[from] Stopped),
    #[error("open record: {0}")]
    Open(#[from] OpenError),
    #[error("seal record: {0}")]
    Seal(#[from] SealError),
}

impl Broken {
    /// What an operator can do, where the other node, or the way to it, ended the flow.
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Carrier(error) if !is_reset(error) => {
                Some("look whether the peer's node is up, and at the path to it")
            }
            Self::Carrier(_) | Self::Truncated => Some(
                "run `kedge event list` on the peer's node: if its kedged ended the flow, it says \
                 why; else look whether it was stopped or killed",
            ),
            _ => None,
        }
    }
}

/// Whether the other side of a connection ended it.
pub fn is_reset(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

impl From<FrameError> for Broken {
    fn from(error: FrameError) -> Self {
        Self::Open(error.into())
    }
}

/// What a half needs of its worker while it is polled.
pub struct Turn<'a> {
    pub pool: &'a Pool,
    pub pipes: &'a Pipes,
    pub rounds: &'a Rounds,
    pub meter: &'a Meter,
    /// Seconds since the worker's start, as of its last beat.
    pub now_s: u64,
}

/// How a half has come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// The direction has ended cleanly.
    Ended,
    /// It goes on on another carrier.
    Continues,
}

/// How the peer's direction ends, once what came before is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    Clean,
    Reset,
    Continues,
}

/// Bytes of a buffer that wait to be written.
struct Pending {
    buffer: Buffer,
    range: Range<usize>,
}

impl Pending {
    fn poll_write(&mut self, cx: &mut Context<'_>, to: &TcpStream) -> Poll<io::Result<()>> {
        while !self.range.is_empty() {
            let write = || self.try_write(to);
            ready!(poll_io(cx, |cx| to.poll_write_ready(cx), write))?;
        }
        Poll::Ready(Ok(()))
    }

    fn try_write(&mut self, to: &TcpStream) -> io::Result<usize> {
        let written = to.try_write(&self.buffer[self.range.clone()])?;
        self.range.start += written;
        Ok(written)
    }
}

/// Repeats `attempt` until it gives something else than "would block", for which it waits. The
/// attempt must be one that tells the stream so (`try_read`, `try_io`): else the stream stays
/// "ready", and a full socket takes the task's whole turn from the other direction.
fn poll_io<T>(
    cx: &mut Context<'_>,
    mut ready: impl FnMut(&mut Context<'_>) -> Poll<io::Result<()>>,
    mut attempt: impl FnMut() -> io::Result<T>,
) -> Poll<io::Result<T>> {
    loop {
        ready!(ready(cx))?;
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return Poll::Ready(result),
        }
    }
}

/// Reads once into `room`. A read that did not fill its room has emptied the socket: saying so
/// now saves the system call that would find out (epoll(7), edge-triggered).
fn poll_read(
    cx: &mut Context<'_>,
    from: &TcpStream,
    room: usize,
    mut read: impl FnMut() -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    let taken = ready!(poll_io(cx, |cx| from.poll_read_ready(cx), &mut read))?;
    if taken != 0 && taken < room {
        let drained = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
        let _ = from.try_io(Interest::READABLE, drained);
    }
    Poll::Ready(Ok(taken))
}

/// Reads the next bytes only once some are there, so that waiting costs no buffer.
fn poll_buffer(cx: &mut Context<'_>, from: &TcpStream, pool: &Pool) -> Poll<io::Result<Buffer>> {
    ready!(from.poll_read_ready(cx))?;
    pool.poll_take(cx)
}

/// FIN in one direction. A connection that is gone already has no direction left to end.
fn shutdown(stream: &TcpStream) -> io::Result<()> {
    match socket2::SockRef::from(stream).shutdown(std::net::Shutdown::Write) {
        Err(error) if error.kind() != io::ErrorKind::NotConnected => Err(error),
        _ => Ok(()),
    }
}
