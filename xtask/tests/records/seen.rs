//! What an operator sees.

use crate::{IN_PLACE, counter, features, kernel_suites, status, with_kernel_records};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::time::Duration;
use xtask::lab::topology::{CLIENT, NODES, Node, PODS};
use xtask::lab::{Lab, documents};
use xtask::shapes;
use xtask::shell::wait_for;
use xtask::stage::{everywhere, play, put_into_directory, takes_effect, times};
use xtask::steady::Steady;

#[test]
fn a_flow_a_socket_and_the_kernels_counters_say_who_seals_the_records() {
    play(|lab| {
        let report = with_kernel_records(lab, "seen", None, |lab| {
            let steady = Steady::start(lab)?;
            let looked = NODES.into_iter().try_for_each(|node| {
                let by_kernel = by_kernel(lab, node, true)?;
                counted(lab, node, by_kernel)
            });
            let steady = steady.finish()?;
            looked?;
            ensure!(steady["errors"] == 0, "{steady}");
            Ok(())
        })?;
        report.is_clean()
    });
}

/// Each node asks its own policy about its own workload.
#[test]
fn a_policy_keeps_the_records_of_its_workload_in_userspace_at_that_end() {
    play(|lab| {
        let report = with_kernel_records(lab, "policy", None, |lab| {
            let records = format!(
                "\n[[records]]\nworkload = \"{}\"\nmode = \"userspace\"\n",
                CLIENT.spiffe_id()
            );
            let policy = documents::policy() + &records;
            everywhere(lab, |lab, node| lab.write_policy(node, "lab", &policy))?;
            let version = put_into_directory(lab, &PODS)?;
            everywhere(lab, |lab, node| takes_effect(lab, node, version))?;
            let steady = Steady::start(lab)?;
            let looked = by_kernel(lab, Node::A, false).and_then(|_| by_kernel(lab, Node::B, true));
            let steady = steady.finish()?;
            looked?;
            ensure!(steady["errors"] == 0, "{steady}");
            Ok(())
        })?;
        report.is_clean()
    });
}

/// Flow and sockets agree on who seals the records: the kernel where it can, and if it `may`.
fn by_kernel(lab: &Lab, node: Node, may: bool) -> Result<bool> {
    let suites = kernel_suites(lab, node)?;
    let is_kernels = |flow: &Value| may && suites.contains(&flow["suite"]);
    let flow = wait_for("the flow's records to move", Duration::from_secs(5), || {
        let list: Value = serde_json::from_str(&lab.kedge(node, &["flow", "list", "--json"])?)?;
        let flow = list["flows"][0].clone();
        ensure!(flow["suite"].is_string(), "{list}");
        let by_kernel = [&flow["kernel_sends"], &flow["kernel_receives"]];
        let both = by_kernel
            .iter()
            .all(|by_kernel| **by_kernel == is_kernels(&flow));
        let moved = ["record_sent", "record_received"].map(|way| flow[way].as_u64() > Some(0));
        Ok((both && moved == [true; 2]).then_some(flow))
    })?;
    let sockets = lab.run(node, &["ss", "-Htin"])?;
    ensure!(
        sockets.contains("tcp-ulp-tls") == is_kernels(&flow),
        "{flow}, but the sockets:\n{sockets}"
    );
    Ok(is_kernels(&flow))
}

fn counted(lab: &Lab, node: Node, by_kernel: bool) -> Result<()> {
    for direction in ["kernel_tls.TlsTxSw", "kernel_tls.TlsRxSw"] {
        let count = counter(lab, node, direction)?;
        ensure!(
            (count > 0) == by_kernel,
            "{direction} is {count}, but records are the kernel's: {by_kernel}"
        );
    }
    Ok(())
}

/// What `kedge feature probe` finds missing is what the daemon says that it does itself.
#[test]
fn what_the_kernel_does_not_do_is_said_with_its_reason_and_done_in_userspace() {
    play(|lab| {
        let report = with_kernel_records(lab, "said", None, |lab| {
            for node in NODES {
                said(lab, node)?;
            }
            let played = shapes::play(lab, "client-first", times(20, 200))?;
            ensure!(played.cut == 0, "{played:?}");
            shapes::agrees(lab, "client-first", &played)
        })?;
        report.is_clean()
    });
}

fn said(lab: &Lab, node: Node) -> Result<()> {
    let features = features(lab, node)?;
    let is_silent =
        |feature: &&Value| feature["required"] == false && feature["available"] == false;
    let silent: Vec<_> = features.iter().filter(is_silent).collect();
    let said = |feature: &Value| {
        let word = |key: &str| feature[key].as_str().unwrap_or_default();
        format!("{}: {}", word("name"), word("reason"))
    };
    let events = lab.events(node)?;
    let status = status(lab, node)?;
    for suite in status["records"].as_array().context("a list of suites")? {
        if suite["by"] == "kernel" {
            continue;
        }
        let reason = suite["reason"].as_str().context("a reason")?;
        println!("{reason}");
        ensure!(
            silent.iter().any(|feature| said(feature) == reason),
            "no probe finds it: {suite}, but {silent:?}"
        );
        let told = |line: &str| line.contains("kernel-records-missing") && line.contains(reason);
        ensure!(
            events.lines().any(told),
            "no event tells of {suite}:\n{events}"
        );
    }
    let in_userspace = status["records"].to_string().contains("userspace");
    // Without that, flows go on on other carriers.
    let only_that = silent.iter().all(|feature| feature["name"] == IN_PLACE);
    ensure!(in_userspace || only_that, "{silent:?}, but {status}");
    Ok(())
}
