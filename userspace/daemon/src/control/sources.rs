//! The files that the daemon lives by: directory, policies, certificates. Read at start, and again
//! when they change; a file that cannot be used leaves the last good version in force.

use crate::config::Config;
use crate::limits::{FILES_POLL, FILES_POLL_MIN, FILES_SETTLE};
use kedge_directory::{Directory, DirectoryError};
use kedge_identity::{NodeSvid, StoreError, Trust};
use kedge_policy::{Policy, PolicyError};
use notify::{RecursiveMode, Watcher};
use rustls_pki_types::UnixTime;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("read directory {}", path.display())]
    ReadDirectory {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("directory {}", path.display())]
    Directory {
        path: PathBuf,
        source: DirectoryError,
    },
    #[error("policies {}", path.display())]
    Policy { path: PathBuf, source: PolicyError },
    #[error("own X.509-SVID")]
    Svid(#[from] StoreError),
    #[error("whom to believe")]
    Trust(#[source] StoreError),
}

/// Reads the files, and says when to read them again.
pub struct Sources {
    changed: Arc<Notify>,
    /// Watches as long as it lives. Without one (inotify may be exhausted) there is still the poll.
    _watcher: Option<notify::RecommendedWatcher>,
}

impl Sources {
    pub fn watch(config: &Config) -> Self {
        let changed = Arc::new(Notify::new());
        let watcher = watcher(config, Arc::clone(&changed));
        if let Err(error) = &watcher {
            tracing::warn!(%error, "no file notifications: files are polled instead");
        }
        Self {
            changed,
            _watcher: watcher.ok(),
        }
    }

    /// Until files may have changed, and have settled; or `wanted` asks, or it is time anyway.
    pub async fn changed(&self, wanted: impl Future<Output = ()>) {
        tokio::select! {
            changed = timeout(FILES_POLL, self.changed.notified()) => {
                if changed.is_ok() {
                    sleep(FILES_SETTLE).await;
                }
            }
            () = wanted => sleep(FILES_POLL_MIN).await,
        }
    }
}

/// Files are replaced by rename, so it is their folders that are watched.
fn watcher(config: &Config, changed: Arc<Notify>) -> notify::Result<notify::RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            changed.notify_one();
        }
    })?;
    let files = [
        &config.directory,
        &config.svid.certificate,
        &config.svid.key,
        &config.svid.bundle,
    ];
    let folders = files
        .into_iter()
        .chain(&config.revoked)
        .filter_map(|file| file.parent());
    let folders: HashSet<&Path> = folders.chain([config.policies.as_path()]).collect();
    for folder in folders {
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}

pub fn read_directory(config: &Config) -> Result<Directory, SourceError> {
    let path = &config.directory;
    let text = std::fs::read_to_string(path).map_err(|source| SourceError::ReadDirectory {
        path: path.clone(),
        source,
    })?;
    Directory::parse(&text).map_err(|source| SourceError::Directory {
        path: path.clone(),
        source,
    })
}

pub fn read_policy(config: &Config) -> Result<Policy, SourceError> {
    let path = &config.policies;
    kedge_policy::load(path).map_err(|source| SourceError::Policy {
        path: path.clone(),
        source,
    })
}

pub fn read_svid(config: &Config) -> Result<NodeSvid, SourceError> {
    Ok(NodeSvid::load(&config.svid, &config.id(), UnixTime::now())?)
}

pub fn read_trust(config: &Config) -> Result<Trust, SourceError> {
    Trust::load(&config.svid.bundle, config.revoked.as_deref()).map_err(SourceError::Trust)
}
