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
mod plan;
mod programs;
mod seen;
mod tpm;

use crate::artifacts::{Tools, repository};
use crate::libtest;
use crate::shell::{command, pass_through};
use anyhow::{Context, Result, ensure};
use image::{Image, Unpacked};
use kernels::Kernel;
use machine::{End, Qemu};
pub use plan::Extent;
use plan::Run;
use programs::{Program, Role};
use seen::Seen;
use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tpm::MachineTpm;

/// For one kernel's tests under TCG on a busy machine; they take a fraction of it.
const LIMIT: Duration = Duration::from_secs(40 * 60);
/// The same in full.
const LIMIT_IN_FULL: Duration = Duration::from_secs(24 * 60 * 60);

/// A verdict as the guest's init reports it.
#[derive(Debug, Deserialize)]
struct Verdict {
    run: String,
    test: String,
    passed: bool,
}

/// So many at once: a machine waits half of its time, for its clock or for its other processor.
const MACHINES: usize = 2;

/// Runs the kernel tests on the named kernels, or on all of them; with `only`, the runs of the
/// plan that have one of its words in their name. Answers what was seen.
///
/// # Errors
/// When a test failed on any of them, or a machine did not come to its end.
pub fn test(names: &[String], only: &[String], extent: Extent, tools: &Tools) -> Result<Seen> {
    let kernels = kernels::choose(names)?;
    let qemu = Qemu::find()?;
    let (init, programs) = (build_init()?, programs::build(tools)?);
    let limit = match extent {
        Extent::Light => LIMIT,
        Extent::Full => LIMIT_IN_FULL,
    };
    let one = |kernel: &Kernel| {
        let started = Instant::now();
        println!("▸ Linux {}", kernel.name);
        let runs = plan::runs(kernel, &tests_for(kernel, &programs), only, extent);
        let outcome = test_one(kernel, &qemu, &init, &programs, &runs, limit);
        let told = match &outcome {
            Ok(outcome) => outcome.told(),
            Err(error) => format!("{error:#}"),
        };
        let took = started.elapsed().as_secs();
        println!("  Linux {} ({took} s): {told}", kernel.name);
        outcome
    };
    let (mut failed, mut seen) = (Vec::new(), Seen::default());
    for (kernel, outcome) in kernels.iter().zip(in_turn(&kernels, one)) {
        match outcome {
            Ok(outcome) if outcome.failed.is_empty() => {
                seen.add(kernel, outcome.release, outcome.passed);
            }
            _ => failed.push(kernel.name.clone()),
        }
    }
    ensure!(failed.is_empty(), "failed on Linux {}", failed.join(", "));
    Ok(seen)
}

/// Does `one` with all of them, [`MACHINES`] at a time, and answers in their order.
fn in_turn<T: Sync, R: Send>(all: &[T], one: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let turns = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
        let mine = turns.map_while(|turn| Some((turn, one(all.get(turn)?))));
        mine.collect::<Vec<_>>()
    };
    let mut done: Vec<_> = std::thread::scope(|scope| {
        let workers = [(); MACHINES].map(|()| scope.spawn(worker));
        let done = workers.map(|worker| worker.join().expect("a worker does not panic"));
        done.into_iter().flatten().collect()
    });
    done.sort_by_key(|(turn, _)| *turn);
    done.into_iter().map(|(_, outcome)| outcome).collect()
}

/// What a machine's tests came to.
struct Outcome {
    /// The kernel's, as uname(1) says it.
    release: String,
    passed: usize,
    failed: Vec<String>,
    console: PathBuf,
}

