//! From a configuration to a daemon that serves: what needs what, in order.

use crate::attestation::{self, Attestation};
use crate::config::Config;
use crate::control::{self, Control, Initial, KernelEvents, Sources, join_own};
use crate::dataplane::calibration::calibrate;
use crate::dataplane::continuation::Continuations;
use crate::dataplane::delivery::SourceAddresses;
use crate::dataplane::kernel_records::{KernelRecords, pipes_hold_several};
use crate::dataplane::refusals::Refusals;
use crate::dataplane::registry::Registry;
use crate::dataplane::worker::{self, Equipment};
use crate::edge::{AdminSocket, AttestSocket, Cgroups, EventLog, KernelTls, Observed};
use crate::events::Events;
use crate::fault;
use crate::handover::{self, Gate, Handed, Offer, PassOn, Passed, Predecessor, Succession};
use crate::limits::{
    ATTEST_CONNECTIONS, CALIBRATION_LIMIT, CARRIERS_PASSED, DESCRIPTORS_RESERVED,
    HANDSHAKES_INBOUND, PIPES_PER_WORKER, SHUTDOWN_GRACE,
};
use crate::links::{Credential, Links, Manager, Stranger};
use crate::listeners::Listeners;
use crate::uncapturable::Uncapturable;
use crate::world::SharedWorld;
use anyhow::{Context, Result};
use kedge_api::{AttestationMode, EventKind};
use kedge_capture::{Beats, Capture, CaptureConfig, Claims, EventReader, ServiceLock, StartLock};
use kedge_identity::{NodeSvid, Trust};
use kedge_model::RecordsMode;
use kedge_record::Rekey;
use kedge_sys::{canary, memory, process, socket};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Reads everything that the configuration names, and changes nothing.
pub fn check(config: &Config) -> Result<()> {
    let initial = Initial::read(config)?;
    read_object(&config.object)?;
    attestation::check(config, &initial.svid, &initial.trust)?;
    Ok(())
}

/// Serves until SIGTERM or SIGINT. The programs stay attached when it returns: workloads in
/// `require` are refused rather than left in plaintext.
pub fn run(config: Config) -> Result<()> {
    let started = Instant::now();
    process::forbid_dumps().context("forbid core dumps")?;
    fault::begin().context("open the log of seals")?;
    let descriptors =
        process::raise_descriptor_limit().context("raise the limit of descriptors")?;
    let config = Arc::new(config);
    let initial = Initial::read(&config)?;
    let object = read_object(&config.object)?;
    let own = join_own(&config).with_context(|| {
        format!(
            "join {}/kedged: is it a cgroup2 directory?",
            config.cgroup_root.display()
        )
    })?;
    let lock = StartLock::take(&config.bpffs)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (predecessor, handed, service) = match Predecessor::find(&config.run_dir).await? {
            Some((predecessor, handed)) => (Some(predecessor), handed, lock.serve_beside()?),
            None => (None, Handed::default(), lock.serve_alone()?),
        };
        let listeners = Listeners::open(&config, handed)?;
        let capture = Capture::load(&capture_config(&config, &own)?, &object)?;
        fault::point("start-loaded");
        serve(Start {
            config,
            initial,
            capture,
            listeners,
            predecessor,
            locks: (lock, service),
            descriptors,
            started,
        })
        .await
    })
}

struct Start {
    config: Arc<Config>,
    initial: Initial,
    capture: Capture,
    listeners: Listeners,
    predecessor: Option<Predecessor>,
    locks: (StartLock, ServiceLock),
    descriptors: u64,
    started: Instant,
}

