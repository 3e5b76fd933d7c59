//! Where everything that an operator should know goes: counted, and handed to the edge without
//! ever waiting for it.

use crate::attestation::Disbelief;
use crate::dataplane::classify::Refused;
use crate::dataplane::half::Broken;
use crate::dataplane::registry::FlowInfo;
use crate::limits::EVENTS_WAITING;
use crate::links::{ControlError, Link};
use crate::tally::Tally;
use crate::world::World;
use kedge_api::{AttestationMode, Event, EventKind, Socket, Timestamp, Versions};
use kedge_link::LinkError;
use kedge_link::wire::Record0;
use kedge_model::{NodeName, Refusal, SpiffeId, Suite, TrustDomain};
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::mpsc;

/// A cheap handle, one for everybody who may have something to report.
#[derive(Clone)]
pub struct Events(Arc<Shared>);

struct Shared {
    trust_domain: TrustDomain,
    sender: mpsc::Sender<Event>,
    lost: AtomicU64,
    broken: AtomicU64,
    looks: AtomicU64,
    over_limit: OncePerSecond,
    unidentified: OncePerSecond,
    over_share: OncePerSecond,
    refused: Vec<AtomicU64>,
    /// Connections to the peer port that came to nothing.
    strangers: Tally,
    /// Links that failed, before they stood or after.
    links: Tally,
}

impl Events {
    pub fn new(trust_domain: TrustDomain) -> (Self, mpsc::Receiver<Event>) {
        let (sender, events) = mpsc::channel(EVENTS_WAITING);
        let shared = Shared {
            trust_domain,
            sender,
            lost: AtomicU64::new(0),
            broken: AtomicU64::new(0),
            looks: AtomicU64::new(0),
            over_limit: OncePerSecond::default(),
            unidentified: OncePerSecond::default(),
            over_share: OncePerSecond::default(),
            refused: Refusal::ALL.iter().map(|_| AtomicU64::new(0)).collect(),
            strangers: Tally::default(),
            links: Tally::default(),
        };
        (Self(Arc::new(shared)), events)
    }

    /// Reports without waiting; where too much happens at once, events are lost and counted.
    pub fn report(&self, event: Event) {
        if self.0.sender.try_send(event).is_err() {
            self.0.lost.fetch_add(1, Relaxed);
        }
    }

    pub fn say(&self, kind: EventKind, cause: impl Into<String>) {
        self.report(event(kind, cause));
    }

    fn advise(&self, kind: EventKind, cause: impl Into<String>, remedy: &str) {
        self.report(Event {
            remedy: Some(remedy.to_owned()),
            ..event(kind, cause)
        });
    }

    pub fn count_of(&self, refusal: Refusal) -> u64 {
        let at = Refusal::ALL.iter().position(|known| *known == refusal);
        at.map_or(0, |at| self.0.refused[at].load(Relaxed))
    }

