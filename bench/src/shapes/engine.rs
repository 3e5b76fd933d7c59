//! One connection behind four kinds of system calls.

use super::script::Shape;
use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use socket2::{Domain, SockRef, Socket, Type};
use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::LazyLock;
use std::time::Duration;
use tokio::time::timeout;

/// How a side makes its system calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    /// A thread a connection; sends and receives block.
    Blocking,
    /// Non-blocking sockets and edge-triggered epoll.
    Edge,
    /// io_uring's connect, accept, send and receive.
    Uring,
    /// As a server: a process a connection, which is given the accepted socket.
    Inherited,
}

/// A stream in which nothing moves for longer has failed. `KEDGE_PATIENCE`, set in emulated machines,
/// says how many times as long that may be there.
pub static LIMIT: LazyLock<Duration> = LazyLock::new(|| {
    let patience = std::env::var("KEDGE_PATIENCE");
    let times = patience.ok().and_then(|text| text.parse().ok());
    Duration::from_secs(60) * times.unwrap_or(1)
});

/// A connection, played by one task.
pub enum Wire {
    Blocking(RefCell<TcpStream>),
    Edge(tokio::net::TcpStream),
    Uring(tokio_uring::net::TcpStream),
}

impl Wire {
    pub async fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Blocking(stream) => stream.borrow_mut().write(bytes),
            Self::Edge(stream) => loop {
                limited(stream.writable()).await?;
                match stream.try_write(bytes) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    result => return result,
                }
            },
            Self::Uring(stream) => {
                let sent = stream.write(bytes.to_vec()).submit();
                limited(async { sent.await.0 }).await
            }
        }
    }

    /// 0 at a clean end.
    pub async fn receive(&self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Blocking(stream) => stream.borrow_mut().read(room),
            Self::Edge(stream) => loop {
                limited(stream.readable()).await?;
                match stream.try_read(room) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    result => return result,
                }
            },
            Self::Uring(stream) => {
                let received = stream.read(vec![0; room.len()]);
                let received = async {
                    let (len, bytes) = received.await;
                    len.map(|len| (len, bytes))
                };
                let (len, bytes) = limited(received).await?;
                room[..len].copy_from_slice(&bytes[..len]);
                Ok(len)
            }
        }
    }

    pub fn end(&self) -> io::Result<()> {
        match self {
            Self::Blocking(stream) => stream.borrow().shutdown(Shutdown::Write),
            Self::Edge(stream) => SockRef::from(stream).shutdown(Shutdown::Write),
            Self::Uring(stream) => stream.shutdown(Shutdown::Write),
        }
    }

    /// Makes close() a reset.
    pub fn reset(self) -> Result<()> {
        match &self {
            Self::Blocking(stream) => {
                SockRef::from(&*stream.borrow()).set_linger(Some(Duration::ZERO))?
            }
            Self::Edge(stream) => SockRef::from(stream).set_linger(Some(Duration::ZERO))?,
            Self::Uring(_) => anyhow::bail!("this engine resets nothing"),
        }
        Ok(())
    }
}

impl Engine {
    /// Whether the engine can play the shape, as the side whose steps are given.
    pub fn can_play(self, shape: &Shape, steps: &[super::script::Step]) -> bool {
        match self {
            Self::Blocking | Self::Inherited => shape.is_sequential(),
            Self::Uring => !steps.contains(&super::script::Step::Reset) && !shape.small_buffers,
            Self::Edge => true,
        }
    }

    pub async fn connect(self, to: SocketAddr, shape: &Shape) -> Result<Wire> {
        if self == Self::Uring {
            let connected = tokio_uring::net::TcpStream::connect(to);
            return Ok(Wire::Uring(limited(connected).await?));
        }
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        tune(&socket, shape)?;
        if self == Self::Blocking {
            socket.set_read_timeout(Some(*LIMIT))?;
            socket.set_write_timeout(Some(*LIMIT))?;
            socket.connect(&to.into())?;
            return Ok(Wire::Blocking(RefCell::new(socket.into())));
        }
        ensure!(self == Self::Edge, "{self:?} is no engine for a client");
        socket.set_nonblocking(true)?;
        let connecting = tokio::net::TcpSocket::from_std_stream(socket.into());
        Ok(Wire::Edge(limited(connecting.connect(to)).await?))
    }
}

async fn limited<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match timeout(*LIMIT, step).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "it hangs")),
    }
}

/// A listener whose sockets inherit what the shape asks for.
pub fn listen(address: SocketAddr, shape: &Shape) -> Result<TcpListener> {
    let open = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        tune(&socket, shape)?;
        socket.bind(&address.into())?;
        socket.listen(1_024)?;
        Ok::<_, io::Error>(socket)
    };
    let socket = open().with_context(|| format!("listen on {address}"))?;
    Ok(socket.into())
}

fn tune(socket: &Socket, shape: &Shape) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    if shape.small_buffers {
        // The kernel makes of it the least that it allows (socket(7)).
        socket.set_send_buffer_size(1)?;
        socket.set_recv_buffer_size(1)?;
    }
    Ok(())
}
