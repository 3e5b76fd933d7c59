//! UDP: one question, one answer.

use anyhow::{Context, Result};
use serde::Serialize;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(4);
const QUESTION: &[u8] = b"a datagram";

#[derive(Serialize)]
pub struct Answered {
    /// getpeername() of a connected UDP socket.
    peer: SocketAddr,
    local: SocketAddr,
    /// The client's address as the server saw it.
    seen: String,
}

/// Sends a question and waits for the answer.
pub fn ask(server: SocketAddr) -> Result<Answered> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => "0.0.0.0:0".parse()?,
        SocketAddr::V6(_) => "[::]:0".parse()?,
    };
    let socket = UdpSocket::bind(any).context("bind")?;
    socket.set_read_timeout(Some(LIMIT))?;
    socket.connect(server).context("connect")?;
    socket.send(QUESTION).context("send")?;
    let mut answer = [0; 64];
    let length = socket.recv(&mut answer).context("receive")?;
    Ok(Answered {
        peer: socket.peer_addr()?,
        local: socket.local_addr()?,
        seen: String::from_utf8_lossy(&answer[..length]).into_owned(),
    })
}

/// Answers every datagram with its sender's address, until it is killed.
pub fn serve(listen: SocketAddr) -> Result<()> {
    let socket = UdpSocket::bind(listen).with_context(|| format!("bind {listen}"))?;
    loop {
        let (_, from) = socket.recv_from(&mut [0; 64]).context("receive")?;
        let shown = SocketAddr::new(from.ip().to_canonical(), from.port()).to_string();
        // A client that is gone is its own affair.
        let _ = socket.send_to(shown.as_bytes(), from);
    }
}
