//! Many streams of one shape, as a client.

use super::engine::Engine;
use super::play::{Side, is_cut, play};
use super::script::Shape;
use crate::protocol::{NONCE_LEN, Nonce};
use anyhow::{Context, Result, ensure};
use aws_lc_rs::rand;
use clap::Args;
use serde::Serialize;
use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep_until};

#[derive(Args)]
pub struct Request {
    engine: Engine,
    server: IpAddr,
    /// First port of the server.
    port: u16,
    shape: String,
    #[arg(long, default_value_t = 200)]
    count: usize,
    /// Streams at once.
    #[arg(long, default_value_t = 4)]
    at_once: usize,
    /// Begin no more than so many streams a second.
    #[arg(long)]
    per_second: Option<u32>,
}

#[derive(Default, Serialize)]
pub struct Played {
    shape: String,
    good: usize,
    /// Ended by an error of the connection, with right bytes before it.
    cut: usize,
    first_cut: Option<String>,
    bad: usize,
    first_bad: Option<String>,
}

impl Played {
    fn note(&mut self, end: Result<()>) {
        let (count, first) = match &end {
            Ok(()) => return self.good += 1,
            Err(error) if is_cut(error) => (&mut self.cut, &mut self.first_cut),
            Err(_) => (&mut self.bad, &mut self.first_bad),
        };
        *count += 1;
        if let (None, Err(error)) = (&first, end) {
            *first = Some(format!("{error:#}"));
        }
    }
}

pub fn run(request: Request) -> Result<Played> {
    let (index, shape) = Shape::named(&request.shape)
        .with_context(|| format!("there is no shape {:?}", request.shape))?;
    let engine = request.engine;
    ensure!(
        engine.can_play(shape, shape.client),
        "{engine:?} cannot play {}",
        shape.name
    );
    let to = SocketAddr::new(request.server, request.port + index);
    let ends = match engine {
        Engine::Blocking => blocking(&request, shape, to),
        Engine::Uring => tokio_uring::start(tasks(&request, shape, to)),
        _ => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            LocalSet::new().block_on(&runtime, tasks(&request, shape, to))
        }
    };
    let mut played = Played {
        shape: shape.name.to_owned(),
        ..Played::default()
    };
    for end in ends {
        played.note(end);
    }
    Ok(played)
}

/// A thread for each of those at once.
fn blocking(request: &Request, shape: &'static Shape, to: SocketAddr) -> Vec<Result<()>> {
    let counts = shares(request);
    let play_some = move |count| -> Vec<Result<()>> {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let Ok(runtime) = runtime else {
            return vec![Err(anyhow::anyhow!("no runtime"))];
        };
        (0..count)
            .map(|_| runtime.block_on(one(Engine::Blocking, shape, to)))
            .collect()
    };
    let threads: Vec<_> = counts
        .map(|count| std::thread::spawn(move || play_some(count)))
        .collect();
    threads
        .into_iter()
        .flat_map(|thread| thread.join().expect("a player does not panic"))
        .collect()
}

async fn tasks(request: &Request, shape: &'static Shape, to: SocketAddr) -> Vec<Result<()>> {
    let engine = request.engine;
    let left = Rc::new(Cell::new(request.count));
    let (started, pace) = (Instant::now(), request.per_second.map(f64::from));
    let total = request.count;
    let player = |left: Rc<Cell<usize>>| async move {
        let mut ends = Vec::new();
        while left.get() > 0 {
            left.set(left.get() - 1);
            if let Some(pace) = pace {
                let begun = f64::from(u32::try_from(total - left.get()).unwrap_or(u32::MAX));
                sleep_until(started + Duration::from_secs_f64(begun / pace)).await;
            }
            ends.push(one(engine, shape, to).await);
        }
        ends
    };
    let players: Vec<_> = (0..request.at_once)
        .map(|_| tokio::task::spawn_local(player(Rc::clone(&left))))
        .collect();
    let mut ends = Vec::new();
    for player in players {
        ends.extend(player.await.expect("a player does not panic"));
    }
    ends
}

fn shares(request: &Request) -> impl Iterator<Item = usize> {
    let (count, at_once) = (request.count, request.at_once.max(1));
    (0..at_once).map(move |index| count / at_once + usize::from(index < count % at_once))
}

async fn one(engine: Engine, shape: &Shape, to: SocketAddr) -> Result<()> {
    let mut nonce: Nonce = [0; NONCE_LEN];
    rand::fill(&mut nonce)
        .ok()
        .context("random bytes for the nonce")?;
    let wire = engine.connect(to, shape).await.context("connect")?;
    play(shape, Side::Client, wire, nonce).await.result
}
