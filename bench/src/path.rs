//! The path between two daemons, as somebody may own it: it passes links on as they are, and does
//! to each carrier what it was told. Each act is one line on standard output, such as `cut-rst 57`.

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use socket2::SockRef;
use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::timeout;

/// First byte of a TLS handshake record (RFC 8446, 5.1).
const TLS_HANDSHAKE: u8 = 22;
/// Bytes of a carrier's opening (docs/protocol.md).
const OPENING_LEN: usize = 43;
/// How long the path waits for an end that it has caused.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Act {
    /// Ends both sides in order after so many bytes of the dialler.
    CutFin,
    /// The same by RST.
    CutRst,
    /// Ends both sides in order after so many bytes of the answering side.
    CutAnswerFin,
    /// The same by RST.
    CutAnswerRst,
    /// Passes a carrier on, and when it has ended sends all its bytes once more.
    Repeat,
    /// Puts what a carrier said after its opening behind a later carrier's opening.
    Splice,
}

#[derive(Args)]
pub struct Path {
    listen: SocketAddr,
    /// The daemon behind it.
    to: SocketAddr,
    act: Act,
    /// The first place at which to act; each carrier that comes so far has the next one...
    #[arg(long, default_value_t = 0)]
    first: usize,
    /// ...up to this one, then again the first.
    #[arg(long, default_value_t = 0)]
    last: usize,
}

struct Shared {
    path: Path,
    next: Cell<usize>,
    /// What was said on the carrier that is to be repeated or put elsewhere.
    flight: RefCell<Option<Vec<u8>>>,
}

/// Serves until it is killed.
pub fn run(path: Path) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind(path.listen).await.context("listen")?;
        let next = Cell::new(path.first);
        let shared = Rc::new(Shared {
            path,
            next,
            flight: RefCell::default(),
        });
        loop {
            let (dialler, _) = listener.accept().await?;
            let shared = Rc::clone(&shared);
            // An end on either side is what this is about.
            spawn_local(async move { drop(shared.pass(dialler).await) });
        }
    })
}

impl Shared {
    async fn pass(&self, mut dialler: TcpStream) -> io::Result<()> {
        dialler.set_nodelay(true)?;
        let mut daemon = TcpStream::connect(self.path.to).await?;
        daemon.set_nodelay(true)?;
        let mut first = [0];
        if dialler.peek(&mut first).await? == 0 || first[0] == TLS_HANDSHAKE {
            copy_bidirectional(&mut dialler, &mut daemon).await?;
            return Ok(());
        }
        match self.path.act {
            Act::CutFin | Act::CutRst => self.cut(dialler, daemon).await,
            Act::CutAnswerFin | Act::CutAnswerRst => self.cut(daemon, dialler).await,
            Act::Repeat => self.repeat(dialler, daemon).await,
            Act::Splice => self.splice(dialler, daemon).await,
        }
    }

    /// The next place to act at.
    fn place(&self) -> usize {
        let place = self.next.get();
        let next = if place >= self.path.last {
            self.path.first
        } else {
            place + 1
        };
        self.next.set(next);
        place
    }

    fn tell(&self, place: usize) {
        let act = self.path.act.to_possible_value();
        let name = act.as_ref().map_or("", |act| act.get_name());
        println!("{name} {place}");
    }

    /// Passes on what `from` says up to a place, and the other direction meanwhile; then ends both.
    async fn cut(&self, mut from: TcpStream, mut to: TcpStream) -> io::Result<()> {
        let place = self.place();
        let mut reached = false;
        let (mut from_reads, mut from_writes) = from.split();
        let (mut to_reads, mut to_writes) = to.split();
        let there = async {
            reached = pass_up_to(place, &mut from_reads, &mut to_writes).await?;
            match reached {
                // Ends the other direction, too.
                true => Err(io::ErrorKind::Interrupted.into()),
                false => to_writes.shutdown().await,
            }
        };
        let passed = tokio::try_join!(there, pass_on(&mut to_reads, &mut from_writes));
        if !reached {
            return passed.map(drop);
        }
        self.tell(place);
        if matches!(self.path.act, Act::CutRst | Act::CutAnswerRst) {
            SockRef::from(&from).set_linger(Some(Duration::ZERO))?;
            return SockRef::from(&to).set_linger(Some(Duration::ZERO));
        }
        let ended = async { tokio::join!(end(&mut from), end(&mut to)) };
        let _ = timeout(PATIENCE, ended).await;
        Ok(())
    }

