//! Pipes through which bytes pass from socket to socket without being copied (splice(2)).

use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::unistd::pipe2;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// A non-blocking pipe, and how many bytes are in it.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    held: usize,
}

impl Pipe {
    /// With room for at least `bytes`; the kernel rounds up to pages.
    ///
    /// # Errors
    /// Of pipe2() or fcntl(F_SETPIPE_SZ): descriptors, or the user's pages for pipes, are used up.
    pub fn with_room(bytes: i32) -> io::Result<Self> {
        let (read, write) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)?;
        fcntl(&write, FcntlArg::F_SETPIPE_SZ(bytes))?;
        let held = 0;
        Ok(Self { read, write, held })
    }

    /// Bytes that were put in and not taken out.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held
    }

    /// Moves up to `most` bytes from a socket into the pipe; 0 at the socket's end.
    ///
    /// # Errors
    /// Of splice(). `WouldBlock`: the socket has nothing, or the pipe is full. `InvalidInput` from
    /// a socket with TLS: a record that is no application data is next.
    pub fn fill(&mut self, from: &impl AsFd, most: usize) -> io::Result<usize> {
        let moved = splice(from, None, &self.write, None, most, FLAGS)?;
        self.held += moved;
        Ok(moved)
    }

    /// Moves bytes from the pipe into a socket, as many as it takes. Nothing is held back for more
    /// to come (no SPLICE_F_MORE).
    ///
    /// # Errors
    /// Of splice(). `WouldBlock`: the socket is full, or the pipe empty; the socket must be
    /// non-blocking itself.
    pub fn drain(&mut self, to: &impl AsFd) -> io::Result<usize> {
        let moved = splice(&self.read, None, to, None, self.held, FLAGS)?;
        self.held -= moved;
        Ok(moved)
    }

    /// Takes bytes out by hand.
    ///
    /// # Errors
    /// Of read().
    pub fn take(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let taken = nix::unistd::read(&self.read, room)?;
        self.held -= taken;
        Ok(taken)
    }
}

const FLAGS: SpliceFFlags = SpliceFFlags::SPLICE_F_MOVE.union(SpliceFFlags::SPLICE_F_NONBLOCK);
