//! Faults that a test can inject in no other way: where the daemon dies, and that it leaks; and a
//! log of every seal. Without the feature `faults` all of it compiles to nothing.
//!
//! `KEDGE_FAULT=leak-one-byte` leaks a byte with each first flight, for the wire oracle to find;
//! `KEDGE_FAULT=NAME` or `NAME:3` ends the process, as SIGKILL does, when it comes to that point
//! for the first or third time. In the order in which a flow passes them, the points are:
//!
//! | opener | acceptor |
//! | --- | --- |
//! | `record-0-sealed` | `header-read`, `number-taken`, `policy-checked`, `workload-connected` |
//! | `records-written`: first its flight | `records-written`: first its answer |
//! | `answer-read`, `bytes-delivered` | `bytes-delivered` |
//! | `close-written` | `close-written`, before FIN |
//!
//! `KEDGE_SEAL_LOG=FILE` appends 24 bytes to a file before each seal: the key's fingerprint
//! (`kedge_record::seal_log`) and the record's number.
//!
//! `KEDGE_FAULT=hang-asleep:3` or `hang-busy:3` makes worker 0 hang at
//! its third beat, for nine seconds.

#[cfg(feature = "faults")]
mod wanted {
    use kedge_record::seal_log::{self, Fingerprint};
    use std::fs::File;
    use std::io::{self, Write};
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{LazyLock, OnceLock};
    use std::time::{Duration, Instant};

    static WANTED: LazyLock<Option<(String, u64)>> = LazyLock::new(|| {
        let wanted = std::env::var("KEDGE_FAULT").ok()?;
        let (name, count) = wanted.split_once(':').unwrap_or((&wanted, "1"));
        Some((name.to_owned(), count.parse().ok()?))
    });
    static SEEN: AtomicU64 = AtomicU64::new(0);
    static SEALS: OnceLock<File> = OnceLock::new();

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

    pub fn log_seals() -> io::Result<()> {
        if let Some(path) = std::env::var_os("KEDGE_SEAL_LOG") {
            let file = File::options().create(true).append(true).open(path)?;
            SEALS.get_or_init(|| file);
            seal_log::observe(log);
        }
        Ok(())
    }

    /// One write, so that lines of several threads never mix (write(2), O_APPEND). A seal that
    /// cannot be logged must not be made.
    fn log(key: &Fingerprint, number: u64) {
        let mut line = [0; 24];
        line[..16].copy_from_slice(key);
        line[16..].copy_from_slice(&number.to_be_bytes());
        let logged = SEALS
            .get()
            .is_some_and(|mut file| file.write_all(&line).is_ok());
        assert!(logged, "the log of seals takes no more");
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

/// Begins the log of seals, if one is wanted.
///
/// # Errors
/// When its file cannot be opened.
#[cfg(feature = "faults")]
pub fn log_seals() -> std::io::Result<()> {
    wanted::log_seals()
}

/// Begins the log of seals: never, in a build without faults.
///
/// # Errors
/// None.
#[cfg(not(feature = "faults"))]
pub const fn log_seals() -> std::io::Result<()> {
    Ok(())
}
