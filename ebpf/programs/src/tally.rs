//! Maps of counts, which programs of all CPUs change at once.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::maps::HashMap;
use core::arch::asm;

/// Makes sure that there is a count for `key`.
#[inline(always)]
pub fn open<K>(counts: &HashMap<K, i64>, key: &K) -> bool {
    if counts.get_ptr(key).is_some() {
        return true;
    }
    // Another CPU may have been first.
    let _ = counts.insert(key, &0, u64::from(BPF_NOEXIST));
    counts.get_ptr(key).is_some()
}

#[inline(always)]
pub fn add<K>(counts: &HashMap<K, i64>, key: &K, difference: i64) {
    if let Some(count) = counts.get_ptr_mut(key) {
        // The target is said to have no such atomic operation, yet every kernel runs it.
        // SAFETY: `count` is an aligned word of a map, which programs change only here.
        unsafe {
            asm!("lock *(u64 *)({count} + 0) += {difference}",
                count = in(reg) count, difference = in(reg) difference);
        }
    }
}
