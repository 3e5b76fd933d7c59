//! Who could go round a guard that sits at a cgroup is listed.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;
use xtask::lab::Lab;
use xtask::lab::process::{Process, command_in};
use xtask::lab::topology::{DB, LOAD, Node, Place};
use xtask::stage::play;

/// PostgreSQL runs as a user without any; the load server as root with all of them. A process that
/// has just one, in a sub-cgroup of PostgreSQL's pod, makes that pod one that is listed.
#[test]
fn workloads_with_capabilities_that_no_cgroup_holds_are_listed() {
    play(|lab| {
        let of_load = listed(lab, &LOAD.uid())?.context("load is not listed")?;
        for name in ["CAP_NET_RAW", "CAP_NET_ADMIN", "CAP_BPF"] {
            let names = of_load["capabilities"].as_array().context("a list")?;
            ensure!(names.iter().any(|held| held == name), "{of_load}");
        }
        ensure!(listed(lab, &DB.uid())?.is_none(), "db has none");

        let inner = lab.run.cgroup_of(Place::from(&DB))?.join("inner");
        fs::create_dir_all(&inner)?;
        let words = [
            "setpriv",
            "--bounding-set=-all,+net_raw",
            "--inh-caps=-all",
            "sleep",
            "60",
        ];
        let command = command_in(&lab.run, Place::from(&DB), &inner, &words);
        let sleeper = Process::spawn(&lab.run, Place::from(&DB), "one-capability", command)?;
        let found = xtask::shell::wait_for("db to be listed", LIMIT, || {
            let of_db = listed(lab, &DB.uid())?;
            Ok(of_db.filter(|of_db| of_db["capabilities"] == serde_json::json!(["CAP_NET_RAW"])))
        });
        sleeper.stop(nix::sys::signal::Signal::SIGKILL)?;
        fs::remove_dir(&inner)?;
        found?;
        let table = lab.kedge(Node::B, &["status"])?;
        ensure!(table.contains("not enforceable by cgroup alone"), "{table}");
        Ok(())
    });
}

const LIMIT: std::time::Duration = std::time::Duration::from_secs(5);

fn listed(lab: &Lab, uid: &str) -> Result<Option<Value>> {
    let status: Value = serde_json::from_str(&lab.kedge(Node::B, &["status", "--json"])?)?;
    let all = status["capture"]["unenforceable"].as_array();
    let all = all.context("status lists them")?;
    Ok(all.iter().find(|workload| workload["uid"] == uid).cloned())
}
