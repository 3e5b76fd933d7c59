//! Pipes through which bytes pass from socket to socket without being copied (splice(2)).

use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::unistd::pipe2;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// A non-blocking pipe.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl Pipe {
    /// With room for at least `bytes`; the kernel rounds up to pages.
    ///
    /// # Errors
    /// Of pipe2() or fcntl(F_SETPIPE_SZ): descriptors, or the user's pages for pipes, are used up.
    pub fn with_room(bytes: i32) -> io::Result<Self> {
        let (read, write) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)?;
        fcntl(&write, FcntlArg::F_SETPIPE_SZ(bytes))?;
        Ok(Self { read, write })
    }

    /// Moves up to `most` bytes from a socket into the pipe; 0 at the socket's end.
    ///
    /// # Errors
    /// Of splice(). `WouldBlock`: the socket has nothing, or the pipe is full. `InvalidInput` from
    /// a socket with TLS: a record that is no application data is next.
    pub fn fill(&self, from: &impl AsFd, most: usize) -> io::Result<usize> {
        let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK;
        Ok(splice(from, None, &self.write, None, most, flags)?)
    }

    /// Moves up to `most` bytes from the pipe into a socket. Nothing is held back for more to
    /// come (no SPLICE_F_MORE).
    ///
    /// # Errors
    /// Of splice(). `WouldBlock`: the pipe is empty, or the socket full; it must be non-blocking
    /// itself.
    pub fn drain(&self, to: &impl AsFd, most: usize) -> io::Result<usize> {
        let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK;
        Ok(splice(&self.read, None, to, None, most, flags)?)
    }
}

/// Bytes can be put in and taken out by hand too.
impl io::Read for &Pipe {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        Ok(nix::unistd::read(&self.read, room)?)
    }
}
