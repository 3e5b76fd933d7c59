//! One connection, made as the flags say, and what its application sees of it.

use super::option::{self, Way};
use super::{AFTER, BEFORE, MIDDLE};
use anyhow::Result;
use clap::{Args, ValueEnum};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use serde::Serialize;
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Longer than any server here takes.
const LIMIT: Duration = Duration::from_secs(6);
/// Long enough for a second SYN, short enough for a test that waits for one that is dropped.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// Shorter than a server that reads nothing pauses.
const ACKNOWLEDGE_LIMIT: Duration = Duration::from_millis(1_500);

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FastOpen {
    /// TCP_FASTOPEN_CONNECT: connect() waits for the first write.
    Connect,
    /// sendto() with MSG_FASTOPEN connects.
    Sendto,
}

#[derive(Args)]
pub struct Request {
    server: SocketAddr,
    /// bind() to this first.
    #[arg(long)]
    bind: Option<SocketAddr>,
    /// SO_BINDTODEVICE.
    #[arg(long)]
    device: Option<String>,
    /// IP_TRANSPARENT.
    #[arg(long)]
    transparent: bool,
    /// IPPROTO_MPTCP.
    #[arg(long)]
    mptcp: bool,
    /// The first bytes in the SYN.
    #[arg(long)]
    fast_open: Option<FastOpen>,
    /// The middle byte with MSG_OOB.
    #[arg(long)]
    urgent: bool,
    /// Nothing is said but this many zeros, and the server's answer is not waited for.
    #[arg(long)]
    zeros: Option<usize>,
    /// SO_LINGER in seconds.
    #[arg(long)]
    linger: Option<u64>,
    /// Connect here before, to a server that speaks first, and take it back with
    /// connect(AF_UNSPEC).
    #[arg(long)]
    before: Option<SocketAddr>,
    /// Go to this cgroup once the socket is made.
    #[arg(long)]
    move_to: Option<PathBuf>,
    /// Another process connects the socket, in this cgroup.
    #[arg(long)]
    by: Option<PathBuf>,
    /// The socket is standard input.
    #[arg(long, hide = true)]
    inherited: bool,
}

/// What the application sees.
#[derive(Default, Serialize)]
pub struct Outcome {
    /// The system call that failed, and its errno by name.
    failed: Option<String>,
    /// getsockname(), once connected.
    local: Option<SocketAddr>,
    /// getpeername().
    peer: Option<SocketAddr>,
    /// The other end by /proc/net/tcp (IPv4 only).
    listed: Option<SocketAddr>,
    way: Option<Way>,
    /// How long close() took.
    close_ms: Option<u128>,
    /// What the server says about the connection.
    seen: Option<Value>,
}

