//! What TCP knows of a connection (TCP_INFO, tcp(7)).

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

/// The part of `struct tcp_info` that is of use here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    state: u8,
    /// Questions for room, one after the other, that nobody has answered.
    pub probes: u8,
    /// Packets sent that nobody has acknowledged.
    pub unacked: u32,
    /// How long ago the other side acknowledged something last, be it the same again.
    pub last_ack: Duration,
    /// Bytes that were written and not sent.
    pub notsent_bytes: u32,
    /// Bytes that were sent, those that were sent again included.
    pub bytes_sent: u64,
    pub bytes_retrans: u64,
}

/// Offsets in `struct tcp_info` (include/uapi/linux/tcp.h), which only ever grows at its end.
const STATE: usize = 0;
const PROBES: usize = 3;
const UNACKED: usize = 24;
const LAST_ACK_RECV: usize = 56;
const NOTSENT_BYTES: usize = 144;
const BYTES_SENT: usize = 200;
const BYTES_RETRANS: usize = 208;
const LENGTH: usize = 216;

impl TcpInfo {
    /// # Errors
    /// Of getsockopt(); `Unsupported` before Linux 4.19.
    pub fn of(socket: &impl AsFd) -> io::Result<Self> {
        let mut info = [0_u8; LENGTH];
        let mut length = libc::socklen_t::try_from(LENGTH).map_err(io::Error::other)?;
        // SAFETY: the descriptor is borrowed and open; the kernel writes at most `length` bytes
        // into `info`, which has as many, and the new length into `length`.
        let result = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                info.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        if usize::try_from(length).is_ok_and(|length| length < LENGTH) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let long = |at: usize| u64::from_ne_bytes(*info[at..].first_chunk().expect("inside"));
        let word = |at: usize| u32::from_ne_bytes(*info[at..].first_chunk().expect("inside"));
        Ok(Self {
            state: info[STATE],
            probes: info[PROBES],
            unacked: word(UNACKED),
            last_ack: Duration::from_millis(word(LAST_ACK_RECV).into()),
            notsent_bytes: word(NOTSENT_BYTES),
            bytes_sent: long(BYTES_SENT),
            bytes_retrans: long(BYTES_RETRANS),
        })
    }

    /// Whether neither side has ended it.
    #[must_use]
    pub fn is_established(&self) -> bool {
        /// `TCP_ESTABLISHED` (include/net/tcp_states.h).
        const ESTABLISHED: u8 = 1;
        self.state == ESTABLISHED
    }

    /// Bytes that were written to the connection since it began.
    #[must_use]
    pub fn bytes_written(&self) -> u64 {
        self.bytes_sent - self.bytes_retrans + u64::from(self.notsent_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let near = TcpStream::connect(listener.local_addr().expect("bound")).expect("connect");
        let (far, _) = listener.accept().expect("accept");
        near.set_nonblocking(true).expect("fcntl");
        (near, far)
    }

    /// Writes until nothing more is taken, and everything that could be sent is acknowledged.
    fn fill(near: &mut TcpStream) -> u64 {
        let mut sent = 0;
        loop {
            match near.write(&[0; 100_000]) {
                Ok(taken) => sent += taken as u64,
                Err(_) if TcpInfo::of(near).expect("TCP_INFO").unacked == 0 => return sent,
                Err(_) => std::thread::yield_now(),
            }
        }
    }

    #[test]
    fn a_full_connection_has_acknowledged_all_that_was_sent_and_answers_questions_for_room() {
        let (mut near, mut far) = pair();
        let idle = TcpInfo::of(&near).expect("TCP_INFO");
        let sent = fill(&mut near);
        let full = TcpInfo::of(&near).expect("TCP_INFO");
        assert!(full.unacked == 0 && full.notsent_bytes > 0, "{full:?}");
        assert!(full.probes < 2, "{full:?}");
        assert_eq!(full.bytes_written(), idle.bytes_written() + sent);
        let mut all = vec![0; usize::try_from(sent).expect("some MiB")];
        far.read_exact(&mut all).expect("what was sent");
        let read = TcpInfo::of(&near).expect("TCP_INFO");
        assert_eq!(read.notsent_bytes, 0, "{read:?}");
        std::thread::sleep(Duration::from_millis(30));
        let later = TcpInfo::of(&near).expect("TCP_INFO");
        assert!(later.last_ack >= Duration::from_millis(20), "{later:?}");
    }
}
