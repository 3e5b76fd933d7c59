//! `cargo xtask test`: everything that can be tested here, cheapest first, with one table at the
//! end. What cannot run on this machine is skipped aloud and counted; `--strict` takes a skip for
//! a failure.

mod run;
mod tally;

use crate::artifacts;
use crate::lab::needs_root;
use crate::test_programs::{self, TestProgram};
use crate::{fuzz, setup, vm};
use anyhow::{Result, ensure};
use run::{cargo_check, run_examples, run_tests, run_tests_in};
use std::panic::resume_unwind;
use std::thread;
use std::time::{Duration, Instant};
use tally::Tally;

/// How much of it.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A skip is a failure.
    pub strict: bool,
    /// The fuzz targets too, briefly.
    pub fuzz: bool,
    /// The tests that touch the kernel, on other kernels too.
    pub kernels: bool,
    /// The heavy counts of the scenarios.
    pub full: bool,
    /// Only tests whose name contains it.
    pub filter: Option<String>,
}

/// Each target for so long, as CI does it.
const FUZZ_SECONDS_EACH: u64 = 15;

/// The test binaries of `xtask/tests` that play in a lab, each in its own.
const SCENARIOS: [&str; 16] = [
    "attested",
    "authority",
    "compatibility",
    "continuations",
    "deaths",
    "faults",
    "first_light",
    "generations",
    "guard",
    "hostile",
    "races",
    "records",
    "refusals",
    "shapes",
    "tables",
    "variants",
];

/// Of these, those that mostly wait, for what is promised in seconds or for a kernel's timers: they do
/// so beside the others, in a lab of their own.
const WAITING: [&str; 3] = ["attested", "guard", "tables"];
const THEIR_LAB: &str = "waiting";

struct Tier {
    name: &'static str,
    needs_root: bool,
    run: fn(&Options, &[TestProgram]) -> Result<Tally>,
}

const TIERS: [Tier; 7] = [
    Tier {
        name: "style: rustfmt, clippy",
        needs_root: false,
        run: style,
    },
    Tier {
        name: "tidy: layers, sizes, documents",
        needs_root: false,
        run: tidy,
    },
    Tier {
        name: "crates: no kernel, no root",
        needs_root: false,
        run: crates,
    },
    Tier {
        name: "capture: this kernel",
        needs_root: true,
        run: capture,
    },
    Tier {
        name: "scenarios: two nodes, real servers",
        needs_root: true,
        run: scenarios,
    },
    Tier {
        name: "kernels: the same in virtual machines",
        needs_root: true,
        run: kernels,
    },
    Tier {
        name: "fuzz: parsers of the wire",
        needs_root: false,
        run: fuzz_targets,
    },
];

/// Runs all tiers, whatever happens in one of them.
///
/// # Errors
/// When something does not compile, anything failed, or, if strict, was skipped.
pub fn test(options: &Options) -> Result<()> {
    if needs_root().is_ok() {
        setup::prepare()?;
        artifacts::build()?;
    }
    let programs = test_programs::build()?;
    let mut rows = Vec::new();
    for tier in &TIERS {
        println!("▸ {}", tier.name);
        let started = Instant::now();
        let tally = tier.outcome(options, &programs);
        println!("  {tally} ({:.0} s)", started.elapsed().as_secs_f64());
        rows.push((tier.name, tally, started.elapsed()));
    }
    summary(&rows);
    let mut total = Tally::default();
    for (_, tally, _) in rows {
        total.add(tally);
    }
    println!(
        "{} passed, {} failed, {} skipped",
        total.passed,
        total.failed,
        total.skipped()
    );
    ensure!(
        total.failed == 0 && total.broken.is_empty(),
        "something failed; see above"
    );
    ensure!(
        !options.strict || total.skipped() == 0,
        "strict, and something was skipped: see the reasons above"
    );
    Ok(())
}

