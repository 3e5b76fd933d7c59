//! What a machine is decides whether it is linked; and it is found out within the life of a Result.

use super::{counter, status};
use anyhow::ensure;
use serde_json::Value;
use std::time::{Duration, Instant};
use xtask::lab::attestation::Attesting;
use xtask::lab::topology::{CLIENT, NODES, Node};
use xtask::shell::wait_for;
use xtask::stage::{becomes_reachable, client_reaches, load, play, server, times, told};
use xtask::waiting::is_told;

/// Results of these scenarios are fresh for so long...
const LIFETIME: Duration = Duration::from_secs(20);
/// ...and a changed machine is refused so long after its change, since its last Result may be as old
/// as nothing: twice that, for a busy machine.
const FOUND_OUT: Duration = Duration::from_secs(2 * LIFETIME.as_secs());
/// The longest wait between two questions to the Verifier, and the question.
const BACK: Duration = Duration::from_secs(70);

#[test]
fn two_attested_nodes_carry_flows_and_no_connection_waits_for_a_tpm() {
    play(|lab| {
        lab.attest(&Attesting::default())?;
        for _ in 0..20 {
            ensure!(client_reaches(lab)?, "attested nodes are not linked");
        }
        for node in NODES {
            let status = status(lab, node)?;
            ensure!(status["peers"][0]["standing"] == "fresh", "{status}");
            ensure!(
                counter(&status, "waited_after_first") == Some(0),
                "{status}"
            );
            // One for enrolment's `learn`, one for the Result; a failed attempt before that may be more.
            ensure!(counter(&status, "quotes") <= Some(4), "{status}");
        }
        let before = NODES.map(|node| status(lab, node).map(|s| counter(&s, "quotes")));
        let connections = times(1_000, 1_000);
        let played: Value = load(lab, &CLIENT, &["seq", &server(), &connections.to_string()])?;
        ensure!(played["errors"] == 0, "{played}");
        let after = NODES.map(|node| status(lab, node).map(|s| counter(&s, "quotes")));
        for (before, after) in before.into_iter().zip(after) {
            let (before, after) = (before?, after?);
            println!("{connections} connections: {before:?} quotes before, {after:?} after");
            ensure!(before == after, "a connection cost a quote");
        }
        Ok(())
    });
}

#[test]
fn a_node_whose_pcr_was_extended_is_refused_by_both_ends_until_the_policy_allows_it() {
    play(|lab| {
        lab.attest(&Attesting {
            lifetime_s: LIFETIME.as_secs(),
            ..Attesting::default()
        })?;
        becomes_reachable(lab, &CLIENT)?;
        let told_of = NODES.map(|node| told(lab, node));
        let [told_a, told_b] = told_of;
        let (told_a, told_b) = (told_a?, told_b?);
        let began = Instant::now();
        let pcr = lab.extend_pcr(Node::B)?;
        wait_for("the changed node to be refused", FOUND_OUT, || {
            Ok((!client_reaches(lab)?).then_some(()))
        })?;
        println!("refused after {:.1} s", began.elapsed().as_secs_f64());
        let pcr = format!("PCR {pcr} is");
        is_told(lab, Node::B, told_b, &["attestation-refused", &pcr])?;
        is_told(lab, Node::A, told_a, &["link-down", "has ended", &pcr])?;
        ensure!(!client_reaches(lab)?, "a changed node was linked again");
        is_told(
            lab,
            Node::A,
            told_a,
            &["link-failed", "no Attestation Result", &pcr],
        )?;
        wait_for("the changed node to hear of it", BACK, || {
            let events = lab.events(Node::B)?;
            let says = |line: &&str| {
                line.contains("peer-unattested") || line.contains("attestation-ended")
            };
            let said = events
                .lines()
                .skip(told_b)
                .any(|line| says(&line) && line.contains(&pcr));
            Ok(said.then_some(()))
        })?;

        lab.allow_what_holds(Node::B)?;
        let began = Instant::now();
        wait_for("the node to be taken back", BACK, || {
            Ok(client_reaches(lab)?.then_some(()))
        })?;
        println!("back after {:.1} s", began.elapsed().as_secs_f64());
        Ok(())
    });
}
