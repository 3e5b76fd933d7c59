//! From a configuration to a daemon that serves: what needs what, in order.

use crate::config::{Config, RecordsMode};
use crate::control::{self, Control, Initial, KernelEvents, Sources, join_own};
use crate::dataplane::delivery::SourceAddresses;
use crate::dataplane::kernel_records::KernelRecords;
use crate::dataplane::registry::Registry;
use crate::dataplane::worker::{self, Equipment};
use crate::edge::{self, EventLog, Observed};
use crate::events::Events;
use crate::limits::{DESCRIPTORS_RESERVED, HANDSHAKES_INBOUND, PIPES_PER_WORKER, SHUTDOWN_GRACE};
use crate::links::{Links, Manager, Stranger};
use crate::uncapturable::Uncapturable;
use crate::world::SharedWorld;
use anyhow::{Context, Result};
use kedge_api::EventKind;
use kedge_capture::{Beats, Capture, CaptureConfig, Claims, EventReader};
use kedge_sys::{canary, process, socket};
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Reads everything that the configuration names, and changes nothing.
pub fn check(config: &Config) -> Result<()> {
    Initial::read(config)?;
    read_object(&config.object)?;
    Ok(())
}

/// Serves until SIGTERM or SIGINT. The programs stay attached when it returns: workloads in
/// `require` are refused rather than left in plaintext.
pub fn run(config: Config) -> Result<()> {
    let started = Instant::now();
    process::forbid_dumps().context("forbid core dumps")?;
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
    let listeners = Listeners::open(&config)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let capture = Capture::start(&capture_config(&config, &own), &object)?;
    runtime.block_on(serve(Start {
        config,
        initial,
        capture,
        listeners,
        descriptors,
        started,
    }))
}

struct Start {
    config: Arc<Config>,
    initial: Initial,
    capture: Capture,
    listeners: Listeners,
    descriptors: u64,
    started: Instant,
}

async fn serve(start: Start) -> Result<()> {
    let Start {
        config,
        initial,
        mut capture,
        listeners,
        descriptors,
        started,
    } = start;
    control::add_capture_routes(&config.capture).await?;
    let (events, log) = begin_events(&config);
    let told = capture.events();
    let attached = format!("generation {} attached", capture.generation());
    let (claims, beats) = (capture.claims(), capture.beats());
    let capture = Arc::new(Mutex::new(capture));

    let Initial { world, svid } = initial;
    let (directory, policy) = (world.directory.clone(), world.policy.clone());
    let world = SharedWorld::new(world);
    let uncapturable = follow_programs(&config, told, (&world, &events))?;
    let (svids_in, svids) = mpsc::channel(1);
    let mut control = Control::new(
        Arc::clone(&config),
        world.clone(),
        Arc::clone(&capture),
        events.clone(),
        svids_in,
        &svid,
    );
    control.apply(directory, policy)?;
    events.say(EventKind::CaptureStarted, attached);

    let (links, demands) = Links::new();
    let (links_in, strangers) = mpsc::channel(HANDSHAKES_INBOUND);
    let shared = (Arc::clone(&links), world.clone(), events.clone());
    let manager = Manager::new(shared, &svid, config.suites.clone())?;
    tokio::spawn(manager.run(demands, strangers, svids));
    let observed = Observed {
        config: Arc::clone(&config),
        world: world.clone(),
        links: Arc::clone(&links),
        registries: (0..config.workers).map(|_| Arc::default()).collect(),
        capture,
        events: events.clone(),
        ages: Arc::clone(&control.ages),
        uncapturable: uncapturable.clone(),
        started,
    };
    let crew = Crew {
        config: Arc::clone(&config),
        world,
        links,
        links_in,
        claims,
        beats,
        kernel_records: kernel_records(&config, &events),
        uncapturable,
        events: events.clone(),
    };
    let flows_max = flows_max(descriptors, config.workers);
    crew.start(listeners, &observed.registries, flows_max)?;
    let admin = edge::serve(&config.run_dir, observed.clone(), log)
        .with_context(|| format!("open admin socket in {}", config.run_dir.display()))?;
    tokio::spawn(admin);
    tokio::spawn(control.run(Sources::watch(&config)));
    let registries = observed.registries.clone();
    tokio::spawn(control::watch_workers(registries, events.clone()));
    events.say(EventKind::Started, format!("{} workers", config.workers));
    until_stopped(&observed, &events).await
}

/// What the kernel is asked for and cannot do is said once, and done in userspace.
fn kernel_records(config: &Config, events: &Events) -> KernelRecords {
    let canaries = match config.records {
        RecordsMode::Userspace => Vec::new(),
        RecordsMode::Kernel => canary::sing(),
    };
    let (chosen, reasons) = KernelRecords::choose(config.records, &canaries);
    for reason in reasons {
        events.kernel_records_missing(&reason);
    }
    chosen
}

