//! The edge: reading with a bound, writing so that a reader never sees half a file.

use crate::error::StoreError;
use crate::limits::FILE_BYTES_MAX;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

pub(crate) const PUBLIC: u32 = 0o644;
pub(crate) const PRIVATE: u32 = 0o600;

/// Where the three files of an SVID are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SvidPaths {
    /// PEM: the leaf first, then its intermediates.
    pub certificate: PathBuf,
    /// PEM: the leaf's private key.
    pub key: PathBuf,
    /// PEM: the trust anchors.
    pub bundle: PathBuf,
}

impl SvidPaths {
    /// `<dir>/<name>.pem`, `<dir>/<name>.key` and `<dir>/bundle.pem`.
    #[must_use]
    pub fn in_dir(dir: &Path, name: &str) -> Self {
        Self {
            certificate: dir.join(format!("{name}.pem")),
            key: dir.join(format!("{name}.key")),
            bundle: dir.join("bundle.pem"),
        }
    }
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, StoreError> {
    let failed = |source| failure("read", path, source);
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(StoreError::TooLarge {
            path: path.to_owned(),
            limit: FILE_BYTES_MAX,
        });
    }
    Ok(bytes)
}

/// Refuses a key that anybody but its owner may read.
pub(crate) fn require_private(path: &Path) -> Result<(), StoreError> {
    let metadata = fs::metadata(path).map_err(|source| failure("look at", path, source))?;
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(StoreError::KeyExposed(path.to_owned()));
    }
    Ok(())
}

/// Makes `dir`, for its owner only, unless it is there.
pub(crate) fn create_dir(dir: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|source| failure("create directory", dir, source))
}

/// Writes a file that must not be there yet.
pub(crate) fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), StoreError> {
    create_and_sync(path, bytes, mode).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => StoreError::CaExists(path.to_owned()),
        _ => failure("write", path, source),
    })
}

/// Replaces a file by rename, so that a reader sees the old content or the new one.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), StoreError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = create_and_sync(&temporary, bytes, mode)
        .and_then(|()| fs::rename(&temporary, path))
        .map_err(|source| failure("write", path, source));
    if written.is_err() {
        // Best effort: the error that is returned matters more than a file left behind.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn create_and_sync(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn failure(operation: &'static str, path: &Path, source: io::Error) -> StoreError {
    StoreError::File {
        operation,
        path: path.to_owned(),
        source,
    }
}
