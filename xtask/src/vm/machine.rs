//! One run of QEMU, with a bound. Where /dev/kvm does not work, TCG does, some ten times slower.

use crate::artifacts::target_folder;
use crate::shell::{command, find_program, output};
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What the guest's init writes to the debug exit port when all tests passed, as QEMU gives it.
const ALL_PASSED: i32 = 16 * 2 + 1;
const SOMETHING_FAILED: i32 = 17 * 2 + 1;

/// QEMU, and what it must be told to find its own parts.
pub struct Qemu {
    program: PathBuf,
    root: Option<PathBuf>,
}

/// How a machine ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    AllPassed,
    SomethingFailed,
}

impl Qemu {
    /// The one on the path if it is recent; else Debian's backport, unpacked below `target/`:
    /// version 10 does AES under TCG four times as fast as Debian 12's own.
    ///
    /// # Errors
    /// When there is none to be had.
    pub fn find() -> Result<Self> {
        if let Some(program) = find_program("qemu-system-x86_64") {
            let qemu = Self {
                program,
                root: None,
            };
            if qemu.major().is_some_and(|major| major >= 9) {
                return Ok(qemu);
            }
        }
        let root = super::backport::unpacked()?;
        let qemu = Self {
            program: root.join("usr/bin/qemu-system-x86_64"),
            root: Some(root),
        };
        qemu.major().context("the unpacked QEMU does not start")?;
        Ok(qemu)
    }

    fn major(&self) -> Option<u32> {
        let text = output(self.command().arg("--version")).ok()?;
        let (_, version) = text.split_once("version ")?;
        version.split('.').next()?.parse().ok()
    }

    fn command(&self) -> Command {
        let mut qemu = command([&self.program]);
        if let Some(root) = &self.root {
            let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
            let libraries = libraries.map(|folder| root.join(folder).display().to_string());
            qemu.env("LD_LIBRARY_PATH", libraries.join(":"));
            for data in ["usr/share/qemu", "usr/share/seabios"] {
                qemu.arg("-L").arg(root.join(data));
            }
        }
        qemu
    }

    /// A machine with two CPUs that boots `kernel` and `image`.
    #[must_use]
    pub fn machine(&self, kernel: &Path, image: &Path, mode: &str) -> Command {
        // Without instructions that TCG does byte by byte, without the fifth level of page tables,
        // and without guards of memory that are switched with each copy (SMAP) and process (PKU).
        let processor = match kvm_works() {
            true => "-smp 2 -accel kvm -cpu host",
            false => {
                "-smp 2 -accel tcg,thread=multi,tb-size=512 -cpu max,-erms,-fsrm,-la57,-smap,-pku"
            }
        };
        // What the kernel and libc do by the time counter costs little under TCG, where the HPET is
        // a device; whether it is steady is not checked by a clock that stutters under load.
        let words = "apparmor=0 audit=0 clocksource=tsc tsc=reliable";
        self.with_processor(processor, words, kernel, image, mode)
    }

    /// The same with one emulated CPU, whose clock goes on by a nanosecond with each instruction,
    /// and at once to the next timer when there is nothing to do.
    #[must_use]
    pub fn counting_machine(&self, kernel: &Path, image: &Path, mode: &str) -> Command {
        let processor =
            "-smp 1 -accel tcg,thread=single,tb-size=512 -cpu max -icount shift=0,sleep=off";
        // An emulated time counter stutters; without these the kernel complains of it.
        let words = "clocksource=hpet tsc=unstable";
        self.with_processor(processor, words, kernel, image, mode)
    }

    fn with_processor(
        &self,
        processor: &str,
        words: &str,
        kernel: &Path,
        image: &Path,
        mode: &str,
    ) -> Command {
        let mut qemu = self.command();
        // Everything is in memory there, captures too; what is not touched takes none of this machine's.
        let board = "-nodefaults -no-user-config -M q35 -m 6144 -no-reboot -display none";
        qemu.args(board.split(' ')).args(processor.split(' '));
        qemu.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"]);
        qemu.arg("-kernel").arg(kernel).arg("-initrd").arg(image);
        let common =
            "console=ttyS0 quiet panic=-1 oops=panic mitigations=off nokaslr no_timer_check";
        qemu.args(["-append", &format!("{common} {words} kedge={mode}")]);
        qemu
    }
}

/// Runs the tests of a machine; console and results are kept in `folder`.
///
/// # Errors
/// When it did not come to an end of its own within `limit`, or QEMU itself failed.
pub fn run(mut qemu: Command, folder: &Path, limit: Duration) -> Result<End> {
    let (console, results) = (folder.join("console.log"), folder.join("results.json"));
    fs::write(&results, "")?;
    qemu.arg("-serial")
        .arg(format!("file:{}", console.display()));
    qemu.args(["-device", "virtio-serial-pci", "-chardev"]);
    qemu.arg(format!("file,id=result,path={}", results.display()));
    qemu.args(["-device", "virtserialport,chardev=result,name=result"]);
    let mut child = qemu.stdin(Stdio::null()).spawn().context("start QEMU")?;
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if started.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            bail!(
                "no end after {} s; its console: {}",
                limit.as_secs(),
                console.display()
            );
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    match status.code() {
        Some(ALL_PASSED) => Ok(End::AllPassed),
        Some(SOMETHING_FAILED) => Ok(End::SomethingFailed),
        _ => bail!(
            "the machine ended with {status}; its console: {}",
            console.display()
        ),
    }
}

/// Whether a machine of no use runs to its end under KVM: the device alone says little.
fn kvm_works() -> bool {
    // Nested virtualization that is emulated badly stops stock kernels early: trust the CPU's word.
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let has = |flag: &str| cpu.split_whitespace().any(|word| word == flag);
    (has("vmx") || has("svm"))
        && fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .is_ok()
}

/// A folder for one machine's files.
///
/// # Errors
/// When it cannot be made.
pub fn folder(kernel: &str) -> Result<PathBuf> {
    let folder = target_folder().join("vm/runs").join(kernel);
    fs::create_dir_all(&folder)?;
    ensure!(folder.is_dir(), "{} is no folder", folder.display());
    Ok(folder)
}
