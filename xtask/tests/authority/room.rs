//! A daemon has as many descriptors as it has, and says so when they are used up.

use anyhow::{Result, ensure};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;
use xtask::lab::topology::{CLIENT, Node};
use xtask::lab::{Build, Lab, documents};
use xtask::shell::wait_for;
use xtask::stage::{becomes_reachable, client_reaches, is_told, play, told};
use xtask::waiting::Waiting;

/// SPECIFICATION.md: (descriptors - 1,024) / 2 - 256 flows for the one worker.
const FLOWS: usize = 24;
const DESCRIPTORS: usize = 1_024 + 2 * (256 + FLOWS);

#[test]
fn a_daemon_carries_as_many_flows_as_its_descriptors_promise_and_refuses_the_next_aloud() {
    play(|lab| {
        restart_with_few_descriptors(lab)?;
        let filled = fill(lab);
        lab.stop_daemons()?;
        lab.start_daemons()?;
        filled
    });
}

fn fill(lab: &Lab) -> Result<()> {
    becomes_reachable(lab, &CLIENT)?;
    let since = told(lab, Node::B)?;
    let mut flows: Vec<_> = (0..FLOWS)
        .map(|_| Waiting::idle(lab))
        .collect::<Result<_>>()?;
    for flow in &mut flows {
        ensure!(flow.is_open()?, "a promised flow has ended");
    }
    // Carriers that stood ready are flows already, as far as descriptors go.
    let mut beyond = Vec::new();
    wait_for(
        "the next one to be refused",
        Duration::from_secs(30),
        || {
            match client_reaches(lab)? {
                true => beyond.push(Waiting::idle(lab)),
                false => return Ok(Some(())),
            }
            Ok(None)
        },
    )?;
    ensure!(beyond.len() < FLOWS, "there seems to be no bound");
    let event = is_told(lab, Node::B, since, "the bound", |event| {
        event["refusal"] == "over-limit"
    })?;
    let cause = event["cause"].as_str().unwrap_or_default();
    ensure!(cause.contains(&format!("{FLOWS} flows")), "{event}");
    for flow in &mut flows {
        ensure!(flow.is_open()?, "a flow was lost to those beyond the bound");
    }
    drop((flows, beyond));
    becomes_reachable(lab, &CLIENT)
}

/// Both daemons anew; b's with one worker.
fn restart_with_few_descriptors(lab: &mut Lab) -> Result<()> {
    lab.stop_daemons()?;
    let script = lab.run.node_folder(Node::B).join("kedged-few");
    let kedged = lab.tools.kedged.display().to_string();
    let text = format!("#!/bin/sh\nulimit -n {DESCRIPTORS} && exec {kedged} \"$@\"\n");
    documents::replace(&script, &text)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    let build = Build {
        kedged: script,
        object: lab.tools.object.clone(),
        lines: "\n[workers]\ncount = 1\n".to_owned(),
    };
    lab.start_build(Node::B, &build, None)?;
    lab.start_daemon(Node::A)?;
    lab.daemon_answers(Node::B)?;
    lab.daemon_answers(Node::A)
}
