//! The name by which programs know a network namespace.

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

/// The cookie of the calling thread's network namespace (SO_NETNS_COOKIE).
///
/// # Errors
/// If no socket can be made in it.
pub fn own_cookie() -> io::Result<u64> {
    let socket = UdpSocket::bind("127.0.0.1:0").or_else(|_| UdpSocket::bind("[::1]:0"))?;
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open for the call, and `cookie` is a live u64 whose size
    // `length` states.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            std::ptr::from_mut(&mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        Ok(cookie)
    } else {
        Err(io::Error::last_os_error())
    }
}
