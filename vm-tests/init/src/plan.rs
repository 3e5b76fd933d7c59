//! `/plan.json`: what to run, in which order, as the host has written it.

use anyhow::{Context, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

/// One run of one of libtest's programs.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// What its verdicts say they are of.
    pub name: String,
    pub program: PathBuf,
    /// libtest's filters.
    pub words: Vec<String>,
    pub variables: BTreeMap<String, String>,
}

pub fn read() -> Result<Vec<Run>> {
    let text = fs::read_to_string("/plan.json").context("read /plan.json")?;
    serde_json::from_str(&text).context("parse /plan.json")
}
