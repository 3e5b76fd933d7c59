//! cgroup_skb: what a `require` workload and kedged itself may send and be given.

use crate::account::{Subject, count, tell};
use crate::cgroups;
use crate::maps::{ADMITTED, CLAIMS, CLIENT, Maps};
use crate::storage;
use aya_ebpf::bindings::{__sk_buff, BPF_TCP_LISTEN};
use aya_ebpf::helpers::{bpf_get_socket_cookie, bpf_skb_load_bytes};
use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;
use kedge_abi::{Counter, EventKind, Tuple, claim, queue};
use kedge_logic::guard::{self, Opener, Ruling};
use kedge_logic::packet::Segment;
use kedge_logic::{Connection, Owner, Packet};

const DROP: i32 = 0;
const PASS: i32 = 1;

struct Buffer(*mut __sk_buff);

impl Packet for Buffer {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let mut bytes = [0_u8; N];
        // SAFETY: the pointer is the context of this run, and the helper writes `N` bytes at most.
        let result = unsafe {
            bpf_skb_load_bytes(self.0.cast(), offset, bytes.as_mut_ptr().cast(), N as u32)
        };
        (result == 0).then_some(bytes)
    }
}

impl Connection for Buffer {
    #[inline(always)]
    fn is_admitted_socket(&self) -> bool {
        // SAFETY: the context of this run is live; the field may be null.
        let socket = unsafe { (*self.0).__bindgen_anon_2.sk };
        storage::of(&CLIENT, socket).is_some()
    }

    #[inline(always)]
    fn filed(&self, tuple: &Tuple) -> Option<Opener> {
        // SAFETY: one field is read at once, and nobody changes an entry.
        let client = unsafe { ADMITTED.get(tuple) }?;
        Some(match client.is_probe() {
            true => Opener::Probe,
            false => Opener::Daemon,
        })
    }

    #[inline(always)]
    fn is_listener(&self) -> bool {
        // SAFETY: the context of this run is live; the field may be null.
        let socket = unsafe { (*self.0).__bindgen_anon_2.sk };
        // SAFETY: a socket that is not null lives as long as this run; the field is a word.
        !socket.is_null()
            && unsafe { (&raw const (*socket).state).read_volatile() } == BPF_TCP_LISTEN
    }

    #[inline(always)]
    fn claimant(&self, tuple: &Tuple) -> u64 {
        // SAFETY: two fields are read at once, and nobody changes an entry.
        match unsafe { CLAIMS.get(tuple) } {
            Some(claim) if claim.state == claim::FILED => claim.cgroup_id,
            _ => queue::NOBODY,
        }
    }
}

#[cgroup_skb(ingress)]
pub fn kedge_ingress(ctx: SkBuffContext) -> i32 {
    let packet = Buffer(ctx.skb.skb);
    let Some(owner) = cgroups::of_packet(packet.0) else {
        return PASS;
    };
    let ruling = guard::ingress(&owner, &packet, &Maps, &packet);
    let dropped = (Counter::IngressDropped, EventKind::IngressDropped);
    act(&packet, &owner, ruling, dropped)
}

#[cgroup_skb(egress)]
pub fn kedge_egress(ctx: SkBuffContext) -> i32 {
    let packet = Buffer(ctx.skb.skb);
    let Some(owner) = cgroups::of_packet(packet.0) else {
        return PASS;
    };
    let ruling = guard::egress(&owner, &packet, &Maps, &packet);
    let dropped = match owner.is_daemon() {
        true => (Counter::DaemonDropped, EventKind::DaemonDropped),
        false => (Counter::EgressDropped, EventKind::EgressDropped),
    };
    act(&packet, &owner, ruling, dropped)
}

#[inline(always)]
fn act(packet: &Buffer, owner: &Owner, ruling: Ruling, dropped: (Counter, EventKind)) -> i32 {
    match ruling {
        Ruling::Pass => PASS,
        Ruling::PassOther => {
            count(Counter::OtherPassed);
            PASS
        }
        Ruling::Drop(segment) => {
            count(dropped.0);
            if let Some(segment) = segment {
                tell(dropped.1, 0, &subject(packet, owner, &segment));
            }
            DROP
        }
        Ruling::DropProbe(segment) => {
            count(Counter::ProbeDropped);
            let subject = subject(packet, owner, &segment);
            tell(EventKind::ProbeDropped, 0, &subject);
            DROP
        }
        Ruling::DropStray => {
            count(Counter::StrayDropped);
            DROP
        }
        Ruling::Hold => {
            count(Counter::Held);
            DROP
        }
    }
}

#[inline(always)]
fn subject(packet: &Buffer, owner: &Owner, segment: &Segment) -> Subject {
    Subject {
        cgroup_id: owner.id,
        // SAFETY: the helper takes the context of this run.
        socket_cookie: unsafe { bpf_get_socket_cookie(packet.0.cast()) },
        source: segment.source,
        destination: segment.destination,
        ..Subject::default()
    }
}
