//! Who is on the node asks for himself, at the attestation socket.

use super::{counter, status};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;
use xtask::lab::Lab;
use xtask::lab::attestation::Attesting;
use xtask::lab::process::command_in;
use xtask::lab::topology::{CLIENT, Node, Place, TRUST_DOMAIN};
use xtask::shell::{finish, output};
use xtask::stage::{play, told};
use xtask::waiting::is_told;

const NONCE: &str = "000102030405060708090a0b0c0d0e0f";

#[test]
fn a_pod_and_a_process_of_the_host_get_evidence_in_their_own_names_and_nobody_gets_none() {
    play(|lab| {
        lab.attest(&Attesting::default())?;
        let pod = asks(lab, Place::from(&CLIENT), "pod")?;
        let workload = format!("workload {}", CLIENT.spiffe_id());
        ensure!(pod == workload, "a pod is {pod:?}, not {workload:?}");
        let host = asks(lab, Place::from(Node::A), "host")?;
        ensure!(host.starts_with("host uid=0 cgroup=/"), "{host:?}");
        for (file, caller) in [("pod", &pod), ("host", &host)] {
            let believed = verify(lab, file, caller)?;
            ensure!(believed["believed"] == true, "{caller}: {believed}");
        }
        let borrowed = verify(lab, "pod", &host)?;
        ensure!(
            borrowed["believed"] == false,
            "Evidence of a pod was taken for another's: {borrowed}"
        );
        stranger(lab)?;
        result(lab)?;
        let status = status(lab, Node::A)?;
        ensure!(
            counter(&status, "local_answers") == Some(2)
                && counter(&status, "local_unidentified") == Some(1),
            "{status}"
        );
        Ok(())
    });
}

/// Somebody below the root of pods, of whom no directory knows.
fn stranger(lab: &Lab) -> Result<()> {
    let cgroup = lab.run.cgroup()?.join("a/pods/stranger");
    fs::create_dir(&cgroup).with_context(|| format!("make {}", cgroup.display()))?;
    let since = told(lab, Node::A)?;
    let asked = finish(&mut ask_in(lab, Place::from(Node::A), &cgroup, "stranger"));
    fs::remove_dir(&cgroup)?;
    let asked = asked?;
    let said = String::from_utf8_lossy(&asked.stderr).into_owned();
    ensure!(
        !asked.status.success() && said.contains("names no workload"),
        "a stranger was answered: {said}"
    );
    is_told(lab, Node::A, since, &["caller-unidentified", "stranger"])
}

/// What peers see of the node is what its pods see.
fn result(lab: &Lab) -> Result<()> {
    let socket = socket(lab);
    let kedge = lab.tools.kedge.display().to_string();
    let token = lab.run(&CLIENT, &[&kedge, "attest", "result", "--at", &socket])?;
    let shown: Value = serde_json::from_str(&lab.kedge(Node::A, &["attest", "show", "--json"])?)?;
    ensure!(shown["token"] == token.trim(), "{token:?}, not {shown}");
    Ok(())
}

/// As whom kedged has identified whoever asks at that place.
fn asks(lab: &Lab, place: Place, file: &str) -> Result<String> {
    let cgroup = lab.run.cgroup_of(place)?;
    Ok(output(&mut ask_in(lab, place, &cgroup, file))?
        .trim()
        .to_owned())
}

fn ask_in(lab: &Lab, place: Place, cgroup: &Path, file: &str) -> Command {
    let kedge = lab.tools.kedge.display().to_string();
    let (evidence, socket) = (evidence(lab, file), socket(lab));
    let words = [
        &kedge, "attest", "ask", "--nonce", NONCE, "--out", &evidence, "--at", &socket,
    ];
    command_in(&lab.run, place, cgroup, &words)
}

fn verify(lab: &Lab, file: &str, caller: &str) -> Result<Value> {
    let roots = lab.ca().join("ca.pem").display().to_string();
    let policy = lab.policy_path().display().to_string();
    let node = format!("spiffe://{TRUST_DOMAIN}/kedge/node/{}", Node::A.name());
    let evidence = evidence(lab, file);
    let said = lab.kedge_any_end(
        Node::A,
        &[
            "attest", "verify", "--json", "--roots", &roots, "--policy", &policy, "--node", &node,
            "--nonce", NONCE, "--caller", caller, &evidence,
        ],
    )?;
    serde_json::from_str(&said).with_context(|| format!("parse {said}"))
}

fn evidence(lab: &Lab, file: &str) -> String {
    let folder = lab.run.node_folder(Node::A);
    folder
        .join(format!("{file}.evidence"))
        .display()
        .to_string()
}

fn socket(lab: &Lab) -> String {
    let folder = lab.run.node_folder(Node::A);
    folder.join("attest/attest.sock").display().to_string()
}
