//! `/plan.json`: what to run, in which order and beside what, as the host has written it.

use anyhow::{Context, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

/// One run of one of libtest's programs.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    lane: String,
    /// What its verdicts say they are of.
    pub name: String,
    pub program: PathBuf,
    /// libtest's filters.
    pub words: Vec<String>,
    pub variables: BTreeMap<String, String>,
}

/// Runs of a lane follow one another; lanes are beside each other.
pub fn read() -> Result<Vec<Vec<Run>>> {
    let text = fs::read_to_string("/plan.json").context("read /plan.json")?;
    let runs: Vec<Run> = serde_json::from_str(&text).context("parse /plan.json")?;
    let mut lanes = BTreeMap::<_, Vec<_>>::new();
    for run in runs {
        lanes.entry(run.lane.clone()).or_default().push(run);
    }
    Ok(lanes.into_values().collect())
}
