//! Network namespaces, the wire between the nodes, and a veth from every pod to its node.
//!
//! Pods also reach each other directly, routed by their nodes: that is the way their bytes take
//! without kedge, and the baseline that the bench compares with.

use super::run::Run;
use super::topology::{NODES, Node, Place, Pod};
use crate::shell;
use anyhow::{Context, Result};
use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

/// The interface between the nodes, by the same name at both ends.
pub const WIRE: &str = "wire";
/// What becomes of it where the other node is on another machine.
pub const NIC: &str = "eth0";
/// A pod's IPv6 gateway: its node's end of the veth.
const GATEWAY_V6: &str = "fe80::1";

/// # Errors
/// When `ip` refuses one of its lines.
pub fn create(run: &Run, nodes: &[Node]) -> Result<()> {
    let pods = || nodes.iter().flat_map(|node| node.pods());
    let places = nodes.iter().copied().map(Place::from);
    let places = places.chain(pods().map(Place::from));
    let names: Vec<_> = places.map(|place| place.netns(run)).collect();
    ip(
        None,
        &names
            .iter()
            .map(|name| format!("netns add {name}"))
            .collect::<Vec<_>>(),
    )?;
    for name in &names {
        ip(Some(name), &["link set lo up".to_owned()])?;
    }
    wire(run, nodes)?;
    for &node in nodes {
        forward(&Place::from(node).netns(run))?;
        ip(Some(&Place::from(node).netns(run)), &node_lines(run, node))?;
    }
    for pod in pods() {
        ip(Some(&Place::from(pod).netns(run)), &pod_lines(pod))?;
    }
    Ok(())
}

fn wire(run: &Run, nodes: &[Node]) -> Result<()> {
    let netns = |node: &Node| Place::from(*node).netns(run);
    match nodes {
        [one] => ip(
            None,
            &[format!("link set {NIC} name {WIRE} netns {}", netns(one))],
        ),
        _ => {
            let [a, b] = NODES.each_ref().map(netns);
            let veth = format!("link add {WIRE} type veth peer name {WIRE} netns {b}");
            ip(Some(&a), &[veth])
        }
    }
}

/// # Errors
/// When a namespace exists and cannot be deleted.
pub fn delete(run: &Run) -> Result<()> {
    for name in existing(run)? {
        ip(None, &[format!("netns del {name}")])?;
    }
    Ok(())
}

/// The namespaces of this run that are there now.
///
/// # Errors
/// When the folder of named namespaces cannot be read.
pub fn existing(run: &Run) -> Result<Vec<String>> {
    let Ok(entries) = fs::read_dir("/run/netns") else {
        return Ok(Vec::new());
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.context("read /run/netns")?.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(&run.netns_prefix()) {
            names.push(name.into_owned());
        }
    }
    Ok(names)
}

fn node_lines(run: &Run, node: Node) -> Vec<String> {
    let far = node.other();
    let mut lines = vec![
        format!("address add {}/24 dev {WIRE}", node.v4()),
        format!("address add {}/64 dev {WIRE} nodad", node.v6()),
        format!("link set {WIRE} up"),
        format!("route add {} via {}", far.pods_v4(), far.v4()),
        format!("route add {} via {}", far.pods_v6(), far.v6()),
    ];
    for pod in node.pods() {
        let veth = format!("p-{}", pod.name);
        let netns = Place::from(pod).netns(run);
        lines.extend([
            format!("link add {veth} type veth peer name eth0 netns {netns}"),
            format!("address add {}/32 dev {veth}", node.gateway_v4()),
            format!("address add {GATEWAY_V6}/64 dev {veth} nodad"),
            format!("link set {veth} up"),
            format!("route add {} dev {veth}", pod.v4()),
            format!("route add {} dev {veth}", pod.v6()),
        ]);
    }
    lines
}

fn pod_lines(pod: &Pod) -> Vec<String> {
    let gateway = pod.node.gateway_v4();
    vec![
        format!("address add {}/32 dev eth0", pod.v4()),
        format!("address add {}/128 dev eth0 nodad", pod.v6()),
        "link set eth0 up".to_owned(),
        format!("route add {gateway} dev eth0"),
        format!("route add default via {gateway} src {}", pod.v4()),
        format!(
            "route add default via {GATEWAY_V6} dev eth0 src {}",
            pod.v6()
        ),
    ]
}

/// Nodes route between their pods and the wire; the settings are the namespace's own.
fn forward(netns: &str) -> Result<()> {
    let script = "echo 1 >/proc/sys/net/ipv4/ip_forward; \
                  echo 1 >/proc/sys/net/ipv6/conf/all/forwarding";
    shell::output(&mut shell::command([
        "nsenter",
        &format!("--net=/run/netns/{netns}"),
        "sh",
        "-ec",
        script,
    ]))?;
    Ok(())
}

/// One `ip` process for all lines: a lab has a hundred of them.
///
/// # Errors
/// When it refuses one.
pub fn ip(netns: Option<&str>, lines: &[String]) -> Result<()> {
    let mut command = Command::new("ip");
    if let Some(netns) = netns {
        command.args(["-n", netns]);
    }
    let mut child = command
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("start ip")?;
    let mut stdin = child.stdin.take().context("the pipe to ip")?;
    stdin
        .write_all((lines.join("\n") + "\n").as_bytes())
        .context("write to ip")?;
    drop(stdin);
    let done = child.wait_with_output().context("wait for ip")?;
    anyhow::ensure!(
        done.status.success(),
        "ip in {}: {}; it was given:\n{}",
        netns.unwrap_or("the host"),
        String::from_utf8_lossy(&done.stderr).trim(),
        lines.join("\n")
    );
    Ok(())
}