impl Tier {
    fn outcome(&self, options: &Options, programs: &[TestProgram]) -> Tally {
        if self.needs_root && needs_root().is_err() {
            return Tally::skip(format!("{}: needs root", self.name));
        }
        (self.run)(options, programs)
            .unwrap_or_else(|error| Tally::broken(format!("{}: {error:#}", self.name)))
    }
}

fn style(options: &Options, _: &[TestProgram]) -> Result<Tally> {
    if options.filter.is_some() {
        return Ok(Tally::not_asked());
    }
    cargo_check(&["fmt", "--all", "--check"])?;
    cargo_check(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "-D",
        "warnings",
    ])?;
    Ok(Tally::default())
}

fn tidy(options: &Options, programs: &[TestProgram]) -> Result<Tally> {
    let is_tidy =
        |program: &&TestProgram| ["xtask/xtask", "xtask/tidy"].contains(&&*program.name());
    run_tests(programs.iter().filter(is_tidy), options)
}

fn crates(options: &Options, programs: &[TestProgram]) -> Result<Tally> {
    let is_crate =
        |program: &&TestProgram| !["xtask", "kedge-capture"].contains(&&*program.package);
    let mut tally = run_tests(programs.iter().filter(is_crate), options)?;
    if options.filter.is_none() {
        tally.add(run_examples()?);
    }
    Ok(tally)
}

fn capture(options: &Options, programs: &[TestProgram]) -> Result<Tally> {
    let is_capture = |program: &&TestProgram| program.package == "kedge-capture";
    run_tests(programs.iter().filter(is_capture), options)
}

fn scenarios(options: &Options, programs: &[TestProgram]) -> Result<Tally> {
    let is_scenario = |program: &&TestProgram| {
        program.package == "xtask" && SCENARIOS.contains(&&*program.target)
    };
    let (waiting, busy): (Vec<_>, Vec<_>) = programs
        .iter()
        .filter(is_scenario)
        .partition(|program| WAITING.contains(&&*program.target));
    thread::scope(|scope| {
        let beside = scope.spawn(|| run_tests_in(Some(THEIR_LAB), waiting.into_iter(), options));
        let mut tally = run_tests(busy.into_iter(), options)?;
        let beside = beside.join();
        tally.add(beside.unwrap_or_else(|panicked| resume_unwind(panicked))?);
        Ok(tally)
    })
}

fn kernels(options: &Options, _: &[TestProgram]) -> Result<Tally> {
    if !options.kernels || options.filter.is_some() {
        return Ok(Tally::not_asked());
    }
    let seen = vm::test(&[], &[], vm::Extent::Light, &artifacts::Tools::release())?;
    Ok(Tally::passed(seen.passed()))
}

fn fuzz_targets(options: &Options, _: &[TestProgram]) -> Result<Tally> {
    if !options.fuzz || options.filter.is_some() {
        return Ok(Tally::not_asked());
    }
    fuzz::run(&artifacts::repository(), FUZZ_SECONDS_EACH)?;
    Ok(Tally::default())
}

fn summary(rows: &[(&str, Tally, Duration)]) {
    println!(
        "\n{:38} {:>7} {:>7} {:>8} {:>8}",
        "tier", "passed", "failed", "skipped", "seconds"
    );
    for (name, tally, took) in rows {
        let mark = if !tally.broken.is_empty() {
            "  did not run to its end"
        } else if tally.not_asked {
            "  not asked for"
        } else {
            ""
        };
        println!(
            "{name:38} {:>7} {:>7} {:>8} {:>8.0}{mark}",
            tally.passed,
            tally.failed,
            tally.skipped(),
            took.as_secs_f64()
        );
    }
    for (_, tally, _) in rows {
        let told = [
            ("failed", &tally.failures),
            ("broken", &tally.broken),
            ("skipped", &tally.skips),
        ];
        for (verdict, what) in told {
            what.iter().for_each(|what| println!("{verdict}: {what}"));
        }
    }
    println!();
}
