//! The listening sockets of a daemon: a predecessor's where there is one, and new ones.

use crate::config::Config;
use crate::handover::{Handed, Role};
use anyhow::{Context, Result};
use kedge_sys::socket;
use std::io;
use std::net::{Ipv6Addr, SocketAddr, TcpListener};

/// Each worker's own sockets; the kernel spreads peers' connections among them.
#[derive(Debug, Default)]
pub struct OfWorker {
    pub capture: Vec<TcpListener>,
    pub peers: Vec<TcpListener>,
}

#[derive(Debug)]
pub struct Listeners {
    pub of_workers: Vec<OfWorker>,
}

impl Listeners {
    /// What `handed` has, and what it lacks. Sockets that this configuration does not ask for are
    /// served too: connections may wait in them, and the kernel goes on choosing them.
    pub fn open(config: &Config, mut handed: Handed) -> Result<Self> {
        let any = Ipv6Addr::UNSPECIFIED;
        let mut of_worker = |worker: u16| -> Result<OfWorker> {
            let port = config.capture.port + worker;
            let capture = handed.take_or_open(Role::Capture, SocketAddr::new(any.into(), port))?;
            let peers = config.peer.listen.iter();
            let peers = peers
                .map(|ip| handed.take_or_open(Role::Peer, SocketAddr::new(*ip, config.peer.port)));
            Ok(OfWorker {
                peers: peers.collect::<Result<_>>()?,
                capture: vec![capture],
            })
        };
        let mut of_workers = (0..config.workers)
            .map(&mut of_worker)
            .collect::<Result<Vec<_>>>()?;
        for (turn, (role, listener)) in handed.0.into_iter().enumerate() {
            let worker = &mut of_workers[turn % usize::from(config.workers)];
            match role {
                Role::Capture => worker.capture.push(listener),
                Role::Peer => worker.peers.push(listener),
            }
        }
        // What these accept inherits it: should we be killed, no application takes it for an end
        // of its peer. A flow that ends takes it back.
        for capture in of_workers.iter().flat_map(|of| &of.capture) {
            socket::reset_on_close(capture).context("set SO_LINGER")?;
        }
        Ok(Self { of_workers })
    }

    pub fn count(&self) -> usize {
        let workers = self.of_workers.iter();
        workers.map(|of| of.capture.len() + of.peers.len()).sum()
    }

    /// All of them under further descriptors, for a successor.
    pub fn duplicates(&self) -> io::Result<Handed> {
        let all = self.of_workers.iter().flat_map(|of| {
            let capture = of.capture.iter().map(|listener| (Role::Capture, listener));
            capture.chain(of.peers.iter().map(|listener| (Role::Peer, listener)))
        });
        let copies = all.map(|(role, listener)| Ok((role, listener.try_clone()?)));
        copies.collect::<io::Result<_>>().map(Handed)
    }
}

impl Handed {
    fn take_or_open(&mut self, wanted: Role, address: SocketAddr) -> Result<TcpListener> {
        let is_it = |(role, listener): &(Role, TcpListener)| {
            *role == wanted && listener.local_addr().is_ok_and(|bound| bound == address)
        };
        match self.0.iter().position(is_it) {
            Some(at) => Ok(self.0.swap_remove(at).1),
            None => socket::listen(address).with_context(|| format!("listen on {address}")),
        }
    }
}
