//! What `off`, `optional` and `required` do without a TPM.

use super::{counter, status};
use anyhow::ensure;
use nix::sys::signal::Signal;
use std::time::Duration;
use xtask::lab::attestation::Attesting;
use xtask::lab::topology::{CLIENT, NODES, Node};
use xtask::shell::wait_for;
use xtask::stage::{becomes_reachable, client_reaches, play, told};
use xtask::waiting::is_told;

#[test]
fn without_a_tpm_optional_is_linked_and_required_says_why_not() {
    play(|lab| {
        lab.attest(&Attesting::default())?;
        becomes_reachable(lab, &CLIENT)?;
        // Node b's TPM is gone, and its daemon knows no Result any more.
        lab.stop_daemon(Node::B)?;
        lab.signal_tpm(Node::B, Signal::SIGKILL)?;
        lab.start_attesting(Node::B, &Attesting::default())?;
        lab.daemon_answers(Node::B)?;
        is_told(lab, Node::B, 0, &["attestation-missing", "no TPM"])?;
        let told_a = told(lab, Node::A)?;
        ensure!(!client_reaches(lab)?, "a node without a TPM was linked");
        is_told(lab, Node::A, told_a, &["link-failed", "no TPM"])?;
        let status_b = status(lab, Node::B)?;
        ensure!(
            status_b["tpm_error"].is_string() && status_b["result"].is_null(),
            "{status_b}"
        );

        let optional = Attesting {
            mode: "optional",
            ..Attesting::default()
        };
        lab.stop_daemons()?;
        for node in NODES {
            lab.start_attesting(node, &optional)?;
        }
        for node in NODES {
            lab.daemon_answers(node)?;
        }
        becomes_reachable(lab, &CLIENT)?;
        lab.has_result(Node::A, Duration::from_secs(30))?;
        wait_for("what the peers show", Duration::from_secs(20), || {
            let (at_a, at_b) = (status(lab, Node::A)?, status(lab, Node::B)?);
            let shown =
                at_a["peers"][0]["standing"] == "none" && at_b["peers"][0]["standing"] == "fresh";
            Ok(shown.then_some(()))
        })?;
        Ok(())
    });
}

#[test]
fn a_node_that_requires_attestation_takes_none_that_is_off() {
    play(|lab| {
        lab.attest(&Attesting::default())?;
        let off = Attesting {
            mode: "off",
            ..Attesting::default()
        };
        lab.stop_daemon(Node::B)?;
        lab.start_attesting(Node::B, &off)?;
        lab.daemon_answers(Node::B)?;
        let told_a = told(lab, Node::A)?;
        ensure!(
            !client_reaches(lab)?,
            "a node with attestation off was linked"
        );
        is_told(
            lab,
            Node::A,
            told_a,
            &["link-failed", "attestation is off there"],
        )?;
        ensure!(status(lab, Node::B)?["mode"] == "off");
        Ok(())
    });
}

#[test]
fn a_tpm_that_hangs_holds_up_no_flow_and_is_told() {
    play(|lab| {
        let attesting = Attesting {
            lifetime_s: 15,
            max_stale_s: 120,
            ..Attesting::default()
        };
        lab.attest(&attesting)?;
        becomes_reachable(lab, &CLIENT)?;
        let told_b = told(lab, Node::B)?;
        lab.signal_tpm(Node::B, Signal::SIGSTOP)?;
        wait_for(
            "the hanging TPM to be told",
            Duration::from_secs(40),
            || {
                ensure!(client_reaches(lab)?, "a flow waits for the TPM");
                let events = lab.events(Node::B)?;
                let told = |line: &str| line.contains("attestation-refused");
                Ok(events.lines().skip(told_b).any(told).then_some(()))
            },
        )?;
        lab.signal_tpm(Node::B, Signal::SIGCONT)?;
        wait_for("a Result again", Duration::from_secs(70), || {
            let status = status(lab, Node::B)?;
            ensure!(
                counter(&status, "waited_after_first") == Some(0),
                "{status}"
            );
            Ok(status["result_error"].is_null().then_some(()))
        })
    });
}
