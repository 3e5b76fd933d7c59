//! Connections that last: one that is full, one that is steady, and many that are idle.

use crate::print;
use crate::probes::connect;
use crate::protocol::{self, NONCE_LEN};
use anyhow::{Context, Result, ensure};
use serde::Serialize;
use std::io::{Read, Write, stdin};
use std::net::{Shutdown, SocketAddr};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

const BULK_WRITE_BYTES: usize = 128 * 1024;

#[derive(Serialize)]
pub struct Bulk {
    bytes: u64,
    seconds: f64,
}

/// From the first write to the server's word that all has arrived.
pub fn bulk(server: SocketAddr, seconds: f64) -> Result<Bulk> {
    let mut stream = connect(server, protocol::BULK)?;
    let chunk = protocol::payload(&[6; NONCE_LEN], BULK_WRITE_BYTES);
    let started = Instant::now();
    let mut sent = 0;
    while started.elapsed().as_secs_f64() < seconds {
        stream.write_all(&chunk).context("send")?;
        sent += chunk.len() as u64;
    }
    stream.shutdown(Shutdown::Write).context("end the stream")?;
    let mut counted = [0; 8];
    stream
        .read_exact(&mut counted)
        .context("read the server's count")?;
    let bytes = u64::from_be_bytes(counted);
    ensure!(bytes == sent, "{sent} bytes were sent, {bytes} arrived");
    Ok(Bulk {
        bytes,
        seconds: started.elapsed().as_secs_f64(),
    })
}

#[derive(Serialize)]
pub struct Steady {
    requests: u64,
    errors: u64,
}

/// Shows whether an open connection survives what happens meanwhile.
pub fn steady(server: SocketAddr) -> Result<Steady> {
    const SIZE: usize = 64;
    let mut stream = connect(server, protocol::ECHO)?;
    stream.write_all(&u32::try_from(SIZE)?.to_be_bytes())?;
    let request = protocol::payload(&[8; NONCE_LEN], SIZE);
    let mut answer = [0; SIZE];
    let end = end_of_input();
    let mut result = Steady {
        requests: 0,
        errors: 0,
    };
    while let Err(RecvTimeoutError::Timeout) = end.recv_timeout(Duration::from_millis(100)) {
        let answered = stream
            .write_all(&request)
            .and_then(|()| stream.read_exact(&mut answer));
        result.requests += 1;
        if answered.is_err() || answer[..] != request[..] {
            result.errors += 1;
            break;
        }
    }
    Ok(result)
}

/// Says that all are open, then holds them.
pub fn idle(server: SocketAddr, connections: usize) -> Result<()> {
    #[derive(Serialize)]
    struct Open {
        open: usize,
    }
    let mut held = Vec::with_capacity(connections);
    for _ in 0..connections {
        let mut stream = connect(server, protocol::HOLD)?;
        stream
            .read_exact(&mut [0])
            .context("read the byte that says it is open")?;
        held.push(stream);
    }
    print(&Open { open: held.len() })?;
    // Nobody ever sends: the receiver learns of the end of input by its sender's end.
    let _ = end_of_input().recv();
    Ok(())
}

pub fn end_of_input() -> Receiver<()> {
    let (ended, receiver) = channel();
    thread::spawn(move || {
        let _ = stdin().read_to_end(&mut Vec::new());
        drop(ended);
    });
    receiver
}