async fn serve(start: Start) -> Result<()> {
    let (config, mut capture) = (start.config, start.capture);
    let (events, log) = begin_events(&config);
    let (kernel_records, rekey) = kernel_records(&config, &events);
    let refusals = Refusals::new(capture.refusals());
    let told = readers(&mut capture, start.predecessor.is_some());
    let (claims, beats) = (capture.claims(), capture.beats());
    let capture = Arc::new(Mutex::new(capture));
    let Initial { world, svid, trust } = start.initial;
    let world = SharedWorld::new(world);
    let uncapturable = follow_programs(&config, told, (&world, &events, &refusals))?;
    let (credentials_in, credentials) = mpsc::channel(1);
    let mut control = Control::new(
        Arc::clone(&config),
        world.clone(),
        Arc::clone(&capture),
        events.clone(),
        credentials_in,
        (&svid, &trust),
    );
    // Everything that can fail comes before the first program is in its place.
    fill_kernel(&mut control, &config, &world).await?;
    let doors = Doors::bind(&config)?;
    let attached = take_hooks(&capture, config.workers, &world)?;
    stand_alone(start.predecessor.as_ref()).await?;
    events.say(EventKind::CaptureStarted, attached);

    let shared = (&world, &events, rekey);
    let (links, links_in) = run_links(&config, shared, (svid, trust), credentials)?;
    let observed = Observed {
        config: Arc::clone(&config),
        world: world.clone(),
        links: Arc::clone(&links),
        registries: (0..config.workers).map(|_| Arc::default()).collect(),
        capture,
        events: events.clone(),
        refusals: refusals.clone(),
        ages: Arc::clone(&control.ages),
        uncapturable: uncapturable.clone(),
        kernel_records: kernel_records.clone(),
        kernel_tls: KernelTls::begin(),
        started: start.started,
    };
    let crew = Crew {
        config: Arc::clone(&config),
        world,
        links,
        links_in,
        claims,
        refusals,
        beats,
        kernel_records,
        uncapturable,
        gate: Gate::shut_for(start.listeners.count()),
        predecessor: start.predecessor.as_ref().map(Predecessor::pass_on),
        events,
    };
    let opening = Opening {
        flows_max: flows_max(start.descriptors, &config, rekey),
        observed,
        crew,
        listeners: start.listeners,
        predecessor: start.predecessor,
        doors,
        log,
        locks: start.locks,
    };
    opening.open(control).await
}

/// What the programs will ask for, and the routes to us.
async fn fill_kernel(control: &mut Control, config: &Config, world: &SharedWorld) -> Result<()> {
    let first = world.load_full();
    control.apply(first.directory.clone(), first.policy.clone())?;
    fault::point("start-filled");
    control::add_capture_routes(&config.capture).await?;
    fault::point("start-routed");
    Ok(())
}

/// Everything is in its place, and nothing is accepted yet.
struct Opening {
    observed: Observed,
    crew: Crew,
    listeners: Listeners,
    flows_max: usize,
    predecessor: Option<Predecessor>,
    doors: Doors,
    log: EventLog,
    locks: (StartLock, ServiceLock),
}

impl Opening {
    async fn open(self, control: Control) -> Result<()> {
        let observed = self.observed;
        let (start, service) = self.locks;
        let (gate, beats) = (self.crew.gate.clone(), self.crew.beats.clone());
        let listening = self.listeners.duplicates()?;
        let registries = &observed.registries;
        let passed = self
            .crew
            .start(self.listeners, registries, self.flows_max)?;
        fault::point("start-workers");
        if let Some(predecessor) = &self.predecessor {
            predecessor.serve_instead()?;
        }
        gate.open();
        let succession = self.doors.publish(&observed, self.log)?;
        tokio::spawn(control.run(Sources::watch(&observed.config)));
        let events = observed.events.clone();
        let registries = observed.registries.clone();
        tokio::spawn(control::watch_workers(registries, events.clone()));
        let workers = observed.config.workers;
        events.say(EventKind::Started, format!("{workers} workers"));
        drop(start);
        // What only a start needs, such as all that the kernel says of its types.
        memory::return_free();
        let offer = Offer {
            gate,
            capture: Arc::clone(&observed.capture),
            listening,
            passed,
            events,
        };
        until_the_end(&observed, beats, succession, offer, service).await
    }
}

/// Makes links from now on; what the workers ask and answer by.
fn run_links(
    config: &Config,
    (world, events, rekey): (&SharedWorld, &Events, Rekey),
    (svid, trust): (NodeSvid, Trust),
    credentials: mpsc::Receiver<Credential>,
) -> Result<(Arc<Links>, mpsc::Sender<Stranger>)> {
    let attestation = Attestation::begin(config, events, &svid, &trust)?;
    let (links, demands) = Links::new(trust, attestation);
    let (links_in, strangers) = mpsc::channel(HANDSHAKES_INBOUND);
    let shared = (Arc::clone(&links), world.clone(), events.clone());
    let manager = Manager::new(shared, svid, (config.suites.clone(), rekey))?;
    tokio::spawn(manager.run(demands, strangers, credentials));
    Ok((links, links_in))
}

