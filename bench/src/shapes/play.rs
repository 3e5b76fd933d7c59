//! Plays one side of a shape over one connection.

use super::engine::Wire;
use super::script::{Shape, Step};
use super::stream::{Direction, OPENING, Pattern};
use crate::protocol::Nonce;
use anyhow::{Context, Result, bail, ensure};
use std::io;
use std::time::Duration;

/// Which side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    Server,
}

/// One side's view of a stream.
struct Player<'a> {
    shape: &'a Shape,
    wire: Wire,
    out: Pattern,
    back: Pattern,
}

/// How a stream went, as one side saw it.
pub struct Ended {
    /// Which stream it was, once that was known.
    pub nonce: Option<Nonce>,
    pub result: Result<()>,
}

/// Plays all steps; `ours` is the nonce if this side speaks first.
pub async fn play(shape: &Shape, side: Side, wire: Wire, ours: Nonce) -> Ended {
    let nonce = match speaks_first(shape, side) {
        true => Ok(ours),
        false => read_opening(&wire).await.context("receive the nonce"),
    };
    match nonce {
        Ok(nonce) => Ended {
            nonce: Some(nonce),
            result: play_steps(shape, side, wire, nonce).await,
        },
        Err(error) => Ended {
            nonce: None,
            result: Err(error),
        },
    }
}

/// Whether a stream that failed was cut: the application was told so by an error of its
/// connection. Anything else is a lie: other bytes, a clean end too early, no end at all.
pub fn is_cut(error: &anyhow::Error) -> bool {
    use io::ErrorKind::{
        BrokenPipe, ConnectionRefused, ConnectionReset, HostUnreachable, NotConnected,
    };
    let told = [
        BrokenPipe,
        ConnectionRefused,
        ConnectionReset,
        HostUnreachable,
        NotConnected,
    ];
    let mut errors = error.chain().filter_map(|cause| cause.downcast_ref());
    errors.any(|error: &io::Error| told.contains(&error.kind()))
}

/// The other side said nothing and ended in order. Daemons open such connections, too, to see
/// whether a place that has refused is back.
#[derive(Debug, thiserror::Error)]
#[error("a clean end before the first byte")]
pub struct Silent;

fn steps(shape: &Shape, side: Side) -> &'static [Step] {
    match side {
        Side::Client => shape.client,
        Side::Server => shape.server,
    }
}

fn speaks_first(shape: &Shape, side: Side) -> bool {
    matches!(steps(shape, side)[0], Step::Send(_))
}

async fn play_steps(shape: &Shape, side: Side, wire: Wire, nonce: Nonce) -> Result<()> {
    let (out, back) = match side {
        Side::Client => (Direction::Up, Direction::Down),
        Side::Server => (Direction::Down, Direction::Up),
    };
    let mut player = Player {
        shape,
        wire,
        out: Pattern::new(&nonce, out),
        back: Pattern::new(&nonce, back),
    };
    if speaks_first(shape, side) {
        send_all(&player.wire, &nonce)
            .await
            .context("send the nonce")?;
    }
    let mut first = OPENING;
    for step in steps(shape, side) {
        if *step == Step::Reset {
            return player.wire.reset();
        }
        // The opening is part of what the first step counts.
        let opening = std::mem::take(&mut first);
        player
            .play(*step, opening)
            .await
            .with_context(|| format!("{step:?}"))?;
    }
    Ok(())
}

impl Player<'_> {
    async fn play(&mut self, step: Step, opening: usize) -> Result<()> {
        let bytes = |count: u32| count as usize - opening;
        match step {
            Step::Send(count) => send(self.shape, &self.wire, &mut self.out, bytes(count)).await,
            Step::Receive(count) => {
                receive(self.shape, &self.wire, &mut self.back, bytes(count)).await
            }
            Step::Both(count) => {
                let sent = send(self.shape, &self.wire, &mut self.out, bytes(count));
                let received = receive(self.shape, &self.wire, &mut self.back, bytes(count));
                let (sent, received) = tokio::join!(sent, received);
                sent.and(received)
            }
            Step::End => Ok(self.wire.end()?),
            Step::ExpectEnd => match self.wire.receive(&mut [0; 64]).await? {
                0 => Ok(()),
                count => bail!("{count} bytes more at {}", self.back.position()),
            },
            Step::ExpectReset => self.expect_reset().await,
            Step::SendUntilReset => self.send_until_reset().await,
            Step::Reset => unreachable!("play() ends with it"),
        }
    }

    async fn expect_reset(&mut self) -> Result<()> {
        let mut room = vec![0; self.shape.read_max];
        loop {
            match self.wire.receive(&mut room).await {
                Ok(0) => bail!("a clean end instead of a reset"),
                Ok(count) => self.check(&room[..count])?,
                Err(error) => return is_reset(&error),
            }
        }
    }

    async fn send_until_reset(&mut self) -> Result<()> {
        let mut chunk = vec![0; self.shape.write_max];
        loop {
            self.out.fill(&mut chunk);
            if let Err(error) = send_all(&self.wire, &chunk).await {
                return is_reset(&error);
            }
            ensure!(
                self.out.position() < 1 << 30,
                "a gigabyte went into a connection that was reset"
            );
        }
    }

    fn check(&mut self, bytes: &[u8]) -> Result<()> {
        checked(&mut self.back, bytes)
    }
}

/// What an application sees of a reset. A time-out is none.
fn is_reset(error: &io::Error) -> Result<()> {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Ok(()),
        kind => bail!("not a reset: {kind}"),
    }
}

async fn send(shape: &Shape, wire: &Wire, pattern: &mut Pattern, count: usize) -> Result<()> {
    let mut left = count;
    let mut chunk = vec![0; shape.write_max];
    while left > 0 {
        let len = left.min(chunk.len());
        pattern.fill(&mut chunk[..len]);
        send_all(wire, &chunk[..len])
            .await
            .with_context(|| format!("send, before {}", pattern.position()))?;
        left -= len;
    }
    Ok(())
}

async fn send_all(wire: &Wire, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let sent = wire.send(bytes).await?;
        bytes = &bytes[sent..];
    }
    Ok(())
}

async fn receive(shape: &Shape, wire: &Wire, pattern: &mut Pattern, count: usize) -> Result<()> {
    let mut left = count;
    let mut room = vec![0; shape.read_max];
    while left > 0 {
        let len = left.min(room.len());
        let got = wire
            .receive(&mut room[..len])
            .await
            .with_context(|| format!("receive, at {}", pattern.position()))?;
        ensure!(
            got > 0,
            "a clean end at {}, {left} bytes too early",
            pattern.position()
        );
        checked(pattern, &room[..got])?;
        left -= got;
        if shape.pause > Duration::ZERO {
            pause(wire, shape.pause).await;
        }
    }
    Ok(())
}

/// Being slow is what this shape is about.
async fn pause(wire: &Wire, pause: Duration) {
    match wire {
        Wire::Blocking(_) => std::thread::sleep(pause),
        _ => tokio::time::sleep(pause).await,
    }
}

fn checked(pattern: &mut Pattern, bytes: &[u8]) -> Result<()> {
    pattern
        .check(bytes)
        .map_err(|at| anyhow::anyhow!("another byte than was sent, at {at}"))
}

async fn read_opening(wire: &Wire) -> Result<Nonce> {
    let mut nonce = [0; OPENING];
    let mut got = 0;
    while got < OPENING {
        match wire.receive(&mut nonce[got..]).await? {
            0 if got == 0 => return Err(Silent.into()),
            0 => bail!("a clean end after {got} bytes"),
            count => got += count,
        }
    }
    Ok(nonce)
}
