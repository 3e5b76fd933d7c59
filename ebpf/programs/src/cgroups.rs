//! Whose task, and whose packet.

use crate::maps::Maps;
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::{
    bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id, bpf_skb_ancestor_cgroup_id,
    bpf_skb_cgroup_id,
};
use kedge_abi::limits;
use kedge_logic::{Ancestry, Owner, cgroup};

struct CurrentTask;

impl Ancestry for CurrentTask {
    #[inline(always)]
    fn own(&self) -> u64 {
        // SAFETY: no argument, no precondition.
        unsafe { bpf_get_current_cgroup_id() }
    }

    #[inline(always)]
    fn at_level(&self, level: u32) -> u64 {
        // SAFETY: any level may be asked for; a deeper one than there is gives 0.
        unsafe { bpf_get_current_ancestor_cgroup_id(level as i32) }
    }
}

struct PacketSocket(*mut __sk_buff);

impl Ancestry for PacketSocket {
    #[inline(always)]
    fn own(&self) -> u64 {
        // SAFETY: the pointer is the context that the kernel gave to this run.
        unsafe { bpf_skb_cgroup_id(self.0) }
    }

    #[inline(always)]
    fn at_level(&self, level: u32) -> u64 {
        // SAFETY: as above, and any level may be asked for.
        unsafe { bpf_skb_ancestor_cgroup_id(self.0, level as i32) }
    }
}

/// Owner of the task that calls connect() or bind().
#[inline(always)]
pub fn of_task() -> Option<Owner> {
    cgroup::nearest(&CurrentTask, &Maps)
}

/// See [`kedge_abi::Original::lineage`].
#[inline(always)]
pub fn lineage_of_task(owner: &Owner) -> [u64; limits::LINEAGE] {
    cgroup::lineage(&CurrentTask, owner)
}

/// Owner of the socket that sends, or is given, a packet.
#[inline(always)]
pub fn of_packet(packet: *mut __sk_buff) -> Option<Owner> {
    cgroup::nearest(&PacketSocket(packet), &Maps)
}
