//! A worker: one thread, one current-thread runtime, its own listeners, buffers and carriers.

use crate::dataplane::buffer::{Pipes, Pool};
use crate::dataplane::carrier::Carriers;
use crate::dataplane::classify::Refused;
use crate::dataplane::continuation::Continuations;
use crate::dataplane::delivery::SourceAddresses;
use crate::dataplane::flow::{Flow, Records};
use crate::dataplane::half::{Broken, Turn};
use crate::dataplane::kernel_records::KernelRecords;
use crate::dataplane::reader::Readers;
use crate::dataplane::refusals::{Asked, Refusals};
use crate::dataplane::registry::{FlowInfo, Registered, Registry};
use crate::dataplane::rounds::Rounds;
use crate::dataplane::shares::{Share, Shares};
use crate::dataplane::{acceptance, authority, intake, looks};
use crate::doorstep::Doorstep;
use crate::events::Events;
use crate::fault;
use crate::handover::{Gate, Keeper, PassOn, Passed};
use crate::limits::{ACCEPT_PAUSE, BEAT, OPENING_PER_WORKER, STRANGERS_PER_WORKER};
use crate::links::{Link, Links, Stranger};
use crate::listeners::OfWorker;
use crate::uncapturable::Uncapturable;
use crate::world::SharedWorld;
use kedge_capture::{Beats, Claims};
use kedge_model::{SourceAddr, SpiffeId, canonical};
use std::cell::Cell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::timeout_at;

/// What a worker is given at start.
pub struct Equipment {
    pub index: u16,
    pub world: SharedWorld,
    pub links: Arc<Links>,
    pub links_in: mpsc::Sender<Stranger>,
    pub claims: Claims,
    pub sources: SourceAddresses,
    pub probe_ends: [SocketAddr; 2],
    pub uncapturable: Uncapturable,
    pub beats: Beats,
    pub refusals: Refusals,
    pub events: Events,
    pub registry: Arc<Registry>,
    pub listeners: OfWorker,
    pub gate: Gate,
    /// Where carriers of unknown links go.
    pub predecessor: Option<PassOn>,
    /// Carriers that a successor passes on.
    pub passed: mpsc::Receiver<Passed>,
    pub flows_max: usize,
    pub kernel_records: KernelRecords,
    /// One for all workers.
    pub continuations: Continuations,
}

/// A handle for the tasks of one worker.
#[derive(Clone)]
pub struct Worker(Rc<Shared>);

pub struct Shared {
    pub world: SharedWorld,
    pub links: Arc<Links>,
    pub links_in: mpsc::Sender<Stranger>,
    pub claims: Claims,
    pub sources: SourceAddresses,
    pub probe_ends: [SocketAddr; 2],
    pub uncapturable: Uncapturable,
    pub refusals: Refusals,
    pub events: Events,
    pub registry: Arc<Registry>,
    pub pool: Pool,
    pub pipes: Pipes,
    rounds: Rounds,
    pub kernel_records: KernelRecords,
    pub continuations: Continuations,
    pub carriers: Carriers,
    pub strangers: Doorstep,
    pub predecessor: Option<PassOn>,
    /// Captured connections until their first flight, and until their end.
    pub opening: Shares,
    pub flows: Shares,
    pub flows_max: usize,
    picks: Cell<u64>,
    started: Instant,
    /// Seconds since the start, as of the last beat: precise enough for idle times.
    now_s: Cell<u64>,
}

