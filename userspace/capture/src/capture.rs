//! One generation of the programs: loaded, pinned, attached, and fed.

use crate::bpf;
use crate::claims::Claims;
use crate::config::CaptureConfig;
use crate::error::CaptureError;
use crate::events::{Counters, EventReader};
use crate::pins::{Pins, cgroup_id, check_cgroup2};
use crate::prefixes::Exchange;
use crate::queues::Queues;
use crate::refusals::Refusals;
use crate::table::{Mirror, Plain, Table};
use crate::verdicts::{Compiler, Verdicts, class_of, places};
use crate::{load, netns};
use kedge_abi::{
    Address, CgroupEntry, LpmKey, Place, PortKey, ProbePort, Slot, VerdictEntry, class, kind,
    limits, map,
};
use kedge_model::Mode;
use nix::time::{ClockId, clock_gettime};
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What a cgroup is to the programs; its mode stands beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupKind {
    Workload,
    /// What is unknown below it takes this entry's mode.
    ManagedRoot,
    /// Whose connections `require` workloads admit at their probe ports (kubelet).
    Probe,
}

/// One cgroup that the programs shall know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// As [`cgroup_id`] gives it.
    pub id: u64,
    pub mode: Mode,
    pub kind: CgroupKind,
    /// The ports of a workload at which `require` admits probes.
    pub probe_ports: Vec<u16>,
}

impl Cgroup {
    fn probe_ports(&self) -> impl Iterator<Item = (ProbePort, u32)> {
        let ports = self.probe_ports.iter();
        ports.map(|port| (ProbePort::new(self.id, u32::from(*port)), 0))
    }

    fn entry(&self) -> (u64, CgroupEntry) {
        let kind = match self.kind {
            CgroupKind::Workload => kind::WORKLOAD,
            CgroupKind::ManagedRoot => kind::MANAGED_ROOT,
            CgroupKind::Probe => kind::PROBE,
        };
        let class = class_of(self.mode);
        (self.id, CgroupEntry { class, kind })
    }
}

/// A generation of the programs, with tables of its own: loaded, then fed, then attached. Dropping
/// it leaves everything pinned and attached, so that nothing passes unguarded while no daemon
/// runs; [`crate::off`] ends that.
pub struct Capture {
    loaded: load::Loaded,
    pins: Pins,
    cgroup_root: PathBuf,
    daemon_cgroup: u64,
    cgroups: Mirror<u64, CgroupEntry>,
    probe_ports: Mirror<ProbePort, u32>,
    verdicts: Mirror<LpmKey, VerdictEntry>,
    ports: Mirror<PortKey, u32>,
    places: Mirror<Address, Place>,
    compiler: Compiler,
    claims: Claims,
    refusals: Refusals,
    /// Counted by the programs for each cgroup.
    pending: Table<u64, i64>,
    queues: Queues,
    beats: Beats,
    counters: OwnedFd,
    possible_cpus: usize,
    events: Option<EventReader>,
    logger: Option<load::Logger>,
}

impl Capture {
    /// Loads the programs of `object` against the state that is pinned (or a new one) and new
    /// tables. What is attached stays as it is, and reads none of them.
    ///
    /// # Errors
    /// See [`CaptureError`].
    pub fn load(config: &CaptureConfig, object: &[u8]) -> Result<Self, CaptureError> {
        config.validate()?;
        check_cgroup2(&config.cgroup_root)?;
        let pins = Pins::create(&config.bpffs)?;
        let mut loaded = load::load(config, &pins, object)?;
        let netns = netns::own_cookie().map_err(CaptureError::system("netns cookie", "own"))?;
        let root = config.root(pins.generation, netns);
        let queues = Queues::new(root, pins.table(map::ROOT)?, pins.table(map::QUEUES)?);
        write(map::ROOT, queues.write_root())?;
        fill_slots(&pins.table(map::SLOTS)?, config, pins.generation)?;
        let ports = mirror(&pins, map::PORTS)?;
        let mut capture = Self {
            cgroup_root: config.cgroup_root.clone(),
            daemon_cgroup: id_of(&config.daemon_cgroup)?,
            cgroups: mirror(&pins, map::CGROUPS)?,
            probe_ports: mirror(&pins, map::PROBE_PORTS)?,
            verdicts: mirror(&pins, map::VERDICTS)?,
            places: mirror(&pins, map::PLACES)?,
            compiler: Compiler::after(ports.held()),
            ports,
            claims: Claims::new(pins.table(map::ACCEPTED)?, pins.table(map::DELIVERIES)?),
            refusals: Refusals::new(pins.table(map::REFUSALS)?),
            pending: pins.table(map::PENDING)?,
            queues,
            beats: Beats::new(pins.table(map::BEATS)?),
            counters: pins.open_map(map::COUNTERS)?,
            possible_cpus: possible_cpus()?,
            events: Some(EventReader::new(loaded.ring(map::EVENTS)?)),
            logger: config.debug.then(|| loaded.logger()).flatten(),
            loaded,
            pins,
        };
        capture.replace_cgroups(&[])?;
        Ok(capture)
    }

