//! How many connections of whom wait in a worker's accept queue. One is counted and marked when
//! its handshake ends; when it is accepted the mark goes, and with it the count.
//!
//! No count is left behind. The mark lies in the socket that waits, in a table of this generation,
//! so nothing ends here that did not begin here. A connection that is reset while it waits keeps
//! its place in the queue, as the kernel has it, and its mark. A queue that is closed was its
//! daemon's last; the next daemon has tables of its own.

use crate::maps::{Maps, QUEUED, QUEUES};
use crate::{storage, tally};
use aya_ebpf::bindings::bpf_sock;
use kedge_abi::Queued;
use kedge_abi::queue::EVERYBODY;
use kedge_logic::{Tables, queue};

/// An established connection waits now.
#[inline(always)]
pub fn begin(socket: *mut bpf_sock, cgroup_id: u64, port: u32) {
    let Some(root) = Maps.root() else {
        return;
    };
    let queued = queue::of(root, cgroup_id, port);
    let opened = tally::open(&QUEUES, &queued) && tally::open(&QUEUES, &everybody(&queued));
    if opened && storage::put(&QUEUED, socket, queued) {
        add(&queued, 1);
    }
}

/// The kernel asks for the peer's name of each connection that a daemon accepts.
#[inline(always)]
pub fn end(socket: *mut bpf_sock) {
    if let Some(queued) = storage::of(&QUEUED, socket).copied() {
        storage::forget(&QUEUED, socket);
        add(&queued, -1);
    }
}

#[inline(always)]
fn add(queued: &Queued, difference: i64) {
    tally::add(&QUEUES, queued, difference);
    tally::add(&QUEUES, &everybody(queued), difference);
}

#[inline(always)]
fn everybody(queued: &Queued) -> Queued {
    Queued {
        cgroup_id: EVERYBODY,
        ..*queued
    }
}
