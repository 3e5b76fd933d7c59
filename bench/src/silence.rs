//! Connections that wait for their peer to die: each says that it is open and from which address,
//! then when and how it learned of the end.

use crate::print;
use crate::protocol::{self, NONCE_LEN};
use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use serde::Serialize;
use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, SystemTime};

const CHUNK_BYTES: usize = 16 * 1024;

#[derive(Args)]
pub struct Request {
    server: SocketAddr,
    traffic: Traffic,
    /// TCP_USER_TIMEOUT of our socket, set before connect().
    #[arg(long)]
    user_timeout_s: Option<u64>,
    /// Keepalive of our socket, set before connect(): after so long, three times every second.
    #[arg(long)]
    keepalive_s: Option<u64>,
}

/// Who sends.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Traffic {
    Idle,
    Up,
    Down,
    /// We, and the server reads nothing.
    Held,
}

#[derive(Serialize)]
struct Ended {
    /// `error`, or `end` for a clean one.
    ended: &'static str,
    error: String,
    at_unix_ms: u64,
}

/// # Errors
/// When the connection does not open.
pub fn wait(request: &Request) -> Result<()> {
    let mut stream = connect(request)?;
    stream.write_all(&[protocol::SILENCE, request.traffic.byte()])?;
    let mut opened = [0];
    stream
        .read_exact(&mut opened)
        .context("read the byte that says it is open")?;
    print(&serde_json::json!({ "open": stream.local_addr()? }))?;
    let ended = match request.traffic {
        Traffic::Up | Traffic::Held => send(&mut stream),
        Traffic::Idle | Traffic::Down => receive(&mut stream),
    };
    print(&Ended::of(&ended))
}

/// Opens nothing but the connection, and says when its first answer failed to come.
///
/// # Errors
/// When it answers.
pub fn wait_for_opening(request: &Request) -> Result<()> {
    let mut stream = connect(request)?;
    stream.write_all(&[protocol::SILENCE, request.traffic.byte()])?;
    let answered = stream.read_exact(&mut [0]);
    ensure!(answered.is_err(), "the server answered");
    print(&Ended::of(&answered))
}

fn connect(request: &Request) -> Result<TcpStream> {
    let server = request.server;
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, None)?;
    if let Some(seconds) = request.user_timeout_s {
        socket.set_tcp_user_timeout(Some(Duration::from_secs(seconds)))?;
    }
    if let Some(seconds) = request.keepalive_s {
        let keepalive = TcpKeepalive::new()
            .with_time(Duration::from_secs(seconds))
            .with_interval(Duration::from_secs(1))
            .with_retries(3);
        socket.set_tcp_keepalive(&keepalive)?;
    }
    socket
        .connect(&server.into())
        .with_context(|| format!("connect to {server}"))?;
    Ok(socket.into())
}

fn send(stream: &mut TcpStream) -> io::Result<()> {
    let chunk = protocol::payload(&[5; NONCE_LEN], CHUNK_BYTES);
    loop {
        stream.write_all(&chunk)?;
    }
}

fn receive(stream: &mut TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    while stream.read(&mut buffer)? != 0 {}
    // An error of the socket may stand behind the end.
    SockRef::from(&*stream).take_error()?.map_or(Ok(()), Err)
}

impl Traffic {
    fn byte(self) -> u8 {
        match self {
            Self::Idle => protocol::SILENCE_IDLE,
            Self::Up => protocol::SILENCE_UP,
            Self::Down => protocol::SILENCE_DOWN,
            Self::Held => protocol::SILENCE_HELD,
        }
    }
}

impl Ended {
    fn of(ended: &io::Result<()>) -> Self {
        let error = ended.as_ref().err().map(ToString::to_string);
        Self {
            ended: if error.is_some() { "error" } else { "end" },
            error: error.unwrap_or_default(),
            at_unix_ms: unix_ms(),
        }
    }
}

/// # Panics
/// Before 1970.
#[must_use]
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since.expect("after 1970").as_millis()).unwrap_or(u64::MAX)
}
