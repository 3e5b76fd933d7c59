//! A loop whose body the verifier follows once, however often it runs: bpf_loop, which came with Linux
//! 5.17, before bpf_set_retval, without which no connect() could be refused.

use aya_ebpf::helpers::bpf_loop;
use core::ffi::c_void;

struct Search<F> {
    is_it: F,
    found: Option<u32>,
}

/// The first number below `count` that is it.
#[inline(always)]
pub fn first<F: Fn(u32) -> bool>(count: u32, is_it: F) -> Option<u32> {
    let mut search = Search { is_it, found: None };
    let (step, context) = (step::<F> as *mut c_void, &raw mut search);
    // SAFETY: the kernel calls `step` with `context` only, before it comes back.
    unsafe { bpf_loop(count, step, context.cast(), 0) };
    search.found
}

/// 1 ends the loop.
unsafe extern "C" fn step<F: Fn(u32) -> bool>(index: u64, search: *mut Search<F>) -> u64 {
    // SAFETY: `first` gives a search of this type, which outlives its loop and is nobody else's.
    let search = unsafe { &mut *search };
    let number = index as u32;
    if (search.is_it)(number) {
        search.found = Some(number);
    }
    u64::from(search.found.is_some())
}
