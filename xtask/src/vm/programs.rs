//! The programs that go into the machines, without what only debuggers read: a machine has all its
//! files in memory.

use super::plan::{self, SCENARIO_PROGRAMS};
use crate::artifacts::{self, Tools, target_folder};
use crate::shell::{command, output};
use crate::test_programs::{self, TestProgram};
use anyhow::Result;
use std::fs;
use std::path::{Path, PathBuf};

pub struct Program {
    /// Of a test: its package and its own.
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
    let mut programs = Vec::new();
    for test in test_programs::build()? {
        if let Some(role) = role(&test) {
            let name = test.name();
            programs.push(Program {
                path: stripped(&test.path, &name)?,
                place: plan::below_target(&name),
                name,
                role,
            });
        }
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

/// Of a test that talks to the kernel.
fn role(test: &TestProgram) -> Option<Role> {
    match (&*test.package, &*test.target) {
        ("kedge-capture", _) => Some(Role::LoadingTest),
        ("kedge-sys", _) | ("kedge-daemon", "flow") => Some(Role::Test),
        ("kedge-tpm", "swtpm") => Some(Role::TpmTest),
        ("xtask", name) if SCENARIO_PROGRAMS.contains(&name) => Some(Role::Scenario),
        _ => None,
    }
}

fn stripped(program: &Path, name: &str) -> Result<PathBuf> {
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
