//! A node with two pods on the real kernel, for the tests of this crate.
//!
//! ```text
//!   pod a                    node                     pod b
//!   10.66.1.2, fd66:1::2     10.66.x.1, fd66:x::1     10.66.2.2, fd66:2::2
//!        └──────── veth ───────┘  └──────── veth ────────┘
//!
//!   cgroups:  <root>/kedged   <root>/kubelet   <root>/pods/a   <root>/pods/b
//! ```
//!
//! Everything is named by the test's process and removed by [`Lab`]'s drop, also after a failure.

// Each test binary uses its part of this module.
#![allow(dead_code)]

pub mod actor;
pub mod pinned;

use actor::Actor;
use kedge_capture::{
    Beats, Capture, CaptureConfig, CaptureError, Cgroup, CgroupKind, Claim, Counter, LocalPod,
    Rule, Verdict, Verdicts, cgroup_id, off,
};
use kedge_model::Mode;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

pub const PORT_BASE: u16 = 15001;
pub const PEER_PORT: u16 = 15443;
/// Fewer than the actors' listeners have.
pub const QUEUE_PLACES: u32 = 12;
/// Where every pod takes probes.
pub const PROBE_PORTS: [u16; 1] = [80];

/// Where `cargo xtask build` puts it, unless the environment names another one.
fn object_path() -> PathBuf {
    std::env::var_os("KEDGE_BPF_OBJECT").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bpf/kedge.bpf.o"),
        PathBuf::from,
    )
}

/// Opens a lab, or says why not and leaves the test.
#[macro_export]
macro_rules! lab_or_skip {
    () => {
        match $crate::common::Lab::open() {
            Ok(lab) => lab,
            Err(reason) => {
                $crate::common::skip(&reason);
                return;
            }
        }
    };
}

/// Says aloud that a test does not run here; where everything is asked for, that is a failure.
pub fn skip(reason: &str) {
    eprintln!("SKIP: {reason}");
    assert!(
        std::env::var_os("KEDGE_STRICT").is_none_or(|value| value != "1"),
        "skipped with KEDGE_STRICT=1: {reason}"
    );
}

pub struct Lab {
    name: String,
    cgroups: PathBuf,
    bpffs: PathBuf,
    object: Vec<u8>,
    /// Workers beat for as long as there is one who holds it.
    life: Arc<()>,
}

impl Lab {
    pub fn open() -> Result<Self, String> {
        if !nix::unistd::geteuid().is_root() {
            return Err("not root".to_owned());
        }
        let path = object_path();
        let object = fs::read(&path)
            .map_err(|_| format!("no {}: run `cargo xtask build`", path.display()))?;
        let lab = Self::named(object)?;
        lab.make_cgroups();
        lab.make_network();
        Ok(lab)
    }

