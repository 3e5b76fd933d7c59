//! Other programs at the hooks of ours. The stand-in is the other node's connect4 program, which
//! finds no cgroup of its own here and leaves every connection alone.

use crate::{change, changed, doctor, is_well};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::path::Path;
use std::thread;
use xtask::lab::Lab;
use xtask::lab::topology::{CLIENT, Node};
use xtask::shell::{command, output};
use xtask::stage::{load, play, server, times, under_the_oracle};

const REATTACHED: usize = 20;

#[test]
fn a_program_at_the_root_or_a_pod_is_named_with_what_it_means() {
    play(|lab| {
        let id = foreign_program(lab)?;
        let root = lab.run.cgroup()?.join("a");
        for (cgroup, place) in [
            (root.clone(), "runs after kedge_connect4"),
            (root.join("pods/client"), "runs before kedge_connect4"),
        ] {
            let script = |verb| {
                format!(
                    "bpftool cgroup {verb} {} connect4 id {id}",
                    cgroup.display()
                )
            };
            let attach = script("attach") + " multi";
            changed(lab, &[change(Node::A, attach, script("detach"))], |lab| {
                let findings = doctor(lab)?;
                let named = format!("(id {id}) at {}", cgroup.display());
                let named = |one: &&Value| one["object"].to_string().contains(&named);
                let finding = findings.iter().find(named);
                let finding = finding.with_context(|| format!("not named: {findings:#?}"))?;
                ensure!(finding["cause"].to_string().contains(place), "{finding}");
                ensure!(finding["verdict"] == "warn", "{finding}");
                is_well(lab)
            })?;
        }
        Ok(())
    });
}

#[test]
fn a_program_that_comes_and_goes_under_load_loses_no_connection_and_leaks_no_byte() {
    play(|lab| {
        let report = under_the_oracle(lab, "others", |lab| {
            let id = foreign_program(lab)?;
            let root = lab.run.cgroup()?.join("a");
            let count = times(2_000, 20_000).to_string();
            let lab = &*lab;
            thread::scope(|scope| {
                let to = server();
                let loading = scope
                    .spawn(move || -> Result<Value> { load(lab, &CLIENT, &["seq", &to, &count]) });
                for turn in 0..REATTACHED {
                    let cgroup = match turn % 2 {
                        0 => root.clone(),
                        _ => root.join("pods/client"),
                    };
                    bpftool(&cgroup, "attach", id)?;
                    bpftool(&cgroup, "detach", id)?;
                }
                let done = loading.join().ok().context("the load panicked")??;
                ensure!(done["errors"] == 0, "{done}");
                Ok(())
            })
        })?;
        report.is_clean()
    });
}

fn bpftool(cgroup: &Path, verb: &str, id: u64) -> Result<()> {
    let multi = (verb == "attach").then_some("multi");
    let mut words = command(["bpftool", "cgroup", verb]);
    words.arg(cgroup).args(["connect4", "id", &id.to_string()]);
    output(words.args(multi)).map(drop)
}

/// The id of node b's program at connect4.
fn foreign_program(lab: &Lab) -> Result<u64> {
    let cgroup = lab.run.cgroup()?.join("b");
    let listed = output(command(["bpftool", "-j", "cgroup", "show"]).arg(cgroup))?;
    let listed: Value = serde_json::from_str(&listed)?;
    let programs = listed.as_array().into_iter().flatten();
    let mut connect = programs.filter(|one| one["name"] == "kedge_connect4");
    let id = connect.find_map(|one| one["id"].as_u64());
    id.with_context(|| format!("no program at connect4: {listed}"))
}