    async fn repeat(&self, dialler: TcpStream, daemon: TcpStream) -> io::Result<()> {
        let (_, said) = self.overhear(dialler, daemon, Vec::new()).await;
        if said.len() > OPENING_LEN {
            self.say(&said).await?;
        }
        Ok(())
    }

    /// The first flight that is heard is delivered where it belongs, and once more behind the
    /// opening of each later carrier, which is as good as any.
    async fn splice(&self, mut dialler: TcpStream, daemon: TcpStream) -> io::Result<()> {
        let mut opening = vec![0; OPENING_LEN];
        dialler.read_exact(&mut opening).await?;
        let flight = self.flight.borrow().clone();
        if let Some(flight) = flight {
            drop(daemon);
            return self.say(&[opening, flight].concat()).await;
        }
        let (_, said) = self.overhear(dialler, daemon, opening).await;
        if said.len() > OPENING_LEN {
            let flight = said[OPENING_LEN..].to_vec();
            self.flight.borrow_mut().get_or_insert(flight);
        }
        Ok(())
    }

    /// Passes everything on to the end, `said` first; gives all that the dialler said.
    async fn overhear(
        &self,
        mut dialler: TcpStream,
        mut daemon: TcpStream,
        mut said: Vec<u8>,
    ) -> (io::Result<()>, Vec<u8>) {
        let (mut dialler_reads, mut dialler_writes) = dialler.split();
        let (mut daemon_reads, mut daemon_writes) = daemon.split();
        let there = async {
            daemon_writes.write_all(&said).await?;
            let mut chunk = vec![0; 64 * 1024];
            loop {
                let count = dialler_reads.read(&mut chunk).await?;
                if count == 0 {
                    return daemon_writes.shutdown().await;
                }
                said.extend_from_slice(&chunk[..count]);
                daemon_writes.write_all(&chunk[..count]).await?;
            }
        };
        let back = pass_on(&mut daemon_reads, &mut dialler_writes);
        let ended = tokio::try_join!(there, back).map(drop);
        (ended, said)
    }

    /// Says it to the daemon on a connection of its own, and waits for the end.
    async fn say(&self, bytes: &[u8]) -> io::Result<()> {
        let mut daemon = TcpStream::connect(self.path.to).await?;
        daemon.write_all(bytes).await?;
        let end = async { while matches!(daemon.read(&mut [0; 512]).await, Ok(1..)) {} };
        let _ = timeout(PATIENCE, end).await;
        self.tell(bytes.len());
        Ok(())
    }
}

async fn pass_on(from: &mut ReadHalf<'_>, to: &mut WriteHalf<'_>) -> io::Result<()> {
    tokio::io::copy(from, to).await?;
    to.shutdown().await
}

/// Whether more came than so many bytes, which were passed on.
async fn pass_up_to(
    place: usize,
    from: &mut ReadHalf<'_>,
    to: &mut WriteHalf<'_>,
) -> io::Result<bool> {
    let mut chunk = vec![0; 64 * 1024];
    let mut left = place;
    while left > 0 {
        let room = left.min(chunk.len());
        let count = from.read(&mut chunk[..room]).await?;
        if count == 0 {
            return Ok(false);
        }
        to.write_all(&chunk[..count]).await?;
        left -= count;
    }
    Ok(from.peek(&mut [0]).await? > 0)
}

/// FIN, and whatever still comes thrown away: a close() with bytes unread would send RST.
async fn end(stream: &mut TcpStream) -> io::Result<()> {
    stream.shutdown().await?;
    while stream.read(&mut [0; 4096]).await? > 0 {}
    Ok(())
}