    /// Puts the programs on their hooks, in the place of those that are there: consumers first,
    /// connect last. Fill the tables before, and let every worker beat. `after_each` is told the
    /// name of each program that is in its place.
    ///
    /// A successor that did not come to serve is undone by calling this again.
    ///
    /// # Errors
    /// If a hook cannot be taken; those before it are, and run with full tables.
    pub fn attach(&mut self, after_each: impl FnMut(&'static str)) -> Result<(), CaptureError> {
        write(map::QUEUES, self.queues.begin_round())?;
        self.loaded
            .attach(&self.pins, &self.cgroup_root, after_each)?;
        let forgotten = self.pins.forget_others();
        forgotten.map_err(CaptureError::system("remove", "earlier generations"))
    }

    /// Grows by one with every start.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.pins.generation
    }

    /// Makes the programs decide by exactly these verdicts, as a difference to what they had: each
    /// address is decided by the old ones until it is decided by the new ones.
    ///
    /// # Errors
    /// If there is no room for the prefixes; nothing is written then, since some of them without the
    /// others could pass what the others refuse. If another map is full, or one cannot be written:
    /// what was written until then holds.
    pub fn replace_verdicts(&mut self, verdicts: &Verdicts) -> Result<(), CaptureError> {
        let compiled = self.compiler.compile(verdicts);
        let exchange = self.exchange(&compiled.verdicts)?;
        write(map::PLACES, self.places.replace(&places(verdicts)))?;
        write(map::PORTS, self.ports.add(&compiled.ports))?;
        write(map::VERDICTS, self.verdicts.write(&exchange.writes))?;
        write(map::VERDICTS, self.verdicts.delete(&exchange.deletes))?;
        self.forget_ports(&compiled.ports)
    }

    /// A program may have read the name of a set of ports that is gone, and not the set yet.
    fn forget_ports(&mut self, wanted: &HashMap<PortKey, u32>) -> Result<(), CaptureError> {
        let gone = self.ports.gone(wanted);
        if !gone.is_empty() {
            bpf::wait_for_programs().map_err(CaptureError::system("wait for", "programs"))?;
        }
        write(map::PORTS, self.ports.delete(&gone))
    }

    /// From the prefixes that are there to these.
    fn exchange(
        &self,
        wanted: &HashMap<LpmKey, VerdictEntry>,
    ) -> Result<Exchange<VerdictEntry>, CaptureError> {
        let (writes, deletes) = (self.verdicts.missing(wanted), self.verdicts.gone(wanted));
        let prefixes = wanted.len() + deletes.len();
        if prefixes > limits::VERDICTS as usize {
            return Err(CaptureError::Prefixes { prefixes });
        }
        Ok(Exchange::in_order(writes, deletes))
    }

    /// Makes the programs know exactly these cgroups with their probe ports, and the daemon's own.
    ///
    /// # Errors
    /// If the map is full or cannot be written.
    pub fn replace_cgroups(&mut self, cgroups: &[Cgroup]) -> Result<(), CaptureError> {
        let mut wanted: HashMap<_, _> = cgroups.iter().map(Cgroup::entry).collect();
        wanted.insert(self.daemon_cgroup, DAEMON);
        write(map::CGROUPS, self.cgroups.replace(&wanted))?;
        let probe_ports = cgroups.iter().flat_map(Cgroup::probe_ports).collect();
        write(map::PROBE_PORTS, self.probe_ports.replace(&probe_ports))?;
        write(map::PENDING, self.forget_pending(&wanted))?;
        write(map::QUEUES, self.queues.forget_others(&wanted))
    }

    /// A cgroup that is gone has no claims and needs no count.
    fn forget_pending(&self, wanted: &HashMap<u64, CgroupEntry>) -> io::Result<()> {
        for cgroup in self.pending.keys()? {
            if !wanted.contains_key(&cgroup) && self.pending.look_up(&cgroup)? == Some(0) {
                self.pending.remove(&cgroup)?;
            }
        }
        Ok(())
    }

