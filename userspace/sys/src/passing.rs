//! Descriptors that one process hands to another, over a Unix socket that keeps messages apart
//! (unix(7), SOCK_SEQPACKET and SCM_RIGHTS).

use nix::cmsg_space;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

/// Descriptors in one message, at most; the kernel takes 253 (SCM_MAX_FD).
pub const DESCRIPTORS_MAX: usize = 128;
/// Peers that wait to be accepted.
const BACKLOG: i32 = 4;

/// Listens at `path`, which must not be there. Not blocking.
///
/// # Errors
/// Of socket(), bind() or listen().
pub fn listen(path: &Path) -> io::Result<OwnedFd> {
    let socket = seqpacket()?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Connects to the listener at `path`. Not blocking, either.
///
/// # Errors
/// Of socket() or connect().
pub fn connect(path: &Path) -> io::Result<OwnedFd> {
    let socket = seqpacket()?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket.into())
}

/// The next peer of a listener.
///
/// # Errors
/// Of accept4(); `WouldBlock` where nobody waits.
pub fn accept(listener: &impl AsFd) -> io::Result<OwnedFd> {
    let (socket, _) = socket2::SockRef::from(listener).accept()?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Sends one message with these descriptors, whole or not at all.
///
/// # Errors
/// Of sendmsg(); `WouldBlock` where the peer's queue is full.
pub fn send(socket: &impl AsFd, message: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    let bytes = [IoSlice::new(message)];
    sendmsg::<UnixAddr>(socket.as_fd().as_raw_fd(), &bytes, control, flags, None)?;
    Ok(())
}

/// The next message into `buffer`: its length, 0 at the end, and its descriptors, which no other
/// program gets by exec().
///
/// # Errors
/// Of recvmsg(); `WouldBlock` where there is none; `InvalidData` for one that did not fit.
pub fn receive(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut control = cmsg_space!([RawFd; DESCRIPTORS_MAX]);
    let mut bytes = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let fd = socket.as_fd().as_raw_fd();
    let received = recvmsg::<UnixAddr>(fd, &mut bytes, Some(&mut control), flags)?;
    let mut descriptors = Vec::new();
    for message in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = message {
            // SAFETY: the kernel has just made these descriptors for us, each is named once, and
            // nobody else knows them.
            let owned = raw
                .into_iter()
                .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
            descriptors.extend(owned);
        }
    }
    if received
        .flags
        .intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC)
    {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok((received.bytes, descriptors))
}

fn seqpacket() -> io::Result<Socket> {
    let kind = Type::SEQPACKET.nonblocking().cloexec();
    Socket::new(Domain::UNIX, kind, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::atomic::{AtomicU32, Ordering};

    fn pair() -> (OwnedFd, OwnedFd) {
        static PAIRS: AtomicU32 = AtomicU32::new(0);
        let number = PAIRS.fetch_add(1, Ordering::Relaxed);
        let name = format!("kedge-passing-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let listener = listen(&path).expect("listen");
        let here = connect(&path).expect("connect");
        let there = accept(&listener).expect("accept");
        std::fs::remove_file(&path).expect("remove");
        (here, there)
    }

    #[test]
    fn a_listener_that_is_handed_over_keeps_who_waits_in_it() {
        let (here, there) = pair();
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let address = listener.local_addr().expect("bound");
        let mut client = TcpStream::connect(address).expect("connect");
        send(&here, b"listener", &[listener.as_fd()]).expect("send");
        drop(listener);
        let mut buffer = [0; 16];
        let (len, mut descriptors) = receive(&there, &mut buffer).expect("receive");
        assert_eq!(&buffer[..len], b"listener");
        let listener = TcpListener::from(descriptors.pop().expect("one"));
        let (mut accepted, _) = listener.accept().expect("who waited");
        accepted.write_all(b"!").expect("write");
        client.read_exact(&mut [0]).expect("read");
        drop(here);
        assert_eq!(receive(&there, &mut buffer).expect("the end").0, 0);
    }

    #[test]
    fn a_message_that_does_not_fit_is_an_error_and_keeps_no_descriptor() {
        let (here, there) = pair();
        let (gone, held) = pair();
        send(&here, b"too long", &[held.as_fd()]).expect("send");
        drop(held);
        let error = receive(&there, &mut [0; 4]).expect_err("8 bytes");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let (len, _) = receive(&gone, &mut [0; 4]).expect("nobody holds the other end");
        assert_eq!(len, 0);
    }
}
