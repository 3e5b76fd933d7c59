//! `kedge probe`: a process of its own that joins a workload's cgroup and network namespace, goes
//! the way of the workload's connections, and tells how far it came. kedged enters no namespace;
//! this does, and nothing else: it needs root and the node's process ids.

use super::super::print_line;
use crate::arguments::ProbeArguments;
use crate::failure::{Exit, Failure};
use kedge_api::Probe;
use nix::ifaddrs::getifaddrs;
use nix::sched::{CloneFlags, setns};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

/// The way is within one node: whoever does not answer within this time drops.
const LIMIT: Duration = Duration::from_secs(2);

/// How far one connection came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    pub to: SocketAddr,
    pub outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// kedged answered; `local` and `netns_cookie` are what the prober itself sees.
    Answered {
        answer: Probe,
        local: SocketAddr,
        netns_cookie: u64,
    },
    /// Connected, and then no answer of kedged's.
    Unclaimed,
    /// No packet came back.
    Dropped,
    /// connect() failed with this errno.
    Failed(i32),
    /// The namespace has no address of this family.
    NoAddress,
}

pub fn run(what: &ProbeArguments, out: &mut impl Write) -> Result<Exit, Failure> {
    enter(what).map_err(|source| Failure::Enter {
        pid: what.pid,
        source,
    })?;
    for to in &what.to {
        print_line(
            out,
            &Attempt {
                to: *to,
                outcome: attempt(*to),
            },
        )?;
    }
    Ok(Exit::Done)
}

/// Both are opened before either is joined.
fn enter(what: &ProbeArguments) -> io::Result<()> {
    let netns = File::open(format!("/proc/{}/ns/net", what.pid))?;
    fs::write(
        what.cgroup.join("cgroup.procs"),
        std::process::id().to_string(),
    )?;
    setns(netns, CloneFlags::CLONE_NEWNET)?;
    Ok(())
}

fn attempt(to: SocketAddr) -> Outcome {
    if !has_address_like(to.ip()) {
        return Outcome::NoAddress;
    }
    match TcpStream::connect_timeout(&to, LIMIT) {
        Ok(stream) => answer(&stream).unwrap_or(Outcome::Unclaimed),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Outcome::Dropped,
        Err(error) => Outcome::Failed(error.raw_os_error().unwrap_or_default()),
    }
}

fn answer(stream: &TcpStream) -> io::Result<Outcome> {
    stream.set_read_timeout(Some(LIMIT))?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(Outcome::Answered {
        answer: serde_json::from_str(&line)?,
        local: stream.local_addr()?,
        netns_cookie: kedge_capture::netns_cookie()?,
    })
}

/// Loopback and link-local addresses lead nowhere.
fn has_address_like(ip: IpAddr) -> bool {
    let addresses = getifaddrs().into_iter().flatten();
    let addresses = addresses.filter_map(|one| one.address);
    addresses.into_iter().any(|address| match ip {
        IpAddr::V4(_) => address
            .as_sockaddr_in()
            .is_some_and(|v4| !v4.ip().is_loopback()),
        IpAddr::V6(_) => address
            .as_sockaddr_in6()
            .is_some_and(|v6| !v6.ip().is_loopback() && !v6.ip().is_unicast_link_local()),
    })
}
