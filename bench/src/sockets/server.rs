//! Takes each connection to its end and says what it was, to the client and on standard output.

use super::client::join;
use super::option;
use crate::print;
use anyhow::{Context, Result};
use clap::Args;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv};
use serde::Serialize;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

const BACKLOG: i32 = 64;
/// Longer texts are counted only.
const TEXT_BYTES_MAX: usize = 64;

#[derive(Args, Clone)]
pub struct Service {
    listen: SocketAddr,
    /// IPPROTO_MPTCP.
    #[arg(long)]
    mptcp: bool,
    /// SO_RCVBUF.
    #[arg(long)]
    receive_buffer: Option<usize>,
    /// Read nothing for so long.
    #[arg(long, default_value_t = 0)]
    pause_ms: u64,
    /// Go to this cgroup once it listens.
    #[arg(long)]
    move_to: Option<PathBuf>,
}

/// What a server's application sees of a connection.
#[derive(Default, Serialize)]
struct Seen {
    /// The client by accept() and by getpeername().
    accepted: Option<SocketAddr>,
    peername: Option<SocketAddr>,
    /// Bytes in their order, without an urgent one that came beside them.
    bytes: usize,
    text: String,
    urgent: Option<char>,
    /// `fin`, or the errno's kind.
    end: String,
    mptcp: bool,
    /// Whether bytes came with the SYN.
    syn_data: bool,
}

/// Serves until it is killed.
pub fn serve(service: &Service) -> Result<()> {
    let listener = listen(service).with_context(|| format!("listen on {}", service.listen))?;
    if let Some(cgroup) = &service.move_to {
        join(cgroup).with_context(|| format!("move to {}", cgroup.display()))?;
    }
    loop {
        let (socket, from) = listener.accept().context("accept")?;
        let pause = Duration::from_millis(service.pause_ms);
        thread::spawn(move || {
            thread::sleep(pause);
            tell(socket, from.as_socket())
        });
    }
}

fn listen(service: &Service) -> io::Result<Socket> {
    let protocol = if service.mptcp {
        Protocol::MPTCP
    } else {
        Protocol::TCP
    };
    let domain = Domain::for_address(service.listen);
    let socket = Socket::new(domain, Type::STREAM, Some(protocol))?;
    socket.set_reuse_address(true)?;
    if let Some(bytes) = service.receive_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    socket.bind(&service.listen.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

fn tell(mut socket: Socket, accepted: Option<SocketAddr>) -> Result<()> {
    // A client that was gone before it was accepted has no name any more.
    let mut seen = Seen {
        accepted,
        peername: socket.peer_addr().ok().and_then(|peer| peer.as_socket()),
        mptcp: option::is_mptcp(&socket)?,
        syn_data: option::way(&socket)?.syn_data,
        ..Seen::default()
    };
    seen.end = match take(&mut socket, &mut seen) {
        Ok(()) => "fin".to_owned(),
        Err(error) => format!("{:?}", error.kind()),
    };
    print(&seen)?;
    // A client that lingers or resets is not there any more.
    let _ = socket.write_all(&serde_json::to_vec(&seen)?);
    Ok(())
}

/// Reads to the end. An urgent byte is lost to whoever reads past it, so it is looked for first.
fn take(socket: &mut Socket, seen: &mut Seen) -> io::Result<()> {
    loop {
        let mut wanted = [PollFd::new(
            socket.as_fd(),
            PollFlags::POLLIN | PollFlags::POLLPRI,
        )];
        poll(&mut wanted, PollTimeout::NONE)?;
        let is_urgent = wanted[0]
            .revents()
            .is_some_and(|ready| ready.contains(PollFlags::POLLPRI));
        if is_urgent && seen.urgent.is_none() {
            seen.urgent = Some(urgent_byte(socket)?);
            continue;
        }
        let mut buffer = [0; 16 * 1024];
        let count = match socket.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        };
        if count == 0 {
            return Ok(());
        }
        seen.bytes += count;
        if seen.bytes <= TEXT_BYTES_MAX {
            seen.text
                .push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    }
}

fn urgent_byte(socket: &Socket) -> io::Result<char> {
    let mut byte = [0];
    recv(socket.as_raw_fd(), &mut byte, MsgFlags::MSG_OOB)?;
    Ok(char::from(byte[0]))
}
