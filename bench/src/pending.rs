//! Connections that nobody uses, as many as there can be.

use anyhow::{Context, Result};
use clap::Args;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

/// Of one that is waited for.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

#[derive(Args)]
pub struct Request {
    server: SocketAddr,
    /// connect() calls, one after the other.
    #[arg(long, default_value_t = 20_000)]
    connections: usize,
    /// Sockets that are kept: beyond these the oldest is closed for each new one.
    #[arg(long, default_value_t = 15_000)]
    at_once: usize,
    /// Wait for each to be connected before anything else.
    #[arg(long)]
    in_turn: bool,
    /// Close them by a reset.
    #[arg(long)]
    reset: bool,
    /// How long those that are kept may take to connect in the end.
    #[arg(long, default_value_t = 0)]
    wait_ms: u64,
}

#[derive(Default, Serialize)]
pub struct Flood {
    /// connect() calls that began a connection.
    begun: usize,
    /// Calls, and connections under way, that failed, by errno.
    failed: BTreeMap<String, usize>,
    /// Of those kept to the end: connected, and still under way.
    connected: usize,
    pending: usize,
    seconds: f64,
}

pub fn flood(request: &Request) -> Result<Flood> {
    let started = Instant::now();
    let mut flood = Flood::default();
    let mut kept = VecDeque::with_capacity(request.at_once);
    for _ in 0..request.connections {
        if kept.len() >= request.at_once {
            kept.pop_front();
        }
        match begin(request).context("make a socket")? {
            Ok(socket) => kept.push_back(socket),
            Err(error) => flood.fails(&error),
        }
    }
    flood.begun = request.connections - flood.failed.values().sum::<usize>();
    let until = Instant::now() + Duration::from_millis(request.wait_ms);
    for socket in &kept {
        match outcome(socket, until)? {
            Ok(true) => flood.connected += 1,
            Ok(false) => flood.pending += 1,
            Err(error) => flood.fails(&error),
        }
    }
    flood.seconds = started.elapsed().as_secs_f64();
    Ok(flood)
}

impl Flood {
    fn fails(&mut self, error: &io::Error) {
        let errno = Errno::from_raw(error.raw_os_error().unwrap_or_default());
        *self.failed.entry(format!("{errno:?}")).or_default() += 1;
    }
}

fn begin(request: &Request) -> io::Result<io::Result<Socket>> {
    let kind = Type::STREAM.nonblocking();
    let domain = Domain::for_address(request.server);
    let socket = Socket::new(domain, kind, Some(Protocol::TCP))?;
    if request.reset {
        socket.set_linger(Some(Duration::ZERO))?;
    }
    let to = request.server.into();
    let connected = match request.in_turn {
        true => socket.connect_timeout(&to, CONNECT_LIMIT),
        false => socket.connect(&to),
    };
    Ok(match connected {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket),
    })
}

/// Whether it is connected by then.
fn outcome(socket: &Socket, until: Instant) -> Result<io::Result<bool>> {
    let left = until.saturating_duration_since(Instant::now());
    let mut wanted = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
    let answered = poll(&mut wanted, PollTimeout::try_from(left)?).context("poll")?;
    Ok(match socket.take_error().context("SO_ERROR")? {
        Some(error) => Err(error),
        None => Ok(answered > 0),
    })
}
