//! Single connections that show one property each.

use crate::print;
use crate::protocol::{self, HASH_LEN, NONCE_LEN};
use crate::sustained::end_of_input;
use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::Value;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(10);
const HALF_CLOSE_BYTES: usize = 100_000;

#[derive(Serialize)]
pub struct Peer {
    /// Our own address, as getsockname() tells it.
    client: SocketAddr,
    /// What getpeername() tells about the server.
    server: SocketAddr,
    /// The client's address as the server's accept() returned it.
    accepted: String,
    /// The client's address as the server's getpeername() tells it.
    peername: String,
}

impl Peer {
    /// Whether the server takes us for who we are.
    pub fn is_true(&self) -> bool {
        let canonical = |text: &str| {
            let address: SocketAddr = text.parse().ok()?;
            Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
        };
        let ours = canonical(&self.client.to_string());
        canonical(&self.accepted) == ours && canonical(&self.peername) == ours
    }
}

pub fn connect(server: SocketAddr, kind: u8) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(server).with_context(|| format!("connect to {server}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    stream.write_all(&[kind]).context("send the first byte")?;
    Ok(stream)
}

pub fn peer(server: SocketAddr) -> Result<Peer> {
    told(&mut connect(server, protocol::PEER)?)
}

/// Now, and over the same connection when standard input has ended.
pub fn peer_again(server: SocketAddr) -> Result<()> {
    let mut stream = connect(server, protocol::PEER)?;
    print(&told(&mut stream)?)?;
    // Nobody ever sends: the receiver learns of the end of input by its sender's end.
    let _ = end_of_input().recv();
    stream.write_all(&[protocol::PEER]).context("ask again")?;
    print(&told(&mut stream)?)
}

fn told(stream: &mut TcpStream) -> Result<Peer> {
    let mut line = String::new();
    while !line.ends_with('\n') {
        let mut byte = [0];
        stream.read_exact(&mut byte).context("read the answer")?;
        line.push(char::from(byte[0]));
    }
    let (accepted, peername) = line.trim().split_once(' ').context("two addresses")?;
    Ok(Peer {
        client: stream.local_addr()?,
        server: stream.peer_addr()?,
        accepted: accepted.to_owned(),
        peername: peername.to_owned(),
    })
}

#[derive(Serialize)]
pub struct Greeted {
    greeting: String,
    answer: String,
}

/// Sends nothing before the server's greeting is here.
pub fn greet(server: SocketAddr) -> Result<Greeted> {
    let mut stream = TcpStream::connect(server).with_context(|| format!("connect to {server}"))?;
    stream.set_read_timeout(Some(LIMIT))?;
    let mut greeting = vec![0; protocol::GREETING.len()];
    stream
        .read_exact(&mut greeting)
        .context("read the greeting")?;
    stream.write_all(b"hello\r\n").context("send hello")?;
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .context("read the answer")?;
    Ok(Greeted {
        greeting: String::from_utf8(greeting)?.trim().to_owned(),
        answer: answer.trim().to_owned(),
    })
}

#[derive(Serialize)]
pub struct HalfClosed {
    client_first: &'static str,
    server_first: &'static str,
    late_bytes: usize,
}

pub fn half_close(server: SocketAddr) -> Result<HalfClosed> {
    let bytes = protocol::payload(&[9; NONCE_LEN], HALF_CLOSE_BYTES);
    client_ends_first(server, &bytes).context("the client ends first")?;
    server_ends_first(server, &bytes).context("the server ends first")?;
    Ok(HalfClosed {
        client_first: "ok",
        server_first: "ok",
        late_bytes: bytes.len(),
    })
}

fn client_ends_first(server: SocketAddr, bytes: &[u8]) -> Result<()> {
    let mut stream = connect(server, protocol::CLIENT_ENDS_FIRST)?;
    stream.write_all(bytes)?;
    stream.shutdown(Shutdown::Write)?;
    let mut hash = [0; HASH_LEN];
    stream
        .read_exact(&mut hash)
        .context("read the hash after our end")?;
    ensure!(hash == protocol::hash(bytes), "the server got other bytes");
    ensure!(stream.read(&mut [0])? == 0, "bytes after the answer");
    Ok(())
}

fn server_ends_first(server: SocketAddr, late: &[u8]) -> Result<()> {
    let mut stream = connect(server, protocol::SERVER_ENDS_FIRST)?;
    let mut bytes = Vec::new();
    stream
        .read_to_end(&mut bytes)
        .context("read to the server's end")?;
    let expected = protocol::payload(&[7; NONCE_LEN], protocol::SERVER_FIRST_BYTES);
    ensure!(
        bytes == expected,
        "{} bytes came instead of {}",
        bytes.len(),
        expected.len()
    );
    stream
        .write_all(late)
        .context("send after the server's end")?;
    stream
        .shutdown(Shutdown::Write)
        .context("end our direction too")?;
    Ok(())
}

#[derive(Serialize)]
pub struct Reset {
    by_server: &'static str,
    by_client: &'static str,
}

pub fn reset(server: SocketAddr) -> Result<Reset> {
    let mut stream = connect(server, protocol::SERVER_RESETS)?;
    stream
        .read_exact(&mut [0])
        .context("the byte before the reset")?;
    let by_server = match stream.read(&mut [0]) {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => "reset",
        Err(_) => "error",
        Ok(_) => "end",
    };
    let mut stream = connect(server, protocol::CLIENT_RESETS)?;
    stream
        .read_exact(&mut [0])
        .context("the byte before our reset")?;
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    drop(stream);
    Ok(Reset {
        by_server,
        by_client: "sent",
    })
}

pub fn report(server: SocketAddr, clear: bool) -> Result<Value> {
    let kind = if clear {
        protocol::CLEAR
    } else {
        protocol::REPORT
    };
    let mut stream = connect(server, kind)?;
    let mut text = String::new();
    stream
        .read_to_string(&mut text)
        .context("read the report")?;
    serde_json::from_str(&text).context("parse the report")
}
