//! A loop whose body the verifier follows once, however often it runs: bpf_loop, which came with Linux
//! 5.17, before bpf_set_retval, without which no connect() could be refused.

use aya_ebpf::helpers::bpf_loop;
use core::ffi::c_void;

/// Calls `is_it` with 0, 1, 2 and so on below `count`, until it says so.
#[inline(always)]
pub fn until<F: FnMut(u32) -> bool>(count: u32, mut is_it: F) {
    let (step, context) = (step::<F> as *mut c_void, &raw mut is_it);
    // SAFETY: the kernel calls `step` with `context` only, before it comes back.
    unsafe { bpf_loop(count, step, context.cast(), 0) };
}

/// 1 ends the loop.
unsafe extern "C" fn step<F: FnMut(u32) -> bool>(index: u64, is_it: *mut F) -> u64 {
    // SAFETY: `until` gives a closure of this type, which outlives its loop and is nobody else's.
    let is_it = unsafe { &mut *is_it };
    u64::from(is_it(index as u32))
}
