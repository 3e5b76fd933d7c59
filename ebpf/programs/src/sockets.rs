//! sock_ops: tuples are filed when the port is chosen, before the SYN, so that whoever looks one
//! up after the SYN finds it. When the handshake is finished, what was filed moves into the
//! storage of the socket that will be accepted, for its life and for no other's; what nobody
//! fetched goes with the socket that filed it.

use crate::account::{Subject, count, now, tell};
use crate::maps::{ACCEPTED, ADMITTED, CLAIMS, CLIENT, DELIVERIES, Maps, ORIGINAL};
use crate::{patience, pending, queue, storage};
use aya_ebpf::bindings::{
    BPF_NOEXIST, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_RTO_CB,
    BPF_SOCK_OPS_RTO_CB_FLAG, BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG,
    BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_SOCK_OPS_TCP_LISTEN_CB, BPF_TCP_CLOSE, BPF_TCP_ESTABLISHED,
    bpf_sock,
};
use aya_ebpf::helpers::{bpf_get_netns_cookie, bpf_get_socket_cookie};
use aya_ebpf::macros::sock_ops;
use aya_ebpf::programs::SockOpsContext;
use kedge_abi::queue::NOBODY;
use kedge_abi::{
    Claim, Client, Counter, Endpoint, EventKind, Original, Root, Tuple, claim, original,
};
use kedge_logic::Tables;
use kedge_logic::errno::ETIMEDOUT;
use kedge_logic::queue::has_room;
use kedge_logic::sockets::{
    Ends, Filing, RawSocket, ends, filing, never_connected, syn_is_unanswered,
};
use kedge_logic::tables::is_capture_end;

/// The routed way: every client has an address of its own.
const ROUTED: u64 = 0;

#[sock_ops]
pub fn kedge_sockets(ctx: SockOpsContext) -> u32 {
    match ctx.op() {
        BPF_SOCK_OPS_TCP_CONNECT_CB => before_syn(&ctx),
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => established(&ctx),
        BPF_SOCK_OPS_TCP_LISTEN_CB => listens(&ctx),
        BPF_SOCK_OPS_RTO_CB => expired(&ctx, ctx.arg(0)),
        BPF_SOCK_OPS_STATE_CB if ctx.arg(1) == BPF_TCP_CLOSE => closed(&ctx, ctx.arg(0)),
        _ => {}
    }
    1
}

#[inline(always)]
fn before_syn(ctx: &SockOpsContext) {
    let Some(ends) = ends_of(ctx) else {
        return;
    };
    if let Some(original) = storage::of(&ORIGINAL, socket(ctx)) {
        match original.state {
            state if original::is_captured(state) => file_claim(ctx, &ends, original),
            _ => file_admitted(&ends, &probe(ctx)),
        }
        watch_state(ctx);
        return;
    }
    let cookie = cookie(ctx);
    // SAFETY: only this socket's owner writes the entry, before connect().
    if let Some(client) = unsafe { DELIVERIES.get(&cookie) } {
        file_admitted(&ends, client);
        watch_state(ctx);
    }
}

/// A connection whose claim is not filed is refused by the daemon.
#[inline(always)]
fn file_claim(ctx: &SockOpsContext, ends: &Ends, original: &Original) {
    let tuple = Tuple::new(ends.local, ends.remote, original.scope);
    let mut claim = Claim {
        cgroup_id: original.cgroup_id,
        lineage: original.lineage,
        socket_cookie: cookie(ctx),
        netns_cookie: original.netns_cookie,
        filed_ns: now(),
        asked: original.asked,
        patience: patience::of(ctx),
        state: claim::FILED,
    };
    let sent = Original {
        state: original::SENT,
        ..*original
    };
    storage::put(&ORIGINAL, socket(ctx), sent);
    // SAFETY: the value is copied at once, and nobody changes an entry.
    let earlier = unsafe { CLAIMS.get(&tuple) }.copied();
    let filing = filing(earlier.as_ref(), &claim);
    if let Some(earlier) = earlier {
        remove_claim(&tuple, &earlier);
    }
    if filing == Filing::Dispute {
        claim.state = claim::DISPUTED;
    }
    // Two CPUs may be here with one tuple, of two namespaces: the second one finds it taken.
    let filed = CLAIMS
        .insert(&tuple, &claim, u64::from(BPF_NOEXIST))
        .is_ok();
    if filed && claim.state == claim::FILED {
        pending::begin(claim.cgroup_id);
        count(Counter::Claimed);
        return;
    }
    count(Counter::ClaimLost);
    let subject = Subject {
        cgroup_id: original.cgroup_id,
        socket_cookie: claim.socket_cookie,
        source: ends.local,
        destination: original.asked,
        ..Subject::default()
    };
    tell(EventKind::ClaimLost, 0, &subject);
}

