//! What the programs tell and count.

use crate::bpf;
use aya::maps::{MapData, RingBuf};
use kedge_abi::{Counter, Event, EventKind};
use nix::time::{ClockId, clock_gettime};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;
use zerocopy::FromBytes;

/// Something that the programs did and that an operator may want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CaptureEvent {
    pub kind: EventKind,
    /// CLOCK_MONOTONIC.
    pub time_ns: u64,
    /// Nearest configured ancestor, where it is known.
    pub cgroup_id: Option<u64>,
    pub socket_cookie: Option<u64>,
    /// What the application's call failed with, where it failed.
    pub errno: Option<u16>,
    /// What [`crate::Refusal::reason`] said, of a refusal that was learnt.
    pub reason: Option<u16>,
    /// Not known in connect().
    pub source: Option<SocketAddr>,
    pub destination: SocketAddr,
}

impl CaptureEvent {
    /// How long ago it happened: events wait while nobody reads them.
    #[must_use]
    pub fn age(&self) -> Duration {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
        now.saturating_sub(Duration::from_nanos(self.time_ns))
    }
}

/// Reads the ring buffer; readable (epoll, tokio's `AsyncFd`) when there is something.
pub struct EventReader(RingBuf<MapData>);

impl EventReader {
    pub(crate) fn new(ring: RingBuf<MapData>) -> Self {
        Self(ring)
    }

    /// The next event, if there is one; never waits. Kinds that this version does not know are
    /// passed over.
    pub fn next_event(&mut self) -> Option<CaptureEvent> {
        loop {
            let record = self.0.next()?;
            let event = Event::read_from_prefix(&record)
                .ok()
                .and_then(|(e, _)| decode(e));
            if event.is_some() {
                return event;
            }
        }
    }
}

impl AsRawFd for EventReader {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for EventReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn decode(event: Event) -> Option<CaptureEvent> {
    let known = |number: u64| (number != 0).then_some(number);
    Some(CaptureEvent {
        kind: kind_of(event.kind)?,
        time_ns: event.time_ns,
        cgroup_id: known(event.cgroup_id),
        socket_cookie: known(event.socket_cookie),
        errno: (event.errno != 0).then_some(event.errno),
        reason: (event.reason != 0).then_some(event.reason),
        source: (event.source.port != 0).then(|| event.source.into()),
        destination: event.destination.into(),
    })
}

fn kind_of(number: u32) -> Option<EventKind> {
    EventKind::ALL
        .iter()
        .copied()
        .find(|kind| *kind as u32 == number)
}

/// What the programs have counted since they were first attached, over all CPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters(Vec<u64>);

impl Counters {
    #[must_use]
    pub fn of(&self, counter: Counter) -> u64 {
        self.0.get(counter as usize).copied().unwrap_or(0)
    }

    /// Each counter's stable name and value.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Counter::ALL.iter().map(|c| (c.label(), self.of(*c)))
    }

    pub(crate) fn read(map: &OwnedFd, possible_cpus: usize) -> io::Result<Self> {
        let mut per_cpu = vec![0_u8; possible_cpus * size_of::<u64>()];
        let mut sums = Vec::new();
        for index in 0..Counter::COUNT {
            bpf::lookup(map.as_fd(), &index.to_ne_bytes(), &mut per_cpu)?;
            let (values, _) = per_cpu.as_chunks::<{ size_of::<u64>() }>();
            sums.push(values.iter().map(|value| u64::from_ne_bytes(*value)).sum());
        }
        Ok(Self(sums))
    }
}
