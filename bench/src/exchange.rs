//! Connections that carry random bytes both ways, checked at both ends.

use crate::Exchange;
use crate::protocol::{self, HASH_LEN, NONCE_LEN, Nonce, PAYLOAD_BYTES_MAX};
use anyhow::{Context, Result, ensure};
use aws_lc_rs::rand;
use serde::Serialize;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// A connection that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(30);

#[derive(Default, Serialize)]
pub struct Exchanged {
    connections: usize,
    errors: usize,
    first_error: Option<String>,
    /// Of the nonces of all connections without an error; the server's must be the same.
    nonces_sha256: String,
    bytes_sent: u64,
    seconds: f64,
}

pub fn sequential(exchange: &Exchange) -> Result<Exchanged> {
    runtime()?.block_on(async {
        let started = Instant::now();
        let mut outcomes = Vec::with_capacity(exchange.connections);
        for _ in 0..exchange.connections {
            outcomes.push(one(exchange.server, exchange.bytes_max, None).await);
        }
        Ok(sum_up(outcomes, started))
    })
}

/// One, on a runtime of its own; gives its nonce.
pub fn one_alone(server: SocketAddr, bytes_max: u32) -> Result<Nonce> {
    let (nonce, _) = runtime()?.block_on(one(server, bytes_max, None))?;
    Ok(nonce)
}

/// No connection sends its second half before all of them are open.
pub fn concurrent(exchange: &Exchange) -> Result<Exchanged> {
    runtime()?.block_on(async {
        let started = Instant::now();
        let all_open = Arc::new(Barrier::new(exchange.connections));
        let mut tasks = JoinSet::new();
        for _ in 0..exchange.connections {
            tasks.spawn(one(
                exchange.server,
                exchange.bytes_max,
                Some(all_open.clone()),
            ));
        }
        Ok(sum_up(tasks.join_all().await, started))
    })
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")
}

fn sum_up(outcomes: Vec<Result<(Nonce, usize)>>, started: Instant) -> Exchanged {
    let mut sum = Exchanged {
        connections: outcomes.len(),
        ..Exchanged::default()
    };
    let mut nonces = Vec::with_capacity(outcomes.len());
    for outcome in outcomes {
        match outcome {
            Ok((nonce, bytes)) => {
                nonces.push(nonce);
                sum.bytes_sent += bytes as u64;
            }
            Err(error) => {
                sum.errors += 1;
                sum.first_error.get_or_insert_with(|| format!("{error:#}"));
            }
        }
    }
    sum.nonces_sha256 = protocol::fingerprint(&nonces);
    sum.seconds = started.elapsed().as_secs_f64();
    sum
}

async fn one(
    server: SocketAddr,
    bytes_max: u32,
    all_open: Option<Arc<Barrier>>,
) -> Result<(Nonce, usize)> {
    timeout(LIMIT, connection(server, bytes_max, all_open))
        .await
        .context("the exchange took too long")?
}

async fn connection(
    server: SocketAddr,
    bytes_max: u32,
    all_open: Option<Arc<Barrier>>,
) -> Result<(Nonce, usize)> {
    let mut nonce: Nonce = [0; NONCE_LEN];
    rand::fill(&mut nonce).ok().context("no random bytes")?;
    let length = u32::from_be_bytes(nonce[..4].try_into()?) % bytes_max.clamp(1, PAYLOAD_BYTES_MAX);
    let payload = protocol::payload(&nonce, length as usize);
    let message = protocol::encode(&nonce, &payload);
    let (first, second) = message.split_at(message.len() / 2);

    let mut stream = TcpStream::connect(server).await.context("connect")?;
    stream
        .write_all(&[protocol::EXCHANGE])
        .await
        .context("send the kind")?;
    stream
        .write_all(first)
        .await
        .context("send the first half")?;
    if let Some(all_open) = all_open {
        all_open.wait().await;
    }
    stream
        .write_all(second)
        .await
        .context("send the second half")?;
    check_answer(&mut stream, &nonce)
        .await
        .context("read the answer")?;
    Ok((nonce, message.len()))
}

async fn check_answer(stream: &mut TcpStream, nonce: &Nonce) -> Result<()> {
    let mut echoed: Nonce = [0; NONCE_LEN];
    stream.read_exact(&mut echoed).await?;
    ensure!(
        echoed == *nonce,
        "the answer is to another connection's question"
    );
    let length = stream.read_u32().await?;
    ensure!(
        length <= PAYLOAD_BYTES_MAX,
        "an answer of {length} bytes is too long"
    );
    let mut payload = vec![0; length as usize];
    stream.read_exact(&mut payload).await?;
    let mut hash = [0; HASH_LEN];
    stream.read_exact(&mut hash).await?;
    ensure!(
        hash == protocol::hash(&payload),
        "the answer is not what the server sent"
    );
    Ok(())
}
