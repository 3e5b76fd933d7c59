//! Programs that go on for as long as something else is done beside them.

use crate::shell::shown;
use anyhow::{Context, Result, ensure};
use std::process::{Child, Command, Stdio};

/// One of them, until this is dropped. What it says is not heard.
pub struct Endless {
    child: Child,
    what: String,
}

impl Endless {
    /// # Errors
    /// When it cannot be started.
    pub fn start(command: &mut Command) -> Result<Self> {
        let what = shown(command);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.with_context(|| format!("start {what}"))?;
        Ok(Self { child, what })
    }

    /// # Errors
    /// When it has ended by itself: what was done had nothing beside it.
    pub fn goes_on(&mut self) -> Result<()> {
        let ended = self.child.try_wait()?;
        ensure!(ended.is_none(), "{} was over first: {ended:?}", self.what);
        Ok(())
    }
}

impl Drop for Endless {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
