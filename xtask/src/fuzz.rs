//! `cargo xtask fuzz`: the fuzz targets of `fuzz/`, built on stable, and run on all processors.
//!
//! cargo-fuzz wants nightly. Coverage instrumentation is an ordinary LLVM pass, though, and
//! libfuzzer-sys needs no more than that, so the flags are given to a stable compiler here.

use crate::in_turn::in_turn;
use crate::shell::finish;
use anyhow::{Context, Result, ensure};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::available_parallelism;

/// What cargo-fuzz passes, as far as a stable compiler takes it.
const INSTRUMENTATION: &str = "-Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    --cfg fuzzing";
/// Longest input tried, in bytes: some records and every frame that matters fit.
const INPUT_MAX: usize = 4_096;

/// How libFuzzer begins its line of how many it has tried.
const TRIED: &str = "stat::number_of_executed_units:";

/// Builds all targets, then runs each for `seconds_each`, starting from its seeds and from what
/// earlier runs found; one on each processor at a time. Answers how many there are.
///
/// # Errors
/// When a target does not build, or finds something: the input is left in `fuzz/artifacts`.
pub fn run(root: &Path, seconds_each: u64) -> Result<u64> {
    let host = host_triple()?;
    let fuzz = root.join("fuzz");
    build(&fuzz, &host)?;
    let binaries = fuzz.join("target").join(&host).join("release");
    let at_once = available_parallelism().map_or(1, usize::from);
    let one = |_, target: &String| fuzz_one(&fuzz, &binaries.join(target), target, seconds_each);
    let targets = targets(&fuzz)?;
    in_turn(&targets, at_once, one)
        .into_iter()
        .collect::<Result<()>>()?;
    Ok(targets.len() as u64)
}

/// With an explicit target, so that build scripts and macros are not instrumented.
fn build(fuzz: &Path, host: &str) -> Result<()> {
    let status = yielding("cargo")
        .args(["build", "--release", "--target", host])
        .current_dir(fuzz)
        .env("RUSTFLAGS", INSTRUMENTATION)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_TARGET_DIR")
        .status()
        .context("run cargo build in fuzz/")?;
    ensure!(
        status.success(),
        "build fuzz targets: cargo failed, see above"
    );
    Ok(())
}

fn fuzz_one(fuzz: &Path, binary: &Path, target: &str, seconds: u64) -> Result<()> {
    let corpus = fuzz.join("corpus").join(target);
    let artifacts = fuzz.join("artifacts").join(target);
    for dir in [&corpus, &artifacts] {
        std::fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    }
    println!("fuzz {target}: {seconds} s");
    let mut fuzzer = yielding(binary);
    fuzzer
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={INPUT_MAX}"))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .args(["-print_final_stats=1", "-verbosity=0"])
        .arg(&corpus)
        .args(Some(fuzz.join("seeds").join(target)).filter(|seeds| seeds.is_dir()));
    let done = finish(&mut fuzzer)?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(
        done.status.success(),
        "{said}fuzz {target}: it found something; repeat it with {} {}/<newest file>",
        binary.display(),
        artifacts.display()
    );
    let tried = said.lines().find_map(|line| line.strip_prefix(TRIED));
    let tried = tried.with_context(|| format!("fuzz {target}: no count of inputs in {said}"))?;
    println!("fuzz {target}: {} inputs, nothing found", tried.trim());
    Ok(())
}

/// To whatever else runs: none of it is in a hurry.
fn yielding(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("nice");
    command.args(["-n", "19"]).arg(program);
    command
}

/// The targets are the files of `fuzz/fuzz_targets`.
fn targets(fuzz: &Path) -> Result<Vec<String>> {
    let dir = fuzz.join("fuzz_targets");
    let entries = std::fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))?;
    let paths = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<Vec<PathBuf>>>()?;
    let mut names: Vec<String> = paths
        .iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    ensure!(!names.is_empty(), "{} holds no target", dir.display());
    Ok(names)
}

fn host_triple() -> Result<String> {
    let output = Command::new("rustc")
        .arg("-vV")
        .output()
        .context("run rustc -vV")?;
    let text = String::from_utf8(output.stdout).context("read the output of rustc -vV")?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc -vV names no host")
}