impl Deref for Worker {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// Serves on this thread until the process ends.
pub fn serve(equipment: Equipment) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, async {
        let capture = equipment.listeners.capture.into_iter();
        let capture: std::io::Result<Vec<_>> = capture.map(TcpListener::from_std).collect();
        let peers = equipment.listeners.peers.into_iter();
        let peers: std::io::Result<Vec<_>> = peers.map(TcpListener::from_std).collect();
        let worker = Worker(Rc::new(Shared {
            carriers: Carriers::new(equipment.world.clone()),
            world: equipment.world,
            links: equipment.links,
            links_in: equipment.links_in,
            claims: equipment.claims,
            sources: equipment.sources,
            probe_ends: equipment.probe_ends,
            uncapturable: equipment.uncapturable,
            refusals: equipment.refusals,
            events: equipment.events,
            registry: equipment.registry,
            pool: Pool::default(),
            pipes: Pipes::new(equipment.kernel_records.pipes_hold_several()),
            rounds: Rounds::default(),
            kernel_records: equipment.kernel_records,
            continuations: equipment.continuations,
            predecessor: equipment.predecessor,
            strangers: Doorstep::new(STRANGERS_PER_WORKER),
            opening: Shares::of(OPENING_PER_WORKER),
            flows: Shares::of(equipment.flows_max),
            flows_max: equipment.flows_max,
            picks: Cell::new(equipment.index.into()),
            started: Instant::now(),
            now_s: Cell::new(0),
        }));
        for peer in peers? {
            spawn_local(accept_peers(worker.clone(), peer, equipment.gate.keeper()));
        }
        for capture in capture? {
            spawn_local(accept_captured(
                worker.clone(),
                capture,
                equipment.gate.keeper(),
            ));
        }
        spawn_local(take_passed(worker.clone(), equipment.passed));
        spawn_local(authority::follow(
            worker.world.clone(),
            Arc::clone(&worker.registry),
        ));
        if equipment.index == 0 {
            spawn_local(looks::keep(worker.clone()));
        }
        beat(&worker, equipment.index, &equipment.beats).await
    })
}

impl Worker {
    /// Carries a flow to its end in a task of its own. A captured one gives its share back then.
    pub fn run(&self, flow: Flow, info: FlowInfo, share: Option<Share>) {
        let worker = self.clone();
        spawn_local(async move {
            let registry = Arc::clone(&worker.registry);
            let registered = registry.register(info);
            worker.drive(flow, &registered).await;
            drop(share);
        });
    }

    /// Somebody was refused, and perhaps the next one need not ask.
    pub fn learn(&self, asked: Asked, client: SourceAddr, refused: &Refused) {
        let world = self.world.load();
        // A workload that is not known by a cgroup of its own shares this one with others.
        if world.workload_in(asked.cgroup_id).is_some() {
            let choices = world.directory.choices(asked.to);
            self.refusals.learn(asked, client, refused, choices);
        }
    }

    async fn drive(&self, mut flow: Flow, registered: &Registered<'_>) {
        authority::decide(&self.world, &registered.info);
        let withdrawal = &registered.info.withdrawal;
        let result = tokio::select! {
            biased;
            withdrawn = withdrawal.withdrawn() => Err(withdrawn),
            ended = self.carry(&mut flow, registered) => ended,
        };
        match result {
            Ok(()) => {
                if let Some(parting) = flow.into_parting().filter(|parting| !parting.is_over()) {
                    parting.wait().await;
                }
            }
            Err(broken) => {
                if let (Broken::Denied { refusal, .. }, Some(asked)) =
                    (&broken, registered.info.asked)
                {
                    let client = registered.info.parties.client;
                    self.learn(asked, client, &(*refusal).into());
                }
                flow.abort(&broken);
                self.events.flow_broken(&registered.info, &broken);
            }
        }
    }

    /// Until the flow ends; a peer that does not answer ends it too.
    async fn carry(&self, flow: &mut Flow, registered: &Registered<'_>) -> Result<(), Broken> {
        let answer_by = registered.info.answer_by.into();
        match timeout_at(answer_by, self.until_answered(flow, registered)).await {
            Ok(Some(ended)) => ended,
            Ok(None) => self.until_ended(flow, registered).await,
            Err(_) => Err(Broken::NoAnswer),
        }
    }

