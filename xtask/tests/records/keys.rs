//! Keys that are updated hundreds of times, and keys that the kernel refuses.

use crate::{IN_PLACE, counter, features, kernel_suites, with_kernel_records};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::time::Duration;
use xtask::lab::Lab;
use xtask::lab::topology::{NODES, Node};
use xtask::shapes;
use xtask::shell::wait_for;
use xtask::stage::play;
use xtask::wire::{Finding, Problem};

/// 64 MiB each way, twice: 256 MiB under keys of a few dozen records each. Where the kernel changes
/// its keys in place it counts that too; where it cannot, flows go on on other carriers.
#[test]
fn hundreds_of_key_updates_in_256_mib_lose_no_byte() {
    const SHAPE: &str = "64-mib-both-at-once";
    const LOW_BUDGET: &str = "short-keys:88";
    play(|lab| {
        let report = with_kernel_records(lab, "updates", Some(LOW_BUDGET), |lab| {
            let played = shapes::play(lab, SHAPE, 2)?;
            ensure!(played.cut == 0, "{played:?}");
            shapes::agrees(lab, SHAPE, &played)?;
            for node in NODES {
                let changed = ["keys.changed_sending", "keys.changed_receiving"];
                changes(lab, node, changed)?;
                if has_kernel_records(lab)? && changes_in_place(lab, node)? {
                    let updated = ["kernel_tls.TlsTxRekeyOk", "kernel_tls.TlsRxRekeyOk"];
                    changes(lab, node, updated)?;
                }
            }
            Ok(())
        })?;
        report.is_clean()
    });
}

/// Hundreds of times in 256 MiB, by these counters of a node.
fn changes(lab: &Lab, node: Node, counters: [&str; 2]) -> Result<()> {
    let [sending, receiving] = counters.map(|name| counter(lab, node, name));
    let (sending, receiving) = (sending?, receiving?);
    println!("node {}: {counters:?} {sending}, {receiving}", node.name());
    ensure!(sending + receiving >= 300, "{sending} and {receiving}");
    Ok(())
}

/// At each call by which the kernel gets a key, on both nodes: the flow ends by a reset with an
/// event, nothing but records is on the wire, and the other flows go on.
#[test]
fn a_key_that_the_kernel_refuses_ends_its_flow_before_a_byte_is_plaintext() {
    const SHAPE: &str = "both-and-agreed";
    const FAULTS: &str = "short-keys:88,refuse-sending-key:3,refuse-receiving-key:6,\
                          refuse-sending-update:2,refuse-receiving-update:5";
    play(|lab| {
        let report = with_kernel_records(lab, "refused-keys", Some(FAULTS), |lab| {
            let played = shapes::play(lab, SHAPE, 48)?;
            // Where keys are not changed in place, nobody asks the kernel to.
            let refusals = match has_kernel_records(lab)? {
                false => 0,
                true if changes_in_place(lab, Node::A)? => 4,
                true => 2,
            };
            let both = refusals * NODES.len() as u64;
            ensure!(
                (played.cut > 0) == (both > 0) && played.cut <= both,
                "{played:?}"
            );
            shapes::agrees(lab, SHAPE, &played)?;
            for node in NODES {
                wait_for("each refusal's event", Duration::from_secs(5), || {
                    let count = refusals_told(lab, node)?;
                    ensure!(count <= refusals, "{count} of {refusals}");
                    Ok((count == refusals).then_some(()))
                })?;
            }
            Ok(())
        })?;
        // A flow that ends so ends its carrier wherever it is.
        let odd = |finding: &&Finding| !matches!(finding.problem, Problem::EndsInside(_));
        let odd: Vec<_> = report.findings.iter().filter(odd).collect();
        ensure!(odd.is_empty(), "the wire oracle objects: {odd:?}");
        ensure!(report.flows >= 48, "{report}");
        Ok(())
    });
}

fn refusals_told(lab: &Lab, node: Node) -> Result<u64> {
    let mut count = 0;
    for line in lab.events(node)?.lines() {
        let event: Value = serde_json::from_str(line)?;
        let cause = event["cause"].as_str().unwrap_or_default();
        count += u64::from(event["kind"] == "flow-broken" && cause.contains("kernel records"));
    }
    Ok(count)
}

fn changes_in_place(lab: &Lab, node: Node) -> Result<bool> {
    let features = features(lab, node)?;
    let update = features.iter().find(|feature| feature["name"] == IN_PLACE);
    Ok(update.context("no probe of key updates")?["available"] == true)
}

fn has_kernel_records(lab: &Lab) -> Result<bool> {
    let suites = kernel_suites(lab, Node::A)?;
    if suites.is_empty() {
        println!("no kernel records here");
    }
    Ok(!suites.is_empty())
}
