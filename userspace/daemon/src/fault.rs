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
//! | `kernel-key-due`, `kernel-key-given`, of either direction | the same |
//! | `close-written` | `close-written`, before FIN |
//!
//! `KEDGE_SEAL_LOG=FILE` appends 24 bytes to a file before each seal: the key's fingerprint
//! (`kedge_record::seal_log`) and the record's number.
//!
//! `KEDGE_FAULT=refuse-sending-key:2` makes the kernel refuse the second flow's sending key (kTLS), and
//! `refuse-sending-update:2` the second update of one; so for `receiving`.
//! `KEDGE_FAULT=short-keys:256` makes every key's budget 256 records; both ends need the same.
//! `KEDGE_FAULT=continue` says to peers that keys cannot be updated in place.
//!
//! `KEDGE_FAULT=hang-asleep:3` or `hang-busy:3` makes worker 0 hang at
//! its third beat, for nine seconds.
//!
//! `KEDGE_FAULT=foreign-result` shows peers the Attestation Result that the file `KEDGE_RESULT` has,
//! instead of our own.
//!
//! Several faults stand with commas between them.

#[cfg(feature = "faults")]
mod wanted {
    use kedge_record::Limits;
    use kedge_record::seal_log::{self, Fingerprint};
    use std::fs::File;
    use std::io::{self, Write};
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{LazyLock, OnceLock};
    use std::time::{Duration, Instant};

    struct Fault {
        name: String,
        /// The passage at which it comes true, or what else its number is.
        number: u64,
        passages: AtomicU64,
    }

    static WANTED: LazyLock<Vec<Fault>> = LazyLock::new(|| {
        let wanted = std::env::var("KEDGE_FAULT").unwrap_or_default();
        let fault = |text: &str| {
            let (name, number) = text.split_once(':').unwrap_or((text, "1"));
            Some(Fault {
                name: name.to_owned(),
                number: number.parse().ok()?,
                passages: AtomicU64::new(0),
            })
        };
        wanted.split(',').filter_map(fault).collect()
    });
    static SEALS: OnceLock<File> = OnceLock::new();

    fn of(name: &str) -> Option<&'static Fault> {
        WANTED.iter().find(|fault| fault.name == name)
    }

    pub fn is(name: &str) -> bool {
        of(name).is_some()
    }

    pub fn comes_true(name: &str) -> bool {
        let passage = |fault: &Fault| fault.passages.fetch_add(1, Ordering::Relaxed) + 1;
        of(name).is_some_and(|fault| passage(fault) == fault.number)
    }

    pub fn point(name: &str) {
        if comes_true(name) {
            kedge_sys::process::die();
        }
    }

    /// How long a hanging worker hangs.
    const HANG: Duration = Duration::from_secs(9);

    pub fn hang() {
        if comes_true("hang-asleep") {
            std::thread::sleep(HANG);
        }
        if comes_true("hang-busy") {
            let began = Instant::now();
            while began.elapsed() < HANG {}
        }
    }

    pub fn begin() -> io::Result<()> {
        if let Some(Fault { number, .. }) = of("short-keys") {
            let limits = Limits {
                records_per_key: *number,
                // One pipe's content is some forty records, if small packets and full sockets divide it.
                update_margin: number / 2,
                records_per_update_min: number / 4,
                ..Limits::PROTOCOL
            };
            limits.lower();
        }
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

/// The Result that is to be shown in place of our own.
#[cfg(feature = "faults")]
#[must_use]
pub fn foreign_result() -> Option<String> {
    let path = is("foreign-result").then(|| std::env::var_os("KEDGE_RESULT"));
    let text = std::fs::read_to_string(path??).ok()?;
    Some(text.trim().to_owned())
}

/// The Result that is to be shown in place of our own: none, in a build without faults.
#[cfg(not(feature = "faults"))]
#[must_use]
pub const fn foreign_result() -> Option<String> {
    None
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

/// Whether this is the passage at which something is to go wrong.
#[cfg(feature = "faults")]
#[must_use]
pub fn comes_true(name: &str) -> bool {
    wanted::comes_true(name)
}

/// Whether this is the passage at which something is to go wrong: never, in a build without faults.
#[cfg(not(feature = "faults"))]
#[must_use]
pub const fn comes_true(_name: &str) -> bool {
    false
}

/// Begins the log of seals and lowers the budget of keys, if that is wanted.
///
/// # Errors
/// When its file cannot be opened.
#[cfg(feature = "faults")]
pub fn begin() -> std::io::Result<()> {
    wanted::begin()
}

/// Begins what a test wants: nothing, in a build without faults.
///
/// # Errors
/// None.
#[cfg(not(feature = "faults"))]
pub const fn begin() -> std::io::Result<()> {
    Ok(())
}