    /// A handle for whoever learns what is refused.
    #[must_use]
    pub fn refusals(&self) -> Refusals {
        self.refusals.clone()
    }

    /// A handle for a worker: claims and deliveries.
    #[must_use]
    pub fn claims(&self) -> Claims {
        self.claims.clone()
    }

    /// A handle for a worker: its sign of life.
    #[must_use]
    pub fn beats(&self) -> Beats {
        self.beats.clone()
    }

    /// The reader of events; there is one, so the second call gives `None`.
    pub fn events(&mut self) -> Option<EventReader> {
        self.events.take()
    }

    /// Readers of what the programs of earlier generations have told, and still tell until
    /// [`Capture::attach`]. Only where no other daemon lives, which would read the same.
    #[must_use]
    pub fn left_behind(&self) -> Vec<EventReader> {
        let earlier = self.pins.others().unwrap_or_default();
        let rings = earlier.iter().filter_map(Pins::ring_of_this_layout);
        rings.map(EventReader::new).collect()
    }

    /// # Errors
    /// If the map cannot be read.
    pub fn counters(&self) -> Result<Counters, CaptureError> {
        Counters::read(&self.counters, self.possible_cpus)
            .map_err(CaptureError::system("read", map::COUNTERS))
    }

    /// Hands what the programs have logged to the `log` crate's logger; there is something only
    /// with [`CaptureConfig::debug`].
    pub fn flush_logs(&mut self) {
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
    }
}

/// The workers' signs of life: connect() picks among those that have beaten within
/// [`kedge_abi::limits::BEAT_FRESH_NS`].
#[derive(Clone, Debug)]
pub struct Beats {
    table: Table<u32, u64>,
    at_rest: Arc<Mutex<bool>>,
}

impl Beats {
    /// A worker that has not beaten for so long gets no connections.
    pub const FRESH: Duration = Duration::from_nanos(limits::BEAT_FRESH_NS);

    fn new(table: Table<u32, u64>) -> Self {
        Self {
            table,
            at_rest: Arc::default(),
        }
    }

    /// Says that `worker` has just done real work. Call it at least once a second.
    ///
    /// # Errors
    /// If there is no such worker.
    pub fn beat(&self, worker: u16) -> io::Result<()> {
        let at_rest = self.at_rest.lock().unwrap_or_else(PoisonError::into_inner);
        if *at_rest {
            return Ok(());
        }
        self.table.insert(&worker.into(), &now_ns()?)
    }

    /// Says that no worker takes connections any more, whoever beats after that.
    ///
    /// # Errors
    /// If the map cannot be written.
    pub fn rest(&self) -> io::Result<()> {
        let mut at_rest = self.at_rest.lock().unwrap_or_else(PoisonError::into_inner);
        *at_rest = true;
        (0..limits::WORKERS).try_for_each(|worker| self.table.insert(&worker, &0))
    }
}

/// The time by the programs' clock, CLOCK_MONOTONIC, in nanoseconds.
///
/// # Errors
/// If there is no such clock.
pub fn now_ns() -> io::Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    let nanoseconds = Duration::from(now).as_nanos();
    u64::try_from(nanoseconds).map_err(io::Error::other)
}

const DAEMON: CgroupEntry = CgroupEntry {
    class: class::DAEMON,
    kind: kind::DAEMON,
};

fn fill_slots(
    slots: &Table<u32, Slot>,
    config: &CaptureConfig,
    generation: u64,
) -> Result<(), CaptureError> {
    for (index, slot) in config.slots(generation) {
        write(map::SLOTS, slots.insert(&index, &slot))?;
    }
    Ok(())
}

fn mirror<K: Plain + Eq + std::hash::Hash, V: Plain + PartialEq>(
    pins: &Pins,
    name: &'static str,
) -> Result<Mirror<K, V>, CaptureError> {
    Mirror::read(pins.table(name)?).map_err(CaptureError::system("read", name))
}

fn id_of(cgroup: &Path) -> Result<u64, CaptureError> {
    cgroup_id(cgroup).map_err(CaptureError::system("find cgroup", cgroup.display()))
}

fn possible_cpus() -> Result<usize, CaptureError> {
    aya::util::nr_cpus()
        .map_err(|(path, source)| CaptureError::system("read possible CPUs of", path)(source))
}

fn write(name: &'static str, result: io::Result<()>) -> Result<(), CaptureError> {
    result.map_err(CaptureError::system("write", name))
}
