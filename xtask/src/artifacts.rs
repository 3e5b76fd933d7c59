//! What the build makes, and where it is.

use crate::bpf;
use crate::shell::{command, find_program, pass_through};
use anyhow::{Context, Result};
use std::fs::File;
use std::path::{Path, PathBuf};

/// The programs under test.
#[derive(Clone, Debug)]
pub struct Tools {
    pub kedged: PathBuf,
    pub kedge: PathBuf,
    pub verifier: PathBuf,
    pub load: PathBuf,
    /// What kedged loads into the kernel.
    pub object: PathBuf,
}

impl Tools {
    /// Optimised builds, with which everything but the unit tests runs.
    #[must_use]
    pub fn release() -> Self {
        let folder = target_folder().join("release");
        Self {
            kedged: folder.join("kedged"),
            kedge: folder.join("kedge"),
            verifier: folder.join("kedge-verifier"),
            load: folder.join("kedge-load"),
            object: bpf::object(),
        }
    }
}

/// The repository: xtask is always run by cargo from its source.
#[must_use]
pub fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

#[must_use]
pub fn target_folder() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from)
}

/// Builds the BPF object and all programs.
///
/// # Errors
/// When a compiler is missing or does not succeed.
pub fn build() -> Result<Tools> {
    bpf::build(&repository())?;
    build_programs(&["kedge-daemon", "kedge-cli", "kedge-verifier", "kedge-bench"])?;
    Ok(Tools::release())
}

/// Builds a kedged that goes wrong as the variable `KEDGE_FAULT` says (see its `fault.rs`).
///
/// # Errors
/// When it does not compile.
pub fn build_faulty_kedged() -> Result<PathBuf> {
    build_control_kedged(["faults"], "kedged-faults")
}

/// A kedged of the next ABI, whose tables have another layout; it goes wrong as the other one.
#[derive(Clone, Debug)]
pub struct Next {
    pub kedged: PathBuf,
    pub object: PathBuf,
}

/// Builds the programs of the next ABI.
///
/// # Errors
/// When something does not compile.
pub fn build_next() -> Result<Next> {
    Ok(Next {
        object: bpf::build_next(&repository())?,
        kedged: build_control_kedged(["faults", "abi-next"], "kedged-next")?,
    })
}

/// Cargo gives every build of a program the same name: each is kept under one of its own.
fn build_control_kedged<const N: usize>(features: [&str; N], name: &str) -> Result<PathBuf> {
    let folder = target_folder().join("debug");
    if find_program("cargo").is_none() {
        // A test machine: it was given what it needs.
        return Ok(folder.join(name));
    }
    // Nobody else's build gets the name between ours and its copy.
    let alone = File::create(folder.join("control.lock"))?;
    alone.lock().context("lock control.lock")?;
    // As cargo builds the program for one of its tests: all that it shares with the tests of the
    // workspace is compiled already.
    let words = "cargo test --workspace --no-run --locked --test reader --features";
    let features = features.map(|feature| format!("kedge-daemon/{feature}"));
    let mut cargo = command(words.split(' '));
    cargo.arg(features.join(","));
    pass_through(cargo.current_dir(repository()))?;
    bpf::replace(&folder.join("kedged"), &folder.join(name))?;
    Ok(folder.join(name))
}

fn build_programs(packages: &[&str]) -> Result<()> {
    let mut cargo = command(["cargo", "build", "--release", "--locked"]);
    for package in packages {
        cargo.args(["--package", package]);
    }
    pass_through(cargo.current_dir(repository()))
}
