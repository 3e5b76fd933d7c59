//! The daemon's state as the admin API tells it.

use crate::attestation::Attestation;
use crate::config::Config;
use crate::control::Ages;
use crate::dataplane::flow::Records;
use crate::dataplane::kernel_records::KernelRecords;
use crate::dataplane::refusals::Refusals;
use crate::dataplane::registry::{Carriage, FlowInfo, Phase, Registry};
use crate::edge::capabilities::unenforceable;
use crate::edge::kernel_tls::KernelTls;
use crate::events::Events;
use crate::limits::FLOWS_LISTED;
use crate::links::{Link, Links, PeerReport};
use crate::older;
use crate::uncapturable::Uncapturable;
use crate::world::SharedWorld;
use kedge_api::{
    AttestationMode, AttestationStatus, CaptureStatus, DirectoryStatus, Feature, Features,
    FlowPhase, FlowRole, Flows, LinkState, Listener, ListenerRole, PeerResult, PolicyStatus,
    SealedBy, Status, SuiteRecords, SvidStatus, Timestamp, TlsRole, WorkerStatus,
};
use kedge_attest::Standing;
use kedge_capture::Capture;
use kedge_link::Role;
use kedge_model::{NodeName, SpiffeId};
use kedge_sys::canary;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

/// Everything that the edge looks at, and never changes.
#[derive(Clone)]
pub struct Observed {
    pub config: Arc<Config>,
    pub world: SharedWorld,
    pub links: Arc<Links>,
    pub registries: Vec<Arc<Registry>>,
    pub capture: Arc<Mutex<Capture>>,
    pub events: Events,
    pub refusals: Refusals,
    pub ages: Arc<Ages>,
    pub uncapturable: Uncapturable,
    pub kernel_records: KernelRecords,
    pub kernel_tls: KernelTls,
    pub started: Instant,
}

impl Observed {
    /// With what is only found by looking at every process of the node's workloads: not for the
    /// runtime's own thread.
    pub fn whole_status(&self) -> Status {
        let mut status = self.status();
        status.capture.unenforceable = unenforceable(&self.config, &self.world.load_full());
        status
    }

    pub fn status(&self) -> Status {
        Status {
            node: self.config.node.clone(),
            trust_domain: self.config.trust_domain.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_s: self.started.elapsed().as_secs(),
            svid: self.svid(),
            directory: self.directory(),
            policy: self.policy(),
            capture: self.capture(),
            records: self.records(),
            attestation: self.attestation(),
            workers: self.workers(),
            listeners: self.listeners(),
            counters: self.counters(),
        }
    }

    /// Not for the runtime's own thread.
    pub fn sockets(&self) -> kedge_api::Sockets {
        older::list(&self.config, &self.world.load_full())
    }

    pub fn flows_live(&self) -> usize {
        self.registries.iter().map(|registry| registry.live()).sum()
    }

    fn svid(&self) -> SvidStatus {
        let not_after = self.ages.svid_not_after.load(Relaxed);
        SvidStatus {
            id: self.config.id(),
            not_after: Timestamp::from_unix_s(not_after),
            expires_in_s: not_after.cast_signed() - now_s().cast_signed(),
        }
    }

    fn directory(&self) -> DirectoryStatus {
        let world = self.world.load();
        DirectoryStatus {
            version: world.directory.version(),
            age_s: now_s().saturating_sub(self.ages.directory.load(Relaxed)),
            nodes: world.directory.nodes().len() as u64,
            workloads: world.directory.workloads().len() as u64,
            services: world.directory.services().len() as u64,
        }
    }

    fn policy(&self) -> PolicyStatus {
        let world = self.world.load();
        PolicyStatus {
            version: world.policy.version(),
            age_s: now_s().saturating_sub(self.ages.policy.load(Relaxed)),
            rules: world.policy.rules().len() as u64,
        }
    }

    fn capture(&self) -> CaptureStatus {
        let capture = self.capture.lock().unwrap_or_else(PoisonError::into_inner);
        let counters = capture.counters();
        let named = counters.iter().flat_map(|counters| counters.iter());
        CaptureStatus {
            generation: Some(capture.generation()),
            counters: named
                .map(|(name, count)| (name.to_owned(), count))
                .collect(),
            uncapturable: self.uncapturable.list(&self.world.load()),
            unenforceable: Vec::new(),
        }
    }

