//! Short connections that go on whatever happens, and somebody who tries to come in unguarded.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::io::Read as _;
use std::process::{Child, Stdio};
use xtask::lab::Lab;
use xtask::lab::process::Process;
use xtask::lab::topology::{CLIENT, LOAD, LOAD_PORT, LOCAL, Node, Pod};
use xtask::stage::{at, load};

/// From a to b and back, as well as within a.
const WAYS: [(&Pod, &Pod); 3] = [(&CLIENT, &LOAD), (&LOAD, &LOCAL), (&CLIENT, &LOCAL)];

pub struct Load {
    ways: Vec<(&'static Pod, Child)>,
    intruder: Process,
}

impl Load {
    pub fn start(lab: &mut Lab) -> Result<Self> {
        for pod in [&LOAD, &LOCAL] {
            load::<Value>(lab, pod, &["report", "--clear", &own()])?;
        }
        let program = lab.tools.load.display().to_string();
        let mut ways = Vec::new();
        for (from, to) in WAYS {
            let server = at(to.v4(), LOAD_PORT);
            let mut command = lab.command(from, &[&program, "churn", &server])?;
            let child = command
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            ways.push((to, child));
        }
        let intruder = lab.spawn(Node::B, "intruder", &["bash", "-c", &intrude()])?;
        Ok(Self { ways, intruder })
    }

    /// Every connection was carried to whom it asked for, and nobody came in beside. Gives their
    /// number.
    pub fn finish(self, lab: &Lab) -> Result<usize> {
        let (mut connections, mut made) = (0, 0);
        for (to, child) in self.ways {
            let done = outcome(child)?;
            let to = to.name;
            ensure!(done["errors"] == 0, "to {to}: {done}");
            ensure!(done["misdirected"] == 0, "to {to}: {done}");
            connections += count(&done, "connections")?;
            made += count(&done, "exchanges")?;
        }
        let mut arrived = 0;
        for pod in [&LOAD, &LOCAL] {
            let seen: Value = load(lab, pod, &["report", &own()])?;
            ensure!(
                seen["duplicates"] == 0 && seen["hash_errors"] == 0,
                "{seen}"
            );
            arrived += count(&seen, "nonces")?;
        }
        ensure!(arrived == made, "{made} were made, {arrived} arrived");
        self.intruder.stop(Signal::SIGKILL)?;
        let tried = lab.log("intruder");
        ensure!(tried.contains("dropped"), "nobody tried to come in");
        ensure!(!tried.contains("ENTERED"), "plaintext entered: {tried}");
        Ok(connections)
    }
}

fn outcome(mut child: Child) -> Result<Value> {
    drop(child.stdin.take());
    let mut text = String::new();
    let mut pipe = child.stdout.take().context("the pipe")?;
    pipe.read_to_string(&mut text)?;
    child.wait()?;
    serde_json::from_str(&text).with_context(|| format!("parse {text:?}"))
}

fn count(outcome: &Value, what: &str) -> Result<usize> {
    let count = outcome[what].as_u64().with_context(|| what.to_owned())?;
    Ok(usize::try_from(count)?)
}

/// As a pod itself reaches its server.
fn own() -> String {
    format!("127.0.0.1:{LOAD_PORT}")
}

/// A process of the node's own that connects to a `require` pod, over and over.
fn intrude() -> String {
    let connect = format!(": >/dev/tcp/{}/{LOAD_PORT}", LOAD.v4());
    format!(
        "while :; do if timeout 0.2 bash -c '{connect}' 2>/dev/null; then echo ENTERED; \
         else echo dropped; fi; done"
    )
}
