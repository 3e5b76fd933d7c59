//! Two nodes and their pods on this machine: network namespaces, cgroups, real servers, and each
//! node's own kedged. See [`topology`] for the picture. Each of two virtual machines has one of the
//! nodes ([`Lab::half`]).
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! # let (tools, xtask) = (xtask::artifacts::Tools::release(), std::env::current_exe()?);
//! use xtask::lab::{Lab, topology::CLIENT};
//! let mut lab = Lab::up("lab".parse()?, &tools, &xtask)?; // namespaces and servers, no kedge yet
//! lab.start_daemons()?;
//! lab.run(&CLIENT, &["curl", "http://10.96.0.10/"])?;
//! # Ok(()) }                                             // dropping it removes everything
//! ```

pub mod attestation;
mod cgroup;
mod cpu;
mod daemons;
pub mod documents;
mod janitor;
mod network;
pub mod newcomer;
pub mod process;
mod run;
pub mod services;
mod state;
pub mod topology;
pub mod tpm;

pub use cpu::Share;
pub use daemons::Build;
pub use network::WIRE;
pub use run::{Lock, Run, cgroup2};

use crate::artifacts::Tools;
use crate::shell;
use anyhow::{Context, Result, ensure};
use janitor::Janitor;
use nix::sched::{CloneFlags, setns};
use process::{Process, command_at};
use state::State;
use std::fs;
use std::panic::resume_unwind;
use std::path::Path;
use std::process::{Command, Output};
use std::thread;
use topology::{NODES, Node, PODS, Place};

/// A lab that this process owns; dropping it takes it down.
#[derive(Debug)]
pub struct Lab {
    pub run: Run,
    pub tools: Tools,
    /// Those on this machine.
    nodes: &'static [Node],
    state: State,
    lock: Option<Lock>,
    janitor: Option<Janitor>,
}

impl Lab {
    /// Makes the namespaces, cgroups and servers of a lab, without any kedge in it. Whatever an
    /// earlier lab of the same run has left is removed first.
    ///
    /// # Errors
    /// When something is not installed, not allowed, or does not start; nothing is left then.
    pub fn up(run: Run, tools: &Tools, xtask: &Path) -> Result<Self> {
        Self::with_nodes(&NODES, run, tools, xtask)
    }

    /// One node and its pods; the other one is on the machine at the far end of this one's only
    /// network interface, [`network::NIC`], which the node takes.
    ///
    /// # Errors
    /// As [`Lab::up`]'s, or when there is no such interface.
    pub fn half(node: Node, run: Run, tools: &Tools, xtask: &Path) -> Result<Self> {
        let nodes = match node {
            Node::A => &[Node::A],
            Node::B => &[Node::B],
        };
        Self::with_nodes(nodes, run, tools, xtask)
    }

    fn with_nodes(nodes: &'static [Node], run: Run, tools: &Tools, xtask: &Path) -> Result<Self> {
        needs_root()?;
        let lock = run.lock()?;
        remove(&run).context("remove what an earlier lab has left")?;
        let janitor = Janitor::hire(&run, xtask)?;
        let mut lab = Self {
            run,
            tools: tools.clone(),
            nodes,
            state: State::default(),
            lock: Some(lock),
            janitor: Some(janitor),
        };
        lab.make()
            .with_context(|| format!("make lab {}", lab.run))?;
        Ok(lab)
    }

    fn make(&mut self) -> Result<()> {
        fs::create_dir_all(self.run.folder().join("log"))?;
        self.state.save(&self.run)?;
        network::create(&self.run, self.nodes)?;
        cgroup::create(&self.run)?;
        mount_bpffs()?;
        let servers = services::start(&self.run, self.nodes, &self.tools.load)?;
        for server in &servers {
            self.record(server.process.clone())?;
        }
        for server in servers {
            server
                .process
                .listens_on(&self.run, server.family, server.port)?;
        }
        Ok(())
    }

    /// A lab that somebody else has made and left.
    ///
    /// # Errors
    /// When there is none.
    pub fn attach(run: Run, tools: &Tools) -> Result<Self> {
        needs_root()?;
        let state = State::load(&run)?;
        Ok(Self {
            run,
            tools: tools.clone(),
            nodes: &NODES,
            state,
            lock: None,
            janitor: None,
        })
    }

    /// Lets it outlive this process: `lab down` removes it.
    pub fn leave(mut self) {
        if let Some(janitor) = self.janitor.take() {
            janitor.dismiss();
        }
        self.lock = None;
    }

    #[must_use]
    pub fn processes(&self) -> &[Process] {
        &self.state.processes
    }

    /// `words` as a command in a node or pod.
    ///
    /// # Errors
    /// When no cgroup2 is mounted.
    pub fn command(&self, place: impl Into<Place>, words: &[&str]) -> Result<Command> {
        command_at(&self.run, place.into(), words)
    }

