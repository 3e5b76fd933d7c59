//! A socket load balancer at the hooks of ours, as Cilium's: at connect() it puts a pod in the
//! place of a service that it knows and kedge does not, and at getpeername() it takes that back.
//!
//! ```text
//!  attached below ours   service ─ balancer ─▶ pod ─ kedge ─▶ capture address
//!  attached beside ours  service ─ kedge ─▶ (nothing of ours: passes) ─ balancer ─▶ pod, past kedge
//! ```

use crate::{doctor, is_well};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use xtask::artifacts::repository;
use xtask::bpf;
use xtask::lab::Lab;
use xtask::lab::topology::{CLIENT, LOAD, LOAD_PORT, Node};
use xtask::shell::{command, output};
use xtask::stage::{at, is_told, load, play, server, times, told, under_the_oracle};

/// What the stand-in knows (`ebpf/programs/src/balancer.rs`).
const SERVICE: &str = "10.97.0.1:80";
const REATTACHED: usize = 20;

#[test]
fn a_service_that_a_balancer_before_ours_translates_is_carried_to_its_pod() {
    play(|lab| {
        let balancer = Balancer::load(lab)?;
        let below = lab.run.cgroup()?.join("a/pods/client");
        let report = under_the_oracle(lab, "balancer-before", |lab| {
            attached(lab, &balancer, &below, |lab| {
                let count = times(100, 1_000).to_string();
                let done: Value = load(lab, &CLIENT, &["seq", SERVICE, &count])?;
                ensure!(done["errors"] == 0, "{done}");
                let peer: Value = load(lab, &CLIENT, &["peer", SERVICE])?;
                ensure!(
                    peer["server"] == at(LOAD.v4(), LOAD_PORT),
                    "what kedge carries it to: {peer}"
                );
                is_named(lab, &balancer, &below, "runs before kedge_connect4")?;
                is_well(lab)
            })
        })?;
        report.is_clean()
    });
}

/// kedge sees an address of nobody's, lets it pass, and the guard sees where it goes.
#[test]
fn a_service_that_a_balancer_after_ours_translates_is_dropped_and_doctor_names_it() {
    play(|lab| {
        let balancer = Balancer::load(lab)?;
        let beside = lab.run.cgroup()?.join("a");
        let report = under_the_oracle(lab, "balancer-after", |lab| {
            attached(lab, &balancer, &beside, |lab| {
                let since = told(lab, Node::A)?;
                let program = lab.tools.load.display().to_string();
                let words = ["timeout", "3", &program, "peer", SERVICE];
                let reached = lab.try_run(&CLIENT, &words)?.status.success();
                ensure!(!reached, "reached past kedge");
                is_told(lab, Node::A, since, "what is dropped", |event| {
                    event["kind"] == "guard-dropped"
                        && event["original_destination"] == at(LOAD.v4(), LOAD_PORT)
                })?;
                is_named(lab, &balancer, &beside, "runs after kedge_connect4")?;
                is_named(lab, &balancer, &beside, "the guard drops in require")?;
                // What kedge knows is carried, and named as the order has it: by the balancer last.
                let peer: Value = load(lab, &CLIENT, &["peer", &server()])?;
                ensure!(peer["server"] == SERVICE, "{peer}");
                is_well(lab)
            })
        })?;
        report.is_clean()
    });
}

#[test]
fn a_balancer_that_comes_and_goes_under_load_loses_no_connection_and_leaks_no_byte() {
    play(|lab| {
        let balancer = Balancer::load(lab)?;
        let report = under_the_oracle(lab, "others", |lab| {
            let root = lab.run.cgroup()?.join("a");
            let below = root.join("pods/client");
            let count = times(2_000, 20_000).to_string();
            let lab = &*lab;
            thread::scope(|scope| {
                let to = server();
                let loading = scope
                    .spawn(move || -> Result<Value> { load(lab, &CLIENT, &["seq", &to, &count]) });
                for turn in 0..REATTACHED {
                    let cgroup = [&root, &below][turn % 2];
                    balancer.on_hooks("attach", cgroup)?;
                    balancer.on_hooks("detach", cgroup)?;
                }
                let done = loading.join().ok().context("the load panicked")??;
                ensure!(done["errors"] == 0, "{done}");
                Ok(())
            })
        })?;
        report.is_clean()
    });
}

/// The stand-in, loaded and pinned; gone with this value.
struct Balancer(PathBuf);

impl Balancer {
    fn load(lab: &Lab) -> Result<Self> {
        let object = bpf::build_balancer(&repository())?;
        let balancer = Self(lab.run.pins().join("balancer"));
        let mut words = command(["bpftool", "prog", "loadall"]);
        output(words.arg(object).arg(&balancer.0))?;
        Ok(balancer)
    }

    fn on_hooks(&self, verb: &str, cgroup: &Path) -> Result<()> {
        for (hook, name) in [
            ("connect4", "lb_connect4"),
            ("getpeername4", "lb_peername4"),
        ] {
            let mut words = command(["bpftool", "cgroup", verb]);
            words
                .arg(cgroup)
                .args([hook, "pinned"])
                .arg(self.0.join(name));
            let multi = (verb == "attach").then_some("multi");
            output(words.args(multi))?;
        }
        Ok(())
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Attaches it, acts, and detaches it whatever has happened.
fn attached(
    lab: &mut Lab,
    balancer: &Balancer,
    cgroup: &Path,
    act: impl FnOnce(&mut Lab) -> Result<()>,
) -> Result<()> {
    balancer.on_hooks("attach", cgroup)?;
    let acted = act(lab);
    balancer.on_hooks("detach", cgroup)?;
    acted
}

/// Doctor warns of the balancer at that cgroup, in these words.
fn is_named(lab: &mut Lab, balancer: &Balancer, cgroup: &Path, words: &str) -> Result<()> {
    let findings = doctor(lab)?;
    let shown = output(
        command(["bpftool", "-j", "prog", "show", "pinned"]).arg(balancer.0.join("lb_connect4")),
    )?;
    let shown: Value = serde_json::from_str(&shown)?;
    let named = format!("(id {}) at {}", shown["id"], cgroup.display());
    let finding = findings.iter().find(|one| {
        one["object"].to_string().contains(&named) && one["cause"].to_string().contains(words)
    });
    let finding = finding.with_context(|| format!("{named}, {words}: {findings:#?}"))?;
    ensure!(finding["verdict"] == "warn", "{finding}");
    Ok(())
}
