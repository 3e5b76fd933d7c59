//! What is kept with a socket, for exactly as long as the socket lives.

use aya_ebpf::bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock};
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::helpers::generated::{bpf_sk_storage_delete, bpf_sk_storage_get};
use core::ffi::c_void;

/// The entry of `socket`, if it has one.
#[inline(always)]
pub fn of<T: Copy>(storage: &'static SkStorage<T>, socket: *mut bpf_sock) -> Option<&'static T> {
    if socket.is_null() {
        return None;
    }
    // SAFETY: `socket` comes from the context of this run, and `storage` is a map of this object.
    let entry =
        unsafe { bpf_sk_storage_get(map(storage), socket.cast(), core::ptr::null_mut(), 0) };
    // SAFETY: a pointer that is not null is to a `T` that lives at least as long as this run.
    unsafe { entry.cast::<T>().as_ref() }
}

/// Keeps `value` with `socket`, in the place of what was there. `false`: there was no memory.
#[inline(always)]
pub fn put<T: Copy>(storage: &'static SkStorage<T>, socket: *mut bpf_sock, value: T) -> bool {
    if socket.is_null() {
        return false;
    }
    // SAFETY: `socket` comes from the context of this run, and `storage` is a map of this object.
    let entry = unsafe {
        bpf_sk_storage_get(
            map(storage),
            socket.cast(),
            core::ptr::null_mut(),
            u64::from(BPF_SK_STORAGE_GET_F_CREATE),
        )
    }
    .cast::<T>();
    if entry.is_null() {
        return false;
    }
    // SAFETY: the pointer is to a `T` of this socket. Its other readers are getpeername() and
    // packets of the same socket, which has not been connected or established yet.
    unsafe { *entry = value };
    true
}

/// Forgets what was kept with `socket`, if anything was.
#[inline(always)]
pub fn forget<T>(storage: &'static SkStorage<T>, socket: *mut bpf_sock) {
    if !socket.is_null() {
        // SAFETY: as in `of`; an entry that is not there is not an error that matters.
        unsafe { bpf_sk_storage_delete(map(storage), socket.cast()) };
    }
}

#[inline(always)]
fn map<T>(storage: &'static SkStorage<T>) -> *mut c_void {
    core::ptr::from_ref(storage).cast_mut().cast()
}