/// Disputed ones are not counted: they are nobody's.
#[inline(always)]
fn remove_claim(tuple: &Tuple, claim: &Claim) {
    if CLAIMS.remove(tuple).is_ok() && claim.state == claim::FILED {
        pending::end(claim.cgroup_id);
    }
}

/// A connection that is not admitted is not established with a `require` workload: the guard
/// drops its SYN.
#[inline(always)]
fn file_admitted(ends: &Ends, client: &Client) {
    let tuple = Tuple::new(ends.local, ends.remote, ROUTED);
    if ADMITTED.insert(&tuple, client, 0).is_err() {
        count(Counter::DeliveryLost);
    }
}

/// A probe is nobody else than itself.
#[inline(always)]
fn probe(ctx: &SockOpsContext) -> Client {
    Client {
        socket_cookie: cookie(ctx),
        client: Endpoint::default(),
        reserved: 0,
    }
}

#[inline(always)]
fn established(ctx: &SockOpsContext) {
    let Some(ends) = ends_of(ctx) else {
        return;
    };
    let tuple = Tuple::new(ends.remote, ends.local, ROUTED);
    match Maps.root() {
        Some(root) if is_daemons(ctx, root, &ends) => {
            let claimant = hand_over_claim(ctx, &tuple);
            queue::begin(socket(ctx), claimant, ends.local.port);
        }
        _ => hand_over_client(ctx, &tuple),
    }
}

/// Whether the local end is one of the daemon's capture ends: the addresses alone may be anybody's
/// in a namespace of his own.
#[inline(always)]
fn is_daemons(ctx: &SockOpsContext, root: &Root, ends: &Ends) -> bool {
    is_capture_end(root, &ends.local) && netns_cookie(ctx) == root.netns_cookie
}

/// The socket that the daemon will accept gets its claim. One without is refused. Gives the cgroup
/// that filed it.
#[inline(always)]
fn hand_over_claim(ctx: &SockOpsContext, tuple: &Tuple) -> u64 {
    // SAFETY: the value is copied at once, and nobody changes an entry.
    let Some(claim) = unsafe { CLAIMS.get(tuple) }.copied() else {
        return NOBODY;
    };
    if claim.state != claim::FILED {
        return NOBODY;
    }
    if !storage::put(&ACCEPTED, socket(ctx), claim) {
        count(Counter::ClaimLost);
    }
    remove_claim(tuple, &claim);
    claim.cgroup_id
}

/// The server's socket gets its true client.
#[inline(always)]
fn hand_over_client(ctx: &SockOpsContext, tuple: &Tuple) {
    // SAFETY: the value is copied at once, and nobody changes an entry.
    let Some(client) = unsafe { ADMITTED.get(tuple) }.copied() else {
        return;
    };
    let counter = match storage::put(&CLIENT, socket(ctx), client) {
        true => Counter::Delivered,
        false => Counter::DeliveryLost,
    };
    count(counter);
    let _ = ADMITTED.remove(tuple);
}

/// A socket may have been a connection's before (connect(AF_UNSPEC), then listen()). What was kept
/// for that one would admit everybody who connects to this listener.
#[inline(always)]
fn listens(ctx: &SockOpsContext) {
    storage::forget(&ORIGINAL, socket(ctx));
    storage::forget(&CLIENT, socket(ctx));
}

/// A retransmission timer has run out, `expired_before` not counted.
#[inline(always)]
fn expired(ctx: &SockOpsContext, expired_before: u32) {
    if !syn_is_unanswered(state(ctx), expired_before) {
        return;
    }
    let original = storage::of(&ORIGINAL, socket(ctx));
    if let (Some(ends), Some(original)) = (ends_of(ctx), original) {
        if original::is_captured(original.state) {
            tell_unanswered(ctx, &ends, original);
        }
    }
}

/// What is held back until the daemon has accepted others of its workload is no sign of a bad way.
#[inline(always)]
fn tell_unanswered(ctx: &SockOpsContext, ends: &Ends, original: &Original) {
    if !may_wait(original, ends) {
        return;
    }
    let errno = if is_repeated(ctx) { ETIMEDOUT } else { 0 };
    let subject = Subject {
        cgroup_id: original.cgroup_id,
        socket_cookie: cookie(ctx),
        source: ends.local,
        destination: original.asked,
        ..Subject::default()
    };
    tell(EventKind::Unanswered, errno, &subject);
}

#[inline(always)]
fn may_wait(original: &Original, ends: &Ends) -> bool {
    let root = Maps.root();
    root.is_some_and(|root| has_room(&Maps, root, original.cgroup_id, ends.remote.port))
}