    fn named(object: Vec<u8>) -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("kc{}-{number}", std::process::id());
        Ok(Self {
            cgroups: cgroup2()
                .ok_or("no cgroup2 file system is mounted")?
                .join(&name),
            bpffs: Path::new("/sys/fs/bpf").join(&name),
            name,
            object,
            life: Arc::default(),
        })
    }

    fn make_cgroups(&self) {
        for cgroup in ["kedged", "kubelet", "pods/a", "pods/b"] {
            fs::create_dir_all(self.cgroups.join(cgroup)).expect("make cgroup");
        }
    }

    fn make_network(&self) {
        let netns = ["n", "a", "b"];
        ip(
            None,
            &netns.map(|which| format!("netns add {}", self.netns(which))),
        );
        for which in netns {
            // Link-local addresses serve at once, not after a second of looking for twins.
            self.write_sysctl(which, "net/ipv6/conf/default/accept_dad", 0);
        }
        self.write_sysctl("n", "net/ipv4/ip_forward", 1);
        self.write_sysctl("n", "net/ipv6/conf/all/forwarding", 1);
        let pods = [("a", 1), ("b", 2)];
        let mut node = vec!["link set lo up".to_owned()];
        for (pod, net) in pods {
            let (device, netns) = (format!("to-{pod}"), self.netns(pod));
            node.push(format!(
                "link add name {device} type veth peer name eth0 netns {netns}"
            ));
            node.extend(link_lines(&device, net, 1));
        }
        node.push("route add local 169.254.76.0/22 dev lo".to_owned());
        node.push("route add local fd6b:6564:6765::/118 dev lo".to_owned());
        ip(Some(&self.netns("n")), &node);
        for (pod, net) in pods {
            let mut lines = vec!["link set lo up".to_owned()];
            lines.extend(link_lines("eth0", net, 2));
            lines.push(format!("route add default via 10.66.{net}.1"));
            lines.push(format!("route add default via fd66:{net}::1"));
            ip(Some(&self.netns(pod)), &lines);
        }
    }

    /// Changes the network of `n`, `a` or `b`, in the words of ip(8).
    pub fn ip(&self, netns: &str, words: &str) {
        ip(Some(&self.netns(netns)), &[words.to_owned()]);
    }

    fn write_sysctl(&self, netns: &str, path: &str, value: u32) {
        let written = self.within(netns, || {
            fs::write(format!("/proc/sys/{path}"), value.to_string())
        });
        written.unwrap_or_else(|error| panic!("{path} of {netns}: {error}"));
    }

    /// Does it in the network namespace `n`, `a` or `b`.
    fn within<T: Send>(&self, netns: &str, act: impl FnOnce() -> T + Send) -> T {
        let netns = File::open(format!("/run/netns/{}", self.netns(netns))).expect("open netns");
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                nix::sched::setns(netns, nix::sched::CloneFlags::CLONE_NEWNET).expect("setns");
                act()
            });
            inside.join().expect("the act does not panic")
        })
    }

    fn netns(&self, which: &str) -> String {
        format!("{}{which}", self.name)
    }

    pub fn bpffs(&self) -> &Path {
        &self.bpffs
    }

    pub fn cgroup_root(&self) -> &Path {
        &self.cgroups
    }

    pub fn config(&self) -> CaptureConfig {
        CaptureConfig {
            cgroup_root: self.cgroups.clone(),
            daemon_cgroup: self.cgroups.join("kedged"),
            bpffs: self.bpffs.clone(),
            ipv4: "169.254.76.0/22".parse().expect("literal"),
            ipv6: "fd6b:6564:6765::/118".parse().expect("literal"),
            port_base: PORT_BASE,
            workers: 2,
            peer_port: PEER_PORT,
            queue_places: QUEUE_PLACES,
            debug: false,
        }
    }

    /// Loads a generation as the daemon would: from the node's network namespace.
    pub fn load(&self) -> Capture {
        let loaded = self.try_load();
        loaded.unwrap_or_else(|error| panic!("{}", chain(&error)))
    }

    pub fn try_load(&self) -> Result<Capture, CaptureError> {
        self.try_load_object(&self.object)
    }

    pub fn try_load_object(&self, object: &[u8]) -> Result<Capture, CaptureError> {
        self.within("n", || Capture::load(&self.config(), object))
    }

    /// A generation with full tables, not attached yet: both pods in this mode, both places
    /// captured, worker 0 alive until it rests or the lab is gone.
    pub fn filled(&self, mode: Mode) -> Capture {
        let mut capture = self.load();
        capture
            .replace_cgroups(&self.cgroups_in(mode))
            .expect("replace cgroups");
        capture
            .replace_verdicts(&verdicts())
            .expect("replace verdicts");
        self.keep_alive(capture.beats());
        capture
    }

    /// Beats now and, however slow the machine is, in time.
    fn keep_alive(&self, beats: Beats) {
        beats.beat(0).expect("beat");
        let life = Arc::downgrade(&self.life);
        thread::spawn(move || {
            while life.strong_count() > 0 {
                thread::sleep(Beats::FRESH / 10);
                beats.beat(0).expect("beat");
            }
        });
    }

    /// The same, attached.
    pub fn capturing(&self, mode: Mode) -> Capture {
        let mut capture = self.filled(mode);
        capture.attach(|_| {}).expect("attach");
        capture
    }

    pub fn cgroups_in(&self, mode: Mode) -> Vec<Cgroup> {
        let cgroup = |path: &str, mode, kind| Cgroup {
            id: self.cgroup_id(path),
            mode,
            kind,
            probe_ports: PROBE_PORTS.to_vec(),
        };
        vec![
            cgroup("pods", Mode::Require, CgroupKind::ManagedRoot),
            cgroup("pods/a", mode, CgroupKind::Workload),
            cgroup("pods/b", mode, CgroupKind::Workload),
            cgroup("kubelet", Mode::Off, CgroupKind::Probe),
        ]
    }

    pub fn cgroup_id(&self, path: &str) -> u64 {
        cgroup_id(&self.cgroups.join(path)).expect("cgroup id")
    }

    /// A process in this cgroup and network namespace (`n`, `a` or `b`).
    pub fn actor(&self, cgroup: &str, netns: &str) -> Actor {
        let cgroup = self.cgroups.join(cgroup);
        fs::create_dir_all(&cgroup).expect("make cgroup");
        Actor::start(&cgroup, &self.netns(netns))
    }

    /// The daemon's part: a process in its cgroup, on the node.
    pub fn daemon(&self) -> Actor {
        self.actor("kedged", "n")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = off(&self.bpffs);
        for netns in ["a", "b", "n"] {
            let _ = Command::new("ip")
                .args(["netns", "del", &self.netns(netns)])
                .output();
        }
        remove_cgroups(&self.cgroups);
    }
}

