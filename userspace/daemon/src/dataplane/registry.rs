//! What a worker's flows are and have done, for whoever asks. The dataplane writes meters without
//! a lock; the list itself is locked only while a flow begins or ends, or is listed.

use crate::dataplane::half::Broken;
use crate::dataplane::refusals::Asked;
use crate::limits::OPENING_TIMEOUT;
use crate::links::Proof;
use kedge_api::Versions;
use kedge_model::{NodeName, OriginalDst, Refusal, SourceAddr, SpiffeId, Suite};
use slab::Slab;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How far a flow has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The first flight is on its way; the peer has not answered.
    AwaitingAnswer,
    /// Accepted; bytes go both ways.
    Open,
}

/// Who talks to whom, and where: fixed for a flow's life.
#[derive(Clone, Debug)]
pub struct Parties {
    pub source: SpiffeId,
    pub destination: SpiffeId,
    pub client: SourceAddr,
    pub original_dst: OriginalDst,
    pub endpoint: SocketAddr,
    /// The destination's instance: tells a pod from its successor at the same address.
    pub uid: Arc<str>,
}

/// How a flow travels.
#[derive(Clone, Debug)]
pub enum Carriage {
    Local,
    Opener { proof: Arc<Proof>, suite: Suite },
    Acceptor { proof: Arc<Proof>, suite: Suite },
}

impl Carriage {
    /// Where source and destination run, as seen from `ours`.
    pub fn nodes<'a>(&'a self, ours: &'a NodeName) -> (&'a NodeName, &'a NodeName) {
        match self {
            Self::Local => (ours, ours),
            Self::Opener { proof, .. } => (ours, proof.peer.name()),
            Self::Acceptor { proof, .. } => (proof.peer.name(), ours),
        }
    }

    pub fn peer(&self) -> Option<&NodeName> {
        self.proof().map(|proof| proof.peer.name())
    }

    /// What the peer has proven about itself when the flow began.
    pub fn proof(&self) -> Option<&Proof> {
        match self {
            Self::Local => None,
            Self::Opener { proof, .. } | Self::Acceptor { proof, .. } => Some(proof),
        }
    }

    pub fn suite(&self) -> Option<Suite> {
        match self {
            Self::Local => None,
            Self::Opener { suite, .. } | Self::Acceptor { suite, .. } => Some(*suite),
        }
    }
}

pub struct FlowInfo {
    pub parties: Parties,
    /// Who opened it, where that is a workload of this node.
    pub asked: Option<Asked>,
    pub carriage: Carriage,
    pub opened_at: Instant,
    /// When an opener gives up on the peer's answer.
    pub answer_by: Instant,
    pub meter: Meter,
    pub withdrawal: Withdrawal,
}

/// Says to a flow's task, once, that the flow is no longer allowed.
#[derive(Default)]
pub struct Withdrawal {
    why: OnceLock<(Refusal, Option<Versions>)>,
    said: Notify,
}

impl Withdrawal {
    /// `decided_by`: none where a proof has ended.
    pub fn withdraw(&self, refusal: Refusal, decided_by: Option<Versions>) {
        if self.why.set((refusal, decided_by)).is_ok() {
            self.said.notify_one();
        }
    }

    /// Until it was said, if ever.
    pub async fn withdrawn(&self) -> Broken {
        loop {
            if let Some((refusal, decided_by)) = self.why.get().copied() {
                return Broken::Withdrawn {
                    refusal,
                    decided_by,
                };
            }
            self.said.notified().await;
        }
    }
}

/// Counters of one flow. One worker writes, anybody reads.
#[derive(Default)]
pub struct Meter {
    pub sent_bytes: AtomicU64,
    pub received_bytes: AtomicU64,
    pub sent_records: AtomicU64,
    pub received_records: AtomicU64,
    pub sent_generation: AtomicU32,
    pub received_generation: AtomicU32,
    /// Whether the kernel seals, and opens, the records.
    pub sent_by_kernel: AtomicBool,
    pub received_by_kernel: AtomicBool,
    answered: AtomicU32,
    /// Seconds since the worker's start, at the last byte.
    last_s: AtomicU64,
}

impl Meter {
    /// `number` is that of the next record, `generation` that of its key.
    pub fn sealed(&self, bytes: usize, number: u64, generation: u32, now_s: u64) {
        self.last_s.store(now_s, Relaxed);
        add(&self.sent_bytes, bytes);
        self.sent_records.store(number, Relaxed);
        self.sent_generation.store(generation, Relaxed);
    }

    /// See [`sealed`](Self::sealed).
    pub fn opened(&self, bytes: usize, number: u64, generation: u32, now_s: u64) {
        self.last_s.store(now_s, Relaxed);
        add(&self.received_bytes, bytes);
        self.received_records.store(number, Relaxed);
        self.received_generation.store(generation, Relaxed);
    }