/// A system call that did what it does, with or without success.
struct Failed(&'static str, io::Error);

type Step<T> = Result<T, Failed>;

trait Call<T> {
    fn call(self, name: &'static str) -> Step<T>;
}

impl<T> Call<T> for io::Result<T> {
    fn call(self, name: &'static str) -> Step<T> {
        self.map_err(|error| Failed(name, error))
    }
}

impl<T> Call<T> for nix::Result<T> {
    fn call(self, name: &'static str) -> Step<T> {
        self.map_err(io::Error::from).call(name)
    }
}

/// Does what the flags say; what the kernel refuses is part of the outcome.
pub fn run(request: &Request) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    if let Err(Failed(call, error)) = play(request, &mut outcome) {
        outcome.failed = Some(format!("{call}: {}", errno(&error)));
    }
    Ok(outcome)
}

/// Ends this process if another one goes on with the socket: its words are the result then.
fn play(request: &Request, outcome: &mut Outcome) -> Step<()> {
    let socket = match request.inherited {
        true => Socket::from(io::stdin().as_fd().try_clone_to_owned().call("dup")?),
        false => make(request)?,
    };
    if let Some(cgroup) = &request.move_to {
        join(cgroup).call("move")?;
    }
    if let Some(cgroup) = &request.by {
        return hand_over(socket, request, cgroup);
    }
    if let Some(before) = request.before {
        connect_and_take_back(&socket, before)?;
    }
    connect(&socket, request)?;
    look(&socket, outcome)?;
    match request.zeros {
        Some(count) => pour(socket, count, request, outcome),
        None => talk(socket, request, outcome),
    }
}

fn make(request: &Request) -> Step<Socket> {
    let protocol = if request.mptcp {
        Protocol::MPTCP
    } else {
        Protocol::TCP
    };
    let domain = Domain::for_address(request.server);
    let socket = Socket::new(domain, Type::STREAM, Some(protocol)).call("socket")?;
    socket.set_read_timeout(Some(LIMIT)).call("SO_RCVTIMEO")?;
    socket.set_write_timeout(Some(LIMIT)).call("SO_SNDTIMEO")?;
    if request.transparent {
        socket.set_ip_transparent_v4(true).call("IP_TRANSPARENT")?;
    }
    if let Some(device) = &request.device {
        socket
            .bind_device(Some(device.as_bytes()))
            .call("SO_BINDTODEVICE")?;
    }
    if let Some(address) = request.bind {
        socket.bind(&address.into()).call("bind")?;
    }
    if let Some(seconds) = request.linger {
        socket
            .set_linger(Some(Duration::from_secs(seconds)))
            .call("SO_LINGER")?;
    }
    if request.fast_open == Some(FastOpen::Connect) {
        setsockopt(&socket, sockopt::TcpFastOpenConnect, &true).call("TCP_FASTOPEN_CONNECT")?;
    }
    Ok(socket)
}

/// Writing 0 moves the writer (cgroups(7)).
pub fn join(cgroup: &Path) -> io::Result<()> {
    fs::write(cgroup.join("cgroup.procs"), "0")
}

/// The socket as standard input of a process that connects it, in another cgroup.
fn hand_over(socket: Socket, request: &Request, cgroup: &Path) -> Step<()> {
    let mut command = Command::new("/proc/self/exe");
    command
        .args([
            "socket",
            &request.server.to_string(),
            "--inherited",
            "--move-to",
        ])
        .arg(cgroup)
        .stdin(Stdio::from(OwnedFd::from(socket)));
    let status = command.status().call("exec")?;
    std::process::exit(status.code().unwrap_or(1))
}

fn connect(socket: &Socket, request: &Request) -> Step<()> {
    let to = request.server.into();
    match request.fast_open {
        None => socket.connect_timeout(&to, CONNECT_LIMIT).call("connect"),
        Some(FastOpen::Connect) => socket.connect(&to).call("connect"),
        Some(FastOpen::Sendto) => socket
            .send_to_with_flags(BEFORE, &to, libc::MSG_FASTOPEN)
            .map(drop)
            .call("sendto(MSG_FASTOPEN)"),
    }
}

/// A connection that has come to its server and back is given up without an end.
fn connect_and_take_back(mut socket: &Socket, before: SocketAddr) -> Step<()> {
    let connected = socket.connect_timeout(&before.into(), CONNECT_LIMIT);
    connected.call("first connect")?;
    socket.read_exact(&mut [0]).call("first recv")?;
    let taken_back = rustix::net::connect_unspec(socket).map_err(io::Error::from);
    taken_back.call("connect(AF_UNSPEC)")
}

fn look(socket: &Socket, outcome: &mut Outcome) -> Step<()> {
    let local = socket.local_addr().call("getsockname")?.as_socket();
    outcome.local = local;
    // Of a connection that waits for its first write there is none yet.
    outcome.peer = socket.peer_addr().ok().and_then(|peer| peer.as_socket());
    outcome.listed = local.and_then(listed);
    Ok(())
}

/// Three writes, our end, and the server's answer.
fn talk(mut socket: Socket, request: &Request, outcome: &mut Outcome) -> Step<()> {
    if request.fast_open != Some(FastOpen::Sendto) {
        socket.write_all(BEFORE).call("send")?;
    }
    if request.urgent {
        socket.send_out_of_band(MIDDLE).call("send(MSG_OOB)")?;
    } else {
        socket.write_all(MIDDLE).call("send")?;
    }
    socket.write_all(AFTER).call("send")?;
    if request.linger.is_some() {
        drop(socket);
        return Ok(());
    }
    socket.shutdown(Shutdown::Write).call("shutdown")?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).call("recv")?;
    outcome.seen = serde_json::from_str(&answer).ok();
    outcome.way = option::way(&socket).ok();
    Ok(())
}

/// More than the server reads soon, and close() at once.
fn pour(mut socket: Socket, count: usize, request: &Request, outcome: &mut Outcome) -> Step<()> {
    socket.write_all(&vec![0; count]).call("send")?;
    if request.linger.is_none() {
        outcome.way = when_acknowledged(&socket, count as u64);
    }
    let started = Instant::now();
    drop(socket);
    outcome.close_ms = Some(started.elapsed().as_millis());
    Ok(())
}

/// TCP_INFO once everything is acknowledged, or when nobody would wait longer.
fn when_acknowledged(socket: &Socket, count: u64) -> Option<Way> {
    let started = Instant::now();
    loop {
        let way = option::way(socket).ok()?;
        if way.bytes_acked >= count || started.elapsed() > ACKNOWLEDGE_LIMIT {
            return Some(way);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The other end of the socket that has this end, as `ss` and its like find it.
fn listed(local: SocketAddr) -> Option<SocketAddr> {
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    table.lines().skip(1).find_map(|line| {
        let mut ends = line.split_whitespace().skip(1).map(listed_end);
        (ends.next()?? == local).then(|| ends.next()?)?
    })
}

/// `0100007F:1F90`: the address as a word of this machine, the port as a number.
fn listed_end(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let ip = Ipv4Addr::from(u32::from_str_radix(ip, 16).ok()?.to_ne_bytes());
    Some(SocketAddr::new(
        ip.into(),
        u16::from_str_radix(port, 16).ok()?,
    ))
}

fn errno(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => format!("{:?}", Errno::from_raw(number)),
        // connect_timeout() of socket2 has no errno for its own end.
        None if error.kind() == io::ErrorKind::TimedOut => "ETIMEDOUT".to_owned(),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn the_kernels_table_has_the_other_end_of_a_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let to = listener.local_addr().expect("bound");
        let stream = TcpStream::connect(to).expect("connect");
        assert_eq!(listed(stream.local_addr().expect("connected")), Some(to));
    }
}