/// Until a successor serves and nothing is left here, or somebody asks to stop.
async fn until_the_end(
    observed: &Observed,
    beats: Beats,
    succession: Succession,
    offer: Offer,
    service: ServiceLock,
) -> Result<()> {
    tokio::select! {
        successor = succession.succeeded(&offer) => {
            drop((service, succession));
            tokio::select! {
                () = handover::retire(&successor, offer, observed) => Ok(()),
                stopped = stopped(observed) => {
                    grace(observed).await;
                    stopped
                }
            }
        }
        stopped = stopped(observed) => {
            stopped?;
            // connect() fails at once from now on, rather than meet a port where nobody is.
            beats.rest()?;
            grace(observed).await;
            Ok(())
        }
    }
}

/// The sockets at which this daemon is found, bound before anything is changed.
struct Doors {
    admin: AdminSocket,
    /// None where attestation is off.
    attest: Option<(AttestSocket, Cgroups)>,
    succession: Succession,
}

impl Doors {
    fn bind(config: &Config) -> Result<Self> {
        let run_dir = &config.run_dir;
        let is_attested = config.attestation.mode != AttestationMode::Off;
        let bound = || {
            let attest = match is_attested {
                true => Some((AttestSocket::bind(run_dir)?, Cgroups::of(config)?)),
                false => None,
            };
            std::io::Result::Ok(Self {
                admin: AdminSocket::bind(run_dir)?,
                attest,
                succession: Succession::bind(run_dir)?,
            })
        };
        bound().with_context(|| format!("open sockets in {}", run_dir.display()))
    }

    /// From now on it is this daemon that is asked.
    fn publish(self, observed: &Observed, log: EventLog) -> Result<Succession> {
        tokio::spawn(self.admin.publish(observed.clone(), log)?);
        if let Some((socket, cgroups)) = self.attest {
            let answers = (observed.links.attestation.local(), observed.events.clone());
            let callers = (cgroups, observed.world.clone());
            tokio::spawn(socket.publish(answers, callers)?);
        }
        self.succession.publish()?;
        Ok(self.succession)
    }
}

/// Puts the programs in their places, and says which generation they are. Until the workers beat
/// themselves, connect() counts on them: their listeners are open.
fn take_hooks(capture: &Mutex<Capture>, workers: u16, world: &SharedWorld) -> Result<String> {
    let mut capture = capture.lock().unwrap_or_else(PoisonError::into_inner);
    let beats = capture.beats();
    (0..workers).try_for_each(|worker| beats.beat(worker))?;
    capture.attach(|_| fault::point("start-swapped"))?;
    world.tables().attached(Instant::now());
    fault::point("start-attached");
    Ok(format!("generation {} attached", capture.generation()))
}

/// Until no other daemon accepts connections.
async fn stand_alone(predecessor: Option<&Predecessor>) -> Result<()> {
    if let Some(predecessor) = predecessor {
        predecessor.stand_by().await?;
    }
    fault::point("start-alone");
    Ok(())
}

/// What the kernel is asked for and cannot do is said once, and done in userspace. How keys end is
/// for all links, and a test may force it.
fn kernel_records(config: &Config, events: &Events) -> (KernelRecords, Rekey) {
    let canaries = match config.records {
        RecordsMode::Userspace => Vec::new(),
        RecordsMode::Auto | RecordsMode::Kernel => canary::sing(),
    };
    let hold_several = pipes_hold_several(&canaries);
    let chosen = KernelRecords::choose(config.records, &config.suites, &canaries, |suite| {
        calibrate(suite, hold_several, CALIBRATION_LIMIT)
    });
    for choice in chosen.choices() {
        if choice.missing {
            events.kernel_records_missing(choice.suite, &choice.reason);
        }
    }
    let rekey = match fault::is("continue") {
        true => Rekey::Continue,
        false => chosen.rekey(),
    };
    (chosen, rekey)
}

/// Collects what is reported from now on.
fn begin_events(config: &Config) -> (Events, EventLog) {
    let (events, reported) = Events::new(config.trust_domain.clone());
    let log = EventLog::default();
    tokio::spawn(log.clone().collect(reported));
    (events, log)
}

/// Of what the programs tell; without a predecessor also of what nobody read while no daemon ran.
fn readers(capture: &mut Capture, follows_another: bool) -> Vec<EventReader> {
    let mut readers = Vec::from_iter(capture.events());
    if !follows_another {
        readers.extend(capture.left_behind());
    }
    readers
}

