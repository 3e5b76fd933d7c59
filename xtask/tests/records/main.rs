//! Goal: records are the kernel's where this kernel seals and opens them soundly, and stay the
//! daemons' own everywhere else, aloud; whoever looks can tell which; and a kernel that refuses a key
//! ends the flow before a byte of it is plaintext.
//!
//! ```text
//!  client ──► kedged a ── kTLS ══════ wire, captured ══════ kTLS ── kedged b ──► load
//!               └─ kedge flow list, status; ss; /proc/net/tls_stat ─┘
//! ```
//! Both daemons have `records.mode = "kernel"`. On a kernel without kTLS the scenarios that need it
//! show that it is said so, and that the same streams are carried all the same.

mod keys;
mod seen;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xtask::artifacts;
use xtask::lab::topology::Node;
use xtask::lab::{Build, Lab};
use xtask::shapes;
use xtask::wire::{Capture, Report};

const MODE: &str = "\n[records]\nmode = \"kernel\"\n";

/// Plays with daemons that want kernel records, the control build's if there are to be faults, and
/// captures all that they say; afterwards there are none.
fn with_kernel_records(
    lab: &mut Lab,
    name: &str,
    faults: Option<&str>,
    act: impl FnOnce(&mut Lab) -> Result<()>,
) -> Result<Report> {
    let kedged = match faults {
        None => lab.tools.kedged.clone(),
        Some(_) => artifacts::build_faulty_kedged()?,
    };
    let build = Build {
        kedged,
        object: lab.tools.object.clone(),
        lines: MODE.to_owned(),
    };
    shapes::serve(lab)?;
    lab.stop_daemons()?;
    let capture = Capture::start(lab, name)?;
    let played = lab.start_builds(&build, faults).and_then(|()| act(lab));
    let report = capture.finish(lab);
    lab.stop_daemons()?;
    played?;
    report
}

/// The suites whose records a daemon's kernel seals and opens.
fn kernel_suites(lab: &Lab, node: Node) -> Result<Vec<Value>> {
    let status = status(lab, node)?;
    let suites = status["records"].as_array().context("a list of suites")?;
    ensure!(!suites.is_empty(), "neither done nor said: {status}");
    let kernels = suites.iter().filter(|suite| suite["by"] == "kernel");
    Ok(kernels.map(|suite| suite["suite"].clone()).collect())
}

/// The feature of a kernel that takes the next key where the last one was.
const IN_PLACE: &str = "kTLS: key update";

/// What `kedge feature probe` finds.
fn features(lab: &Lab, node: Node) -> Result<Vec<Value>> {
    let probed: Value =
        serde_json::from_str(&lab.kedge_any_end(node, &["feature", "probe", "--json"])?)?;
    let features = probed["features"].as_array();
    features.cloned().context("a list of features")
}

fn status(lab: &Lab, node: Node) -> Result<Value> {
    Ok(serde_json::from_str(
        &lab.kedge(node, &["status", "--json"])?,
    )?)
}

fn counter(lab: &Lab, node: Node, name: &str) -> Result<u64> {
    Ok(status(lab, node)?["counters"][name].as_u64().unwrap_or(0))
}
