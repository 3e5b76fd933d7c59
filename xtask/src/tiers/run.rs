//! Running cargo and reading along.

use super::Options;
use super::tally::{SKIP, Tally};
use crate::artifacts::repository;
use crate::shell;
use anyhow::{Context, Result};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// # Errors
/// When it does not succeed.
pub fn cargo_check(arguments: &[&str]) -> Result<()> {
    let mut cargo = Command::new("cargo");
    shell::pass_through(cargo.args(arguments).current_dir(repository()))
}

/// # Errors
/// When cargo cannot be started.
pub fn cargo_test(arguments: &[&str], options: &Options) -> Result<Tally> {
    let mut cargo = Command::new("cargo");
    cargo
        .args(["test", "--locked", "--no-fail-fast"])
        .args(arguments);
    if let Some(text) = &options.filter {
        cargo.arg(text);
    }
    cargo
        .args(["--", "--show-output"])
        .current_dir(repository());
    if options.strict {
        cargo.env("KEDGE_STRICT", "1");
    }
    if options.full {
        cargo.env("KEDGE_FULL", "1");
    }
    let mut child = cargo
        .stdout(Stdio::piped())
        .spawn()
        .context("start cargo test")?;
    let stdout = child.stdout.take().context("the pipe from cargo test")?;
    let mut tally = Tally::default();
    let mut failures = Vec::new();
    for line in BufReader::new(stdout).lines() {
        let line = line.context("read what cargo test says")?;
        tally.line(&line);
        if is_news(&line) {
            println!("  {line}");
        }
        failures.push(line);
    }
    let status = child.wait().context("wait for cargo test")?;
    if !status.success() {
        show_failures(&failures);
        if tally.failed == 0 {
            tally
                .broken
                .push(format!("cargo test {}", arguments.join(" ")));
        }
    }
    Ok(tally)
}

fn is_news(line: &str) -> bool {
    let is_scenario = line.starts_with("test ") && line.contains(" ... ");
    line.starts_with(SKIP) || (is_scenario && !line.ends_with("... ok"))
}

/// From the first failure's output on: what passed before has been counted.
fn show_failures(lines: &[String]) {
    let mut inside = false;
    for line in lines {
        inside = match line.as_str() {
            "failures:" => true,
            line if line.starts_with("test result: ") => false,
            _ => inside,
        };
        if inside {
            println!("  {line}");
        }
    }
}