impl Outcome {
    /// A line for each test that failed, what it said, and where to look.
    fn told(&self) -> String {
        let failed = self.failed.len();
        let mut text = format!("{} passed, {failed} failed", self.passed);
        for test in &self.failed {
            text += &format!("\n  FAILED {test}");
        }
        if failed > 0 {
            let console = fs::read(&self.console).unwrap_or_default();
            for line in libtest::failures(String::from_utf8_lossy(&console).lines()) {
                text += &format!("\n  {}", line.trim_end());
            }
            text += &format!("\n  its console: {}", self.console.display());
        }
        text
    }
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

fn image(
    kernel: &Kernel,
    init: &Path,
    programs: &[Program],
    runs: &[Run],
) -> Result<(Unpacked, Image)> {
    ensure!(!runs.is_empty(), "nothing of the plan has such a name");
    // The archive's indexes are shared by all kernels.
    static ARCHIVE: Mutex<()> = Mutex::new(());
    let alone = ARCHIVE.lock().unwrap_or_else(PoisonError::into_inner);
    let unpacked = image::unpack(kernel)?;
    drop(alone);
    let mut image = Image::base(&unpacked, init)?;
    image.add_text("silent-canaries", kernel.silent_canaries.join("\n"));
    image.add_text("plan.json", serde_json::to_string(runs)?);
    for program in programs {
        // A machine has its files in memory: none that no run needs.
        if program.role == Role::Part
            || runs.iter().any(|run| run.program.ends_with(&program.place))
        {
            image.add_program(&plan::in_target(&program.place), &program.path)?;
        }
    }
    if runs.iter().any(|run| run.name == plan::ATTESTED) {
        image.add_tpm_programs()?;
    }
    Ok((unpacked, image))
}

fn test_one(
    kernel: &Kernel,
    qemu: &Qemu,
    init: &Path,
    programs: &[Program],
    runs: &[Run],
    limit: Duration,
) -> Result<Outcome> {
    let (unpacked, mut image) = image(kernel, init, programs, runs)?;
    let folder = machine::folder(&kernel.name)?;
    let archive = folder.join("image.cpio");
    let mut machine = qemu.machine(&unpacked.kernel, &archive, "test");
    let tpm = kernel.tpm.map(MachineTpm::power_on).transpose()?;
    if let Some(tpm) = &tpm {
        tpm.attach(&mut machine);
        tpm.equip(&mut image)?;
    }
    image.write(&archive)?;
    let end = machine::run(machine, &folder, limit)?;
    let (passed, failed): (Vec<_>, _) = verdicts(&folder)?
        .into_iter()
        .partition(|verdict| verdict.passed);
    ensure!(
        (end == End::AllPassed) == failed.is_empty(),
        "the machine's end and its verdicts disagree: see {}",
        folder.display()
    );
    let name = |verdict: Verdict| format!("{}: {}", verdict.run, verdict.test);
    Ok(Outcome {
        release: unpacked.release,
        passed: passed.len(),
        failed: failed.into_iter().map(name).collect(),
        console: folder.join("console.log"),
    })
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

/// What a byte and a round trip cost on a kernel, in instructions: repeatable, whatever else this
/// machine does.
///
/// # Errors
/// When the kernel cannot carry kedge, a measurement fails, or two do not agree.
pub fn bench(name: &str, tools: &Tools) -> Result<()> {
    let kernel = kernels::choose(&[name.to_owned()])?.remove(0);
    ensure!(
        kernel.capture,
        "kedge's programs cannot be loaded on Linux {name}"
    );
    let (qemu, init, programs) = (Qemu::find()?, build_init()?, programs::build(tools)?);
    let (unpacked, image) = image(&kernel, &init, &programs, &plan::counting())?;
    let folder = machine::folder(&format!("{name}-bench"))?;
    let archive = folder.join("image.cpio");
    image.write(&archive)?;
    println!("vm: Linux {name} on one emulated processor; this takes some minutes");
    let qemu = qemu.counting_machine(&unpacked.kernel, &archive, "test");
    let end = machine::run(qemu, &folder, LIMIT)?;
    let path = folder.join("console.log");
    let console = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    ensure!(
        end == End::AllPassed,
        "a measurement failed: see {}",
        path.display()
    );
    println!("{:10} {:32} {:>10}", "records", "figure", "value");
    for line in String::from_utf8_lossy(&console).lines() {
        if let Some([records, figure, value]) = figure(line) {
            println!("{records:10} {figure:32} {value:>10}");
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    #[test]
    fn machines_run_two_at_a_time_and_answer_in_order() {
        let both = Barrier::new(MACHINES);
        let one = |number: &usize| {
            both.wait();
            number * 10
        };
        assert_eq!(in_turn(&[1, 2, 3, 4], one), [10, 20, 30, 40]);
    }
}
