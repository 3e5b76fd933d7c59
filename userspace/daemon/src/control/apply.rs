//! Keeps snapshot, programs and links in step with the files.

use crate::config::Config;
use crate::control::cgroups::{self, CgroupError};
use crate::control::farewells::Farewells;
use crate::control::sources::{self, SourceError, Sources};
use crate::errno::{ECONNREFUSED, EHOSTUNREACH};
use crate::events::{Events, chain};
use crate::links::Credential;
use crate::older;
use crate::world::{SharedWorld, World};
use kedge_api::EventKind;
use kedge_capture::{Capture, CaptureError, Cgroup, CgroupKind, LocalPod, Rule, Verdict};
use kedge_directory::Directory;
use kedge_identity::{NodeSvid, Trust};
use kedge_model::Mode;
use kedge_policy::{LocalWorkload, Policy, Verdicts};
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};
use tokio::sync::mpsc;

#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Capture(#[from] CaptureError),
}

/// When each source was last taken, in seconds since 1970, for `kedge status`.
#[derive(Default)]
pub struct Ages {
    pub directory: AtomicU64,
    pub policy: AtomicU64,
    pub svid_not_after: AtomicU64,
}

pub struct Control {
    config: Arc<Config>,
    world: SharedWorld,
    capture: Arc<Mutex<Capture>>,
    events: Events,
    credentials: mpsc::Sender<Credential>,
    pub ages: Arc<Ages>,
    /// The leaf in use, to tell a new one.
    leaf: Vec<u8>,
    trust: Trust,
    rejected: Rejected,
    applied: Option<(Verdicts, Vec<Cgroup>)>,
    farewells: Farewells,
    /// Cgroups of local workloads in `require`.
    required: HashSet<u64>,
}

/// The last complaint about each source, so that each is made once.
#[derive(Default)]
struct Rejected {
    directory: Option<String>,
    policy: Option<String>,
    svid: Option<String>,
    trust: Option<String>,
    applying: Option<String>,
}

/// The first good version of everything; the daemon does not start without.
pub struct Initial {
    pub world: World,
    pub svid: NodeSvid,
    pub trust: Trust,
}

impl Initial {
    pub fn read(config: &Config) -> Result<Self, SourceError> {
        let world = World {
            node: config.node.clone(),
            trust_domain: config.trust_domain.clone(),
            directory: sources::read_directory(config)?,
            policy: sources::read_policy(config)?,
            cgroups: Default::default(),
        };
        Ok(Self {
            world,
            svid: sources::read_svid(config)?,
            trust: sources::read_trust(config)?,
        })
    }
}

impl Control {
    pub fn new(
        config: Arc<Config>,
        world: SharedWorld,
        capture: Arc<Mutex<Capture>>,
        events: Events,
        credentials: mpsc::Sender<Credential>,
        (svid, trust): (&NodeSvid, &Trust),
    ) -> Self {
        let ages = Arc::new(Ages::default());
        ages.directory.store(now_s(), Relaxed);
        ages.policy.store(now_s(), Relaxed);
        ages.svid_not_after
            .store(svid.not_after().as_secs(), Relaxed);
        let leaf = svid.chain()[0].to_vec();
        let (rejected, applied) = (Rejected::default(), None);
        Self {
            config,
            world,
            capture,
            events,
            credentials,
            ages,
            leaf,
            trust: trust.clone(),
            rejected,
            applied,
            farewells: Farewells::default(),
            required: HashSet::new(),
        }
    }

    /// Follows the files until the process ends.
    pub async fn run(mut self, sources: Sources) {
        loop {
            self.tell_older();
            sources.changed(self.world.wanted()).await;
            self.refresh().await;
        }
    }

    async fn refresh(&mut self) {
        self.capture().flush_logs();
        self.refresh_trust().await;
        self.refresh_svid().await;
        let directory = self.newer_directory();
        let policy = self.newer_policy();
        let world = self.world.load();
        let directory = directory.unwrap_or_else(|| world.directory.clone());
        let policy = policy.unwrap_or_else(|| world.policy.clone());
        drop(world);
        let complaint = self
            .apply(directory, policy)
            .err()
            .map(|error| chain(&error));
        if complaint != self.rejected.applying {
            if let Some(cause) = &complaint {
                self.events.capture_failed(cause);
            }
            self.rejected.applying = complaint;
        }
    }

