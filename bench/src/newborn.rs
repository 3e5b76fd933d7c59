//! A process that connects as soon as it is in its cgroup, before anybody can know of it.

use crate::probes::connect;
use crate::protocol;
use anyhow::{Context, Result};
use serde::Serialize;
use std::fs;
use std::io::{ErrorKind, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

/// The first line: how long after it joined the cgroup connect() had been called and had returned.
#[derive(Serialize)]
struct Connected {
    connect: &'static str,
    called_after_us: u128,
    returned_after_us: u128,
}

/// The last line: what became of the connection.
#[derive(Serialize)]
pub struct Fate {
    /// `answered`, `reset`, `ended`, `silent`, or `refused` by connect().
    fate: &'static str,
    after_ms: u128,
}

/// Makes `cgroup`, joins it and connects.
pub fn be_born(cgroup: &Path, server: SocketAddr) -> Result<Fate> {
    fs::create_dir(cgroup).with_context(|| format!("make cgroup {}", cgroup.display()))?;
    let own = std::process::id().to_string();
    fs::write(cgroup.join("cgroup.procs"), own).context("join the cgroup")?;
    let born = Instant::now();
    let called = born.elapsed();
    let connected = connect(server, protocol::PING);
    crate::print(&Connected {
        connect: if connected.is_ok() { "ok" } else { "refused" },
        called_after_us: called.as_micros(),
        returned_after_us: born.elapsed().as_micros(),
    })?;
    let fate = match connected {
        Ok(mut stream) => {
            stream.set_read_timeout(Some(Duration::from_secs(20)))?;
            match stream.read(&mut [0]) {
                Ok(0) => "ended",
                Ok(_) => "answered",
                Err(error) if error.kind() == ErrorKind::ConnectionReset => "reset",
                Err(_) => "silent",
            }
        }
        Err(_) => "refused",
    };
    Ok(Fate {
        fate,
        after_ms: born.elapsed().as_millis(),
    })
}
