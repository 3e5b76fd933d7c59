//! One established link, as the workers see it.

use crate::attestation::Disbelief;
use crate::limits::HOLD;
use crate::links::identities::Identities;
use crate::links::proof::Proof;
use kedge_identity::SvidError;
use kedge_link::wire::{Header, Opening};
use kedge_link::{
    Established, Exhausted, Flight, FlightError, Handle, Inbound, InstanceId, LinkId, NewFlow,
    Outbound, PendingFlow, Role,
};
use kedge_model::{NodeName, Refusal, SpiffeId, Suite};
use kedge_record::{Limits, Rekey};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Instant, SystemTime};
use tokio::sync::{Notify, mpsc};

/// What workers and manager ask of a link's control connection.
#[derive(Debug)]
pub enum Command {
    /// Announce `source`, and ask the peer for `destination`.
    Prove {
        source: SpiffeId,
        destination: SpiffeId,
    },
    /// As TLS server: ask the peer for a new link.
    AskRenewal,
    /// Open no more flows; erase the link after a while.
    Drain,
    /// The directory does not have the peer's node any more, or without kedge: close at once.
    Part(NodeName),
    /// What the peer has proven does not count any more: close at once.
    Distrust(SvidError),
    /// Its Attestation Result does not count any more: say so, and close.
    Disbelieve(Disbelief),
}

/// Keys and identities of one link. The locks are held for one flow's opening, never for bytes.
pub struct Link {
    pub id: LinkId,
    pub peer: NodeName,
    pub peer_id: SpiffeId,
    pub peer_instance: InstanceId,
    pub proof: Arc<Proof>,
    pub role: Role,
    pub tls_client: SpiffeId,
    pub renews: Option<LinkId>,
    /// Greater for a link that was dialled, or taken, later.
    pub begun: u64,
    pub group: String,
    pub tls_suite: Suite,
    pub suite: Suite,
    /// What flows do at the end of a key.
    pub rekey: Rekey,
    pub handshake_bytes: u64,
    pub established_at: Instant,
    pub established_time: SystemTime,
    /// The end of the earlier of both SVIDs.
    pub not_after: SystemTime,
    outbound: Mutex<Outbound>,
    inbound: Mutex<Inbound>,
    identities: RwLock<Identities>,
    proven: Notify,
    commands: mpsc::Sender<Command>,
    draining: AtomicBool,
    dead: AtomicBool,
    /// Why its peer shows no newer Attestation Result.
    unattested: Mutex<Option<String>>,
    pub flows_accepted: AtomicU64,
}

impl Link {
    pub fn new(
        established: Established,
        (begun, not_after): (u64, SystemTime),
        commands: mpsc::Sender<Command>,
    ) -> Self {
        Self {
            id: established.link_id,
            peer: established.peer.name().clone(),
            peer_id: established.peer.id().clone(),
            peer_instance: established.peer_instance,
            proof: Proof::new(established.peer),
            role: established.role,
            tls_client: established.tls_client,
            renews: established.renews,
            begun,
            group: established.group,
            tls_suite: established.tls_suite,
            suite: established.flow_suite,
            rekey: established.rekey,
            handshake_bytes: established.bytes_sent + established.bytes_received,
            established_at: Instant::now(),
            established_time: SystemTime::now(),
            not_after,
            outbound: Mutex::new(established.outbound),
            inbound: Mutex::new(established.inbound),
            identities: RwLock::default(),
            proven: Notify::new(),
            commands,
            draining: AtomicBool::new(false),
            dead: AtomicBool::new(false),
            unattested: Mutex::default(),
            flows_accepted: AtomicU64::new(0),
        }
    }

    /// The budgets of its flows' keys.
    pub fn record_limits(&self) -> Limits {
        Limits {
            rekey: self.rekey,
            ..Limits::in_force()
        }
    }

    /// The opening of a new carrier.
    pub fn opening(&self) -> Result<[u8; Opening::LEN], Exhausted> {
        lock(&self.outbound).opening()
    }

