//! Clients whose connections are open, and that say when and how these end.

use crate::lab::Lab;
use crate::lab::topology::{CLIENT, Node, Pod};
use crate::shell::wait_for;
use crate::stage::server;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, SystemTime};

/// One connection; it is ended when this is dropped.
pub struct Waiting {
    child: Child,
    says: BufReader<ChildStdout>,
    local: String,
}

impl Waiting {
    /// Of pod `client` to pod `load`, once it is open.
    ///
    /// # Errors
    /// When it does not open.
    pub fn idle(lab: &Lab) -> Result<Self> {
        Self::open(lab, &CLIENT, &server())
    }

    /// Idle, once it is open.
    ///
    /// # Errors
    /// When it does not open.
    pub fn open(lab: &Lab, from: &'static Pod, to: &str) -> Result<Self> {
        Self::start(lab, from, &["silence", to, "idle"])?.opened()
    }

    pub fn start(lab: &Lab, from: &'static Pod, words: &[&str]) -> Result<Self> {
        let program = lab.tools.load.display().to_string();
        let all = [&[program.as_str()], words].concat();
        let mut command = lab.command(from, &all)?;
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let says = child.stdout.take().context("the pipe")?;
        Ok(Self {
            child,
            says: BufReader::new(says),
            local: String::new(),
        })
    }

    pub fn opened(mut self) -> Result<Self> {
        let mut line = String::new();
        self.says.read_line(&mut line)?;
        let said: Value = serde_json::from_str(&line)
            .with_context(|| format!("the connection did not open: {line:?}"))?;
        let local = said["open"].as_str();
        self.local = local
            .with_context(|| format!("not open: {line}"))?
            .to_owned();
        Ok(self)
    }

    /// Its address and port, once it is open.
    #[must_use]
    pub fn local(&self) -> &str {
        &self.local
    }

    pub fn is_open(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Milliseconds from `since` to the error that it got. A clean end is a failure.
    pub fn error_after(mut self, since: u64, bound: Duration) -> Result<u64> {
        let ended = wait_for(
            "the connection to end",
            bound + Duration::from_secs(5),
            || Ok(self.child.try_wait()?),
        );
        ended?;
        let mut text = String::new();
        self.says.read_to_string(&mut text)?;
        let said: Value = serde_json::from_str(&text).with_context(|| format!("said {text:?}"))?;
        ensure!(said["ended"] == "error", "a dead connection ended: {said}");
        let at = said["at_unix_ms"].as_u64().context("a time")?;
        let took = at.saturating_sub(since);
        ensure!(
            u128::from(took) <= bound.as_millis(),
            "{took} ms, and {bound:?} are promised: {said}"
        );
        Ok(took)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since.expect("after 1970").as_millis()).expect("within 500 million years")
}

/// An event of a node after the first `told` ones holds all these words.
pub fn is_told(lab: &Lab, node: Node, told: usize, words: &[&str]) -> Result<()> {
    wait_for("the event", Duration::from_secs(5), || {
        let events = lab.events(node)?;
        let says = |line: &str| words.iter().all(|word| line.contains(word));
        ensure!(
            events.lines().skip(told).any(says),
            "no event has {words:?}:\n{events}"
        );
        Ok(Some(()))
    })
}
