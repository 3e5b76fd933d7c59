//! What an operator sees.

use crate::{as_it_is, asked, counter, status, with_kernel_records};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::time::Duration;
use xtask::lab::Lab;
use xtask::lab::topology::{NODES, Node};
use xtask::shapes;
use xtask::shell::wait_for;
use xtask::stage::{play, times};
use xtask::steady::Steady;

#[test]
fn a_flow_a_socket_and_the_kernels_counters_say_who_seals_the_records() {
    play(|lab| {
        let report = with_kernel_records(lab, "seen", as_it_is, |lab| {
            let steady = Steady::start(lab)?;
            let looked = NODES.into_iter().try_for_each(|node| look(lab, node));
            let steady = steady.finish()?;
            looked?;
            ensure!(steady["errors"] == 0, "{steady}");
            Ok(())
        })?;
        report.is_clean()
    });
}

fn look(lab: &Lab, node: Node) -> Result<()> {
    let asked = asked(lab, node)?;
    let is_kernels = |flow: &Value| asked.suites.contains(&flow["suite"]);
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
    for direction in ["kernel_tls.TlsTxSw", "kernel_tls.TlsRxSw"] {
        let count = counter(lab, node, direction)?;
        ensure!(
            (count > 0) == is_kernels(&flow),
            "{direction} is {count}; {flow}"
        );
    }
    Ok(())
}

/// What `kedge feature probe` finds missing is what the daemon says that it does itself.
#[test]
fn what_the_kernel_does_not_do_is_said_with_its_reason_and_done_in_userspace() {
    play(|lab| {
        let report = with_kernel_records(lab, "said", as_it_is, |lab| {
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
    let probed: Value =
        serde_json::from_str(&lab.kedge_any_end(node, &["feature", "probe", "--json"])?)?;
    let features = probed["features"]
        .as_array()
        .context("a list of features")?;
    let silent = features
        .iter()
        .filter(|feature| feature["required"] == false && feature["available"] == false);
    let events = lab.events(node)?;
    let missing = &status(lab, node)?["records"]["kernel_missing"];
    let mut count = 0;
    for feature in silent {
        let name = feature["name"].as_str().context("a name")?;
        let reason = feature["reason"].as_str().context("a reason")?;
        println!("{name}: {reason}");
        ensure!(!reason.is_empty(), "{feature}");
        let names = |line: &Value| line.as_str().is_some_and(|line| line.starts_with(name));
        let lines = missing.as_array().context("a list")?;
        ensure!(lines.iter().any(names), "{name} is not in {missing}");
        let told = |line: &str| line.contains("kernel-records-missing") && line.contains(name);
        ensure!(
            events.lines().any(told),
            "no event tells of {name}:\n{events}"
        );
        count += 1;
    }
    ensure!(missing.as_array().map(Vec::len) == Some(count), "{missing}");
    Ok(())
}
