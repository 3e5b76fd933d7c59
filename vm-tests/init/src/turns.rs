//! Who runs for how long. TCG forgets what it knows of an address space when it leaves it, so that
//! going back and forth costs more than what the programs do.

use anyhow::{Context, Result};
use std::io;

/// From now on this process and its children do not interrupt another one when they wake:
/// `SCHED_BATCH` of sched(7). A quarter of the processors' time, where four programs pass 256 MiB on.
#[expect(unsafe_code, reason = "nix has no sched_setscheduler(2)")]
pub fn take_whole_ones() -> Result<()> {
    let none = libc::sched_param { sched_priority: 0 };
    // SAFETY: the parameter lives until the call returns; 0 is the calling process.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const none) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()).context("ask for SCHED_BATCH"),
    }
}
