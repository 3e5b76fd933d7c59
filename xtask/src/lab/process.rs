//! Processes in a place: its network namespace, its cgroup, a log, and a way to be sure that a
//! number still means the same process.

use super::run::Run;
use super::topology::Place;
use crate::shell::wait_for;
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Joins the cgroup before anything of the program runs: sockets belong to the cgroup that their
/// process was in when it made them.
const JOIN: &str = r#"echo $$ >"$0/cgroup.procs" && exec "$@""#;

/// A process that stays, as recorded in the run's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub name: String,
    pub place: String,
    pub pid: i32,
    /// Clock ticks after boot: with it, a reused number is told from the process that had it.
    pub start_time: u64,
}

/// `words`, to be run at `place`.
///
/// # Errors
/// When no cgroup2 is mounted.
pub fn command_at(run: &Run, place: Place, words: &[&str]) -> Result<Command> {
    Ok(command_in(run, place, &run.cgroup_of(place)?, words))
}

/// The same in a cgroup of the caller's choice.
#[must_use]
pub fn command_in(run: &Run, place: Place, cgroup: &Path, words: &[&str]) -> Command {
    // `ip netns exec` would mount another /sys and hide the cgroups.
    let mut command = Command::new("sh");
    command
        .args(["-ec", JOIN])
        .arg(cgroup)
        .arg("nsenter")
        .arg(format!("--net=/run/netns/{}", place.netns(run)))
        .args(words)
        .stdin(Stdio::null());
    command
}

/// Of a listening socket; one on `::` takes IPv4 too, as a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Process {
    /// Starts `command` with its output in a log of that name.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(run: &Run, place: Place, name: &str, mut command: Command) -> Result<Self> {
        let path = run.log(name);
        let log = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))?;
        let child = command
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C at the terminal is for us; we then end it in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        let pid = i32::try_from(child.id()).context("a process id is an i32")?;
        reap(child);
        let start_time = start_time(pid).with_context(|| format!("{name} ended at once"))?;
        Ok(Self {
            name: name.to_owned(),
            place: place.to_string(),
            pid,
            start_time,
        })
    }

    #[must_use]
    pub fn is_alive(&self) -> bool {
        start_time(self.pid).is_some_and(|now| now == self.start_time)
    }

    /// Sends a signal, unless the number has gone to another process.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        if self.is_alive() {
            kill(Pid::from_raw(self.pid), signal)
                .with_context(|| format!("send {signal} to {}", self.name))?;
        }
        Ok(())
    }

    /// Asks it to end, and insists after five seconds.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(&self, signal: Signal) -> Result<()> {
        self.signal(signal)?;
        if self.ended_within(Duration::from_secs(5)).is_err() {
            self.signal(Signal::SIGKILL)?;
            self.ended_within(Duration::from_secs(5))?;
        }
        Ok(())
    }

    /// # Errors
    /// When it is still there afterwards.
    pub fn ended_within(&self, limit: Duration) -> Result<()> {
        wait_for(&format!("{} to end", self.name), limit, || {
            Ok((!self.is_alive()).then_some(()))
        })
    }

    /// Waits until it listens on a TCP port in its network namespace.
    ///
    /// # Errors
    /// When it ends first, or takes longer than 30 seconds; the end of its log tells why.
    pub fn listens_on(&self, run: &Run, family: Family, port: u16) -> Result<()> {
        let heard = wait_for(
            &format!("{} to listen on port {port}", self.name),
            Duration::from_secs(30),
            || {
                if !self.is_alive() {
                    return Ok(Some(false));
                }
                Ok(is_listened_on(self.pid, family, port).then_some(true))
            },
        );
        if !matches!(heard, Ok(true)) {
            bail!(
                "{} does not serve port {port}; its log ends:\n{}",
                self.name,
                tail(run, &self.name)
            );
        }
        Ok(())
    }
}

/// The last lines of a process's log.
#[must_use]
pub fn tail(run: &Run, name: &str) -> String {
    let text = fs::read_to_string(run.log(name)).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

/// Keeps a dead child from staying as a zombie, which would look alive.
fn reap(mut child: std::process::Child) {
    std::thread::spawn(move || child.wait());
}

/// Field 22 of /proc/PID/stat, for a process that is there and no zombie.
fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_start_time(&stat)
}

fn parse_start_time(stat: &str) -> Option<u64> {
    // The name in parentheses may hold anything; what follows the last one is regular.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?;
    let threads: u32 = fields.nth(16)?.parse().ok()?;
    // The first thread of a dying process may be a zombie while others still have its sockets.
    if (state == "Z" && threads <= 1) || state == "X" {
        return None;
    }
    fields.nth(1)?.parse().ok()
}

fn is_listened_on(pid: i32, family: Family, port: u16) -> bool {
    let table = match family {
        Family::V4 => "tcp",
        Family::V6 => "tcp6",
    };
    fs::read_to_string(format!("/proc/{pid}/net/{table}"))
        .is_ok_and(|table| table.lines().any(|line| is_listener(line, port)))
}

fn is_listener(line: &str, port: u16) -> bool {
    const LISTEN: &str = "0A";
    let mut fields = line.split_whitespace().skip(1);
    let local = fields.next().unwrap_or_default();
    let state = fields.nth(1).unwrap_or_default();
    state == LISTEN && local.ends_with(&format!(":{port:04X}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_survives_an_odd_process_name() {
        let fields: Vec<_> = (4..=40).map(|n| n.to_string()).collect();
        let stat = format!("7 (a) b) S {}", fields.join(" "));
        assert_eq!(parse_start_time(&stat), Some(22));
        let dying = stat.replace(") S", ") Z");
        assert_eq!(parse_start_time(&dying), Some(22), "it has 20 threads");
        let dead = dying.replace(" 19 20 21 ", " 19 1 21 ");
        assert_eq!(parse_start_time(&dead), None);
    }

    #[test]
    fn only_a_listener_of_that_port_counts() {
        let line = "   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000";
        assert!(is_listener(line, 8080));
        assert!(!is_listener(line, 80));
        assert!(!is_listener(&line.replace(" 0A ", " 01 "), 8080));
    }

    #[test]
    fn this_process_is_alive_and_its_number_with_another_start_is_not() {
        let pid = i32::try_from(std::process::id()).expect("a pid fits");
        let start_time = start_time(pid).expect("we are running");
        let us = Process {
            name: "us".into(),
            place: "a".into(),
            pid,
            start_time,
        };
        assert!(us.is_alive());
        assert!(
            !Process {
                start_time: start_time + 1,
                ..us
            }
            .is_alive()
        );
    }
}
