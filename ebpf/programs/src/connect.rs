//! connect(): decide, then rewrite, pass or fail.

use crate::account::{Subject, count, now, tell};
use crate::maps::{CLIENT, Maps, ORIGINAL, REFUSALS, SLOTS};
use crate::sock_addr::{ALLOW, Family, fail, is_tcp, named, netns_cookie, rename, socket_cookie};
use crate::{cgroups, pending, storage};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use aya_log_ebpf::debug;
use kedge_abi::{Counter, Endpoint, EventKind, Original, Refusal, Slot, kind, original};
use kedge_logic::connect::{Attempt, Outcome, decide};
use kedge_logic::errno::ENOMEM;

#[cgroup_sock_addr(connect4)]
pub fn kedge_connect4(ctx: SockAddrContext) -> i32 {
    connect(&ctx, Family::V4)
}

#[cgroup_sock_addr(connect6)]
pub fn kedge_connect6(ctx: SockAddrContext) -> i32 {
    connect(&ctx, Family::V6)
}

#[inline(always)]
fn connect(ctx: &SockAddrContext, family: Family) -> i32 {
    if !is_tcp(ctx) {
        return ALLOW;
    }
    // An accepted socket that was taken back with connect(AF_UNSPEC) starts a life of its own.
    storage::forget(&CLIENT, socket(ctx));
    let Some(owner) = cgroups::of_task() else {
        storage::forget(&ORIGINAL, socket(ctx));
        return ALLOW;
    };
    let attempt = Attempt {
        owner,
        asked: named(ctx, family),
        socket_cookie: socket_cookie(ctx),
        now: now(),
    };
    act(ctx, family, &attempt, decide(&Maps, &attempt))
}

#[inline(always)]
fn act(ctx: &SockAddrContext, family: Family, attempt: &Attempt, outcome: Outcome) -> i32 {
    match outcome {
        Outcome::Leave => let_go(ctx, attempt),
        Outcome::Pass => {
            count(Counter::Passed);
            let_go(ctx, attempt)
        }
        Outcome::PassWithoutWorker => {
            count(Counter::NoWorkerPassed);
            tell(EventKind::NoWorkerPassed, 0, &subject(attempt));
            let_go(ctx, attempt)
        }
        Outcome::Capture(index) => capture(ctx, family, attempt, index),
        Outcome::Refuse(errno) => refuse(attempt, Counter::Refused, EventKind::Refused, errno),
        Outcome::RefuseAgain(refusal) => refuse_again(attempt, &refusal),
        Outcome::RefuseOverQuota(errno) => refuse(
            attempt,
            Counter::QuotaRefused,
            EventKind::QuotaRefused,
            errno,
        ),
        Outcome::RefuseWithoutWorker(errno) => refuse(
            attempt,
            Counter::NoWorkerRefused,
            EventKind::NoWorkerRefused,
            errno,
        ),
        Outcome::RefuseDaemon(errno) => refuse(
            attempt,
            Counter::DaemonDropped,
            EventKind::DaemonDropped,
            errno,
        ),
    }
}

/// The connection goes where it asked. A socket may have tried another address before, so what
/// was filed for that one must go.
#[inline(always)]
fn let_go(ctx: &SockAddrContext, attempt: &Attempt) -> i32 {
    if attempt.owner.kind == kind::PROBE {
        return match file(ctx, attempt, original::PROBE, 0) {
            true => ALLOW,
            false => no_room(attempt),
        };
    }
    storage::forget(&ORIGINAL, socket(ctx));
    ALLOW
}

#[inline(always)]
fn capture(ctx: &SockAddrContext, family: Family, attempt: &Attempt, index: u32) -> i32 {
    let Some(slot) = SLOTS.get(index) else {
        return no_room(attempt);
    };
    if slot.port == 0 || !pending::open(attempt.owner.id) {
        return no_room(attempt);
    }
    if !file(ctx, attempt, original::CAPTURED, slot.scope) {
        return no_room(attempt);
    }
    rename(ctx, family, &end_of(slot, &attempt.asked));
    count(Counter::Captured);
    debug!(
        ctx,
        "cgroup {} captured towards port {}, slot {}", attempt.owner.id, attempt.asked.port, index
    );
    ALLOW
}

#[inline(always)]
fn end_of(slot: &Slot, asked: &Endpoint) -> Endpoint {
    let v4 = asked.address.is_v4();
    Endpoint {
        address: if v4 { slot.v4 } else { slot.v6 },
        port: slot.port,
    }
}

/// Keeps with the socket what it asked for.
#[inline(always)]
fn file(ctx: &SockAddrContext, attempt: &Attempt, state: u32, scope: u64) -> bool {
    let entry = Original {
        scope,
        cgroup_id: attempt.owner.id,
        lineage: cgroups::lineage_of_task(&attempt.owner),
        netns_cookie: netns_cookie(ctx),
        asked: attempt.asked,
        state,
    };
    storage::put(&ORIGINAL, socket(ctx), entry)
}

#[inline(always)]
fn socket(ctx: &SockAddrContext) -> *mut aya_ebpf::bindings::bpf_sock {
    // SAFETY: the context of this run is live, and its last field is the socket in every hook.
    unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk }
}

#[inline(always)]
fn no_room(attempt: &Attempt) -> i32 {
    refuse(attempt, Counter::NoRoom, EventKind::NoRoom, ENOMEM)
}

#[inline(always)]
fn refuse(attempt: &Attempt, counter: Counter, kind: EventKind, errno: u16) -> i32 {
    count(counter);
    tell(kind, errno, &subject(attempt));
    fail(errno)
}

/// Fails as the daemon has learnt, and tells it that somebody still asks.
#[inline(always)]
fn refuse_again(attempt: &Attempt, refusal: &Refusal) -> i32 {
    if let Some(entry) = REFUSALS.get_ptr_mut(&attempt.refusal_key()) {
        // SAFETY: the entry stays for this run, and only programs write this field of it.
        unsafe { (*entry).asked_ns = attempt.now };
    }
    let subject = Subject {
        reason: refusal.reason,
        ..subject(attempt)
    };
    count(Counter::RefusedAgain);
    tell(EventKind::RefusedAgain, refusal.errno, &subject);
    fail(refusal.errno)
}

#[inline(always)]
fn subject(attempt: &Attempt) -> Subject {
    Subject {
        cgroup_id: attempt.owner.id,
        socket_cookie: attempt.socket_cookie,
        destination: attempt.asked,
        ..Subject::default()
    }
}
