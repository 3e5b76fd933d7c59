//! `kedge status`.

use super::attestation::attestation_line;
use super::quantity::duration;
use super::table::fields;
use kedge_api::{ListenerRole, SealedBy, Status, SuiteRecords, SvidStatus, Unenforceable};
use std::collections::BTreeMap;

#[must_use]
pub fn status(status: &Status) -> String {
    let mut rows = vec![
        (
            "node",
            format!("{} of {}", status.node, status.trust_domain),
        ),
        ("daemon", daemon(status)),
        ("svid", svid(&status.svid)),
        ("directory", directory(status)),
        ("policy", policy(status)),
        ("capture", capture(status)),
    ];
    list(
        &mut rows,
        "uncapturable",
        status
            .capture
            .uncapturable
            .iter()
            .map(|workload| format!("{} ({}): {}", workload.uid, workload.id, workload.reason)),
    );
    list(
        &mut rows,
        "unenforceable",
        status.capture.unenforceable.iter().map(unenforceable),
    );
    list(&mut rows, "records", status.records.iter().map(records));
    rows.push(("attestation", attestation_line(&status.attestation)));
    list(
        &mut rows,
        "workers",
        status.workers.iter().map(|worker| {
            format!(
                "{}: {} flows, beat {} ms ago",
                worker.worker, worker.flows, worker.beat_age_ms
            )
        }),
    );
    list(
        &mut rows,
        "listening",
        status.listeners.iter().map(|listener| {
            let role = match listener.role {
                ListenerRole::Peer => "peer",
                ListenerRole::Capture => "capture",
            };
            format!("{role} {}", listener.address)
        }),
    );
    list(&mut rows, "counters", counters(&status.counters));
    list(&mut rows, "programs", counters(&status.capture.counters));
    fields(&rows)
}

fn records(records: &SuiteRecords) -> String {
    let by = match records.by {
        SealedBy::Userspace => "userspace",
        SealedBy::Kernel => "kernel",
        SealedBy::KernelInBulk => "kernel from the first MiB on",
    };
    format!("{}: {by} ({})", records.suite, records.reason)
}

/// Whom the guard of a cgroup cannot hold.
fn unenforceable(workload: &Unenforceable) -> String {
    let mut reasons = Vec::new();
    if !workload.capabilities.is_empty() {
        reasons.push(workload.capabilities.join(", "));
    }
    if workload.unseen > 0 {
        reasons.push(format!("unknown of {} unseen processes", workload.unseen));
    }
    format!(
        "{} ({}): not enforceable by cgroup alone: {}",
        workload.uid,
        workload.id,
        reasons.join("; ")
    )
}

/// The name stands before the first line only.
fn list(
    rows: &mut Vec<(&'static str, String)>,
    name: &'static str,
    lines: impl Iterator<Item = String>,
) {
    let names = std::iter::once(name).chain(std::iter::repeat(""));
    rows.extend(names.zip(lines));
}

fn daemon(status: &Status) -> String {
    format!(
        "{}, pid {}, up {}",
        status.version,
        status.pid,
        duration(status.uptime_s)
    )
}

fn svid(svid: &SvidStatus) -> String {
    let left = match u64::try_from(svid.expires_in_s) {
        Ok(seconds) => format!("expires in {}", duration(seconds)),
        Err(_) => format!("EXPIRED {} ago", duration(svid.expires_in_s.unsigned_abs())),
    };
    format!("{}, {left} ({})", svid.id, svid.not_after)
}

fn directory(status: &Status) -> String {
    let directory = &status.directory;
    format!(
        "version {}, read {} ago: {} nodes, {} workloads, {} services",
        directory.version,
        duration(directory.age_s),
        directory.nodes,
        directory.workloads,
        directory.services
    )
}

fn policy(status: &Status) -> String {
    let policy = &status.policy;
    format!(
        "version {}, read {} ago: {} rules",
        policy.version,
        duration(policy.age_s),
        policy.rules
    )
}

fn capture(status: &Status) -> String {
    match status.capture.generation {
        Some(generation) => format!("generation {generation}"),
        None => "off: no program is attached".to_owned(),
    }
}

fn counters(counters: &BTreeMap<String, u64>) -> impl Iterator<Item = String> {
    counters
        .iter()
        .map(|(name, count)| format!("{name} {count}"))
}
