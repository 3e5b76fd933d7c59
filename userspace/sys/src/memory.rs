//! What malloc keeps.

/// Gives back to the kernel what was needed once; malloc keeps most of what is freed. Other libcs
/// than glibc are left alone.
pub fn return_free() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) may be called by any thread at any time; what is in use stays.
    unsafe {
        libc::malloc_trim(0);
    }
}
