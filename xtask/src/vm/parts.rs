//! What machines are made of, and what comes of one that runs its plan to the end.

use super::image::{self, Image, Unpacked};
use super::kernels::Kernel;
use super::machine::{self, End, Qemu};
use super::plan::{self, Extent, Run};
use super::programs::{self, Program, Role};
use super::tpm::MachineTpm;
use crate::artifacts::{Tools, repository, target_folder};
use crate::libtest;
use crate::shell::{command, pass_through};
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// For a machine's tests under TCG on a busy host; they take a fraction of it.
pub const LIMIT: Duration = Duration::from_secs(40 * 60);
/// The same in full.
const LIMIT_IN_FULL: Duration = Duration::from_secs(24 * 60 * 60);

/// What all machines have in common.
pub struct Parts {
    pub qemu: Qemu,
    init: PathBuf,
    pub programs: Vec<Program>,
}

/// What a machine's tests came to.
pub struct Outcome {
    /// The kernel's, as uname(1) says it.
    pub release: String,
    pub passed: usize,
    pub failed: Vec<String>,
    console: PathBuf,
}

/// A verdict as the guest's init reports it.
#[derive(Debug, Deserialize)]
struct Verdict {
    run: String,
    test: String,
    passed: bool,
}

impl Parts {
    /// # Errors
    /// When there is no QEMU to be had, or something does not compile.
    pub fn build(tools: &Tools) -> Result<Self> {
        Ok(Self {
            qemu: Qemu::find()?,
            init: build_init()?,
            programs: programs::build(tools)?,
        })
    }

    /// A kernel, and the image with which it does as `runs` say.
    ///
    /// # Errors
    /// When the kernel is not to be had, or there is nothing to do.
    pub fn image(&self, kernel: &Kernel, runs: &[Run]) -> Result<(Unpacked, Image)> {
        ensure!(!runs.is_empty(), "nothing of the plan has such a name");
        // The archive's indexes are shared by all kernels.
        static ARCHIVE: Mutex<()> = Mutex::new(());
        let alone = ARCHIVE.lock().unwrap_or_else(PoisonError::into_inner);
        let unpacked = image::unpack(kernel)?;
        drop(alone);
        let mut image = Image::base(&unpacked, &self.init)?;
        image.add_text("silent-canaries", kernel.silent_canaries.join("\n"));
        image.add_text("plan.json", serde_json::to_string(runs)?);
        for program in &self.programs {
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

    /// Boots a machine with its TPM, and with what `equip` gives it; its files are in a folder of
    /// that name.
    ///
    /// # Errors
    /// When it did not come to its end in time.
    pub fn run(
        &self,
        kernel: &Kernel,
        runs: &[Run],
        name: &str,
        extent: Extent,
        equip: impl FnOnce(&mut Command, &mut Image) -> Result<()>,
    ) -> Result<Outcome> {
        let (unpacked, mut image) = self.image(kernel, runs)?;
        let folder = machine::folder(name)?;
        let archive = folder.join("image.cpio");
        let mut machine = self.qemu.machine(&unpacked.kernel, &archive, "test");
        let tpm = kernel.tpm.map(MachineTpm::power_on).transpose()?;
        if let Some(tpm) = &tpm {
            tpm.attach(&mut machine);
            tpm.equip(&mut image)?;
        }
        equip(&mut machine, &mut image)?;
        image.write(&archive)?;
        let limit = match extent {
            Extent::Light => LIMIT,
            Extent::Full => LIMIT_IN_FULL,
        };
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
}

impl Outcome {
    /// A line for each test that failed, what it said, and where to look.
    #[must_use]
    pub fn told(&self) -> String {
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

/// Builds what machines run as PID 1.
///
/// # Errors
/// When it does not compile.
pub fn build_init() -> Result<PathBuf> {
    let words = [
        "cargo",
        "build",
        "--release",
        "--locked",
        "--package",
        "kedge-vm-init",
    ];
    pass_through(command(words).current_dir(repository()))?;
    Ok(target_folder().join("release/kedge-vm-init"))
}
