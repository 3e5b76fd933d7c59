//! Our programs, and those of others at the same hooks: a socket load balancer is one.

use super::super::cgroups::Cgroups;
use crate::failure::Failure;
use kedge_api::Finding;
use kedge_capture::{Attached, Hook};
use std::path::Path;

/// Hooks at which another program changes what ours sees or has said.
const RENAMING: [&str; 4] = ["connect4", "connect6", "peername4", "peername6"];

pub fn examine(bpffs: &Path) -> Result<Vec<Finding>, Failure> {
    let cgroups = Cgroups::find();
    let hooks = kedge_capture::hooks(bpffs)?;
    let mut findings = Vec::new();
    let alive: Vec<_> = hooks.iter().filter(|hook| hook.cgroup_id != 0).collect();
    for name in kedge_capture::PROGRAMS {
        if !alive.iter().any(|hook| hook.program == *name) {
            findings.push(Finding::fail(
                "programs",
                name,
                "is not attached: its cgroup has gone, or somebody has detached it",
                "restart kedged, and look at `cgroup_root` of its configuration",
            ));
        }
    }
    for hook in &alive {
        findings.extend(others(&cgroups, hook));
    }
    if findings.is_empty() {
        let root = alive.first().and_then(|hook| cgroups.path(hook.cgroup_id));
        let root = root.map_or_else(String::new, |path| path.display().to_string());
        let found = format!("all {} are attached, alone at their hooks", alive.len());
        findings.push(Finding::ok("programs", root, found));
    }
    Ok(findings)
}

/// Programs of others that see the same system calls. A cgroup's own programs run before those of
/// the cgroups above it, and those of one cgroup in the order in which they were attached.
fn others(cgroups: &Cgroups, hook: &Hook) -> Vec<Finding> {
    let is_renaming = RENAMING.iter().any(|suffix| hook.program.ends_with(suffix));
    let Some(ours) = cgroups.path(hook.cgroup_id).filter(|_| is_renaming) else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    for cgroup in cgroups.above(ours).chain(cgroups.at_and_below(ours)) {
        let attached = kedge_capture::attached(cgroup, hook).unwrap_or_default();
        let own = attached.iter().position(|one| one.id == hook.program_id);
        for (position, other) in attached.iter().enumerate() {
            if Some(position) != own {
                let is_before = match own {
                    Some(own) => position < own,
                    None => cgroup.starts_with(ours),
                };
                findings.push(other_program(hook, cgroup, other, is_before));
            }
        }
    }
    findings
}

fn other_program(hook: &Hook, cgroup: &Path, other: &Attached, is_before: bool) -> Finding {
    let name = format!("{} (id {}) at {}", other.name, other.id, cgroup.display());
    let (place, meaning) = match (is_before, hook.program.contains("connect")) {
        (true, true) => (
            "before",
            "kedge sees the address that it has put in the place of the one asked for",
        ),
        (false, true) => (
            "after",
            "it sees capture addresses; what kedge let pass, and it redirects to a managed address, the guard drops in require",
        ),
        (true, false) => ("before", "applications see what kedge knows: the endpoint"),
        (false, false) => ("after", "it may rename what kedge shows"),
    };
    Finding::warn(
        "programs",
        name,
        format!("runs {place} {}: {meaning}", hook.program),
        "none if it is meant to be there; services that both know work in either order",
    )
}
