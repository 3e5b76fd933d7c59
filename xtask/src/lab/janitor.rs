//! Removes a lab when the process that owns it is gone, however it went.
//!
//! A small shell, in a session of its own so that Ctrl-C does not reach it, reads from a pipe
//! whose other end only we hold. When the pipe ends without the word `keep`, it takes the lab
//! down. It costs nothing while it waits, and it works after kill -9 as well.

use super::run::Run;
use anyhow::{Context, Result};
use std::io::Write as _;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};

const SCRIPT: &str = r#"read -r word; [ "$word" = keep ] || exec "$0" lab down --run "$1""#;

#[derive(Debug)]
pub struct Janitor {
    pipe: ChildStdin,
}

impl Janitor {
    /// `xtask` is this program: a test has another name than the tool.
    ///
    /// # Errors
    /// When the shell cannot be started.
    pub fn hire(run: &Run, xtask: &Path) -> Result<Self> {
        let mut child = Command::new("setsid")
            .args(["sh", "-c", SCRIPT])
            .arg(xtask)
            .arg(run.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start the lab's janitor")?;
        let pipe = child.stdin.take().context("the janitor's pipe")?;
        Ok(Self { pipe })
    }

    /// The lab shall outlive us.
    pub fn dismiss(mut self) {
        // A janitor that is gone already removes nothing either.
        let _ = self.pipe.write_all(b"keep\n");
    }
}
