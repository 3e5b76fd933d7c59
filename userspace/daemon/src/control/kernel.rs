//! What the BPF programs have to report.

use crate::config::Config;
use crate::dataplane::refusals::{Asked, Refusals};
use crate::errno::ECONNREFUSED;
use crate::events::Events;
use crate::limits::{KERNEL_EVENTS_PER_BATCH, KERNEL_EVENTS_PER_SECOND};
use crate::uncapturable::Uncapturable;
use crate::world::SharedWorld;
use ipnet::IpNet;
use kedge_api::{Event, EventKind as Kind, Timestamp, Versions};
use kedge_capture::{CaptureEvent, EventKind, EventReader};
use kedge_model::{OriginalDst, Refusal, SourceAddr, canonical};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::io::unix::AsyncFd;

/// What is made of the programs' events.
#[derive(Clone)]
pub struct KernelEvents {
    pub config: Arc<Config>,
    pub world: SharedWorld,
    pub uncapturable: Uncapturable,
    pub refusals: Refusals,
    pub events: Events,
    /// CLOCK_MONOTONIC; what was told before may be due to there having been no daemon.
    pub since_ns: u64,
}

/// Passes the programs' events on until the process ends. Anybody who can send a packet can cause
/// them: a batch at a time, and only so many a second. The programs' counters stay exact.
pub async fn report_events(reader: EventReader, kernel: KernelEvents) -> io::Result<()> {
    #[expect(
        deprecated,
        reason = "the reader owns its descriptor, which is all that is asked for"
    )]
    let mut reader = AsyncFd::new(reader)?;
    let mut second = Instant::now();
    let mut reported = 0;
    loop {
        let mut ready = reader.readable_mut().await?;
        let mut batch = 0;
        while batch < KERNEL_EVENTS_PER_BATCH {
            let Some(event) = ready.get_inner_mut().next_event() else {
                ready.clear_ready();
                break;
            };
            batch += 1;
            if matches!(event.kind, EventKind::Unanswered | EventKind::Unsent) {
                kernel.did_not_arrive(&event);
                continue;
            }
            if event.kind == EventKind::LeftEarly {
                kernel.left_early(&event);
                continue;
            }
            if second.elapsed() >= Duration::from_secs(1) {
                (second, reported) = (Instant::now(), 0);
            }
            if reported < KERNEL_EVENTS_PER_SECOND {
                reported += 1;
                kernel.events.report(kernel.translate(&event));
            }
        }
        tokio::task::yield_now().await;
    }
}

impl KernelEvents {
    /// One connection more or less is no event: that its workload cannot be captured is.
    fn did_not_arrive(&self, event: &CaptureEvent) {
        let Some(cgroup_id) = event.cgroup_id else {
            return;
        };
        if event.time_ns < self.since_ns {
            return;
        }
        let asked = canonical(event.destination).ip();
        let reason = reason(event, self.config.capture.range_for(asked));
        let (world, is_certain) = (self.world.load(), event.errno.is_some());
        if self
            .uncapturable
            .failed(&world, cgroup_id, is_certain, &reason)
        {
            self.events.uncapturable(&world, cgroup_id, &reason);
        }
    }

    fn translate(&self, event: &CaptureEvent) -> Event {
        // It may have waited in the ring while no daemon ran.
        let age = event.age();
        let happened = Instant::now().checked_sub(age);
        Event {
            decided_by: happened.and_then(|at| self.decided_by(event, at)),
            ..translate(event, Timestamp::from(SystemTime::now() - age))
        }
    }

    fn decided_by(&self, event: &CaptureEvent, happened: Instant) -> Option<Versions> {
        match event.kind {
            EventKind::RefusedAgain => {
                let (cgroup_id, to) = (event.cgroup_id?, OriginalDst::new(event.destination));
                self.refusals.decided_by(Asked { cgroup_id, to }, happened)
            }
            EventKind::Refused
            | EventKind::NoWorkerRefused
            | EventKind::NoWorkerPassed
            | EventKind::IngressDropped
            | EventKind::ProbeDropped
            | EventKind::EgressDropped
            | EventKind::DaemonDropped => self.world.tables().at(happened),
            _ => None,
        }
    }

    /// Nothing to report: somebody wants to know whether that place answers.
    fn left_early(&self, event: &CaptureEvent) {
        if let (Some(cgroup_id), Some(client)) = (event.cgroup_id, event.source) {
            let to = OriginalDst::new(event.destination);
            let asked = Asked { cgroup_id, to };
            self.refusals.suspect(asked, SourceAddr::new(client));
        }
    }
}

