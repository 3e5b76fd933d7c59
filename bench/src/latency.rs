//! Round trips over one connection.

use crate::probes::connect;
use crate::protocol;
use anyhow::{Context, Result};
use serde::Serialize;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Round trips before the measured ones: caches, congestion window and branch predictors settle.
const WARM_UP: usize = 200;

#[derive(Serialize)]
pub struct Latency {
    pub count: usize,
    pub p50_us: f64,
    pub p99_us: f64,
    pub max_us: f64,
}

impl Latency {
    /// Of a sample that is not empty.
    pub fn of(mut sample: Vec<Duration>) -> Self {
        sample.sort_unstable();
        Self {
            count: sample.len(),
            p50_us: percentile(&sample, 50),
            p99_us: percentile(&sample, 99),
            max_us: percentile(&sample, 100),
        }
    }
}

pub fn request_response(server: SocketAddr, size: u32, count: usize) -> Result<Latency> {
    let mut stream = connect(server, protocol::ECHO)?;
    stream.write_all(&size.to_be_bytes())?;
    let request = protocol::payload(&[5; protocol::NONCE_LEN], size as usize);
    let mut answer = request.clone();
    let mut sample = Vec::with_capacity(count);
    for round in 0..WARM_UP + count {
        let started = Instant::now();
        stream.write_all(&request).context("send a request")?;
        stream.read_exact(&mut answer).context("read an answer")?;
        if round >= WARM_UP {
            sample.push(started.elapsed());
        }
    }
    Ok(Latency::of(sample))
}

fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let index = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted
        .get(index)
        .map_or(f64::NAN, |value| value.as_secs_f64() * 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_a_hundred() {
        let latency = Latency::of((1..=100).map(Duration::from_micros).collect());
        assert_eq!(
            (latency.p50_us.round(), latency.p99_us.round()),
            (51.0, 100.0)
        );
    }
}
