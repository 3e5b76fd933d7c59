//! One daemon at a time: who starts, and who serves.
//!
//! The BPF file system has no files, but its directories can be locked (flock(2)), and the kernel
//! frees a lock with the last descriptor of its holder, however that ends.

use crate::error::CaptureError;
use crate::pins::ensure_directory;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

const STARTING: &str = "another kedged starts just now; wait until it serves";

/// Held while a daemon starts: one at a time below one `bpffs`.
#[derive(Debug)]
pub struct StartLock {
    bpffs: PathBuf,
    _held: File,
}

/// Held by a daemon that serves, and during a hand-over by both.
#[derive(Debug)]
pub struct ServiceLock {
    _held: File,
}

impl StartLock {
    /// # Errors
    /// If another daemon starts just now.
    pub fn take(bpffs: &Path) -> Result<Self, CaptureError> {
        ensure_directory(bpffs)?;
        let held = open(bpffs)?;
        match held.try_lock() {
            Ok(()) => Ok(Self {
                bpffs: bpffs.to_owned(),
                _held: held,
            }),
            Err(error) => Err(busy(bpffs, error, STARTING)),
        }
    }

    /// The lock of a daemon to which nobody hands over.
    ///
    /// # Errors
    /// If a daemon serves already.
    pub fn serve_alone(&self) -> Result<ServiceLock, CaptureError> {
        let held = self.service()?;
        held.try_lock().map_err(|error| {
            let holder = "another kedged serves here, with another `run_dir`, and cannot hand \
                          over; use its `run_dir`, or end it first";
            busy(&self.bpffs, error, holder)
        })?;
        self.shared(held)
    }

    /// The lock of a daemon to which another one hands over.
    ///
    /// # Errors
    /// If the directory cannot be opened.
    pub fn serve_beside(&self) -> Result<ServiceLock, CaptureError> {
        self.shared(self.service()?)
    }

    /// Turns an exclusive lock into a shared one, too.
    fn shared(&self, held: File) -> Result<ServiceLock, CaptureError> {
        match held.try_lock_shared() {
            Ok(()) => Ok(ServiceLock { _held: held }),
            Err(error) => Err(busy(&self.bpffs, error, STARTING)),
        }
    }

    fn service(&self) -> Result<File, CaptureError> {
        let links = self.bpffs.join("links");
        fs::create_dir_all(&links)
            .map_err(CaptureError::system("make directory", links.display()))?;
        open(&links)
    }
}

fn open(directory: &Path) -> Result<File, CaptureError> {
    File::open(directory).map_err(CaptureError::system("open", directory.display()))
}

fn busy(path: &Path, error: TryLockError, holder: &'static str) -> CaptureError {
    match error {
        TryLockError::WouldBlock => CaptureError::Busy {
            path: path.to_owned(),
            holder,
        },
        TryLockError::Error(source) => CaptureError::system("lock", path.display())(source),
    }
}
