//! What must not happen does not, and says why.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::time::Duration;
use xtask::lab::topology::{CLIENT, LOAD, LOAD_PORT, LOCAL, Node, PODS, Pod};
use xtask::lab::{Lab, documents};
use xtask::shell::wait_for;
use xtask::stage::{
    at, client_reaches, everywhere, next_version, play, put_into_directory, reaches, server, told,
    under_the_oracle,
};

#[test]
fn a_denied_flow_is_refused_with_cause_and_remedy() {
    play(|lab| {
        let told = told(lab, Node::A)?;
        ensure!(
            !reaches(lab, &LOCAL, &server())?,
            "{} was not refused",
            LOCAL.name
        );
        refusal_is_told(lab, told, "denied", &LOCAL)
    });
}

#[test]
fn an_unknown_destination_is_refused_and_nothing_leaves_the_node() {
    play(|lab| {
        let report = under_the_oracle(lab, "unknown", |lab| {
            let nowhere = at(std::net::Ipv4Addr::new(10, 244, 2, 99), LOAD_PORT);
            ensure!(!reaches(lab, &CLIENT, &nowhere)?, "{nowhere} answered");
            Ok(())
        })?;
        report.is_clean()?;
        ensure!(report.flows == 0, "{report}");
        Ok(())
    });
}

#[test]
fn policy_applies_between_pods_of_one_node() {
    play(|lab| {
        let neighbour = at(LOCAL.v4(), LOAD_PORT);
        ensure!(
            reaches(lab, &CLIENT, &neighbour)?,
            "{} is allowed",
            CLIENT.name
        );
        let deny = documents::policy() + &documents::deny(&CLIENT.spiffe_id(), &LOCAL.spiffe_id());
        let told = told(lab, Node::A)?;
        lab.write_policy(Node::A, "lab", &deny)?;
        becomes_refused(lab, |lab| reaches(lab, &CLIENT, &neighbour))?;
        refusal_is_told(lab, told, "denied", &CLIENT)
    });
}

#[test]
fn a_flow_on_one_node_never_touches_the_wire() {
    play(|lab| {
        let report = under_the_oracle(lab, "local", |lab| {
            ensure!(
                reaches(lab, &CLIENT, &at(LOCAL.v6(), LOAD_PORT))?,
                "not reached"
            );
            Ok(())
        })?;
        report.is_clean()?;
        ensure!(report.flows == 0 && report.links.is_empty(), "{report}");
        Ok(())
    });
}

/// Not a flow, and so not a byte, leaves the node for a pod that the directory has lost.
#[test]
fn a_pod_removed_before_the_connection_gets_no_byte() {
    play(|lab| {
        put_into_directory(lab, &without(&LOAD))?;
        becomes(lab, false, client_reaches)?;
        let report = under_the_oracle(lab, "removed", |lab| {
            ensure!(!client_reaches(lab)?, "a pod that is gone was reached");
            Ok(())
        })?;
        report.is_clean()?;
        ensure!(report.flows == 0, "{report}");
        put_into_directory(lab, &PODS)?;
        becomes(lab, true, client_reaches)
    });
}

/// The sender still believes that the pod is there; its node knows better, and is asked last.
#[test]
fn a_pod_that_only_its_own_node_knows_to_be_gone_is_refused() {
    play(|lab| {
        ensure!(client_reaches(lab)?, "the pod is there at first");
        let told = told(lab, Node::A)?;
        lab.write_directory(Node::B, next_version(), &without(&LOAD))?;
        becomes_refused(lab, client_reaches)?;
        refusal_is_told(lab, told, "misplaced", &CLIENT)?;
        put_into_directory(lab, &PODS)?;
        becomes(lab, true, client_reaches)
    });
}

/// An operator who follows the events reads, after the first `told` of them, what was refused to
/// whom, and what to do.
fn refusal_is_told(lab: &Lab, told: usize, label: &str, source: &Pod) -> Result<()> {
    wait_for("the event", Duration::from_secs(5), || {
        let events = lab.events(Node::A)?;
        for line in events.lines().skip(told) {
            let event: Value = serde_json::from_str(line).context("parse an event")?;
            if event["refusal"] == label && event["source"] == source.spiffe_id() {
                let says = |key: &str| event[key].as_str().is_some_and(|text| !text.is_empty());
                ensure!(
                    event["kind"] == "refused" && says("cause") && says("remedy"),
                    "{line}"
                );
                return Ok(Some(()));
            }
        }
        bail!("no event says {label} about {}:\n{events}", source.name)
    })
}

/// A change of documents takes effect within a few seconds.
fn becomes(lab: &Lab, wanted: bool, reached: impl Fn(&Lab) -> Result<bool>) -> Result<()> {
    let what = if wanted {
        "the pod to be reached"
    } else {
        "the pod to be refused"
    };
    wait_for(what, Duration::from_secs(10), || {
        Ok((reached(lab)? == wanted).then_some(()))
    })
}

/// The change may have cut a flow that was allowed when it began. The next one is refused.
fn becomes_refused(lab: &Lab, reached: impl Fn(&Lab) -> Result<bool>) -> Result<()> {
    becomes(lab, false, &reached)?;
    ensure!(!reached(lab)?, "reached again");
    Ok(())
}

fn without(gone: &Pod) -> Vec<&'static Pod> {
    PODS.into_iter().filter(|pod| *pod != gone).collect()
}

#[test]
fn a_new_policy_takes_effect_both_ways() {
    play(|lab| {
        let allow = documents::policy() + &documents::allow(&LOCAL.spiffe_id(), &LOAD.spiffe_id());
        everywhere(lab, |lab, node| lab.write_policy(node, "lab", &allow))?;
        becomes(lab, true, |lab| reaches(lab, &LOCAL, &server()))?;
        everywhere(lab, |lab, node| {
            lab.write_policy(node, "lab", &documents::policy())
        })?;
        becomes(lab, false, |lab| reaches(lab, &LOCAL, &server()))
    });
}
