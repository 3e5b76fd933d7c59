//! What the daemon asks of the kernel for its own process.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::time::{ClockId, clock_gettime};
use std::io;
use std::time::Duration;

/// Raises the soft limit of descriptors to the hard one and returns it.
///
/// # Errors
/// Of getrlimit() or setrlimit().
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}

/// No core dump and no ptrace by others: either would hold record keys (prctl(2),
/// PR_SET_DUMPABLE).
///
/// # Errors
/// Of prctl() or setrlimit().
pub fn forbid_dumps() -> io::Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    nix::sys::prctl::set_dumpable(false)?;
    Ok(())
}

/// The processor's time that this thread has used, its system calls included.
///
/// # Errors
/// Of clock_gettime().
pub fn thread_time() -> io::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// Time since the machine started, its sleep included: a clock that nobody sets (CLOCK_BOOTTIME).
///
/// # Errors
/// Of clock_gettime().
pub fn boot_time() -> io::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_BOOTTIME)?.into())
}

/// Ends this process at once, as SIGKILL from outside does: nothing is cleaned up.
pub fn die() -> ! {
    let _ = nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::Signal::SIGKILL);
    // Not reached: nobody can ignore SIGKILL.
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_forbids_dumps_is_not_dumpable() {
        forbid_dumps().expect("prctl");
        assert!(!nix::sys::prctl::get_dumpable().expect("prctl"));
        assert_eq!(getrlimit(Resource::RLIMIT_CORE).expect("getrlimit"), (0, 0));
    }
}