/// Makes of what the programs tell from now on what an operator should know.
fn follow_programs(
    config: &Arc<Config>,
    told: Vec<EventReader>,
    (world, events, refusals): (&SharedWorld, &Events, &Refusals),
) -> Result<Uncapturable> {
    let kernel = KernelEvents {
        config: Arc::clone(config),
        world: world.clone(),
        uncapturable: Uncapturable::default(),
        refusals: refusals.clone(),
        events: events.clone(),
        since_ns: kedge_capture::now_ns()?,
    };
    let uncapturable = kernel.uncapturable.clone();
    for reader in told {
        tokio::spawn(control::report_events(reader, kernel.clone()));
    }
    Ok(uncapturable)
}

/// What all workers share.
struct Crew {
    config: Arc<Config>,
    world: SharedWorld,
    links: Arc<Links>,
    links_in: mpsc::Sender<Stranger>,
    claims: Claims,
    refusals: Refusals,
    beats: Beats,
    uncapturable: Uncapturable,
    gate: Gate,
    predecessor: Option<PassOn>,
    events: Events,
    kernel_records: KernelRecords,
}

impl Crew {
    /// One thread each; the senders are what they are passed carriers by. A worker that ends takes
    /// the process with it: its share of connections would have nobody otherwise, and a supervisor
    /// can start the daemon anew.
    fn start(
        self,
        listeners: Listeners,
        registries: &[Arc<Registry>],
        flows_max: usize,
    ) -> Result<Vec<mpsc::Sender<Passed>>> {
        let shares = listeners.of_workers.into_iter().zip(registries);
        let mut passed_in = Vec::new();
        let continuations = Continuations::default();
        for (index, (listeners, registry)) in (0..).zip(shares) {
            let (sender, passed) = mpsc::channel(CARRIERS_PASSED);
            passed_in.push(sender);
            let equipment = Equipment {
                index,
                world: self.world.clone(),
                links: Arc::clone(&self.links),
                links_in: self.links_in.clone(),
                claims: self.claims.clone(),
                refusals: self.refusals.clone(),
                sources: SourceAddresses::new(&self.config.capture),
                probe_ends: self.config.capture.probe_ends(),
                uncapturable: self.uncapturable.clone(),
                beats: self.beats.clone(),
                events: self.events.clone(),
                registry: Arc::clone(registry),
                listeners,
                gate: self.gate.clone(),
                predecessor: self.predecessor.clone(),
                passed,
                flows_max,
                kernel_records: self.kernel_records.clone(),
                continuations: continuations.clone(),
            };
            thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || {
                    let error = worker::serve(equipment).err();
                    tracing::error!(worker = index, ?error, "worker ended");
                    std::process::exit(1);
                })?;
        }
        Ok(passed_in)
    }
}

/// Flows per worker, beside its pipes. Each has two descriptors, and one that continues a third when
/// its directions are on two carriers. The attestation socket has descriptors of its own.
fn flows_max(descriptors: u64, config: &Config, rekey: Rekey) -> usize {
    let each = match rekey {
        Rekey::InPlace => 2,
        Rekey::Continue => 3,
    };
    let reserved = match config.attestation.mode {
        AttestationMode::Off => DESCRIPTORS_RESERVED,
        _ => DESCRIPTORS_RESERVED + ATTEST_CONNECTIONS as u64,
    };
    let flows = descriptors.saturating_sub(reserved) / each / u64::from(config.workers);
    usize::try_from(flows)
        .unwrap_or(usize::MAX)
        .saturating_sub(PIPES_PER_WORKER)
}

fn capture_config(config: &Config, own: &Path) -> Result<CaptureConfig> {
    Ok(CaptureConfig {
        cgroup_root: config.cgroup_root.clone(),
        daemon_cgroup: own.to_owned(),
        bpffs: config.bpffs.clone(),
        ipv4: config.capture.ipv4,
        ipv6: config.capture.ipv6,
        port_base: config.capture.port,
        workers: config.workers,
        peer_port: config.peer.port,
        queue_places: socket::queue_places().context("read net.core.somaxconn")?,
        debug: config.capture.debug,
    })
}

fn read_object(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| {
        format!(
            "read BPF object {}: `cargo xtask build` makes target/bpf/kedge.bpf.o; copy it there, or set `object`",
            path.display()
        )
    })
}

/// Until somebody asks to stop.
async fn stopped(observed: &Observed) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    observed.events.say(EventKind::Stopping, "asked to stop");
    Ok(())
}

/// Gives live flows a while to end.
async fn grace(observed: &Observed) {
    let deadline = Instant::now() + SHUTDOWN_GRACE;
    while observed.flows_live() > 0 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