    /// Runs `words` in a node or pod and returns its standard output.
    ///
    /// # Errors
    /// When it does not succeed; the message carries its standard error.
    pub fn run(&self, place: impl Into<Place>, words: &[&str]) -> Result<String> {
        shell::output(&mut self.command(place, words)?)
    }

    /// Runs `words` to the end, whatever the end is.
    ///
    /// # Errors
    /// When it cannot start.
    pub fn try_run(&self, place: impl Into<Place>, words: &[&str]) -> Result<Output> {
        shell::finish(&mut self.command(place, words)?)
    }

    /// Calls `act` on a thread of this process that is in the network namespace of a node or pod:
    /// for connections that speak what no program does.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn within<T: Send>(
        &self,
        place: impl Into<Place>,
        act: impl FnOnce() -> T + Send,
    ) -> Result<T> {
        let path = Path::new("/run/netns").join(place.into().netns(&self.run));
        let netns = fs::File::open(&path).with_context(|| format!("open {}", path.display()))?;
        let entered = thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&netns, CloneFlags::CLONE_NEWNET).context("setns")?;
                anyhow::Ok(act())
            });
            inside.join()
        });
        entered.unwrap_or_else(|panicked| resume_unwind(panicked))
    }

    /// Starts `words` in a node or pod, to stay.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(
        &mut self,
        place: impl Into<Place>,
        name: &str,
        words: &[&str],
    ) -> Result<Process> {
        let place = place.into();
        let command = command_at(&self.run, place, words)?;
        let process = Process::spawn(&self.run, place, name, command)?;
        self.record(process.clone())?;
        Ok(process)
    }

    /// The log of a process of that name, so far.
    #[must_use]
    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.run.log(name)).unwrap_or_default()
    }

    fn record(&mut self, process: Process) -> Result<()> {
        self.state.processes.retain(|known| known.is_alive());
        self.state.processes.push(process);
        self.state.save(&self.run)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Only an owner removes; one that was attached to, or left, stays.
        let Some(janitor) = self.janitor.take() else {
            return;
        };
        match remove(&self.run) {
            Ok(()) => janitor.dismiss(),
            Err(error) => eprintln!(
                "lab {}: not all of it could be removed: {error:#}",
                self.run
            ),
        }
    }
}

/// Removes everything of a run, whoever made it; nothing to remove is no error.
///
/// # Errors
/// When somebody uses it, or something cannot be removed.
pub fn down(run: &Run) -> Result<()> {
    needs_root()?;
    let _lock = run.lock()?;
    remove(run)
}

fn remove(run: &Run) -> Result<()> {
    cgroup::delete(run)?;
    cpu::delete(run)?;
    network::delete(run)?;
    for folder in [run.pins(), run.folder()] {
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
        }
    }
    Ok(())
}

/// Runs of which something is on this machine.
///
/// # Errors
/// When /run cannot be read.
pub fn list() -> Result<Vec<Run>> {
    let mut runs = Vec::new();
    for entry in fs::read_dir("/run").context("read /run")?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(Ok(run)) = name.strip_prefix("kedge-").map(str::parse) {
            runs.push(run);
        }
    }
    Ok(runs)
}

/// # Errors
/// When we are not root, with the way to become it.
pub fn needs_root() -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the lab makes network namespaces and cgroups: run it as root, for instance by \
         `sudo -E env PATH=$PATH cargo xtask …`"
    );
    Ok(())
}

fn mount_bpffs() -> Result<()> {
    let mounts = fs::read_to_string("/proc/mounts").context("read /proc/mounts")?;
    if mounts
        .lines()
        .any(|line| line.contains(" /sys/fs/bpf bpf "))
    {
        return Ok(());
    }
    fs::create_dir_all("/sys/fs/bpf").context("create /sys/fs/bpf")?;
    shell::output(&mut shell::command([
        "mount",
        "-t",
        "bpf",
        "bpf",
        "/sys/fs/bpf",
    ]))?;
    Ok(())
}

/// Names and places of everything, for `lab list`.
#[must_use]
pub fn describe(lab: &Lab) -> String {
    let mut lines = Vec::new();
    for node in [Node::A, Node::B] {
        lines.push(format!("{node:?}  node  {}  {}", node.v4(), node.v6()).to_lowercase());
    }
    for pod in PODS {
        let node = pod.node.name();
        lines.push(format!(
            "{:9} pod on {node}  {}  {}  {}",
            pod.name,
            pod.v4(),
            pod.v6(),
            pod.mode
        ));
    }
    for process in lab.processes().iter().filter(|process| process.is_alive()) {
        lines.push(format!(
            "{:9} pid {} in {}",
            process.name, process.pid, process.place
        ));
    }
    lines.join("\n")
}