    /// Workers decide by the new snapshot at once, whatever becomes of the programs' tables: a
    /// deny must not wait for room in a map. What a table did not take is tried again.
    pub fn apply(&mut self, directory: Directory, policy: Policy) -> Result<(), ApplyError> {
        let verdicts = kedge_policy::compile(&directory, &policy, &self.config.node);
        let found = cgroups::find(&self.config, &verdicts.workloads)?;
        let wanted = (verdicts, found.cgroups);
        let now = Instant::now();
        if self.applied.as_ref() == Some(&wanted) && !self.farewells.are_due(now) {
            return Ok(());
        }
        let mut told = translate(&wanted.0, &directory, &found.workloads);
        capture_own(&mut told, self.config.capture.probe_ends());
        // kedged's own guard lets it speak to peers, and to whoever attests it. It knows one port an
        // address, which is a node's peer port first.
        let verifier = self.config.attestation.verifier;
        let is_free = |at: &SocketAddr| told.nodes.iter().all(|node| node.ip() != at.ip());
        told.nodes.extend(verifier.filter(is_free));
        told.nodes = self.farewells.take(told.nodes, now);
        self.world.replace(World {
            node: self.config.node.clone(),
            trust_domain: self.config.trust_domain.clone(),
            directory,
            policy,
            cgroups: found.workloads,
        });
        let (tables, versions) = (self.world.tables(), self.world.load().versions());
        let mut capture = self.capture();
        tables.end(Instant::now());
        capture.replace_cgroups(&wanted.1)?;
        capture.replace_verdicts(&told)?;
        tables.begin(versions, Instant::now());
        drop(capture);
        self.applied = Some(wanted);
        Ok(())
    }

    /// Whoever has just been put in `require` may have connections that are older than that.
    fn tell_older(&mut self) {
        let Some((_, cgroups)) = &self.applied else {
            return;
        };
        let is_required =
            |cgroup: &&Cgroup| cgroup.kind == CgroupKind::Workload && cgroup.mode == Mode::Require;
        let required: HashSet<_> = cgroups.iter().filter(is_required).map(|c| c.id).collect();
        let newly: Vec<_> = required.difference(&self.required).copied().collect();
        self.required = required;
        if newly.is_empty() {
            return;
        }
        let (config, world) = (Arc::clone(&self.config), self.world.load_full());
        let events = self.events.clone();
        tokio::task::spawn_blocking(move || {
            let newly = newly.iter().filter_map(|id| world.workload_in(*id));
            let found = older::of(&config, &world, newly);
            for of_one in found.sockets.chunk_by(|a, b| a.uid == b.uid) {
                events.older_plaintext(of_one, world.versions());
            }
        });
    }

    fn capture(&self) -> MutexGuard<'_, Capture> {
        self.capture.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn newer_directory(&mut self) -> Option<Directory> {
        let offered = sources::read_directory(&self.config).and_then(|next| {
            let path = &self.config.directory;
            self.world
                .load()
                .directory
                .accept_newer(next)
                .map_err(|source| SourceError::Directory {
                    path: path.clone(),
                    source,
                })
        });
        let newer = take(offered, &mut self.rejected.directory, |cause| {
            self.events.rejected(EventKind::DirectoryRejected, cause);
        })??;
        self.ages.directory.store(now_s(), Relaxed);
        let version = newer.version();
        self.events
            .say(EventKind::DirectoryChanged, format!("version {version}"));
        Some(newer)
    }

    fn newer_policy(&mut self) -> Option<Policy> {
        let read = sources::read_policy(&self.config);
        let newer = take(read, &mut self.rejected.policy, |cause| {
            self.events.rejected(EventKind::PolicyRejected, cause);
        })?;
        if newer.version() == self.world.load().policy.version() {
            return None;
        }
        self.ages.policy.store(now_s(), Relaxed);
        self.events.say(
            EventKind::PolicyChanged,
            format!("version {}", newer.version()),
        );
        Some(newer)
    }

    /// A new leaf goes to the link manager, which renews every link under it.
    async fn refresh_svid(&mut self) {
        let read = sources::read_svid(&self.config);
        let svid = take(read, &mut self.rejected.svid, |cause| {
            self.events.rejected(EventKind::SvidRejected, cause);
        });
        let Some(svid) = svid.filter(|svid| *svid.chain()[0] != self.leaf) else {
            return;
        };
        self.leaf = svid.chain()[0].to_vec();
        self.ages
            .svid_not_after
            .store(svid.not_after().as_secs(), Relaxed);
        // The manager has gone: the daemon is ending.
        let _ = self.credentials.send(Credential::Svid(svid)).await;
    }

