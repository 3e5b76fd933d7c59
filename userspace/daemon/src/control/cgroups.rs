//! Which cgroups the programs must know: local workloads, managed roots, probes.

use crate::config::Config;
use kedge_capture::{Cgroup, CgroupKind, cgroup_id};
use kedge_model::Mode;
use kedge_policy::LocalWorkload;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
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

pub fn find(config: &Config, workloads: &[LocalWorkload]) -> Found {
    let mut cgroups = Vec::new();
    let mut add = |path: &Path, mode, kind| {
        let id = cgroup_id(&config.cgroup_root.join(path)).ok()?;
        cgroups.push(Cgroup { id, mode, kind });
        Some(id)
    };
    for root in &config.managed_roots {
        add(root, Mode::Require, CgroupKind::ManagedRoot);
    }
    for probe in &config.probe_cgroups {
        add(probe, Mode::Off, CgroupKind::Probe);
    }
    let mut by_id = HashMap::new();
    for workload in workloads {
        let found = add(
            Path::new(&workload.cgroup),
            workload.mode,
            CgroupKind::Workload,
        );
        if let Some(id) = found {
            by_id.insert(id, Arc::clone(&workload.uid));
        }
    }
    Found {
        cgroups,
        workloads: by_id,
    }
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
