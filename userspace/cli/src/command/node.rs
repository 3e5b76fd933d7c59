//! What looks at or changes this node's kernel, without a daemon.

use super::print;
use crate::arguments::{Arguments, OffArguments};
use crate::failure::{Exit, Failure};
use crate::render;
use kedge_api::{Feature, Features};
use kedge_sys::canary;
use std::fs;
use std::io::Write;
use std::path::Path;

const KERNEL_RELEASE: &str = "/proc/sys/kernel/osrelease";

pub fn probe(arguments: &Arguments, out: &mut impl Write) -> Result<Exit, Failure> {
    let release = fs::read_to_string(KERNEL_RELEASE).map_err(|source| Failure::Read {
        path: Path::new(KERNEL_RELEASE).to_owned(),
        source,
    })?;
    let probed = kedge_capture::probe_features()
        .into_iter()
        .map(|feature| Feature {
            name: feature.name.to_owned(),
            available: feature.available,
            required: true,
            reason: feature.reason,
        });
    let sung = canary::sing().into_iter().map(|canary| Feature {
        name: canary.name.to_owned(),
        available: canary.works,
        required: false,
        reason: canary.reason,
    });
    let features = Features {
        kernel: release.trim().to_owned(),
        features: probed.chain(sung).collect(),
    };
    print(arguments, out, &features, render::features)?;
    let complete = |feature: &Feature| feature.available || !feature.required;
    let complete = features.features.iter().all(complete);
    Ok(if complete { Exit::Done } else { Exit::No })
}

pub fn off(what: &OffArguments) -> Result<Exit, Failure> {
    if !what.bpffs.exists() {
        eprintln!(
            "kedge: nothing was detached: there is no {}\n       name the `bpffs` of kedged's configuration",
            what.bpffs.display()
        );
        return Ok(Exit::No);
    }
    kedge_capture::off(&what.bpffs)?;
    eprintln!(
        "kedge: off: nothing is captured or guarded any more below {}",
        what.bpffs.display()
    );
    Ok(Exit::Done)
}