    /// Another bundle or revocation list goes to the link manager, which believes no other from
    /// then on.
    async fn refresh_trust(&mut self) {
        let read = sources::read_trust(&self.config);
        let trust = take(read, &mut self.rejected.trust, |cause| {
            self.events.rejected(EventKind::TrustRejected, cause);
        });
        let Some(trust) = trust.filter(|trust| *trust != self.trust) else {
            return;
        };
        self.trust = trust.clone();
        self.events.say(EventKind::TrustChanged, trust.to_string());
        // The manager has gone: the daemon is ending.
        let _ = self.credentials.send(Credential::Trust(trust)).await;
    }
}

/// The good value; or a complaint, unless it is the same as the last one.
fn take<T>(
    read: Result<T, SourceError>,
    last: &mut Option<String>,
    complain: impl FnOnce(&str),
) -> Option<T> {
    match read {
        Ok(value) => {
            *last = None;
            Some(value)
        }
        Err(error) => {
            let cause = chain(&error);
            if last.as_ref() != Some(&cause) {
                complain(&cause);
                *last = Some(cause);
            }
            None
        }
    }
}

/// The daemon's own ends are captured too, in every mode that captures: see
/// [`crate::dataplane::probe`].
fn capture_own(told: &mut kedge_capture::Verdicts, ends: [SocketAddr; 2]) {
    let own = ends.map(|end| Rule {
        net: end.ip().into(),
        port: Some(end.port()),
        verdict: Verdict::Capture,
    });
    told.permissive.extend(own);
    told.require.extend(own);
}

/// From policy's terms to the programs'.
fn translate(
    verdicts: &Verdicts,
    directory: &Directory,
    cgroups: &HashMap<u64, Arc<str>>,
) -> kedge_capture::Verdicts {
    let rules = |entries: &[kedge_policy::VerdictEntry]| entries.iter().map(rule).collect();
    let cgroup_of: HashMap<_, _> = cgroups.iter().map(|(id, uid)| (uid, *id)).collect();
    let local = verdicts
        .workloads
        .iter()
        .flat_map(|workload| local_pods(workload, cgroup_of.get(&workload.uid).copied()));
    let nodes = directory.nodes().iter().filter(|node| node.kedge);
    let nodes = nodes.flat_map(|node| node.peer_addresses());
    kedge_capture::Verdicts {
        permissive: rules(&verdicts.permissive),
        require: rules(&verdicts.require),
        local_pods: local.collect(),
        nodes: nodes
            .map(|address| -> SocketAddr { address.socket_addr() })
            .collect(),
    }
}

/// A workload's only address of a family is the one that its connections to that address come
/// from, by which the guard knows that they stay in the pod. Of several, any may be the source.
fn local_pods(workload: &LocalWorkload, cgroup_id: Option<u64>) -> Vec<LocalPod> {
    let is_only = |ip: &IpAddr| {
        let of_family = |other: &&IpAddr| other.is_ipv4() == ip.is_ipv4();
        workload.addresses.iter().filter(of_family).count() == 1
    };
    let pod = |ip: &IpAddr| LocalPod {
        ip: *ip,
        cgroup_id: cgroup_id.filter(|_| is_only(ip)),
    };
    workload.addresses.iter().map(pod).collect()
}

fn rule(entry: &kedge_policy::VerdictEntry) -> Rule {
    let verdict = match entry.verdict {
        kedge_policy::Verdict::Capture => Verdict::Capture,
        kedge_policy::Verdict::Pass => Verdict::Pass,
        kedge_policy::Verdict::Refuse => Verdict::Refuse(EHOSTUNREACH),
        kedge_policy::Verdict::Unserved => Verdict::Refuse(ECONNREFUSED),
    };
    Rule {
        net: entry.prefix,
        port: entry.port,
        verdict,
    }
}

fn now_s() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_that_is_alone_in_its_family_stays_within_the_pod() {
        let workload = LocalWorkload {
            uid: "pod-1".into(),
            cgroup: "pods/pod".to_owned(),
            mode: Mode::Require,
            addresses: ["10.1.0.1", "10.1.0.2", "fd00::1"]
                .map(|ip| ip.parse().expect("literal"))
                .to_vec(),
            probe_ports: Vec::new(),
        };
        let cgroups = |id| {
            local_pods(&workload, id)
                .into_iter()
                .map(|pod| pod.cgroup_id)
        };
        assert!(cgroups(Some(7)).eq([None, None, Some(7)]));
        assert!(cgroups(None).eq([None; 3]));
    }
}
