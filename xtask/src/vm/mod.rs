//! `cargo xtask vm`: the tests that touch the kernel, on other kernels than this machine's.
//!
//! ```text
//!  kernels.toml ─► archive ─► image: kernel + modules + init + test programs ─► machine: QEMU
//!                                                                                  │
//!                    table, exit code ◄─ results.json: one verdict a test ◄────────┘
//! ```
//! Everything fetched or made stays below `target/vm`; a second run fetches nothing.

mod archive;
mod backport;
mod image;
pub mod kernels;
mod machine;

use crate::artifacts::{Tools, repository};
use crate::shell::{command, output, pass_through};
use anyhow::{Context, Result, ensure};
use image::Image;
use kernels::Kernel;
use machine::{End, Qemu};
use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// For one kernel's tests under TCG on a busy machine; they take a fraction of it.
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// A verdict as the guest's init reports it.
#[derive(Debug, Deserialize)]
struct Verdict {
    program: String,
    test: String,
    passed: bool,
}

/// Runs the kernel tests on the named kernels, or on all of them.
///
/// # Errors
/// When a test failed on any of them, or a machine did not come to its end.
pub fn test(names: &[String], tools: &Tools) -> Result<()> {
    let kernels = kernels::choose(names)?;
    let qemu = Qemu::find()?;
    let (init, programs) = (build_init()?, build_tests()?);
    let mut failed = Vec::new();
    for kernel in &kernels {
        let started = Instant::now();
        println!("▸ Linux {}", kernel.name);
        let result = test_one(kernel, &qemu, tools, &init, &programs);
        let took = started.elapsed().as_secs();
        match result {
            Ok((passed, 0)) => println!("  {passed} passed ({took} s)"),
            Ok((passed, count)) => {
                println!("  {passed} passed, {count} failed ({took} s)");
                failed.push(kernel.name.clone());
            }
            Err(error) => {
                println!("  {error:#}");
                failed.push(kernel.name.clone());
            }
        }
    }
    ensure!(failed.is_empty(), "failed on Linux {}", failed.join(", "));
    Ok(())
}

fn test_one(
    kernel: &Kernel,
    qemu: &Qemu,
    tools: &Tools,
    init: &Path,
    programs: &[Program],
) -> Result<(usize, usize)> {
    let unpacked = image::unpack(kernel)?;
    let mut image = Image::base(&unpacked, init)?;
    image.add_file("kedge.bpf.o", &tools.object);
    image.add_text("silent-canaries", kernel.silent_canaries.join("\n"));
    for program in programs {
        // Where kedge's programs cannot be loaded, what is missing must be said: the test of that.
        if kernel.capture || !program.loads || program.name == "features" {
            image.add_program(&format!("tests/{}", program.name), &program.path)?;
        }
    }
    let folder = machine::folder(&kernel.name)?;
    let archive = folder.join("image.cpio");
    image.write(&archive)?;
    let qemu = qemu.machine(&unpacked.kernel, &archive, "test");
    let end = machine::run(qemu, &folder, LIMIT)?;
    let verdicts = verdicts(&folder)?;
    let failed: Vec<_> = verdicts.iter().filter(|verdict| !verdict.passed).collect();
    for verdict in &failed {
        println!("  FAILED {}: {}", verdict.program, verdict.test);
    }
    ensure!(
        (end == End::AllPassed) == failed.is_empty(),
        "the machine's end and its verdicts disagree: see {}",
        folder.display()
    );
    if !failed.is_empty() {
        println!("  its console: {}", folder.join("console.log").display());
    }
    Ok((verdicts.len() - failed.len(), failed.len()))
}

/// The last line counts; without it the report is cut short.
fn verdicts(folder: &Path) -> Result<Vec<Verdict>> {
    let text = fs::read_to_string(folder.join("results.json"))?;
    let (lines, last) = text
        .trim_end()
        .rsplit_once('\n')
        .context("no verdict came out")?;
    ensure!(
        last.starts_with(r#"{"passed":"#),
        "the report is cut short: {last}"
    );
    let verdict = |line| serde_json::from_str(line).with_context(|| format!("parse {line}"));
    lines.lines().map(verdict).collect()
}

/// A shell in a machine with that kernel, with kedge in it.
///
/// # Errors
/// When it does not boot.
pub fn shell(name: &str, tools: &Tools) -> Result<()> {
    let kernel = kernels::choose(&[name.to_owned()])?.remove(0);
    let (qemu, unpacked) = (Qemu::find()?, image::unpack(&kernel)?);
    let mut image = Image::base(&unpacked, &build_init()?)?;
    image.add_file("usr/lib/kedge/kedge.bpf.o", &tools.object);
    for (place, program) in [
        ("kedged", &tools.kedged),
        ("kedge", &tools.kedge),
        ("kedge-load", &tools.load),
    ] {
        image.add_program(&format!("bin/{place}"), program)?;
    }
    let archive = machine::folder(&kernel.name)?.join("shell.cpio");
    image.write(&archive)?;
    println!("vm: Linux {name}; `exit` ends it");
    let status = qemu
        .machine(&unpacked.kernel, &archive, "shell")
        .args(["-serial", "mon:stdio"])
        .status()?;
    ensure!(
        status.code().is_some_and(|code| code != 1),
        "QEMU: {status}"
    );
    Ok(())
}

fn build_init() -> Result<PathBuf> {
    let words = [
        "cargo",
        "build",
        "--release",
        "--locked",
        "--package",
        "kedge-vm-init",
    ];
    pass_through(command(words).current_dir(repository()))?;
    Ok(crate::artifacts::target_folder().join("release/kedge-vm-init"))
}

/// A test program that goes into the machines.
struct Program {
    path: PathBuf,
    name: String,
    /// Whether its tests load kedge's BPF programs.
    loads: bool,
}

/// The test programs of the crates that talk to the kernel.
fn build_tests() -> Result<Vec<Program>> {
    let mut programs = Vec::new();
    for (what, loads) in [
        ("--package kedge-capture", true),
        ("--package kedge-sys", false),
        ("--package kedge-daemon --test flow", false),
    ] {
        let words = format!("cargo test --no-run --locked --message-format=json {what}");
        let told = output(command(words.split(' ')).current_dir(repository()))?;
        let program = |line: &str| {
            let message: serde_json::Value = serde_json::from_str(line).ok()?;
            let is_test = message["profile"]["test"] == true;
            is_test.then_some(())?;
            Some(Program {
                path: PathBuf::from(message["executable"].as_str()?),
                name: message["target"]["name"].as_str()?.to_owned(),
                loads,
            })
        };
        programs.extend(told.lines().filter_map(program));
    }
    Ok(programs)
}
