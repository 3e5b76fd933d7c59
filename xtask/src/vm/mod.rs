//! `cargo xtask vm`: the tests that touch the kernel, on other kernels than this machine's.
//!
//! ```text
//!  kernels.toml ─► archive ─► image: kernel + modules + init + programs + plan ─► machine: QEMU
//!                                                                                   │
//!                    table, exit code ◄─ results.json: one verdict a test ◄─────────┘
//! ```
//! Everything fetched or made stays below `target/vm`; a second run fetches nothing.

mod archive;
mod backport;
mod image;
pub mod kernels;
mod machine;
mod pair;
mod parts;
mod plan;
mod programs;
mod seen;
mod tpm;

use crate::artifacts::Tools;
use crate::in_turn::in_turn;
use anyhow::{Context, Result, ensure};
use kernels::Kernel;
use machine::{End, Qemu};
use parts::{Outcome, Parts, build_init};
pub use plan::Extent;
use programs::{Program, Role};
use seen::Seen;
use std::fs;
use std::num::NonZero;
use std::thread;
use std::time::Instant;

/// As many at once as there are pairs of processors, since each machine has two and keeps them busy.
/// On two, a pair of machines gains nothing: the capture tests on Linux 6.12, 98 s alone, take 206 s
/// beside the same on another.
fn at_once() -> usize {
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    (processors / 2).max(1)
}

/// Runs the kernel tests on the named kernels, or on all of them and then on the table's pairs; with
/// `only`, the runs of the plan that have one of its words in their name. Answers what was seen.
///
/// # Errors
/// When a test failed on any of them, or a machine did not come to its end.
pub fn test(names: &[String], only: &[String], extent: Extent, tools: &Tools) -> Result<Seen> {
    let kernels = kernels::choose(names)?;
    let parts = Parts::build(tools)?;
    let one = |_, kernel: &Kernel| {
        let runs = plan::runs(kernel, &tests_for(kernel, &parts.programs), only, extent);
        aloud(&format!("Linux {}", kernel.name), || {
            let as_it_is = |_: &mut _, _: &mut _| Ok(());
            parts.run(kernel, &runs, &kernel.name, extent, as_it_is)
        })
    };
    let (mut failed, mut seen) = (Vec::new(), Seen::default());
    for (kernel, outcome) in kernels.iter().zip(in_turn(&kernels, at_once(), one)) {
        match outcome {
            Ok(outcome) if outcome.failed.is_empty() => {
                seen.add(kernel, outcome.release, outcome.passed);
            }
            _ => failed.push(kernel.name.clone()),
        }
    }
    ensure!(failed.is_empty(), "failed on Linux {}", failed.join(", "));
    if names.is_empty() && only.is_empty() {
        for pair in kernels::pairs()? {
            let passed = play_pair(&pair, &parts, tools, extent)?;
            seen.add_pair(&pair, passed);
        }
    }
    Ok(seen)
}

/// Two nodes, each on a machine of its own: the first one's flows open.
///
/// # Errors
/// When a test failed on one of them, or a machine did not come to its end.
pub fn pair(opens: &str, accepts: &str, extent: Extent, tools: &Tools) -> Result<()> {
    let pair = kernels::pair(opens, accepts)?;
    play_pair(&pair, &Parts::build(tools)?, tools, extent).map(drop)
}

/// Answers how many tests passed.
fn play_pair(pair: &[Kernel; 2], parts: &Parts, tools: &Tools, extent: Extent) -> Result<usize> {
    let between = pair::Between::make(tools)?;
    let halves = pair::halves(pair);
    let outcomes = in_turn(&halves, halves.len(), |_, half| {
        aloud(&half.name, || half.run(parts, &between, extent))
    });
    let mut passed = 0;
    for (half, outcome) in halves.iter().zip(outcomes) {
        let outcome = outcome?;
        ensure!(outcome.failed.is_empty(), "failed on {}", half.name);
        passed += outcome.passed;
    }
    Ok(passed)
}

/// Says what runs, and then what came of it.
fn aloud(what: &str, run: impl FnOnce() -> Result<Outcome>) -> Result<Outcome> {
    let started = Instant::now();
    println!("▸ {what}");
    let outcome = run();
    let told = match &outcome {
        Ok(outcome) => outcome.told(),
        Err(error) => format!("{error:#}"),
    };
    println!("  {what} ({} s): {told}", started.elapsed().as_secs());
    outcome
}

/// Where kedge's programs cannot be loaded, what is missing must be said: the test of that.
fn tests_for<'a>(kernel: &Kernel, programs: &'a [Program]) -> Vec<&'a str> {
    let tests = programs.iter().filter(|program| match program.role {
        Role::Test => true,
        Role::LoadingTest => kernel.capture || program.name == "kedge-capture/features",
        Role::TpmTest => kernel.tpm.is_some(),
        Role::Scenario | Role::Part => false,
    });
    tests.map(|program| program.name.as_str()).collect()
}

/// What a byte and a round trip cost on a kernel, in instructions: repeatable, whatever else this
/// machine does.
///
/// # Errors
/// When the kernel cannot carry kedge, a measurement fails, or two do not agree.
pub fn bench(name: &str, tools: &Tools) -> Result<()> {
    let kernel = kernels::capturing(name)?;
    let parts = Parts::build(tools)?;
    let (unpacked, image) = parts.image(&kernel, &plan::counting())?;
    let folder = machine::folder(&format!("{name}-bench"))?;
    let archive = folder.join("image.cpio");
    image.write(&archive)?;
    println!("vm: Linux {name} on one emulated processor; this takes some minutes");
    let qemu = parts
        .qemu
        .counting_machine(&unpacked.kernel, &archive, "test");
    let end = machine::run(qemu, &folder, parts::LIMIT)?;
    let path = folder.join("console.log");
    let console = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    ensure!(
        end == End::AllPassed,
        "a measurement failed: see {}",
        path.display()
    );
    println!("{:21} {:32} {:>10}", "records", "figure", "value");
    for line in String::from_utf8_lossy(&console).lines() {
        if let Some([records, figure, value]) = figure(line) {
            println!("{records:21} {figure:32} {value:>10}");
        }
    }
    Ok(())
}

/// Who seals records, what was counted, and how many.
fn figure(line: &str) -> Option<[&str; 3]> {
    let words: Vec<_> = line.strip_prefix("figure ")?.split_whitespace().collect();
    words.try_into().ok()
}

/// A shell in a machine with that kernel, with kedge in it.
///
/// # Errors
/// When it does not boot.
pub fn shell(name: &str, tools: &Tools) -> Result<()> {
    let kernel = kernels::choose(&[name.to_owned()])?.remove(0);
    let (qemu, unpacked) = (Qemu::find()?, image::unpack(&kernel)?);
    let mut image = image::Image::base(&unpacked, &build_init()?)?;
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
