//! `kedge event follow --json`, as an operator has it open on a node.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};
use xtask::lab::Lab;
use xtask::lab::topology::Node;

/// From the fault to its event.
const TOLD: Duration = Duration::from_secs(20);

pub struct Followed {
    child: Child,
    lines: Receiver<String>,
}

impl Followed {
    /// Only what happens from now on.
    pub fn start(lab: &Lab, node: Node) -> Result<Self> {
        let events = lab.events(node)?;
        let last: Value = match events.lines().last() {
            Some(line) => serde_json::from_str(line)?,
            None => bail!("a daemon without a single event"),
        };
        let since = last["number"].as_u64().context("a number")?.to_string();
        let mut command =
            lab.kedge_command(node, &["event", "follow", "--json", "--since", &since]);
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let says = BufReader::new(child.stdout.take().context("the pipe")?);
        let (sender, lines) = channel();
        thread::spawn(move || {
            says.lines()
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        Ok(Self { child, lines })
    }

    /// The event of this kind whose cause and remedy contain all these words.
    pub fn told(&self, kind: &str, says: &[&str]) -> Result<String> {
        let deadline = Instant::now() + TOLD;
        let mut others = Vec::new();
        while let Ok(line) = self
            .lines
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            let event: Value = serde_json::from_str(&line)?;
            let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
            let (cause, remedy) = (text("cause"), text("remedy"));
            let both = format!("{cause} → {remedy}");
            if event["kind"] == kind && !remedy.is_empty() && says.iter().all(|w| both.contains(w))
            {
                return Ok(both);
            }
            others.push(format!("{}: {both}", text("kind")));
        }
        bail!(
            "no {kind} with {says:?} was told, but:\n{}",
            others.join("\n")
        )
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