    /// By name, as the admin API and the metrics give them.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        let refused = Refusal::ALL.iter().zip(&self.0.refused);
        let refused =
            refused.map(|(r, count)| (format!("refused.{}", r.label()), count.load(Relaxed)));
        let own = [
            ("events.lost".to_owned(), self.0.lost.load(Relaxed)),
            ("flows.broken".to_owned(), self.0.broken.load(Relaxed)),
            ("refusals.looks".to_owned(), self.0.looks.load(Relaxed)),
        ];
        refused
            .chain(own)
            .chain(self.0.strangers.counts("strangers."))
            .chain(self.0.links.counts("links.failed."))
            .collect()
    }

    fn refusal(&self, refusal: Refusal) -> Event {
        if let Some(at) = Refusal::ALL.iter().position(|known| *known == refusal) {
            self.0.refused[at].fetch_add(1, Relaxed);
        }
        Event::refused(0, Timestamp::from(SystemTime::now()), refusal)
    }

    fn node_id(&self, node: &NodeName) -> SpiffeId {
        SpiffeId::node(&self.0.trust_domain, node)
    }

    /// A captured connection was refused here.
    pub fn refused(&self, client: SocketAddr, asked: Option<SocketAddr>, refused: Refused) {
        self.report(Event {
            source: refused.source,
            destination: refused.destination,
            client: Some(client),
            original_destination: asked,
            decided_by: refused.decided_by,
            ..self.refusal(refused.refusal)
        });
    }

    /// A connection to the peer port was dropped before it was a flow.
    pub fn flight_refused(&self, from: SocketAddr, refusal: Refusal, detail: &str) {
        let event = self.refusal(refusal);
        let told = self.0.strangers.note(refusal.label(), Instant::now());
        let Some(untold) = told else { return };
        let cause = format!("{}: {detail}{}", event.cause, and_more(untold));
        self.report(Event {
            client: Some(from),
            cause,
            ..event
        });
    }

    /// A peer's first flight was understood and denied.
    pub fn flight_denied(&self, link: &Link, record0: &Record0, refused: &Refused) {
        let (source, destination) = link.with_identities(|known| {
            (
                known.theirs_of(record0.source),
                known.ours_of(record0.destination),
            )
        });
        self.report(Event {
            source,
            destination,
            client: Some(record0.source_address.socket_addr()),
            original_destination: Some(record0.destination_address.socket_addr()),
            peer: Some(link.peer_id.clone()),
            decided_by: refused.decided_by,
            ..self.refusal(refused.refusal)
        });
    }

    /// An open flow ended other than cleanly. A workload's own reset is its own business; one that
    /// has fallen silent is not.
    pub fn flow_broken(&self, info: &FlowInfo, broken: &Broken) {
        let event = match broken {
            Broken::Plain(error) if error.kind() != io::ErrorKind::TimedOut => return,
            Broken::ResetByPeer => return,
            Broken::Denied { refusal, .. } => self.refusal(*refusal),
            Broken::Withdrawn {
                refusal,
                decided_by,
            } => Event {
                decided_by: *decided_by,
                ..self.refusal(*refusal)
            },
            Broken::NoAnswer => self.refusal(Refusal::LinkLost),
            _ => {
                self.0.broken.fetch_add(1, Relaxed);
                Event {
                    remedy: broken.remedy().map(str::to_owned),
                    ..event(EventKind::FlowBroken, chain(broken))
                }
            }
        };
        self.report(Event {
            source: Some(info.parties.source.clone()),
            destination: Some(info.parties.destination.clone()),
            client: Some(info.parties.client.socket_addr()),
            original_destination: Some(info.parties.original_dst.socket_addr()),
            peer: info.carriage.peer().map(|peer| self.node_id(peer)),
            ..event
        });
    }

    /// A workload has been put in `require`, and what it had opened before is cut.
    pub fn older_plaintext(&self, sockets: &[Socket], by: Versions) {
        let count = sockets.len();
        let cause = format!(
            "mode require: {count} of its TCP connections are older, not carried by kedge, and \
             dropped from now on"
        );
        let remedy = "restart what has them open, so that it connects anew; `kedge socket list` \
                      names each with its process";
        self.report(Event {
            source: sockets.first().map(|socket| socket.id.clone()),
            decided_by: Some(by),
            remedy: Some(remedy.to_owned()),
            ..event(EventKind::OlderPlaintext, cause)
        });
    }

    /// A workload's connections do not arrive: nothing of it is carried.
    pub fn uncapturable(&self, world: &World, cgroup_id: u64, reason: &str) {
        let remedy = "run `kedge doctor` on this node: it takes the pod's own way to kedged and \
                      names what is in it";
        self.report(Event {
            source: id_in(world, cgroup_id),
            remedy: Some(remedy.to_owned()),
            ..event(EventKind::Uncapturable, reason)
        });
    }

    pub fn capturable(&self, world: &World, cgroup_id: u64) {
        self.report(Event {
            source: id_in(world, cgroup_id),
            ..event(EventKind::Capturable, "its connections arrive again")
        });
    }

    pub fn link_up(&self, link: &Link) {
        let kind = match link.renews {
            Some(_) => EventKind::LinkRenewed,
            None => EventKind::LinkUp,
        };
        let cause = format!(
            "{} established, {}, flows {}",
            link.id, link.group, link.suite
        );
        self.report(Event {
            peer: Some(link.peer_id.clone()),
            ..event(kind, cause)
        });
    }

    pub fn link_down(&self, link: &Link, error: Option<&ControlError>) {
        if let Some(error) = error {
            self.0.links.note(error.label(), Instant::now());
        }
        let why = error.map_or_else(|| "closed".to_owned(), |error| chain(error));
        let cause = format!("{}: {why}", link.id);
        self.report(Event {
            peer: Some(link.peer_id.clone()),
            remedy: error.map(|error| error.remedy().to_owned()),
            ..event(EventKind::LinkDown, cause)
        });
    }

    pub fn link_failed(&self, node: &NodeName, error: &ControlError) {
        self.0.links.note(error.label(), Instant::now());
        self.report(Event {
            peer: Some(self.node_id(node)),
            remedy: Some(error.remedy().to_owned()),
            ..event(EventKind::LinkFailed, chain(error))
        });
    }

    /// A peer dialled us and no link came of it.
    pub fn stranger_refused(&self, from: SocketAddr, error: &ControlError) {
        let told = self.0.links.note(error.label(), Instant::now());
        let Some(untold) = told else { return };
        let cause = chain(error) + &and_more(untold);
        self.report(Event {
            client: Some(from),
            remedy: Some(error.remedy().to_owned()),
            ..event(EventKind::LinkFailed, cause)
        });
    }

    /// Somebody asked for more than there is: counted each time, and told once a second, since it
    /// happens by thousands.
    pub fn over_limit(&self, what: &str, limit: usize, source: Option<SpiffeId>) {
        let event = self.refusal(Refusal::OverLimit);
        if self.0.over_limit.is_now() {
            let cause = format!("{}: {limit} {what}", event.cause);
            self.report(Event {
                cause,
                source,
                ..event
            });
        }
    }

    /// A place that had refused was looked at.
    pub fn looked(&self) {
        self.0.looks.fetch_add(1, Relaxed);
    }

    pub fn accept_failed(&self, error: &std::io::Error) {
        let event = self.refusal(Refusal::OverLimit);
        let cause = format!("{}: accept: {error}", event.cause);
        self.report(Event { cause, ..event });
    }

    pub fn svid_reloaded(&self, not_after: SystemTime) {
        let until = Timestamp::from(not_after);
        self.say(
            EventKind::SvidReloaded,
            format!("valid until {until}; links are renewed"),
        );
    }

    pub fn svid_failed(&self, error: &LinkError) {
        self.rejected(EventKind::SvidRejected, &chain(error));
    }

    /// Said by another thread: the worker cannot.
    pub fn worker_stalled(&self, worker: u16, since: Duration) {
        let cause = format!(
            "worker {worker} has not worked for {} s: connect() passes it over, and what it has taken waits",
            since.as_secs()
        );
        let remedy = "look what keeps it from running; what waits is served when it is back, and reset when kedged ends";
        self.advise(EventKind::WorkerStalled, cause, remedy);
    }

    /// Said by the worker itself, at its first beat after a long pause.
    pub fn worker_back(&self, worker: u16, after: Duration) {
        let cause = format!(
            "worker {worker} works again after {} s: connect() sends connections to it",
            after.as_secs()
        );
        self.say(EventKind::WorkerBack, cause);
    }

    /// The TPM is not to be had: what follows depends on the mode.
    pub fn attestation_missing(&self, mode: AttestationMode, failure: &str) {
        let follows = match mode {
            AttestationMode::Required => "no flow to or from another node until it is",
            AttestationMode::Optional | AttestationMode::Off => "links are made without a Result",
        };
        let remedy = "look at `attestation.tcti` and who may open the device; kedged tries again";
        let cause = format!("no TPM: {failure}: {follows}");
        self.advise(EventKind::AttestationMissing, cause, remedy);
    }

    /// This node has a Result, for the first time or again.
    pub fn attested(&self, verifier: &str, policy: impl fmt::Display) {
        let cause = format!("Result of Verifier {verifier} by policy {policy}");
        self.say(EventKind::Attested, cause);
    }

    /// This node gets no Result.
    pub fn attestation_refused(&self, why: &str, remedy: &str) {
        self.advise(EventKind::AttestationRefused, why, remedy);
    }

    /// Somebody at the attestation socket is nobody. Counted elsewhere, and told once a second.
    pub fn caller_unidentified(&self, why: &str) {
        if self.0.unidentified.is_now() {
            let cause = format!("attestation socket: {why}: its calls are denied");
            let remedy = "ask from a process of the host, or of a pod that the directory knows, \
                          on Linux 6.5 or later";
            self.advise(EventKind::CallerUnidentified, cause, remedy);
        }
    }

    /// Somebody at the attestation socket takes more than his share: told once a second.
    pub fn caller_over_share(&self, who: &str) {
        if self.0.over_share.is_now() {
            let cause = format!("attestation socket: {who}: over its share, and not answered");
            let remedy = "let that workload keep one connection, and what it is answered as long \
                          as that is good";
            self.advise(EventKind::CallerOverShare, cause, remedy);
        }
    }

    /// A peer's Result is not believed where none is required.
    pub fn peer_disbelieved(&self, link: &Link, why: &Disbelief) {
        let Some(untold) = self.0.links.note(why.label(), Instant::now()) else {
            return;
        };
        let cause = format!("{}: {why}{}", link.id, and_more(untold));
        self.report(Event {
            peer: Some(link.peer_id.clone()),
            remedy: Some(why.remedy().to_owned()),
            ..event(EventKind::PeerUnattested, cause)
        });
    }

    /// A pinned Verifier has a key that issues identities by now.
    pub fn nobody_believed(&self, error: &dyn Error) {
        let remedy = "make a key for the Verifier alone and pin its public half; until then no \
                      Result is believed";
        self.advise(EventKind::VerifiersRejected, chain(error), remedy);
    }

    pub fn capture_failed(&self, cause: &str) {
        let remedy = "correct what the cause names; kedged tries again every two seconds";
        self.advise(EventKind::CaptureFailed, cause, remedy);
    }

    /// Records that were to be the kernel's stay in userspace.
    pub fn kernel_records_missing(&self, suite: Suite, reason: &str) {
        let remedy = "load the module that is missing, or set records.mode = \"userspace\"";
        let cause = format!("{suite}: {reason}");
        self.advise(EventKind::KernelRecordsMissing, cause, remedy);
    }

    /// A new version of a file cannot be used; the last good one stays in force.
    pub fn rejected(&self, kind: EventKind, cause: &str) {
        self.advise(
            kind,
            cause,
            "correct the file; until then the last good one stays in force",
        );
    }
}

fn id_in(world: &World, cgroup_id: u64) -> Option<SpiffeId> {
    let workload = world.workload_in(cgroup_id);
    workload.map(|workload| workload.id.clone())
}

/// Gives one of many callers a second its turn.
#[derive(Default)]
struct OncePerSecond(AtomicU64);

impl OncePerSecond {
    fn is_now(&self) -> bool {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let second = since.unwrap_or_default().as_secs();
        self.0.swap(second, Relaxed) != second
    }
}

fn event(kind: EventKind, cause: impl Into<String>) -> Event {
    Event::new(0, Timestamp::from(SystemTime::now()), kind, cause)
}

/// What an event stands for besides itself.
fn and_more(untold: u64) -> String {
    match untold {
        0 => String::new(),
        count => format!(" (and {count} more before it)"),
    }
}

/// An error and its sources in one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let cause = source.to_string();
        // A transparent error prints its source already.
        if !text.ends_with(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        next = source.source();
    }
    text
}