/// A process that was killed leaves its cgroup a moment later.
fn remove_cgroups(cgroup: &Path) {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_cgroups(&entry.path());
        }
    }
    eventually(|| fs::remove_dir(cgroup).is_ok() || !cgroup.exists());
}

/// The claim of the connection that the daemon accepted last.
pub fn claim(capture: &Capture, daemon: &mut Actor) -> Option<Claim> {
    let socket = daemon.share();
    capture.claims().of(socket.as_fd()).expect("read the claim")
}

/// Both pods' addresses are captured; the rest of their networks is managed and refused.
pub fn verdicts() -> Verdicts {
    let mut rules = Vec::new();
    for net in [
        "10.66.1.2/32",
        "10.66.2.2/32",
        "fd66:1::2/128",
        "fd66:2::2/128",
    ] {
        rules.push(rule(net, Verdict::Capture));
    }
    for net in ["10.66.0.0/16", "fd66::/16"] {
        rules.push(rule(net, Verdict::Refuse(113)));
    }
    let ips = ["10.66.1.2", "10.66.2.2", "fd66:1::2", "fd66:2::2"];
    Verdicts {
        permissive: rules.clone(),
        require: rules,
        local_pods: ips.map(local_pod).to_vec(),
        nodes: vec!["192.0.2.2:15443".parse().expect("literal")],
    }
}

fn local_pod(ip: &str) -> LocalPod {
    LocalPod {
        ip: ip.parse().expect("literal"),
        cgroup_id: None,
    }
}

pub fn rule(net: &str, verdict: Verdict) -> Rule {
    Rule {
        net: net.parse().expect("literal"),
        port: None,
        verdict,
    }
}

pub fn count(capture: &Capture, counter: Counter) -> u64 {
    capture.counters().expect("read counters").of(counter)
}

/// Whether `condition` comes true within two seconds.
pub fn eventually(mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        if condition() {
            return true;
        }
        thread::sleep(Duration::from_millis(10));
    }
    condition()
}

/// An error with all its causes.
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

fn cgroup2() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").ok()?;
    let mut fields = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>());
    fields
        .find(|mount| mount.get(2) == Some(&"cgroup2"))
        .and_then(|mount| mount.get(1).map(PathBuf::from))
}

/// The ends of a pod's link have the addresses of its network with this last number.
fn link_lines(device: &str, net: u8, host: u8) -> [String; 3] {
    [
        format!("addr add 10.66.{net}.{host}/24 dev {device}"),
        format!("addr add fd66:{net}::{host}/64 dev {device} nodad"),
        format!("link set {device} up"),
    ]
}

/// These lines of ip(8), by one process: an emulated machine takes long to start each.
fn ip(netns: Option<&str>, lines: &[String]) {
    let mut command = Command::new("ip");
    command.args(netns.iter().flat_map(|netns| ["-n", netns]));
    command.args(["-batch", "-"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start ip");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(lines.join("\n").as_bytes()).expect("told");
    drop(stdin);
    let output = child.wait_with_output().expect("wait for ip");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{lines:?}: {error}");
}
