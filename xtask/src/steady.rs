//! One connection with a request every 100 ms, across whatever happens meanwhile.

use crate::lab::Lab;
use crate::lab::topology::CLIENT;
use crate::shell::wait_for;
use crate::stage::server;
use anyhow::{Context, Result};
use serde_json::Value;
use std::io::Read as _;
use std::process::{Child, Stdio};
use std::time::Duration;

/// From pod `client` to pod `load`.
#[derive(Debug)]
pub struct Steady(Child);

impl Steady {
    /// # Errors
    /// When it cannot be started.
    pub fn start(lab: &Lab) -> Result<Self> {
        let program = lab.tools.load.display().to_string();
        let mut command = lab.command(&CLIENT, &[&program, "steady", &server()])?;
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        std::thread::sleep(Duration::from_millis(500));
        Ok(Self(child))
    }

    /// Of a connection that breaks: the client notices with its next request, and ends by itself.
    ///
    /// # Errors
    /// When it does not within five seconds.
    pub fn broken(mut self) -> Result<Value> {
        wait_for("the client to notice", Duration::from_secs(5), || {
            Ok(self.0.try_wait()?.map(drop))
        })?;
        self.finish()
    }

    /// Ends it; how many requests there were, and how many had no answer or a wrong one.
    ///
    /// # Errors
    /// When it says nothing.
    pub fn finish(mut self) -> Result<Value> {
        drop(self.0.stdin.take());
        let mut text = String::new();
        self.0
            .stdout
            .take()
            .context("the pipe")?
            .read_to_string(&mut text)?;
        self.0.wait()?;
        serde_json::from_str(&text).with_context(|| format!("parse {text:?}"))
    }
}
