//! Short connections without end, each checked at both ends: whether changes of a daemon are
//! noticed by anybody.

use crate::exchange;
use crate::probes;
use crate::protocol::{self, Nonce};
use crate::sustained::end_of_input;
use anyhow::Result;
use serde::Serialize;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Bytes each way, at most.
const BYTES_MAX: u32 = 2_048;

#[derive(Default, Serialize)]
pub struct Churned {
    connections: usize,
    /// Connections that were refused, reset, or carried other bytes than they should.
    errors: usize,
    first_error: Option<String>,
    /// Connections whose server took somebody else for its client.
    misdirected: usize,
    exchanges: usize,
    /// Of the nonces of all exchanges; the server's must be the same.
    nonces_sha256: String,
    #[serde(skip)]
    nonces: Vec<Nonce>,
}

/// By so many clients at once, one connection after the other, until standard input ends.
pub fn churn(server: SocketAddr, clients: usize) -> Result<Churned> {
    let ended = Arc::new(AtomicBool::new(false));
    let running: Vec<_> = (0..clients)
        .map(|_| {
            let ended = Arc::clone(&ended);
            thread::spawn(move || one_client(server, &ended))
        })
        .collect();
    // Nobody ever sends: the receiver learns of the end of input by its sender's end.
    let _ = end_of_input().recv();
    ended.store(true, Ordering::Relaxed);
    let mut sum = Churned::default();
    for client in running {
        sum.add(client.join().expect("a client does not panic"));
    }
    sum.nonces_sha256 = protocol::fingerprint(&sum.nonces);
    Ok(sum)
}

fn one_client(server: SocketAddr, ended: &AtomicBool) -> Churned {
    let mut done = Churned::default();
    while !ended.load(Ordering::Relaxed) {
        done.connections += 2;
        match exchange::one_alone(server, BYTES_MAX) {
            Ok(nonce) => {
                done.exchanges += 1;
                done.nonces.push(nonce);
            }
            Err(error) => done.failed(&error),
        }
        match probes::peer(server) {
            Ok(peer) => done.misdirected += usize::from(!peer.is_true()),
            Err(error) => done.failed(&error),
        }
    }
    done
}

impl Churned {
    fn failed(&mut self, error: &anyhow::Error) {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| format!("{error:#}"));
    }

    fn add(&mut self, other: Self) {
        self.connections += other.connections;
        self.errors += other.errors;
        self.misdirected += other.misdirected;
        self.exchanges += other.exchanges;
        self.nonces.extend(other.nonces);
        if self.first_error.is_none() {
            self.first_error = other.first_error;
        }
    }
}