/// Takes back what nobody will fetch.
#[inline(always)]
fn closed(ctx: &SockOpsContext, state_before: u32) {
    let Some(ends) = ends_of(ctx) else {
        return;
    };
    match storage::of(&ORIGINAL, socket(ctx)) {
        Some(original) if original::is_captured(original.state) => {
            let tuple = Tuple::new(ends.local, ends.remote, original.scope);
            if take_claim_back(&tuple, cookie(ctx)) && state_before == BPF_TCP_ESTABLISHED {
                tell_left_early(ctx, &ends, original);
            }
            if never_connected(state_before) {
                count(Counter::Unanswered);
                tell_unanswered(ctx, &ends, original);
            }
        }
        _ => {
            let _ = ADMITTED.remove(&Tuple::new(ends.local, ends.remote, ROUTED));
            let _ = DELIVERIES.remove(&cookie(ctx));
        }
    }
}

/// The socket's own claim only: one that is disputed stays, for the sake of the other socket.
/// `false`: there was none any more.
#[inline(always)]
fn take_claim_back(tuple: &Tuple, cookie: u64) -> bool {
    // SAFETY: the value is copied at once, and nobody changes an entry.
    match unsafe { CLAIMS.get(tuple) }.copied() {
        Some(claim) if claim.state == claim::FILED && claim.socket_cookie == cookie => {
            remove_claim(tuple, &claim);
            true
        }
        _ => false,
    }
}

/// A health check may answer SYN-ACK by RST: its own side is established, the daemon's never is,
/// and all that it wanted to know is what connect() says.
#[inline(always)]
fn tell_left_early(ctx: &SockOpsContext, ends: &Ends, original: &Original) {
    let subject = Subject {
        cgroup_id: original.cgroup_id,
        socket_cookie: cookie(ctx),
        source: ends.local,
        destination: original.asked,
        ..Subject::default()
    };
    count(Counter::LeftEarly);
    tell(EventKind::LeftEarly, 0, &subject);
}

/// Asks for the calls that `closed` and `expired` answer.
#[inline(always)]
fn watch_state(ctx: &SockOpsContext) {
    let flags = ctx.cb_flags() | BPF_SOCK_OPS_STATE_CB_FLAG | BPF_SOCK_OPS_RTO_CB_FLAG;
    let _ = ctx.set_cb_flags(flags as i32);
}

#[inline(always)]
fn socket(ctx: &SockOpsContext) -> *mut bpf_sock {
    // SAFETY: the context of this run is live; the field is null for a socket that is not full.
    unsafe { (*ctx.ops).__bindgen_anon_2.sk }
}

#[inline(always)]
fn state(ctx: &SockOpsContext) -> u32 {
    // SAFETY: the context of this run is live; the field may be read in every call.
    unsafe { (&raw const (*ctx.ops).state).read_volatile() }
}

/// Whether a segment of this socket was sent more than once.
#[inline(always)]
fn is_repeated(ctx: &SockOpsContext) -> bool {
    // SAFETY: the context of this run is live; the field may be read in every call.
    unsafe { (&raw const (*ctx.ops).total_retrans).read_volatile() != 0 }
}

#[inline(always)]
fn cookie(ctx: &SockOpsContext) -> u64 {
    // SAFETY: the helper takes the context of this run.
    unsafe { bpf_get_socket_cookie(ctx.ops.cast()) }
}

#[inline(always)]
fn netns_cookie(ctx: &SockOpsContext) -> u64 {
    // SAFETY: the helper takes the context of this run.
    unsafe { bpf_get_netns_cookie(ctx.ops.cast()) }
}

#[inline(always)]
fn ends_of(ctx: &SockOpsContext) -> Option<Ends> {
    let ops = ctx.ops;
    // SAFETY: `ops` is the context of this run. Each word is read by itself: the verifier takes
    // no wider access.
    let word = |field: *const u32| unsafe { field.read_volatile() };
    // SAFETY: only the fields' places are computed.
    let raw = unsafe {
        RawSocket {
            family: word(&raw const (*ops).family),
            local_ip4_be: word(&raw const (*ops).local_ip4),
            remote_ip4_be: word(&raw const (*ops).remote_ip4),
            local_ip6_be: [
                word(&raw const (*ops).local_ip6[0]),
                word(&raw const (*ops).local_ip6[1]),
                word(&raw const (*ops).local_ip6[2]),
                word(&raw const (*ops).local_ip6[3]),
            ],
            remote_ip6_be: [
                word(&raw const (*ops).remote_ip6[0]),
                word(&raw const (*ops).remote_ip6[1]),
                word(&raw const (*ops).remote_ip6[2]),
                word(&raw const (*ops).remote_ip6[3]),
            ],
            local_port: word(&raw const (*ops).local_port),
            remote_port_raw: word(&raw const (*ops).remote_port),
        }
    };
    ends(&raw)
}
