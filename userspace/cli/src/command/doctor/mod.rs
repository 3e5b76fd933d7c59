//! `kedge doctor`: looks at everything that may keep connections from being captured, also with
//! kedged dead, and goes each workload's own way to kedged.
//!
//! ```text
//!   kernel ─ pins ─ programs, and others at the same hooks ─ network of the node ─ daemon
//!   each workload:  kedge probe, in its cgroup and network namespace ── captured ──▶ kedged
//! ```

mod daemon;
mod firewall;
mod node;
mod probe;
mod programs;
mod workloads;

pub use probe::run as probe;

use super::print;
use crate::arguments::{Arguments, DoctorArguments};
use crate::failure::{Exit, Failure};
use crate::render;
use kedge_api::{Diagnosis, Finding};
use kedge_capture::Serving;
use std::io::Write;

pub fn run(
    arguments: &Arguments,
    what: &DoctorArguments,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let diagnosis = Diagnosis {
        findings: examine(arguments, what)?,
    };
    print(arguments, out, &diagnosis, render::diagnosis)?;
    Ok(match diagnosis.has_failed() {
        true => Exit::No,
        false => Exit::Done,
    })
}

fn examine(arguments: &Arguments, what: &DoctorArguments) -> Result<Vec<Finding>, Failure> {
    let mut findings = node::kernel();
    let Some(serving) = kedge_capture::serving(&what.bpffs)? else {
        findings.push(Finding::fail(
            "pins",
            what.bpffs.display(),
            "nothing is attached below it: no connection is captured or guarded",
            "start kedged, or name the `bpffs` of its configuration: --bpffs DIR",
        ));
        return Ok(findings);
    };
    findings.push(Finding::ok(
        "pins",
        what.bpffs.display(),
        generation(&serving),
    ));
    findings.extend(programs::examine(&what.bpffs)?);
    findings.extend(node::network(&serving));
    // What arrives takes a workload off the daemon's list, so the daemon is asked afterwards.
    let tried = workloads::try_all(&what.bpffs, &serving)?;
    findings.extend(daemon::ask(arguments)?);
    findings.extend(tried);
    Ok(findings)
}

fn generation(serving: &Serving) -> String {
    let [v4, v6] = serving.ranges;
    format!(
        "generation {}, capture ranges {v4} and {v6}",
        serving.generation
    )
}