    fn records(&self) -> Vec<SuiteRecords> {
        let by = |records| match records {
            Records::Userspace => SealedBy::Userspace,
            Records::Kernel { after: 0, .. } => SealedBy::Kernel,
            Records::Kernel { .. } => SealedBy::KernelInBulk,
        };
        let choices = self.kernel_records.choices().iter();
        choices
            .map(|choice| SuiteRecords {
                suite: choice.suite,
                by: by(choice.records),
                reason: choice.reason.clone(),
            })
            .collect()
    }

    fn workers(&self) -> Vec<WorkerStatus> {
        let status = |(worker, registry): (u16, &Arc<Registry>)| WorkerStatus {
            worker,
            flows: registry.live() as u64,
            beat_age_ms: registry.beat_age_ms(),
        };
        (0..).zip(&self.registries).map(status).collect()
    }

    fn listeners(&self) -> Vec<Listener> {
        let peer = self.config.peer.listen.iter().map(|ip| Listener {
            role: ListenerRole::Peer,
            address: SocketAddr::new(*ip, self.config.peer.port),
        });
        let any = IpAddr::from(Ipv6Addr::UNSPECIFIED);
        let capture = (0..self.config.workers).map(|worker| Listener {
            role: ListenerRole::Capture,
            address: SocketAddr::new(any, self.config.capture.port + worker),
        });
        peer.chain(capture).collect()
    }

    pub fn attestation(&self) -> AttestationStatus {
        let attestation = &self.links.attestation;
        let mut status = attestation.status();
        if attestation.mode() != AttestationMode::Off {
            let links = self.links.all();
            status.peers = links.iter().map(|link| shown(attestation, link)).collect();
        }
        status
    }

    pub fn counters(&self) -> BTreeMap<String, u64> {
        let opened = self
            .registries
            .iter()
            .map(|registry| registry.opened_total())
            .sum();
        let mut counters = self.events.counters();
        counters.insert("flows.opened".to_owned(), opened);
        let changes = self
            .registries
            .iter()
            .map(|registry| registry.key_changes());
        let [sent, received] = changes.fold([0; 2], |[sent, received], worker| {
            [sent + worker[0], received + worker[1]]
        });
        counters.insert("keys.changed_sending".to_owned(), sent);
        counters.insert("keys.changed_receiving".to_owned(), received);
        let handshakes = self.links.handshakes_total.load(Relaxed);
        counters.insert("links.handshakes".to_owned(), handshakes);
        let standing = self.refusals.count() as u64;
        counters.insert("refusals.standing".to_owned(), standing);
        counters.extend(self.kernel_tls.counters());
        counters.extend(self.links.attestation.counters());
        counters
    }

    pub fn links(&self) -> kedge_api::Links {
        let reports = self.links.reports();
        let all = self.links.all();
        let live = all.iter().map(|link| {
            let report = reports.iter().find(|report| report.peer == link.peer);
            established(link, report)
        });
        let without = |report: &&PeerReport| all.iter().all(|link| link.peer != report.peer);
        let failed = reports
            .iter()
            .filter(without)
            .map(|report| self.missing(report));
        kedge_api::Links {
            links: live.chain(failed).collect(),
        }
    }

    /// A peer to which there is no link now.
    fn missing(&self, report: &PeerReport) -> kedge_api::Link {
        let state = match report.last_error {
            Some(_) => LinkState::Failed,
            None => LinkState::Connecting,
        };
        kedge_api::Link {
            peer: self.node_id(&report.peer),
            state,
            link_id: None,
            role: TlsRole::Client,
            group: None,
            tls_suite: None,
            flow_suite: None,
            age_s: 0,
            flows_opened: 0,
            flows_accepted: 0,
            identities: 0,
            handshakes_total: report.established,
            last_error: report.last_error.clone(),
        }
    }

    pub fn flows(&self) -> Flows {
        let total = self.flows_live();
        let flows = (0..).zip(&self.registries).flat_map(|(worker, registry)| {
            let list = registry.list().into_iter();
            list.map(move |(key, info)| self.flow(worker, registry, key, &info))
        });
        Flows {
            flows: flows.take(FLOWS_LISTED).collect(),
            truncated: total > FLOWS_LISTED,
        }
    }