    /// A new flow's number and secret.
    pub fn open_flow(&self) -> Result<NewFlow, Exhausted> {
        lock(&self.outbound).open_flow(Instant::now())
    }

    pub fn flows_opened(&self) -> u64 {
        lock(&self.outbound).flows_opened()
    }

    pub fn check_opening(&self, opening: &Opening) -> Result<(), FlightError> {
        lock(&self.inbound).check_opening(opening)
    }

    pub fn pending_flow(&self, header: &Header) -> Result<PendingFlow, FlightError> {
        lock(&self.inbound).flow_secret(Instant::now(), header)
    }

    /// Opens a first flight's record 0, outside the lock, and takes its number, once.
    pub fn consume_flight(
        &self,
        pending: PendingFlow,
        record0: &mut [u8],
    ) -> Result<Flight, FlightError> {
        let opened = pending.open_record0(record0)?;
        let flight = lock(&self.inbound).commit(Instant::now(), opened)?;
        self.flows_accepted.fetch_add(1, Relaxed);
        Ok(flight)
    }

    /// Erases what has ended by now; returns when to ask again.
    pub fn expire_secrets(&self) -> Option<Instant> {
        let mut inbound = lock(&self.inbound);
        inbound.handle_timeout(Instant::now());
        inbound.poll_timeout()
    }

    /// The handles of a flow's two identities, proving them first where this link has not yet.
    pub async fn prove(
        &self,
        source: &SpiffeId,
        destination: &SpiffeId,
    ) -> Result<(Handle, Handle), Refusal> {
        if let Some(pair) = self.with_identities(|known| known.pair(source, destination)) {
            return Ok(pair);
        }
        let ask = Command::Prove {
            source: source.clone(),
            destination: destination.clone(),
        };
        self.update_identities(|known| {
            known.forget_refusal(source);
            known.forget_refusal(destination);
        });
        self.commands
            .send(ask)
            .await
            .map_err(|_| Refusal::LinkLost)?;
        tokio::time::timeout(HOLD, self.proven(source, destination))
            .await
            .unwrap_or(Err(Refusal::UnknownIdentity))
    }

    async fn proven(
        &self,
        source: &SpiffeId,
        destination: &SpiffeId,
    ) -> Result<(Handle, Handle), Refusal> {
        loop {
            // Registered before the look, so that a change in between is not missed.
            let mut changed = std::pin::pin!(self.proven.notified());
            changed.as_mut().enable();
            if self.is_dead() {
                return Err(Refusal::LinkLost);
            }
            let known = self.with_identities(|known| {
                let refusal = known.refusal_of(source).or(known.refusal_of(destination));
                refusal.map(Err).or(known.pair(source, destination).map(Ok))
            });
            if let Some(result) = known {
                return result;
            }
            changed.await;
        }
    }

    pub fn with_identities<T>(&self, look: impl FnOnce(&Identities) -> T) -> T {
        look(
            &self
                .identities
                .read()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    pub fn update_identities(&self, change: impl FnOnce(&mut Identities)) {
        change(
            &mut self
                .identities
                .write()
                .unwrap_or_else(PoisonError::into_inner),
        );
        self.proven.notify_waiters();
    }

    pub fn note_unattested(&self, why: Option<String>) {
        *lock(&self.unattested) = why;
    }

    pub fn unattested(&self) -> Option<String> {
        lock(&self.unattested).clone()
    }

    /// Whether new flows may be opened on it.
    pub fn is_open(&self) -> bool {
        !self.draining.load(Relaxed) && !self.is_dead()
    }

    pub fn is_dead(&self) -> bool {
        self.dead.load(Relaxed)
    }

    pub fn set_draining(&self) {
        self.draining.store(true, Relaxed);
    }

    pub fn set_dead(&self) {
        self.dead.store(true, Relaxed);
        self.proven.notify_waiters();
    }

    /// Asks the control connection; a full queue means that it is stuck, and it ends by itself.
    pub fn command(&self, command: Command) {
        let _ = self.commands.try_send(command);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
