//! The programs that go into the machines, without what only debuggers read: a machine has all its
//! files in memory.

use super::plan::{self, SCENARIO_PROGRAMS};
use crate::artifacts::{self, Tools, repository, target_folder};
use crate::shell::{command, output};
use anyhow::{Context, Result};
use std::fs;
use std::path::PathBuf;

pub struct Program {
    /// Its package and its own: two packages have a test called `guard`.
    pub name: String,
    /// On this machine.
    pub path: PathBuf,
    /// Below the machine's `target/`.
    pub place: String,
    pub role: Role,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Tests of a crate.
    Test,
    /// The same, for which kedge's BPF programs must be loaded.
    LoadingTest,
    /// The same, for which there must be a TPM.
    TpmTest,
    /// Tests with two nodes.
    Scenario,
    /// Started or loaded by the others.
    Part,
}

/// Builds the tests of the crates that talk to the kernel, the scenarios, and what these start.
///
/// # Errors
/// When something does not compile.
pub fn build(tools: &Tools) -> Result<Vec<Program>> {
    let scenarios = SCENARIO_PROGRAMS
        .map(|name| format!("--test {name}"))
        .join(" ");
    let mut programs = Vec::new();
    for (what, role) in [
        ("kedge-capture", Role::LoadingTest),
        ("kedge-sys", Role::Test),
        ("kedge-daemon --test flow", Role::Test),
        ("kedge-tpm --test swtpm", Role::TpmTest),
        (&format!("xtask {scenarios}"), Role::Scenario),
    ] {
        programs.extend(tests(what, role)?);
    }
    let faulty = artifacts::build_faulty_kedged()?;
    for (path, place) in [
        (&tools.kedged, "release/kedged"),
        (&tools.kedge, "release/kedge"),
        (&tools.load, "release/kedge-load"),
        (&tools.verifier, "release/kedge-verifier"),
        (&faulty, "debug/kedged-faults"),
    ] {
        programs.push(Program {
            name: place.to_owned(),
            path: stripped(path, place)?,
            place: place.to_owned(),
            role: Role::Part,
        });
    }
    programs.push(Program {
        name: "kedge.bpf.o".to_owned(),
        path: tools.object.clone(),
        place: "bpf/kedge.bpf.o".to_owned(),
        role: Role::Part,
    });
    Ok(programs)
}

/// Of a package, and maybe of only some of its targets.
fn tests(what: &str, role: Role) -> Result<Vec<Program>> {
    let words = format!("cargo test --no-run --locked --message-format=json --package {what}");
    let (package, _) = what.split_once(' ').unwrap_or((what, ""));
    let told = output(command(words.split(' ')).current_dir(repository()))?;
    let mut programs = Vec::new();
    for line in told.lines() {
        let message: serde_json::Value = serde_json::from_str(line).context("what cargo says")?;
        let (Some(path), true) = (
            message["executable"].as_str(),
            message["profile"]["test"] == true,
        ) else {
            continue;
        };
        let target = message["target"]["name"].as_str();
        let name = format!("{package}/{}", target.context("a nameless test")?);
        programs.push(Program {
            path: stripped(&PathBuf::from(path), &name)?,
            place: plan::below_target(&name),
            name,
            role,
        });
    }
    Ok(programs)
}

fn stripped(program: &PathBuf, name: &str) -> Result<PathBuf> {
    let folder = target_folder().join("vm/programs");
    fs::create_dir_all(&folder)?;
    let path = folder.join(name.replace('/', "-"));
    output(
        command(["strip", "--strip-debug", "-o"])
            .arg(&path)
            .arg(program),
    )?;
    Ok(path)
}
