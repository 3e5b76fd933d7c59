//! The links that there are, for workers to find without a lock.

use crate::attestation::Attestation;
use crate::limits::{HOLD, LINK_DEMANDS};
use crate::links::link::{Command, Link};
use crate::links::proof::Proofs;
use arc_swap::{ArcSwap, ArcSwapOption};
use kedge_identity::Trust;
use kedge_link::{Contender, LinkId, Settled, settle};
use kedge_model::{NodeName, Refusal};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use tokio::sync::{mpsc, watch};

/// What workers and control connections ask of the manager.
pub enum Demand {
    /// A flow wants to go there and there is no link.
    Open(NodeName),
    /// This link needs a successor.
    Renew(Arc<Link>),
}

/// All links of this daemon.
pub struct Links {
    peers: ArcSwap<HashMap<NodeName, Arc<Peer>>>,
    by_id: ArcSwap<HashMap<LinkId, Arc<Link>>>,
    demands: mpsc::Sender<Demand>,
    /// Another daemon serves this node: see [`Links::retire`].
    retired: AtomicBool,
    pub proofs: Proofs,
    pub attestation: Attestation,
    pub handshakes_total: AtomicU64,
}

/// One other node.
struct Peer {
    current: ArcSwapOption<Link>,
    outcome: watch::Sender<Outcome>,
}

/// How making links to one node went.
#[derive(Clone, Default)]
struct Outcome {
    established: u64,
    failures: u64,
    last_error: Option<String>,
}

/// For the edge.
pub struct PeerReport {
    pub peer: NodeName,
    pub current: Option<Arc<Link>>,
    pub established: u64,
    pub failures: u64,
    pub last_error: Option<String>,
}

impl Links {
    pub fn new(trust: Trust, attestation: Attestation) -> (Arc<Self>, mpsc::Receiver<Demand>) {
        let (demands, requests) = mpsc::channel(LINK_DEMANDS);
        let links = Self {
            peers: ArcSwap::default(),
            by_id: ArcSwap::default(),
            demands,
            retired: AtomicBool::new(false),
            proofs: Proofs::new(trust),
            attestation,
            handshakes_total: AtomicU64::new(0),
        };
        (Arc::new(links), requests)
    }

    pub fn by_id(&self, id: LinkId) -> Option<Arc<Link>> {
        self.by_id.load().get(&id).cloned()
    }

    /// The link on which to open a flow to `node`, made first if there is none. Any number of
    /// flows that wait here cause one handshake.
    pub async fn link_to(&self, node: &NodeName) -> Result<Arc<Link>, Refusal> {
        if let Some(link) = self.current(node) {
            return Ok(link);
        }
        let peer = self.peer(node);
        let mut outcome = peer.outcome.subscribe();
        let failures = outcome.borrow_and_update().failures;
        let established = async {
            loop {
                if let Some(link) = self.current(node) {
                    return Ok(link);
                }
                if outcome.borrow_and_update().failures > failures {
                    return Err(Refusal::LinkFailed);
                }
                // Again after each change: a link may be drained before we have seen it.
                let demand = Demand::Open(node.clone());
                self.demands
                    .send(demand)
                    .await
                    .map_err(|_| Refusal::Draining)?;
                outcome.changed().await.map_err(|_| Refusal::Draining)?;
            }
        };
        tokio::time::timeout(HOLD, established)
            .await
            .unwrap_or(Err(Refusal::LinkFailed))
    }

    pub fn current(&self, node: &NodeName) -> Option<Arc<Link>> {
        let peers = self.peers.load();
        peers
            .get(node)?
            .current
            .load_full()
            .filter(|link| link.is_open() || (self.is_retired() && !link.is_dead()))
    }

    /// Another daemon serves this node now: all links, also those to come, drain, so that peers
    /// make new ones with it. What was accepted here before still finds its way over them.
    pub fn retire(&self) {
        self.retired.store(true, SeqCst);
        for link in self.all() {
            link.command(Command::Drain);
        }
    }