fn reason(event: &CaptureEvent, range: IpNet) -> String {
    match (event.kind, event.errno) {
        (EventKind::Unsent, _) => {
            format!("its connect() fails before a packet leaves: no route to {range}?")
        }
        (_, Some(_)) => format!("its packets to {range} are not answered: dropped on the way?"),
        (_, None) => format!("its connections to {range} end at once: refused on the way?"),
    }
}

fn translate(event: &CaptureEvent, happened: Timestamp) -> Event {
    let told = match learnt(event) {
        Some(refusal) => refused_again(happened, refusal),
        None => {
            let (kind, cause, remedy) = words(event.kind);
            Event {
                remedy: Some(remedy.to_owned()),
                ..Event::new(0, happened, kind, cause)
            }
        }
    };
    Event {
        client: event.source,
        original_destination: Some(event.destination),
        ..told
    }
}

/// The refusal by which connect() failed, where one is behind it.
fn learnt(event: &CaptureEvent) -> Option<Refusal> {
    match event.kind {
        EventKind::RefusedAgain => event.reason.map(Refusal::from_code),
        EventKind::Refused if event.errno == Some(ECONNREFUSED) => Some(Refusal::NoEndpoint),
        _ => None,
    }
}

fn refused_again(happened: Timestamp, refusal: Refusal) -> Event {
    let cause = format!("connect() refused: {}", refusal.cause());
    Event {
        kind: Kind::CaptureRefused,
        cause,
        ..Event::refused(0, happened, refusal)
    }
}

fn words(kind: EventKind) -> (Kind, &'static str, &'static str) {
    match kind {
        EventKind::Refused => (
            Kind::CaptureRefused,
            "connect() refused: mode require, and the destination is managed but not known with kedge",
            "add the destination or its node to the directory, or put the workload in mode permissive",
        ),
        EventKind::RefusedAgain => (
            Kind::CaptureRefused,
            "connect() refused as the one before was",
            "look for the event of the first refusal of this destination",
        ),
        EventKind::QuotaRefused => (
            Kind::CaptureRefused,
            "connect() refused: the workload has too many connections that nobody has accepted yet",
            "look why it opens so many at once; if kedged is slow to accept, give it more CPU",
        ),
        EventKind::NoWorkerRefused => (
            Kind::CaptureRefused,
            "connect() refused: mode require, and no worker of kedged is alive",
            "start kedged, or look why its workers do not run",
        ),
        EventKind::NoWorkerPassed => (
            Kind::CapturePassed,
            "connect() passed in plaintext: mode permissive, and no worker of kedged is alive",
            "start kedged, or look why its workers do not run",
        ),
        EventKind::NoRoom => (
            Kind::CaptureRefused,
            "connect() refused: a BPF map is full",
            "find in `kedge flow list` who opens so many connections at once",
        ),
        EventKind::ClaimLost => (
            Kind::CaptureRefused,
            "a captured connection could not be filed",
            "find in `kedge flow list` who opens so many connections at once",
        ),
        EventKind::IngressDropped => (
            Kind::GuardDropped,
            "plaintext towards a workload in mode require was dropped",
            "connect from a workload that kedge captures, or put the destination in mode permissive",
        ),
        EventKind::ProbeDropped => (
            Kind::GuardDropped,
            "a probe of a workload in mode require was dropped: the directory declares no such port",
            "add the port to `ports` of the workload in the directory, or probe one that is there",
        ),
        EventKind::EgressDropped => (
            Kind::GuardDropped,
            "plaintext of a workload in mode require was dropped",
            "connect anew, in the workload's own cgroup: the socket is older than the mode, or a process of another cgroup connected it",
        ),
        EventKind::DaemonDropped => (
            Kind::GuardDropped,
            "kedged's own guard dropped a packet to a place that is neither a local workload nor a node",
            "compare the directory with where nodes and pods are; else report a fault of kedge",
        ),
        EventKind::Unanswered | EventKind::Unsent | EventKind::LeftEarly => (
            Kind::Uncapturable,
            "a captured connection did not arrive",
            "run `kedge doctor` on this node",
        ),
        EventKind::BindRefused => (
            Kind::CaptureRefused,
            "bind() to a port that is kept for kedged was refused",
            "use another port, or change `capture.port` or `peer.port` of kedged",
        ),
    }
}
