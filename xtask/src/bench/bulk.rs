//! Streams that are full for as long as something else is measured beside them.

use super::rounds::client;
use crate::lab::Lab;
use crate::lab::topology::Pod;
use anyhow::{Context, Result, ensure};
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::Duration;

/// Until every stream has filled its windows.
const RISE: Duration = Duration::from_millis(500);

/// They end when this is dropped.
pub struct Streams(Vec<Child>);

impl Streams {
    pub fn start(lab: &Lab, from: &'static Pod, to: &Pod, count: usize) -> Result<Self> {
        let mut streams = Self(Vec::new());
        for _ in 0..count {
            let mut command = client(lab, from, to, &["bulk", "--seconds", "600"])?;
            command.stdout(Stdio::null()).stderr(Stdio::null());
            streams
                .0
                .push(command.spawn().context("start a bulk stream")?);
        }
        sleep(RISE);
        Ok(streams)
    }

    /// That none of them has ended meanwhile.
    pub fn ensure_full(&mut self) -> Result<()> {
        for stream in &mut self.0 {
            let ended = stream.try_wait().context("look at a bulk stream")?;
            ensure!(ended.is_none(), "a bulk stream ended too early: {ended:?}");
        }
        Ok(())
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        for stream in &mut self.0 {
            let _ = stream.kill();
            let _ = stream.wait();
        }
    }
}
