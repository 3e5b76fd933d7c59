//! Checks of what a daemon would read, without one.

use super::print;
use crate::arguments::Arguments;
use crate::failure::{Exit, Failure};
use crate::render::fields;
use kedge_directory::Directory;
use kedge_model::Mode;
use kedge_policy::PolicyVersion;
use serde::Serialize;
use std::fs;
use std::io::Write;
use std::path::Path;

#[derive(Serialize)]
struct PolicySummary {
    version: PolicyVersion,
    default_mode: Mode,
    rules: usize,
}

#[derive(Serialize)]
struct DirectorySummary {
    version: u64,
    nodes: usize,
    workloads: usize,
    services: usize,
}

pub fn policy(arguments: &Arguments, folder: &Path, out: &mut impl Write) -> Result<Exit, Failure> {
    let policy = kedge_policy::load(folder)?;
    let summary = PolicySummary {
        version: policy.version(),
        default_mode: policy.default_mode(),
        rules: policy.rules().len(),
    };
    print(arguments, out, &summary, |summary| {
        fields(&[
            ("version", summary.version.to_string()),
            ("default mode", summary.default_mode.to_string()),
            ("rules", summary.rules.to_string()),
        ])
    })?;
    Ok(Exit::Done)
}

pub fn directory(
    arguments: &Arguments,
    file: &Path,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let text = fs::read_to_string(file).map_err(|source| Failure::Read {
        path: file.to_owned(),
        source,
    })?;
    let directory = Directory::parse(&text)?;
    let summary = DirectorySummary {
        version: directory.version(),
        nodes: directory.nodes().len(),
        workloads: directory.workloads().len(),
        services: directory.services().len(),
    };
    print(arguments, out, &summary, |summary| {
        fields(&[
            ("version", summary.version.to_string()),
            ("nodes", summary.nodes.to_string()),
            ("workloads", summary.workloads.to_string()),
            ("services", summary.services.to_string()),
        ])
    })?;
    Ok(Exit::Done)
}
