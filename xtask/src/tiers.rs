//! `cargo xtask test`: everything that can be tested here, cheapest first, with one table at the
//! end. What cannot run on this machine is skipped aloud and counted; `--strict` takes a skip for
//! a failure.

mod run;
mod tally;

use crate::artifacts;
use crate::in_turn::in_turn;
use crate::lab::needs_root;
use crate::test_programs::{self, TestProgram};
use crate::{fuzz, setup, stage, vm};
use anyhow::{Context, Result, ensure};
use run::{cargo_check, run_examples, run_test, run_tests};
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

/// The test binaries of `xtask/tests` that play in a lab, each in its own; the longest first.
const SCENARIOS: [&str; 16] = [
    "attested",
    "guard",
    "generations",
    "tables",
    "variants",
    "continuations",
    "authority",
    "refusals",
    "deaths",
    "compatibility",
    "first_light",
    "shapes",
    "faults",
    "hostile",
    "races",
    "records",
];

/// So many scenarios at once: they mostly wait, for a kernel's timers and for what is promised in
/// seconds.
const LABS: usize = 3;

struct Tier {
    name: &'static str,
    needs_root: bool,
    run: fn(&Options, &[TestProgram]) -> Result<Tally>,
}

/// One after the other; the tiers of each at once.
const STAGES: [&[Tier]; 6] = [
    &[Tier {
        name: "style: rustfmt, clippy",
        needs_root: false,
        run: style,
    }],
    &[Tier {
        name: "tidy: layers, sizes, documents",
        needs_root: false,
        run: tidy,
    }],
    &[Tier {
        name: "crates: no kernel, no root",
        needs_root: false,
        run: crates,
    }],
    &[Tier {
        name: "capture: this kernel",
        needs_root: true,
        run: capture,
    }],
    &[
        Tier {
            name: "scenarios: two nodes, real servers",
            needs_root: true,
            run: scenarios,
        },
        // It gives way to them.
        Tier {
            name: "fuzz: parsers of the wire",
            needs_root: false,
            run: fuzz_targets,
        },
    ],
    &[Tier {
        name: "kernels: the same in virtual machines",
        needs_root: true,
        run: kernels,
    }],
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
    for stage in STAGES {
        let row = |_, tier: &Tier| tier.row(options, &programs);
        rows.extend(in_turn(stage, stage.len(), row));
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

/// A tier's name, what came of it, and how long it took.
type Row = (&'static str, Tally, Duration);

impl Tier {
    fn row(&self, options: &Options, programs: &[TestProgram]) -> Row {
        println!("▸ {}", self.name);
        let started = Instant::now();
        let tally = self.outcome(options, programs);
        let took = started.elapsed();
        println!("  {}: {tally} ({:.0} s)", self.name, took.as_secs_f64());
        (self.name, tally, took)
    }

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
    let named = |name: &&str| {
        let mut scenarios = programs.iter().filter(|program| program.package == "xtask");
        let program = scenarios.find(|program| program.target == **name);
        program.with_context(|| format!("no test program is called {name}"))
    };
    let scenarios: Vec<_> = SCENARIOS.iter().map(named).collect::<Result<_>>()?;
    let name = std::env::var(stage::LAB).unwrap_or_else(|_| "test".to_owned());
    let one = |lab, program: &&TestProgram| {
        run_test(program, &[(stage::LAB, &format!("{name}{lab}"))], options)
    };
    let mut total = Tally::default();
    for tally in in_turn(&scenarios, LABS, one) {
        total.add(tally?);
    }
    Ok(total)
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
    let targets = fuzz::run(&artifacts::repository(), FUZZ_SECONDS_EACH)?;
    Ok(Tally::passed(targets))
}

fn summary(rows: &[Row]) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_test_program_of_xtask_is_run_by_something() {
        // `vm bench` and `vm pair` play the first two.
        let elsewhere = ["instructions", "machines", "tidy"];
        let folder = artifacts::repository().join("xtask/tests");
        for entry in folder.read_dir().expect("list the tests") {
            let path = entry.expect("an entry").path();
            let name = path.file_stem().and_then(|name| name.to_str());
            let name = name.expect("a name");
            assert!(
                SCENARIOS.contains(&name) || elsewhere.contains(&name),
                "nothing runs {name}"
            );
        }
    }
}
