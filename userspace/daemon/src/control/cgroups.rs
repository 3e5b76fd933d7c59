//! Which cgroups the programs must know: local workloads, managed roots, probes.

use crate::config::Config;
use kedge_capture::{Cgroup, CgroupKind, cgroup_id};
use kedge_model::Mode;
use kedge_policy::LocalWorkload;
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Where the daemon itself runs, below the cgroup root.
pub const OWN: &str = "kedged";

/// The cgroups that exist by now. A workload whose cgroup does not exist yet is covered by its
/// managed root until it does.
pub struct Found {
    pub cgroups: Vec<Cgroup>,
    /// Cgroup id → uid of the workload in it.
    pub workloads: HashMap<u64, Arc<str>>,
}

#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// Guarding less than was asked for is not an option.
    #[error("cgroup {}: {source}; it is named in `managed_roots` or `probe_cgroups`: make it, or correct the configuration", path.display())]
    Configured { path: PathBuf, source: io::Error },
    #[error("cgroup {} of workload {uid}: {source}", path.display())]
    Workload {
        path: PathBuf,
        uid: Arc<str>,
        source: io::Error,
    },
}

/// # Errors
/// When a configured cgroup cannot be found, or a workload's cannot be told to be missing: then
/// nothing is changed.
pub fn find(config: &Config, workloads: &[LocalWorkload]) -> Result<Found, CgroupError> {
    let mut cgroups = Vec::new();
    let roots = config
        .managed_roots
        .iter()
        .map(|path| (path, Mode::Require, CgroupKind::ManagedRoot));
    let probes = config
        .probe_cgroups
        .iter()
        .map(|path| (path, Mode::Off, CgroupKind::Probe));
    for (path, mode, kind) in roots.chain(probes) {
        let path = config.cgroup_root.join(path);
        let id = cgroup_id(&path).map_err(|source| CgroupError::Configured { path, source })?;
        cgroups.push(Cgroup {
            id,
            mode,
            kind,
            probe_ports: Vec::new(),
        });
    }
    let mut by_id = HashMap::new();
    for workload in workloads {
        let path = config.cgroup_root.join(&workload.cgroup);
        let (uid, mode) = (Arc::clone(&workload.uid), workload.mode);
        match cgroup_id(&path) {
            Ok(id) => {
                cgroups.push(Cgroup {
                    id,
                    mode,
                    kind: CgroupKind::Workload,
                    probe_ports: workload.probe_ports.clone(),
                });
                by_id.insert(id, uid);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(CgroupError::Workload { path, uid, source }),
        }
    }
    Ok(Found {
        cgroups,
        workloads: by_id,
    })
}

/// Moves this process into a cgroup of its own below the root, which the programs never capture.
pub fn join_own(config: &Config) -> io::Result<PathBuf> {
    let own = config.cgroup_root.join(OWN);
    match std::fs::create_dir(&own) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    std::fs::write(own.join("cgroup.procs"), std::process::id().to_string())?;
    Ok(own)
}