    fn is_retired(&self) -> bool {
        self.retired.load(SeqCst)
    }

    /// From now on flows are taken on it; none is opened before [`Links::install`].
    pub fn admit(&self, link: &Arc<Link>) {
        self.by_id.rcu(|links| {
            let mut links = HashMap::clone(links);
            links.insert(link.id, Arc::clone(link));
            links
        });
    }

    /// Takes a new link into use, and lets the loser drain where there are two between the same
    /// two instances.
    pub fn install(&self, link: &Arc<Link>) {
        self.handshakes_total.fetch_add(1, Relaxed);
        self.admit(link);
        let peer = self.peer(&link.peer);
        let in_use = peer.current.load_full().filter(|in_use| in_use.is_open());
        let settled = in_use.map(|in_use| (settle(&contender(&in_use), &contender(link)), in_use));
        if !matches!(settled, Some((Settled::Yields, _))) {
            peer.current.store(Some(Arc::clone(link)));
        }
        match settled {
            Some((Settled::Yields, _)) => link.command(Command::Drain),
            Some((Settled::Replaces, in_use)) => in_use.command(Command::Drain),
            Some((Settled::Follows, _)) | None => {}
        }
        if self.is_retired() {
            link.command(Command::Drain);
        }
        peer.outcome.send_modify(|outcome| {
            outcome.established += 1;
            outcome.last_error = None;
        });
    }

    /// Forgets a link; its secrets go with the last flow that is just being opened on it.
    pub fn remove(&self, link: &Arc<Link>) {
        link.set_dead();
        self.by_id.rcu(|links| {
            let mut links = HashMap::clone(links);
            links.remove(&link.id);
            links
        });
        let peer = self.peer(&link.peer);
        let current = peer.current.load();
        if current
            .as_ref()
            .is_some_and(|current| current.id == link.id)
        {
            peer.current.store(None);
        }
    }

    pub fn failed(&self, node: &NodeName, error: String) {
        self.peer(node).outcome.send_modify(|outcome| {
            outcome.failures += 1;
            outcome.last_error = Some(error);
        });
    }

    /// Whether the link is the one on which new flows to its node are opened.
    pub fn is_current(&self, link: &Link) -> bool {
        self.current(&link.peer)
            .is_some_and(|current| current.id == link.id)
    }

    pub async fn demand(&self, demand: Demand) {
        // A closed channel means that the daemon is ending.
        let _ = self.demands.send(demand).await;
    }

    pub fn all(&self) -> Vec<Arc<Link>> {
        self.by_id.load().values().cloned().collect()
    }

    pub fn reports(&self) -> Vec<PeerReport> {
        let peers = self.peers.load();
        let report = |(peer, state): (&NodeName, &Arc<Peer>)| {
            let outcome = state.outcome.borrow().clone();
            PeerReport {
                peer: peer.clone(),
                current: state.current.load_full(),
                established: outcome.established,
                failures: outcome.failures,
                last_error: outcome.last_error,
            }
        };
        peers.iter().map(report).collect()
    }

    /// Nodes come from the directory, which bounds their number.
    fn peer(&self, node: &NodeName) -> Arc<Peer> {
        if let Some(peer) = self.peers.load().get(node) {
            return Arc::clone(peer);
        }
        let new = Arc::new(Peer {
            current: ArcSwapOption::empty(),
            outcome: watch::Sender::new(Outcome::default()),
        });
        self.peers.rcu(|peers| {
            let mut peers = HashMap::clone(peers);
            peers
                .entry(node.clone())
                .or_insert_with(|| Arc::clone(&new));
            peers
        });
        let peers = self.peers.load();
        Arc::clone(peers.get(node).unwrap_or(&new))
    }
}

fn contender(link: &Link) -> Contender<'_> {
    Contender {
        peer: link.peer_instance,
        tls_client: &link.tls_client,
        begun: link.begun,
    }
}
