//! TCP sockets as a dataplane wants them: non-blocking, without Nagle, with death noticed.

use crate::limits::BACKLOG;
use crate::patience::Patience;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

/// A listener that shares its port with the other workers' (SO_REUSEPORT). Accepted sockets
/// inherit its options, so that accepting costs no system call more.
///
/// # Errors
/// Of socket(), setsockopt(), bind() or listen().
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = tuned(address)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        // `[::]` takes both families; the peer's address of an IPv4 connection is v4-mapped.
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Places in the accept queue of each such listener, in this network namespace.
///
/// # Errors
/// If the kernel does not say how many it allows.
pub fn queue_places() -> io::Result<u32> {
    let allowed = std::fs::read_to_string("/proc/sys/net/core/somaxconn")?;
    let allowed = allowed.trim().parse::<u32>().map_err(io::Error::other)?;
    Ok(allowed.min(BACKLOG.unsigned_abs()))
}

/// A socket on its way: its cookie is known before the first packet leaves.
#[derive(Debug)]
pub struct Dial {
    socket: Socket,
    to: SocketAddr,
}

impl Dial {
    /// # Errors
    /// Of socket() or setsockopt().
    pub fn new(to: SocketAddr) -> io::Result<Self> {
        let socket = tuned(to)?;
        Ok(Self { socket, to })
    }

    /// The same, coming from `source`. The kernel chooses the port only at connect(), so that each
    /// pair of addresses has all ports of the range to itself (ip(7), IP_BIND_ADDRESS_NO_PORT).
    ///
    /// # Errors
    /// Of socket(), setsockopt() or bind(): a local route must lead to `source`.
    pub fn from_source(source: IpAddr, to: SocketAddr) -> io::Result<Self> {
        let dial = Self::new(to)?;
        setsockopt(&dial.socket, sockopt::IpBindAddressNoPort, &true)?;
        if source.is_ipv6() {
            // A local route makes an IPv4 address the node's own, not an IPv6 one (ipv6(7)).
            dial.socket.set_freebind_v6(true)?;
        }
        dial.socket.bind(&SocketAddr::new(source, 0).into())?;
        Ok(dial)
    }

    /// The socket's cookie (SO_COOKIE), by which the BPF programs know it.
    ///
    /// # Errors
    /// Of getsockopt().
    pub fn cookie(&self) -> io::Result<u64> {
        self.socket.cookie()
    }

    /// Begins to connect. The result comes by writability and SO_ERROR.
    ///
    /// # Errors
    /// Of connect(), other than that it is under way.
    pub fn start(self) -> io::Result<TcpStream> {
        const EINPROGRESS: i32 = nix::errno::Errno::EINPROGRESS as i32;
        match self.socket.connect(&self.to.into()) {
            Ok(()) => Ok(self.socket.into()),
            Err(error) if error.raw_os_error() == Some(EINPROGRESS) => Ok(self.socket.into()),
            Err(error) => Err(error),
        }
    }
}

/// Reads what is there right now, whatever a runtime knows of the socket's readiness.
///
/// # Errors
/// Of recv(); `WouldBlock` where nothing is there yet.
pub fn read_now(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    (&*SockRef::from(socket)).read(buffer)
}

/// Sends what TCP holds back for more to come, and holds nothing back from now on (tcp(7),
/// TCP_NODELAY).
///
/// # Errors
/// Of setsockopt().
pub fn push(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_tcp_nodelay(true)
}

/// Makes the coming close() send RST instead of FIN, also the one that the kernel does for a
/// process that was killed. What a listener accepts inherits it.
///
/// # Errors
/// Of setsockopt().
pub fn reset_on_close(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_linger(Some(Duration::ZERO))
}

/// Takes [`reset_on_close`] back: what was sent will arrive, and FIN behind it.
///
/// # Errors
/// Of setsockopt().
pub fn end_on_close(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_linger(None)
}

fn tuned(address: SocketAddr) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    Patience::OURS.set(&socket)?;
    // An urgent byte would otherwise be left out of what is read (RFC 6093, section 6).
    socket.set_out_of_band_inline(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_sockets_inherit_what_every_leg_has() {
        let listener = listen("127.0.0.1:0".parse().expect("literal")).expect("listen");
        let to = listener.local_addr().expect("bound");
        let _client = TcpStream::connect(to).expect("connect");
        listener.set_nonblocking(false).expect("fcntl");
        let (accepted, _) = listener.accept().expect("accept");
        let accepted = SockRef::from(&accepted);
        assert!(accepted.tcp_nodelay().expect("getsockopt"));
        assert!(accepted.keepalive().expect("getsockopt"));
        assert!(accepted.out_of_band_inline().expect("getsockopt"));
        let timeout = accepted.tcp_user_timeout().expect("getsockopt");
        assert_eq!(timeout, Some(Patience::OURS.user_timeout));
    }

    #[test]
    fn a_dial_has_its_cookie_before_it_starts() {
        let listener = listen("127.0.0.1:0".parse().expect("literal")).expect("listen");
        let dial = Dial::new(listener.local_addr().expect("bound")).expect("socket");
        let cookie = dial.cookie().expect("getsockopt");
        let stream = dial.start().expect("connect");
        assert_ne!(cookie, 0);
        assert_eq!(SockRef::from(&stream).cookie().expect("getsockopt"), cookie);
    }

    #[test]
    fn a_dial_from_an_address_has_no_port_before_it_starts() {
        for (source, any) in [("127.0.0.9", "127.0.0.1:0"), ("::1", "[::1]:0")] {
            let listener = listen(any.parse().expect("literal")).expect("listen");
            let source: IpAddr = source.parse().expect("literal");
            let dial = Dial::from_source(source, listener.local_addr().expect("bound"));
            let dial = dial.expect("bind");
            let before = dial.socket.local_addr().expect("getsockname").as_socket();
            assert_eq!(before, Some(SocketAddr::new(source, 0)));
            let stream = dial.start().expect("connect");
            assert_eq!(stream.local_addr().expect("getsockname").ip(), source);
        }
    }

    #[test]
    fn what_a_listener_accepts_inherits_reset_on_close_until_it_is_taken_back() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        reset_on_close(&listener).expect("setsockopt");
        let end = |clean: bool| {
            let to = listener.local_addr().expect("bound");
            let mut client = TcpStream::connect(to).expect("connect");
            let (accepted, _) = listener.accept().expect("accept");
            if clean {
                end_on_close(&accepted).expect("setsockopt");
            }
            drop(accepted);
            client.read(&mut [0]).map_err(|error| error.kind())
        };
        assert_eq!(end(false), Err(io::ErrorKind::ConnectionReset));
        assert_eq!(end(true), Ok(0));
    }

    #[test]
    fn reset_on_close_is_seen_as_a_reset() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let mut client =
            TcpStream::connect(listener.local_addr().expect("bound")).expect("connect");
        let (accepted, _) = listener.accept().expect("accept");
        reset_on_close(&accepted).expect("setsockopt");
        drop(accepted);
        let error = client.read(&mut [0]).expect_err("a reset");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}