    /// The flow's end, if it comes before the answer.
    async fn until_answered(
        &self,
        flow: &mut Flow,
        registered: &Registered<'_>,
    ) -> Option<Result<(), Broken>> {
        poll_fn(|cx| match flow.poll(cx, &self.turn(registered)) {
            Poll::Ready(ended) => Poll::Ready(Some(ended)),
            Poll::Pending if flow.answered() => {
                registered.info.meter.set_answered();
                Poll::Ready(None)
            }
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    async fn until_ended(
        &self,
        flow: &mut Flow,
        registered: &Registered<'_>,
    ) -> Result<(), Broken> {
        let mut readers = Readers::default();
        poll_fn(|cx| match flow.poll(cx, &self.turn(registered)) {
            Poll::Pending => readers.poll(cx, flow).map(Err),
            ended => ended,
        })
        .await
    }

    fn turn<'a>(&'a self, registered: &'a Registered<'_>) -> Turn<'a> {
        let meter = &registered.info.meter;
        Turn {
            pool: &self.pool,
            pipes: &self.pipes,
            rounds: &self.rounds,
            meter,
            now_s: self.now_s.get(),
        }
    }

    /// Spreads flows over a service's endpoints in turn.
    pub fn next_pick(&self) -> u64 {
        let pick = self.picks.get();
        self.picks.set(pick.wrapping_add(1));
        pick
    }

    /// Who seals and opens the records of a flow of this node's `workload`.
    pub fn records_of(&self, link: &Link, workload: &SpiffeId) -> Records {
        let asked = self.world.load().policy.records_of(workload);
        self.kernel_records.of(link.suite, link.rekey, asked)
    }

    pub fn is_full(&self) -> bool {
        self.registry.live() >= self.flows_max
    }
}

/// Takes captured connections until another daemon does.
async fn accept_captured(worker: Worker, listener: TcpListener, mut gate: Keeper) {
    while let Some((near, from)) = gate.admit(async || accept(&worker, &listener).await).await {
        match intake::read_claim(&worker, &near) {
            Ok(claim) => {
                if let Some(admitted) = intake::admit(&worker, &near, from, claim) {
                    spawn_local(intake::carry(worker.clone(), near, admitted));
                }
            }
            Err(refusal) => intake::turn_away(&worker, near, from, refusal),
        }
    }
}

/// Takes carriers of our links that another daemon has accepted.
async fn take_passed(worker: Worker, mut passed: mpsc::Receiver<Passed>) {
    while let Some(passed) = passed.recv().await {
        spawn_local(acceptance::carry_passed(worker.clone(), passed));
    }
}

/// Takes connections of peers until another daemon does.
async fn accept_peers(worker: Worker, listener: TcpListener, mut gate: Keeper) {
    while let Some((carrier, from)) = gate.admit(async || accept(&worker, &listener).await).await {
        if worker.is_full() {
            worker.events.over_limit("flows", worker.flows_max, None);
        } else {
            spawn_local(acceptance::carry(worker.clone(), carrier, from));
        }
    }
}

/// The next connection. Errors are those of a connection that is gone, or of a process without
/// descriptors left; for the latter a pause lets flows end.
async fn accept(worker: &Worker, listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, from)) => return (stream, canonical(from)),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                worker.events.accept_failed(&error);
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Says from the worker's own loop that it is alive, and does what is due once in a while.
async fn beat(worker: &Worker, index: u16, beats: &Beats) -> std::io::Result<()> {
    let mut due = tokio::time::interval(BEAT);
    loop {
        due.tick().await;
        worker.now_s.set(worker.started.elapsed().as_secs());
        if index == 0 {
            fault::hang();
        }
        let pause = worker.registry.set_beat();
        if pause >= Beats::FRESH {
            worker.events.worker_back(index, pause);
        }
        worker
            .carriers
            .retire(|link| worker.links.by_id(link).is_some());
        beats.beat(index)?;
    }
}