    fn key_changes(&self) -> [u64; 2] {
        [&self.sent_generation, &self.received_generation]
            .map(|generation| u64::from(generation.load(Relaxed)))
    }

    /// Bytes of the source, for a flow that stays on this node.
    pub fn copied(&self, bytes: usize, now_s: u64) {
        self.last_s.store(now_s, Relaxed);
        add(&self.sent_bytes, bytes);
    }

    pub fn set_answered(&self) {
        self.answered.store(1, Relaxed);
    }

    pub fn phase(&self) -> Phase {
        match self.answered.load(Relaxed) {
            0 => Phase::AwaitingAnswer,
            _ => Phase::Open,
        }
    }
}

/// One writer: a plain load and store is enough, and cheaper than a locked add.
fn add(counter: &AtomicU64, bytes: usize) {
    counter.store(counter.load(Relaxed) + bytes as u64, Relaxed);
}

impl FlowInfo {
    pub fn new(parties: Parties, carriage: Carriage) -> Self {
        Self {
            parties,
            asked: None,
            carriage,
            opened_at: Instant::now(),
            answer_by: Instant::now() + OPENING_TIMEOUT,
            meter: Meter::default(),
            withdrawal: Withdrawal::default(),
        }
    }

    pub fn asked_by(self, cgroup_id: u64) -> Self {
        let to = self.parties.original_dst;
        Self {
            asked: Some(Asked { cgroup_id, to }),
            ..self
        }
    }

    pub fn age(&self) -> Duration {
        self.opened_at.elapsed()
    }
}

/// The flows of one worker.
pub struct Registry {
    flows: Mutex<Slab<Arc<FlowInfo>>>,
    count: AtomicUsize,
    opened_total: AtomicU64,
    /// Of flows that have ended.
    key_changes: [AtomicU64; 2],
    started: Instant,
    last_beat_ms: AtomicU64,
}

/// A flow's place in the list; leaves it on drop.
pub struct Registered<'a> {
    registry: &'a Registry,
    key: usize,
    pub info: Arc<FlowInfo>,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            flows: Mutex::default(),
            count: AtomicUsize::new(0),
            opened_total: AtomicU64::new(0),
            key_changes: Default::default(),
            started: Instant::now(),
            last_beat_ms: AtomicU64::new(0),
        }
    }
}

impl Registry {
    pub fn register(&self, info: FlowInfo) -> Registered<'_> {
        let info = Arc::new(info);
        self.opened_total.fetch_add(1, Relaxed);
        self.count.fetch_add(1, Relaxed);
        let key = self.lock().insert(Arc::clone(&info));
        Registered {
            registry: self,
            key,
            info,
        }
    }

    pub fn list(&self) -> Vec<(usize, Arc<FlowInfo>)> {
        self.lock()
            .iter()
            .map(|(key, info)| (key, Arc::clone(info)))
            .collect()
    }

    pub fn live(&self) -> usize {
        self.count.load(Relaxed)
    }

    pub fn opened_total(&self) -> u64 {
        self.opened_total.load(Relaxed)
    }

    /// How often keys of all its flows have followed others: sending, receiving.
    pub fn key_changes(&self) -> [u64; 2] {
        let flows = self.lock();
        let ended = self.key_changes.each_ref().map(|count| count.load(Relaxed));
        let live = flows.iter().map(|(_, info)| info.meter.key_changes());
        live.fold(ended, |[sent, received], flow| {
            [sent + flow[0], received + flow[1]]
        })
    }

    /// Answers how long the beat before was ago.
    pub fn set_beat(&self) -> Duration {
        let now_ms = self.now_ms();
        let before_ms = self.last_beat_ms.swap(now_ms, Relaxed);
        Duration::from_millis(now_ms.saturating_sub(before_ms))
    }

    pub fn beat_age_ms(&self) -> u64 {
        self.now_ms()
            .saturating_sub(self.last_beat_ms.load(Relaxed))
    }

    /// Seconds since a byte moved, to the worker's beat.
    pub fn idle_s(&self, info: &FlowInfo) -> u64 {
        let now_s = self.started.elapsed().as_secs();
        now_s
            .saturating_sub(info.meter.last_s.load(Relaxed))
            .min(info.age().as_secs())
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, Slab<Arc<FlowInfo>>> {
        self.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        let mut flows = self.registry.lock();
        flows.remove(self.key);
        let changes = self.info.meter.key_changes();
        for (total, changed) in self.registry.key_changes.iter().zip(changes) {
            total.fetch_add(changed, Relaxed);
        }
        drop(flows);
        self.registry.count.fetch_sub(1, Relaxed);
    }
}
