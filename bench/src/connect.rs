//! New connections: how long one takes, and how many a second.

use crate::latency::Latency;
use crate::probes::connect;
use crate::protocol;
use anyhow::{Context, Result};
use serde::Serialize;
use std::io::Read;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

#[derive(Serialize)]
pub struct Connected {
    clients: usize,
    #[serde(flatten)]
    latency: Latency,
    seconds: f64,
    per_second: f64,
}

/// `count` connections by each of `clients` threads.
pub fn measure(server: SocketAddr, clients: usize, count: usize) -> Result<Connected> {
    let started = Instant::now();
    let threads: Vec<_> = (0..clients)
        .map(|_| thread::spawn(move || one_client(server, count)))
        .collect();
    let mut sample = Vec::with_capacity(clients * count);
    for thread in threads {
        sample.extend(thread.join().ok().context("a client panicked")??);
    }
    let seconds = started.elapsed().as_secs_f64();
    let made = sample.len() as f64;
    Ok(Connected {
        clients,
        latency: Latency::of(sample),
        seconds,
        per_second: made / seconds,
    })
}

fn one_client(server: SocketAddr, count: usize) -> Result<Vec<Duration>> {
    (0..count)
        .map(|_| {
            let started = Instant::now();
            let mut stream = connect(server, protocol::PING)?;
            stream.read_exact(&mut [0]).context("read the byte back")?;
            drop(stream);
            Ok(started.elapsed())
        })
        .collect()
}
