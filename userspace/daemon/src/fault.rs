//! Faults that a test can inject in no other way: where the daemon dies, and that it leaks. Without
//! the feature `faults` all of it compiles to nothing.
//!
//! `KEDGE_FAULT=leak-one-byte` leaks a byte with each first flight, for the wire oracle to find;
//! `KEDGE_FAULT=NAME` or `NAME:3` ends the process, as SIGKILL does, when it comes to that point
//! for the first or third time; `KEDGE_FAULT=hang-asleep:3` or `hang-busy:3` makes worker 0 hang at
//! its third beat, for nine seconds.

#[cfg(feature = "faults")]
mod wanted {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::{Duration, Instant};

    static WANTED: LazyLock<Option<(String, u64)>> = LazyLock::new(|| {
        let wanted = std::env::var("KEDGE_FAULT").ok()?;
        let (name, count) = wanted.split_once(':').unwrap_or((&wanted, "1"));
        Some((name.to_owned(), count.parse().ok()?))
    });
    static SEEN: AtomicU64 = AtomicU64::new(0);

    pub fn is(name: &str) -> bool {
        WANTED.as_ref().is_some_and(|(wanted, _)| wanted == name)
    }

    /// How long a hanging worker hangs.
    const HANG: Duration = Duration::from_secs(9);

    pub fn hang() {
        let (count, asleep) = (
            WANTED.as_ref().map_or(0, |(_, count)| *count),
            is("hang-asleep"),
        );
        if (asleep || is("hang-busy")) && SEEN.fetch_add(1, Ordering::Relaxed) + 1 == count {
            let began = Instant::now();
            while began.elapsed() < HANG {
                if asleep {
                    std::thread::sleep(HANG);
                }
            }
        }
    }

    pub fn point(name: &str) {
        let count = WANTED.as_ref().map_or(0, |(_, count)| *count);
        if is(name) && SEEN.fetch_add(1, Ordering::Relaxed) + 1 == count {
            kedge_sys::process::die();
        }
    }
}

/// Whether this fault is wanted.
#[cfg(feature = "faults")]
#[must_use]
pub fn is(name: &str) -> bool {
    wanted::is(name)
}

/// Whether this fault is wanted: never, in a build without faults.
#[cfg(not(feature = "faults"))]
#[must_use]
pub const fn is(_name: &str) -> bool {
    false
}

/// Hangs here if that is wanted.
#[cfg(feature = "faults")]
pub fn hang() {
    wanted::hang();
}

/// Hangs here if that is wanted: never, in a build without faults.
#[cfg(not(feature = "faults"))]
pub const fn hang() {}

/// Dies here if that is wanted.
#[cfg(feature = "faults")]
pub fn point(name: &str) {
    wanted::point(name);
}

/// Dies here if that is wanted: never, in a build without faults.
#[cfg(not(feature = "faults"))]
pub const fn point(_name: &str) {}
