//! What is on its way through a direction whose records are the kernel's.

use super::{Pending, Turn, poll_io};
use crate::dataplane::buffer::{BUFFER_LEN, Buffer, Lent};
use crate::limits::PIPE_BYTES;
use kedge_sys::pipe::Pipe;
use std::io;
use std::task::{Context, Poll, ready};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Bytes between two sockets: in a pipe, or, where pipes are short and a reader takes its time, in a
/// buffer, so that readers who stop do not stop other flows: a pipe has two descriptors, which are few; a
/// buffer is memory. Whoever kept a pipe before they were short leaves it at the next look after its
/// reader ([`READER_LOOK`](crate::limits::READER_LOOK)).
pub enum Content {
    None,
    InPipe(Lent<Pipe>),
    InBuffer(Pending),
}

impl Content {
    /// What was moved into a pipe, if anything was.
    pub fn of(pipe: Lent<Pipe>) -> Self {
        match pipe.held() {
            0 => Self::None,
            _ => Self::InPipe(pipe),
        }
    }

    pub fn is_some(&self) -> bool {
        self.len() > 0
    }

    fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::InPipe(pipe) => pipe.held(),
            Self::InBuffer(pending) => pending.range.len(),
        }
    }

    /// One write of it, as much as `to` takes; pipe and buffer go back when they are empty. `tried`
    /// sees what each attempt gave.
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        to: &TcpStream,
        turn: &Turn<'_>,
        tried: impl Fn(io::Result<usize>) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let write = || {
            tried(match self {
                Self::None => Ok(0),
                Self::InPipe(pipe) => to.try_io(Interest::WRITABLE, || pipe.drain(to)),
                Self::InBuffer(pending) => pending.try_write(to),
            })
        };
        let written = poll_io(cx, |cx| to.poll_write_ready(cx), write);
        if written.is_pending() && turn.pipes.are_short() {
            self.leave_pipe(cx, turn)?;
        }
        let written = ready!(written)?;
        if self.len() == 0 {
            *self = Self::None;
        }
        Poll::Ready(Ok(written))
    }

    /// Stays in the pipe where buffers are short too.
    fn leave_pipe(&mut self, cx: &Context<'_>, turn: &Turn<'_>) -> io::Result<()> {
        let Self::InPipe(pipe) = self else {
            return Ok(());
        };
        if let Poll::Ready(buffer) = turn.pool.poll_take(cx) {
            let pending = drain_into(pipe, buffer?)?;
            *self = Self::InBuffer(pending);
        }
        Ok(())
    }
}

const _: () = assert!(PIPE_BYTES as usize <= BUFFER_LEN);

fn drain_into(pipe: &mut Pipe, mut buffer: Buffer) -> io::Result<Pending> {
    let mut end = 0;
    while pipe.held() > 0 {
        end += pipe.take(&mut buffer[end..])?;
    }
    let range = 0..end;
    Ok(Pending { buffer, range })
}
