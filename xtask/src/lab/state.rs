//! What runs in a lab, on disk, for `lab list`, `lab exec` and whoever comes after us.
//!
//! Nothing here is needed to clean up: namespaces, cgroups, pins and folders carry the run's name,
//! and processes are found through the run's cgroups. A lab that was killed half-way through
//! being made is therefore removed as well as any other.

use super::process::Process;
use super::run::Run;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::PathBuf;

#[derive(Debug, Default, Serialize, Deserialize)]
pub struct State {
    pub processes: Vec<Process>,
}

impl State {
    /// # Errors
    /// When there is no lab of that run, or its state does not parse.
    pub fn load(run: &Run) -> Result<Self> {
        let path = path(run);
        let text = fs::read_to_string(&path)
            .with_context(|| format!("no lab {run}: read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("parse {}", path.display()))
    }

    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, run: &Run) -> Result<()> {
        let path = path(run);
        let new = path.with_extension("new");
        fs::write(&new, serde_json::to_vec_pretty(self)?)
            .and_then(|()| fs::rename(&new, &path))
            .with_context(|| format!("write {}", path.display()))
    }
}

fn path(run: &Run) -> PathBuf {
    run.folder().join("lab.json")
}
