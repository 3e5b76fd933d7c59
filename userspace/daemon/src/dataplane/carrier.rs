//! Carriers: TCP connections to peer daemons, opened ahead of demand so that a flow's first
//! flight waits for no round trip. Each carries one flow.

use crate::limits::{CARRIER_IDLE, CARRIERS_PER_PEER};
use crate::links::{Link, dial};
use crate::world::SharedWorld;
use kedge_link::LinkId;
use kedge_link::wire::Opening;
use kedge_model::{NodeName, Refusal};
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;
use tokio::net::TcpStream;
use tokio::task::spawn_local;

/// One worker's idle carriers, by link.
#[derive(Clone)]
pub struct Carriers {
    world: SharedWorld,
    shelves: Rc<RefCell<HashMap<LinkId, Shelf>>>,
}

#[derive(Default)]
struct Shelf {
    idle: VecDeque<Idle>,
    dialling: usize,
    /// Carriers taken since the last halving: how many to keep ready.
    demand: usize,
}

struct Idle {
    stream: TcpStream,
    since: Instant,
}

/// A carrier for one flow, and what must be sent on it before the header.
pub struct Carrier {
    pub stream: TcpStream,
    pub opening: Option<[u8; Opening::LEN]>,
}

impl Carriers {
    pub fn new(world: SharedWorld) -> Self {
        Self {
            world,
            shelves: Rc::default(),
        }
    }

    /// An idle carrier of this link, or a new one that is connected first.
    pub async fn take(&self, link: &Arc<Link>) -> Result<Carrier, Refusal> {
        let idle = self.take_idle(link.id);
        self.refill(link);
        if let Some(stream) = idle {
            return Ok(Carrier {
                stream,
                opening: None,
            });
        }
        let opening = link.opening().map_err(|_| Refusal::LinkFailed)?;
        let stream = self.connect(&link.peer).await;
        let stream = stream.map_err(|_| Refusal::LinkFailed)?;
        Ok(Carrier {
            stream,
            opening: Some(opening),
        })
    }

    fn take_idle(&self, link: LinkId) -> Option<TcpStream> {
        let mut shelves = self.shelves.borrow_mut();
        let shelf = shelves.entry(link).or_default();
        shelf.demand = (shelf.demand + 1).min(CARRIERS_PER_PEER);
        while let Some(idle) = shelf.idle.pop_front() {
            if idle.is_usable() {
                return Some(idle.stream);
            }
        }
        None
    }

    /// Dials as many as the last flows would have needed.
    fn refill(&self, link: &Arc<Link>) {
        let mut shelves = self.shelves.borrow_mut();
        let Some(shelf) = shelves.get_mut(&link.id) else {
            return;
        };
        while shelf.idle.len() + shelf.dialling < shelf.demand {
            shelf.dialling += 1;
            let (carriers, link) = (self.clone(), Arc::clone(link));
            spawn_local(async move {
                let opened = carriers.open(&link).await;
                let mut shelves = carriers.shelves.borrow_mut();
                let Some(shelf) = shelves.get_mut(&link.id) else {
                    return;
                };
                shelf.dialling -= 1;
                // A failure shows with the next flow, which dials itself and reports it.
                if let Ok(stream) = opened {
                    shelf.idle.push_back(Idle {
                        stream,
                        since: Instant::now(),
                    });
                }
            });
        }
    }

    async fn open(&self, link: &Arc<Link>) -> io::Result<TcpStream> {
        let opening = link.opening().map_err(io::Error::other)?;
        let stream = self.connect(&link.peer).await?;
        // An empty send buffer takes 43 bytes whole.
        match stream.try_write(&opening)? {
            Opening::LEN => Ok(stream),
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    /// To the peer port of `node`.
    pub async fn connect(&self, node: &NodeName) -> io::Result<TcpStream> {
        let mut addresses = self.addresses(node);
        let last = addresses.pop().ok_or(io::ErrorKind::AddrNotAvailable)?;
        for address in addresses {
            if let Ok(stream) = dial(address).await {
                return Ok(stream);
            }
        }
        dial(last).await
    }

    fn addresses(&self, node: &NodeName) -> Vec<SocketAddr> {
        let world = self.world.load();
        let node = world.directory.node(node);
        node.map(|node| {
            node.peer_addresses()
                .map(|address| address.socket_addr())
                .collect()
        })
        .unwrap_or_default()
    }

    /// Closes what has been idle for long, and forgets links that are gone. Call it once a beat.
    pub fn retire(&self, is_open: impl Fn(LinkId) -> bool) {
        self.shelves.borrow_mut().retain(|link, shelf| {
            shelf.demand /= 2;
            shelf
                .idle
                .retain(|idle| idle.since.elapsed() < CARRIER_IDLE);
            is_open(*link) && (shelf.demand + shelf.dialling + shelf.idle.len() > 0)
        });
    }

    pub fn idle_count(&self) -> usize {
        self.shelves
            .borrow()
            .values()
            .map(|shelf| shelf.idle.len())
            .sum()
    }
}

impl Idle {
    /// Nothing may have arrived on an idle carrier: bytes or an end both mean that it is no use.
    fn is_usable(&self) -> bool {
        self.since.elapsed() < CARRIER_IDLE
            && matches!(self.stream.try_read(&mut [0]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}
