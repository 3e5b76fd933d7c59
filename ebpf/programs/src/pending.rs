//! How many claims each cgroup has in `CLAIMS`. Whoever adds or removes a claim counts it, once:
//! the map says which insertion and which removal it was.

use crate::maps::PENDING;
use aya_ebpf::bindings::BPF_NOEXIST;
use core::arch::asm;

/// Makes sure, before a connection is captured, that its claim can be counted.
#[inline(always)]
pub fn open(cgroup_id: u64) -> bool {
    if PENDING.get_ptr(&cgroup_id).is_some() {
        return true;
    }
    // Another CPU may have been first.
    let _ = PENDING.insert(&cgroup_id, &0, u64::from(BPF_NOEXIST));
    PENDING.get_ptr(&cgroup_id).is_some()
}

/// A claim was inserted.
#[inline(always)]
pub fn begin(cgroup_id: u64) {
    add(cgroup_id, 1);
}

/// A claim was removed.
#[inline(always)]
pub fn end(cgroup_id: u64) {
    add(cgroup_id, -1);
}

#[inline(always)]
fn add(cgroup_id: u64, difference: i64) {
    if let Some(count) = PENDING.get_ptr_mut(&cgroup_id) {
        // The target is said to have no such atomic operation, yet every kernel runs it.
        // SAFETY: `count` is an aligned word of a map, which programs change only here.
        unsafe {
            asm!("lock *(u64 *)({count} + 0) += {difference}",
                count = in(reg) count, difference = in(reg) difference);
        }
    }
}
