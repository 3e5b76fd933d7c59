//! Running other programs, with errors that show what was run and what it said.

use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A command from its words, for one that needs no further setting.
pub fn command<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> Command {
    let mut words = words.into_iter();
    let mut command = Command::new(words.next().expect("a command has at least its program"));
    command.args(words);
    command
}

/// Runs to the end and returns standard output.
///
/// # Errors
/// When it cannot start or does not succeed; the message carries its standard error.
pub fn output(command: &mut Command) -> Result<String> {
    let done = finish(command)?;
    if !done.status.success() {
        bail!(
            "{}: {}: {}",
            shown(command),
            done.status,
            String::from_utf8_lossy(&done.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// Runs to the end, whatever the end is.
///
/// # Errors
/// When it cannot start.
pub fn finish(command: &mut Command) -> Result<Output> {
    command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start {}", shown(command)))
}

/// Runs with our own terminal, for long work that shows its own progress.
///
/// # Errors
/// When it cannot start or does not succeed.
pub fn pass_through(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("start {}", shown(command)))?;
    if !status.success() {
        bail!("{}: {status}", shown(command));
    }
    Ok(())
}

/// The first program of that name on the path.
#[must_use]
pub fn find_program(name: &str) -> Option<PathBuf> {
    // Debian keeps some of what the lab needs in sbin, which a user's path may lack.
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
}

/// Polls until `ready` gives a value. `limit` is for machines of our own speed: `KEDGE_PATIENCE`,
/// set in virtual ones, says how many times as long it may take.
///
/// # Errors
/// When the deadline passes first, with the last thing that `ready` said.
pub fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut ready: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let (started, limit) = (Instant::now(), limit * patience());
    loop {
        let answer = ready();
        if let Ok(Some(value)) = answer {
            return Ok(value);
        }
        if started.elapsed() > limit {
            let waited = format!("wait for {what}: nothing within {} s", limit.as_secs());
            return match answer {
                Err(cause) => Err(cause.context(waited)),
                Ok(_) => bail!(waited),
            };
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn patience() -> u32 {
    let patience = std::env::var("KEDGE_PATIENCE");
    patience
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1)
}

/// Its words.
#[must_use]
pub fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|a| a.to_string_lossy().into_owned()));
    // What leads into a network namespace says nothing that its name does not.
    let netns = |word: &String| word.starts_with("--net=");
    match words.iter().position(netns) {
        Some(at) => {
            let place = words[at].rsplit('/').next().unwrap_or_default();
            format!("in {place}: {}", words[at + 1..].join(" "))
        }
        None => words.join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_the_command_and_its_words() {
        let error = output(&mut command(["sh", "-c", "echo no such thing >&2; exit 3"]))
            .expect_err("it exits with 3");
        let text = error.to_string();
        assert!(
            text.contains("no such thing") && text.contains("exit status: 3"),
            "{text}"
        );
    }

    #[test]
    fn a_command_in_a_namespace_is_shown_without_the_way_there() {
        let words = [
            "sh",
            "-ec",
            "x",
            "/cgroup",
            "nsenter",
            "--net=/run/netns/kedge-x-a",
            "true",
        ];
        assert_eq!(shown(&command(words)), "in kedge-x-a: true");
    }

    #[test]
    fn waiting_ends_with_the_last_cause() {
        let error = wait_for::<()>("it", Duration::from_millis(1), || bail!("not yet"))
            .expect_err("it never is");
        assert!(format!("{error:#}").ends_with("not yet"), "{error:#}");
    }
}
