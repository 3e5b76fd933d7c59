//! What the lab's daemons read: configuration, directory and policy, written from the topology.
//! `KEDGE_RECORDS`, if set, is their `records.mode`, and `KEDGE_SUITE` the only one of `records.suites`.

use super::run::Run;
use super::topology::{
    CLIENT, LOAD, LOCAL, MANAGED, NODES, Node, PEER_PORT, PODS, Pod, SERVICES, TRUST_DOMAIN,
};
use anyhow::{Context, Result};
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// # Errors
/// When no cgroup2 is mounted.
pub fn configuration(run: &Run, node: Node, object: &Path) -> Result<String> {
    let folder = run.node_folder(node);
    let (folder, pins) = (folder.display(), run.pins().join(node.name()));
    let cgroup_root = run.cgroup()?.join(node.name());
    Ok(format!(
        r#"node = "{name}"
trust_domain = "{TRUST_DOMAIN}"
cgroup_root = "{cgroup_root}"
bpffs = "{pins}"
run_dir = "{folder}"
directory = "{folder}/directory.toml"
policies = "{folder}/policies"
object = "{object}"
managed_roots = ["pods"]
probe_cgroups = ["kubelet"]
{records}
[svid]
certificate = "{folder}/node.pem"
key = "{folder}/node.key"
bundle = "{folder}/bundle.pem"
revoked = "{folder}/revoked"

[peer]
listen = ["{v4}", "{v6}"]
port = {PEER_PORT}
"#,
        name = node.name(),
        records = records(),
        object = object.display(),
        cgroup_root = cgroup_root.display(),
        pins = pins.display(),
        v4 = node.v4(),
        v6 = node.v6(),
    ))
}

fn records() -> String {
    let mode = env::var("KEDGE_RECORDS").map(|mode| format!("records.mode = \"{mode}\"\n"));
    let suite = env::var("KEDGE_SUITE").map(|suite| format!("records.suites = [\"{suite}\"]\n"));
    [mode, suite].into_iter().flatten().collect()
}

/// The directory with these pods in it, and the services that have their pod.
#[must_use]
pub fn directory(version: u64, pods: &[&Pod]) -> String {
    let mut text = format!("version = {version}\nmanaged = {MANAGED:?}\n");
    for node in NODES {
        let (v4, v6) = (node.v4(), node.v6());
        let _ = write!(
            text,
            "\n[[node]]\nname = \"{}\"\naddresses = [\"{v4}\", \"{v6}\"]\npeer_port = {PEER_PORT}\n",
            node.name()
        );
    }
    for pod in pods {
        let _ = write!(
            text,
            "\n[[workload]]\nuid = \"{}\"\nid = \"{}\"\nnode = \"{}\"\naddresses = [\"{}\", \"{}\"]\ncgroup = \"pods/{}\"\n",
            pod.uid(),
            pod.spiffe_id(),
            pod.node.name(),
            pod.v4(),
            pod.v6(),
            pod.name
        );
    }
    for service in SERVICES
        .iter()
        .filter(|service| pods.contains(&service.pod))
    {
        let _ = write!(
            text,
            "\n[[service]]\nname = \"{}\"\naddresses = [\"{}\", \"{}\"]\nport = {}\nendpoints = [{{ uid = \"{}\", port = {} }}]\n",
            service.pod.name,
            service.v4(),
            service.v6(),
            service.port,
            service.pod.uid(),
            service.pod_port
        );
    }
    text
}

/// Who may talk to whom in the lab: `client` to everybody, `load` to `local` (the way back over the
/// wire), and nobody else to anybody. The demo shows `local` being refused by the database.
#[must_use]
pub fn policy() -> String {
    let mut text = "default_mode = \"require\"\n".to_owned();
    for pod in PODS.into_iter().filter(|pod| pod.mode != "require") {
        let _ = write!(
            text,
            "\n[[mode]]\nworkload = \"{}\"\nmode = \"{}\"\n",
            pod.spiffe_id(),
            pod.mode
        );
    }
    text + &allow(&CLIENT.spiffe_id(), &everybody()) + &allow(&LOAD.spiffe_id(), &LOCAL.spiffe_id())
}

/// One rule, to be written under others.
#[must_use]
pub fn allow(source: &str, destination: &str) -> String {
    rule("allow", source, destination)
}

/// See [`allow`]; it wins over every one.
#[must_use]
pub fn deny(source: &str, destination: &str) -> String {
    rule("deny", source, destination)
}

fn rule(kind: &str, source: &str, destination: &str) -> String {
    format!("\n[[{kind}]]\nsource = \"{source}\"\ndestination = \"{destination}\"\n")
}

/// The pattern of every workload in the lab.
#[must_use]
pub fn everybody() -> String {
    format!("spiffe://{TRUST_DOMAIN}/ns/default/*")
}

/// Replaces a file in one step: a daemon that watches it never reads half of it.
///
/// # Errors
/// When it cannot be written.
pub fn replace(path: &Path, text: &str) -> Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, text)
        .and_then(|()| fs::rename(&new, path))
        .with_context(|| format!("write {}", path.display()))
}
