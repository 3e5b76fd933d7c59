//! What the programs count and tell.

use crate::maps::{COUNTERS, EVENTS};
use aya_ebpf::helpers::bpf_ktime_get_ns;
use kedge_abi::{Counter, Endpoint, Event, EventKind};

/// Adds one, on this CPU.
#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(slot) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: the pointer is to this CPU's own entry, and a program is not moved to another
        // CPU while it runs.
        unsafe { *slot += 1 };
    }
}

/// Who and where, of an event.
#[derive(Clone, Copy, Default)]
pub struct Subject {
    pub cgroup_id: u64,
    pub socket_cookie: u64,
    pub source: Endpoint,
    pub destination: Endpoint,
    /// [`kedge_abi::Refusal::reason`], where the daemon gave one.
    pub reason: u16,
}

/// Puts an event into the ring buffer; one that finds it full is counted and lost.
#[inline(always)]
pub fn tell(kind: EventKind, errno: u16, subject: &Subject) {
    let Some(mut entry) = EVENTS.reserve::<Event>(0) else {
        count(Counter::EventsLost);
        return;
    };
    entry.write(Event {
        time_ns: now(),
        cgroup_id: subject.cgroup_id,
        socket_cookie: subject.socket_cookie,
        kind: kind as u32,
        errno,
        reason: subject.reason,
        source: subject.source,
        destination: subject.destination,
    });
    entry.submit(0);
}

/// CLOCK_MONOTONIC in nanoseconds.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: the helper takes no argument and has no precondition.
    unsafe { bpf_ktime_get_ns() }
}
