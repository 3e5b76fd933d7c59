//! Running cargo and test programs, and reading along.

use super::Options;
use super::tally::{SKIP, Tally};
use crate::artifacts::repository;
use crate::libtest;
use crate::shell;
use crate::test_programs::TestProgram;
use anyhow::{Context, Result};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

/// # Errors
/// When it does not succeed.
pub fn cargo_check(arguments: &[&str]) -> Result<()> {
    let mut cargo = Command::new("cargo");
    shell::pass_through(cargo.args(arguments).current_dir(repository()))
}

/// One after the other, as cargo would do it.
///
/// # Errors
/// When one of them cannot be started.
pub fn run_tests<'a>(
    programs: impl Iterator<Item = &'a TestProgram>,
    options: &Options,
) -> Result<Tally> {
    let mut total = Tally::default();
    for program in programs {
        total.add(run_test(program, &[], options)?);
    }
    Ok(total)
}

/// One of them, with these variables.
///
/// # Errors
/// When it cannot be started.
pub fn run_test(
    program: &TestProgram,
    variables: &[(&str, &str)],
    options: &Options,
) -> Result<Tally> {
    let mut test = Command::new(&program.path);
    test.current_dir(&program.folder).arg("--show-output");
    test.args(&options.filter);
    if options.strict {
        test.env("KEDGE_STRICT", "1");
    }
    if options.full {
        test.env("KEDGE_FULL", "1");
    }
    test.envs(variables.iter().copied());
    // Of an error that the client of a scenario is meant to see, its cause says enough.
    test.env("RUST_LIB_BACKTRACE", "0");
    read_along(test, &program.name())
}

/// The examples in the documentation of all crates.
///
/// # Errors
/// When cargo cannot be started.
pub fn run_examples() -> Result<Tally> {
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "--doc", "--workspace", "--locked", "--quiet"]);
    cargo.current_dir(repository());
    read_along(cargo, "examples")
}

fn read_along(mut test: Command, name: &str) -> Result<Tally> {
    let started = Instant::now();
    let mut child = test
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {name}"))?;
    let stdout = child.stdout.take().context("the pipe from a test")?;
    let mut tally = Tally::default();
    let mut lines = Vec::new();
    for line in BufReader::new(stdout).lines() {
        let line = line.with_context(|| format!("read what {name} says"))?;
        tally.line(&line);
        if is_news(&line) {
            println!("  {name}: {line}");
        }
        lines.push(line);
    }
    let status = child.wait().with_context(|| format!("wait for {name}"))?;
    if !status.success() {
        let failures = libtest::failures(lines.iter().map(String::as_str));
        let failures: String = failures.map(|line| format!("  {line}\n")).collect();
        // In one piece: other programs may run beside this one.
        print!("{failures}");
        if tally.failed == 0 {
            tally.broken.push(format!("{name}: {status}"));
        }
    }
    if tally != Tally::default() {
        let took = started.elapsed().as_secs_f64();
        println!("  {name:32} {tally} ({took:.0} s)");
    }
    Ok(tally)
}

fn is_news(line: &str) -> bool {
    let is_scenario = line.starts_with("test ") && line.contains(" ... ");
    line.starts_with(SKIP) || (is_scenario && !line.ends_with("... ok"))
}
