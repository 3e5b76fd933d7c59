//! Many connections, one handshake, and nothing on the wire that should not be there.

use anyhow::{Result, ensure};
use serde_json::Value;
use xtask::artifacts;
use xtask::lab::Lab;
use xtask::lab::topology::{BARE, BARELOAD, CLIENT, LOAD, LOAD_PORT, NODES, Node, PEER_PORT};
use xtask::stage::{at, clear, client_reaches, load, play, seen, server, under_the_oracle};
use xtask::wire::{Capture, Finding, Problem};

const X25519MLKEM768: u16 = 0x11ec;

#[test]
fn eleven_thousand_connections_are_keyed_from_one_handshake() {
    play(|lab| {
        let report = under_the_oracle(lab, "carried", |lab| {
            exchange(lab, "seq", &server(), 10_000)?;
            exchange(lab, "concurrent", &at(LOAD.v6(), LOAD_PORT), 1_000)
        })?;
        report.is_clean()?;
        ensure!(report.full_handshakes() == 1, "{report}");
        ensure!(
            report.links[0].offered_groups == [X25519MLKEM768],
            "{:?}",
            report.links
        );
        ensure!(
            report.links[0].group == Some(X25519MLKEM768),
            "{:?}",
            report.links
        );
        ensure!(report.flows == 11_000, "{report}");
        Ok(())
    });
}

/// A daemon that waited for an answer, or for the handshake of a carrier, would send none of them
/// so. Not all are: the client's bytes may come after the answer on a busy machine.
#[test]
fn the_first_bytes_of_a_flow_leave_before_anything_comes_back() {
    play(|lab| {
        let report = under_the_oracle(lab, "first-bytes", |lab| {
            exchange(lab, "seq", &server(), 200)
        })?;
        report.is_clean()?;
        ensure!(
            report.flows == 200 && report.flows_without_waiting > 100,
            "{} of {report}",
            report.flows_without_waiting
        );
        Ok(())
    });
}

/// Without an error, with equal hashes both ways, and each nonce seen once by the server.
fn exchange(lab: &Lab, verb: &str, server: &str, connections: u64) -> Result<()> {
    clear(lab)?;
    let ours: Value = load(lab, &CLIENT, &[verb, server, &connections.to_string()])?;
    let theirs = seen(lab)?;
    ensure!(ours["errors"] == 0, "the client: {ours}");
    ensure!(theirs["nonces"] == connections, "the server: {theirs}");
    ensure!(
        theirs["duplicates"] == 0 && theirs["hash_errors"] == 0,
        "the server: {theirs}"
    );
    ensure!(
        theirs["nonces_sha256"] == ours["nonces_sha256"],
        "{ours} and {theirs}"
    );
    Ok(())
}

#[test]
fn a_workload_without_kedge_is_caught_by_the_same_oracle() {
    play(|lab| {
        let report = under_the_oracle(lab, "control-bare", |lab| {
            load::<Value>(lab, &BARE, &["seq", &at(BARELOAD.v4(), LOAD_PORT), "1"])?;
            Ok(())
        })?;
        let tuple = |problem: &Problem| *problem == Problem::UnexpectedTuple;
        ensure!(
            report
                .findings
                .iter()
                .any(|finding| tuple(&finding.problem)),
            "{report}"
        );
        Ok(())
    });
}

/// The control build sends one plaintext byte behind record 0; nothing else is changed.
#[test]
fn a_build_that_leaks_one_byte_is_caught() {
    play(|lab| {
        let faulty = artifacts::build_faulty_kedged()?;
        lab.stop_daemons()?;
        let capture = Capture::start(lab, "control-build")?;
        lab.start_faulty_daemon(Node::A, &faulty, "leak-one-byte")?;
        lab.start_daemon(Node::B)?;
        for node in NODES {
            lab.daemon_answers(node)?;
        }
        // The other end refuses what comes behind the leaked byte.
        let carried = client_reaches(lab)?;
        let report = capture.finish(lab);
        lab.stop_daemons()?;
        let report = report?;
        ensure!(!carried, "a flow with a leaked byte was carried");
        let outside = |finding: &Finding| matches!(finding.problem, Problem::NotA(_));
        ensure!(report.findings.iter().any(outside), "{report}");
        Ok(())
    });
}

#[test]
fn one_byte_leaked_to_the_peer_port_is_caught() {
    play(|lab| {
        let report = under_the_oracle(lab, "control-leak", |lab| {
            let leak = format!("printf G >/dev/tcp/{}/{PEER_PORT}", Node::B.v4());
            lab.run(Node::A, &["bash", "-c", &leak])?;
            Ok(())
        })?;
        ensure!(report.findings.len() == 1, "{:?}", report.findings);
        ensure!(
            report.findings[0].problem == Problem::NotA("link or carrier"),
            "{report}"
        );
        Ok(())
    });
}