    fn flow(
        &self,
        worker: u16,
        registry: &Registry,
        key: usize,
        info: &FlowInfo,
    ) -> kedge_api::Flow {
        let (meter, parties) = (&info.meter, &info.parties);
        kedge_api::Flow {
            id: key as u64,
            worker,
            role: role(&info.carriage),
            phase: match meter.phase() {
                Phase::AwaitingAnswer => FlowPhase::Answering,
                Phase::Open => FlowPhase::Open,
            },
            source: Some(parties.source.clone()),
            destination: Some(parties.destination.clone()),
            client: parties.client.socket_addr(),
            original_destination: parties.original_dst.socket_addr(),
            endpoint: Some(parties.endpoint),
            peer: info.carriage.peer().map(|peer| self.node_id(peer)),
            suite: info.carriage.suite(),
            bytes_sent: meter.sent_bytes.load(Relaxed),
            bytes_received: meter.received_bytes.load(Relaxed),
            record_sent: meter.sent_records.load(Relaxed),
            record_received: meter.received_records.load(Relaxed),
            key_generation_sent: meter.sent_generation.load(Relaxed),
            key_generation_received: meter.received_generation.load(Relaxed),
            kernel_sends: meter.sent_by_kernel.load(Relaxed),
            kernel_receives: meter.received_by_kernel.load(Relaxed),
            age_s: info.age().as_secs(),
            idle_s: registry.idle_s(info),
        }
    }

    pub fn features() -> Features {
        let probed = kedge_capture::probe_features()
            .into_iter()
            .map(|feature| Feature {
                name: feature.name.to_owned(),
                available: feature.available,
                required: true,
                reason: feature.reason,
            });
        let sung = canary::sing().into_iter().map(|canary| Feature {
            name: canary.name.to_owned(),
            available: canary.works,
            required: false,
            reason: canary.reason,
        });
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Features {
            kernel: release.trim().to_owned(),
            features: probed.chain(sung).collect(),
        }
    }

    fn node_id(&self, node: &NodeName) -> SpiffeId {
        SpiffeId::node(&self.config.trust_domain, node)
    }
}

fn established(link: &Link, report: Option<&PeerReport>) -> kedge_api::Link {
    let (_, theirs) = link.with_identities(|known| known.counts());
    kedge_api::Link {
        peer: link.peer_id.clone(),
        state: match link.is_open() {
            true => LinkState::Established,
            false => LinkState::Draining,
        },
        link_id: Some(link.id.to_string()),
        role: match link.role {
            Role::TlsClient => TlsRole::Client,
            Role::TlsServer => TlsRole::Server,
        },
        group: Some(link.group.clone()),
        tls_suite: Some(link.tls_suite.to_string()),
        flow_suite: Some(link.suite),
        age_s: link.established_at.elapsed().as_secs(),
        flows_opened: link.flows_opened(),
        flows_accepted: link.flows_accepted.load(Relaxed),
        identities: theirs as u64,
        handshakes_total: report.map_or(0, |report| report.established),
        last_error: report.and_then(|report| report.last_error.clone()),
    }
}

/// What the peer of a link has shown.
fn shown(attestation: &Attestation, link: &Link) -> PeerResult {
    let held = link.proof.attested();
    let standing = held.as_ref().map(|held| attestation.standing(held));
    let result = held.as_ref().map(|held| held.result());
    PeerResult {
        peer: link.peer_id.clone(),
        standing: match standing {
            None => "none",
            Some(Standing::Fresh) => "fresh",
            Some(Standing::Stale) => "stale",
            Some(Standing::Ended) => "ended",
        }
        .to_owned(),
        verifier: result.map(|result| result.verifier().to_owned()),
        ak: result.map(|result| result.ak().to_string()),
        policy: result.map(|result| result.policy().to_string()),
        error: link.unattested(),
    }
}

fn role(carriage: &Carriage) -> FlowRole {
    match carriage {
        Carriage::Local => FlowRole::Local,
        Carriage::Opener { .. } => FlowRole::Opener,
        Carriage::Acceptor { .. } => FlowRole::Acceptor,
    }
}

fn now_s() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}