/// Collects what is reported from now on.
fn begin_events(config: &Config) -> (Events, EventLog) {
    let (events, reported) = Events::new(config.trust_domain.clone());
    let log = EventLog::default();
    tokio::spawn(log.clone().collect(reported));
    (events, log)
}

/// Makes of what the programs tell from now on what an operator should know.
fn follow_programs(
    config: &Arc<Config>,
    told: Option<EventReader>,
    (world, events): (&SharedWorld, &Events),
) -> Result<Uncapturable> {
    let kernel = KernelEvents {
        config: Arc::clone(config),
        world: world.clone(),
        uncapturable: Uncapturable::default(),
        events: events.clone(),
        since_ns: kedge_capture::now_ns()?,
    };
    let uncapturable = kernel.uncapturable.clone();
    if let Some(reader) = told {
        tokio::spawn(control::report_events(reader, kernel));
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
    beats: Beats,
    uncapturable: Uncapturable,
    events: Events,
    kernel_records: KernelRecords,
}

impl Crew {
    /// One thread each. A worker that ends takes the process with it: its share of connections
    /// would have nobody otherwise, and a supervisor can start the daemon anew.
    fn start(
        self,
        listeners: Listeners,
        registries: &[Arc<Registry>],
        flows_max: usize,
    ) -> Result<()> {
        let shares = listeners.of_workers.into_iter().zip(registries);
        for (index, ((capture, peers), registry)) in (0..).zip(shares) {
            let equipment = Equipment {
                index,
                world: self.world.clone(),
                links: Arc::clone(&self.links),
                links_in: self.links_in.clone(),
                claims: self.claims.clone(),
                sources: SourceAddresses::new(&self.config.capture),
                probe_ends: self.config.capture.probe_ends(),
                uncapturable: self.uncapturable.clone(),
                beats: self.beats.clone(),
                events: self.events.clone(),
                registry: Arc::clone(registry),
                capture,
                peers,
                flows_max,
                kernel_records: self.kernel_records.clone(),
            };
            thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || {
                    let error = worker::serve(equipment).err();
                    tracing::error!(worker = index, ?error, "worker ended");
                    std::process::exit(1);
                })?;
        }
        Ok(())
    }
}

/// Each worker's own sockets; the kernel spreads peers' connections among them.
struct Listeners {
    of_workers: Vec<(TcpListener, Vec<TcpListener>)>,
}

impl Listeners {
    fn open(config: &Config) -> Result<Self> {
        let any = Ipv6Addr::UNSPECIFIED;
        let open = |address: SocketAddr| {
            socket::listen(address).with_context(|| format!("listen on {address}"))
        };
        let of_worker = |worker: u16| {
            let port = config.capture.port + worker;
            let peers = config.peer.listen.iter();
            let peers = peers.map(|ip| open(SocketAddr::new(*ip, config.peer.port)));
            Ok((
                open(SocketAddr::new(any.into(), port))?,
                peers.collect::<Result<_>>()?,
            ))
        };
        let of_workers = (0..config.workers).map(of_worker).collect::<Result<_>>()?;
        Ok(Self { of_workers })
    }
}

/// Flows per worker, two descriptors each, beside its pipes.
fn flows_max(descriptors: u64, workers: u16) -> usize {
    let pairs = descriptors.saturating_sub(DESCRIPTORS_RESERVED) / 2 / u64::from(workers);
    usize::try_from(pairs)
        .unwrap_or(usize::MAX)
        .saturating_sub(PIPES_PER_WORKER)
}

fn capture_config(config: &Config, own: &Path) -> CaptureConfig {
    CaptureConfig {
        cgroup_root: config.cgroup_root.clone(),
        daemon_cgroup: own.to_owned(),
        bpffs: config.bpffs.clone(),
        ipv4: config.capture.ipv4,
        ipv6: config.capture.ipv6,
        port_base: config.capture.port,
        workers: config.workers,
        peer_port: config.peer.port,
        debug: config.capture.debug,
    }
}

fn read_object(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| {
        format!(
            "read BPF object {}: `cargo xtask build` makes target/bpf/kedge.bpf.o; copy it there, or set `object`",
            path.display()
        )
    })
}

/// Waits for a signal, then gives live flows a while to end.
async fn until_stopped(observed: &Observed, events: &Events) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    events.say(EventKind::Stopping, "asked to stop");
    let deadline = Instant::now() + SHUTDOWN_GRACE;
    let live = || {
        observed
            .registries
            .iter()
            .any(|registry| registry.live() > 0)
    };
    while live() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
