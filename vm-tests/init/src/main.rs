//! PID 1 of a test machine. It mounts what tests need, loads the modules of `/modules/list` in
//! their order, and then either does what `/plan.json` says or gives a shell, as the kernel's
//! command line says: `kedge=test` or `kedge=shell`.
//!
//! Verdicts go to the virtio port `result`, one JSON object a line; the machine ends through
//! QEMU's debug exit port with a code that QEMU itself never gives.

mod busy;
mod debug_exit;
mod plan;
mod turns;
mod verdicts;

use anyhow::{Context, Result, anyhow};
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use plan::Run;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;
use verdicts::Verdict;

fn main() {
    let code = match run() {
        Ok(true) => debug_exit::ALL_PASSED,
        Ok(false) => debug_exit::SOMETHING_FAILED,
        Err(error) => {
            println!("init: {error:#}");
            debug_exit::COULD_NOT_RUN
        }
    };
    println!("init: the end, {code}");
    debug_exit::leave(code);
}

/// Whether every test passed, and there was one.
fn run() -> Result<bool> {
    mount_all()?;
    load_modules()?;
    sh("ip link set lo up && hostname vm")?;
    let command_line = fs::read_to_string("/proc/cmdline")?;
    let mode = command_line
        .split_whitespace()
        .find_map(|word| word.strip_prefix("kedge="))
        .context("the kernel's command line has no kedge=")?;
    if mode == "shell" {
        let mut shell = Command::new("setsid");
        shell
            .args(["-c", "sh", "-l"])
            .status()
            .context("start a shell")?;
        return Ok(true);
    }
    let mut port = result_port()?;
    turns::take_whole_ones()?;
    let (passed, failed) = follow(plan::read()?, &mut port)?;
    println!(
        "init: {} s of the processors, all in all",
        busy::ticks()? / busy::PER_SECOND
    );
    writeln!(port, r#"{{"passed":{passed},"failed":{failed}}}"#)?;
    port.sync_all().ok();
    Ok(failed == 0 && passed > 0)
}

/// Runs the lanes of a plan beside each other, reports each verdict, and answers how many tests
/// passed and failed.
fn follow(lanes: Vec<Vec<Run>>, port: &mut File) -> Result<(u64, u64)> {
    let (report, verdicts) = mpsc::channel();
    let lane = |runs: Vec<Run>| {
        let report = report.clone();
        move || -> Result<()> {
            for run in &runs {
                for verdict in test(run)? {
                    report.send(verdict).context("nobody takes verdicts")?;
                }
            }
            Ok(())
        }
    };
    let lanes: Vec<_> = lanes
        .into_iter()
        .map(|runs| thread::spawn(lane(runs)))
        .collect();
    drop(report);
    let (mut passed, mut failed) = (0, 0);
    for verdict in verdicts {
        match verdict.passed {
            true => passed += 1,
            false => failed += 1,
        }
        writeln!(port, "{}", serde_json::to_string(&verdict)?)?;
    }
    for lane in lanes {
        lane.join().map_err(|_| anyhow!("a lane panicked"))??;
    }
    Ok((passed, failed))
}

fn mount_all() -> Result<()> {
    for (kind, place) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("tmpfs", "/run"),
        ("tmpfs", "/tmp"),
        ("cgroup2", "/sys/fs/cgroup"),
        ("bpf", "/sys/fs/bpf"),
    ] {
        fs::create_dir_all(place).with_context(|| format!("make {place}"))?;
        mount(
            Some(kind),
            place,
            Some(kind),
            MsFlags::empty(),
            None::<&str>,
        )
        .with_context(|| format!("mount {kind} on {place}"))?;
    }
    fs::create_dir_all("/run/netns")?;
    Ok(())
}

/// The host has put them into an order in which each finds what it depends on.
fn load_modules() -> Result<()> {
    for name in fs::read_to_string("/modules/list")?.lines() {
        let path = Path::new("/modules").join(name);
        let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        let loaded = finit_module(&file, &CString::default(), ModuleInitFlags::empty());
        match loaded {
            Ok(()) | Err(nix::errno::Errno::EEXIST) => {}
            Err(error) => println!("init: module {name}: {error}"),
        }
    }
    Ok(())
}

fn sh(script: &str) -> Result<()> {
    let status = Command::new("sh").args(["-ec", script]).status()?;
    anyhow::ensure!(status.success(), "{script}: {status}");
    Ok(())
}

/// The port that QEMU knows as `result`; without udev its name is only in sysfs.
fn result_port() -> Result<File> {
    for entry in fs::read_dir("/sys/class/virtio-ports")
        .context("no virtio console")?
        .flatten()
    {
        let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if name.trim() == "result" {
            let device = Path::new("/dev").join(entry.file_name());
            return File::options()
                .write(true)
                .open(&device)
                .context("open the result port");
        }
    }
    anyhow::bail!("no virtio port is called result")
}

/// Runs one program of libtest's to the end, whatever the end is.
fn test(run: &Run) -> Result<Vec<Verdict>> {
    let (name, started) = (&run.name, Instant::now());
    println!("init: {name}");
    let mut child = Command::new(&run.program)
        .args(["--test-threads=2", "--show-output"])
        .args(&run.words)
        .envs(&run.variables)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {}", run.program.display()))?;
    let mut text = String::new();
    let stdout = child.stdout.take().context("the pipe")?;
    for line in BufReader::new(stdout).lines() {
        let line = line.context("read what the tests say")?;
        // At once, for who looks at a machine that hangs; the whole stays together.
        if line.starts_with("test ") {
            println!("init: {name}: {line}");
        }
        text += &(line + "\n");
    }
    let status = child.wait().context("wait for the tests")?;
    let seconds = started.elapsed().as_secs();
    println!("{text}init: {name} took {seconds} s");
    let mut verdicts = verdicts::read(name, &text);
    if !status.success() && verdicts.iter().all(|verdict| verdict.passed) {
        verdicts.push(Verdict::failed(
            name,
            &format!("the program itself: {status}"),
        ));
    }
    Ok(verdicts)
}
