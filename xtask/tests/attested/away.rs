//! The Verifier is away, or somebody is no longer believed.

use super::status;
use anyhow::{Result, ensure};
use std::fs;
use std::time::Duration;
use xtask::lab::Lab;
use xtask::lab::attestation::Attesting;
use xtask::lab::topology::{CLIENT, NODES, Node};
use xtask::shell::wait_for;
use xtask::stage::{becomes_reachable, client_reaches, play, told};
use xtask::waiting::{Waiting, is_told, unix_ms};

const LIFETIME_S: u64 = 15;
const MAX_STALE_S: u64 = 20;
/// A change of whom to believe decides open flows within this long.
const DECIDED: Duration = Duration::from_secs(6);

fn stale() -> Attesting<'static> {
    Attesting {
        lifetime_s: LIFETIME_S,
        max_stale_s: MAX_STALE_S,
        ..Attesting::default()
    }
}

#[test]
fn without_the_verifier_flows_go_on_and_new_links_are_stale_and_then_refused() {
    play(|lab| {
        lab.attest(&stale())?;
        becomes_reachable(lab, &CLIENT)?;
        let control = control_connection(lab)?;
        let mut flow = Waiting::idle(lab)?;
        lab.stop_verifier()?;
        stands(
            lab,
            "stale",
            Duration::from_secs(LIFETIME_S + MAX_STALE_S / 2),
        )?;
        let told_a = told(lab, Node::A)?;
        lab.run(Node::A, &["ss", "-K", "-t", "sport", "=", &control])?;
        is_told(lab, Node::A, told_a, &["link-down"])?;
        ensure!(client_reaches(lab)?, "a stale Result made no new link");
        is_told(lab, Node::A, told_a, &["link-up"])?;
        ensure!(flow.is_open()?, "an open flow ended with its link");
        let told_a = told(lab, Node::A)?;
        let limit = Duration::from_secs(2 * MAX_STALE_S);
        wait_for("new flows to be refused", limit, || {
            Ok((!client_reaches(lab)?).then_some(()))
        })?;
        is_told(
            lab,
            Node::A,
            told_a,
            &["link-down", "has ended", "Verifier"],
        )?;
        ensure!(flow.is_open()?, "an open flow ended with its Result");

        lab.start_verifier()?;
        wait_for("links to be back", Duration::from_secs(70), || {
            Ok(client_reaches(lab)?.then_some(()))
        })?;
        ensure!(flow.is_open()?, "an open flow ended with its Result");
        Ok(())
    });
}

#[test]
fn flows_end_with_their_peers_result_where_that_is_asked_for() {
    play(|lab| {
        lab.attest(&Attesting {
            lifetime_s: LIFETIME_S,
            lines: "flows = \"reset\"\n",
            ..Attesting::default()
        })?;
        becomes_reachable(lab, &CLIENT)?;
        let flow = Waiting::idle(lab)?;
        lab.stop_verifier()?;
        let bound = Duration::from_secs(2 * LIFETIME_S);
        println!("reset after {} ms", flow.error_after(unix_ms(), bound)?);
        // Both Results end at once; whoever looks first tells why, and the other one sees a reset.
        wait_for("either node to say why", Duration::from_secs(5), || {
            let events = NODES.map(|node| lab.events(node)).into_iter();
            let events = events.collect::<Result<Vec<_>>>()?.concat();
            let says = |line: &str| {
                line.contains("\"attestation-ended\"") && line.contains(&CLIENT.spiffe_id())
            };
            Ok(events.lines().any(says).then_some(()))
        })
    });
}

#[test]
fn a_revoked_ak_closes_its_links_and_flows_and_makes_no_new_link() {
    play(|lab| {
        lab.attest(&Attesting::default())?;
        becomes_reachable(lab, &CLIENT)?;
        let ak = status(lab, Node::B)?["ak"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let flow = Waiting::idle(lab)?;
        let (told_a, since) = (told(lab, Node::A)?, unix_ms());
        let verifiers = fs::read_to_string(lab.verifiers_path(Node::A))?;
        lab.write_verifiers(Node::A, &format!("revoked_aks = [\"{ak}\"]\n{verifiers}"))?;
        println!("reset after {} ms", flow.error_after(since, DECIDED)?);
        is_told(
            lab,
            Node::A,
            told_a,
            &["\"attestation-revoked\"", &CLIENT.spiffe_id()],
        )?;
        is_told(lab, Node::A, told_a, &["link-down", &ak])?;
        ensure!(!client_reaches(lab)?, "a link with a revoked AK was made");

        // A file that cannot be used takes nobody's revocation back.
        lab.write_verifiers(Node::A, "nonsense")?;
        is_told(lab, Node::A, told_a, &["verifiers-rejected"])?;
        ensure!(
            !client_reaches(lab)?,
            "a spoiled file took a revocation back"
        );
        lab.write_verifiers(Node::A, &verifiers)?;
        becomes_reachable(lab, &CLIENT)
    });
}

#[test]
fn a_renewed_certificate_is_used_once_there_is_a_result_about_its_key() {
    play(|lab| {
        lab.attest(&Attesting::default())?;
        becomes_reachable(lab, &CLIENT)?;
        renew_links(lab)?;
        for _ in 0..20 {
            ensure!(
                client_reaches(lab)?,
                "a renewal left a moment without a link"
            );
        }
        Ok(())
    });
}

/// Until what every node has of its peer stands so.
fn stands(lab: &Lab, standing: &str, limit: Duration) -> Result<()> {
    let what = format!("every peer's Result to be {standing}");
    wait_for(&what, limit, || {
        for node in NODES {
            if status(lab, node)?["peers"][0]["standing"] != standing {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })
}

/// Node a's port of the link's control connection: what is left when no flow is open and the idle
/// carriers have been closed.
fn control_connection(lab: &Lab) -> Result<String> {
    let peer = Node::B.v4().to_string();
    let list = ["ss", "-tnH", "state", "established", "dst", &peer];
    wait_for(
        "the control connection alone",
        Duration::from_secs(40),
        || {
            let listed = lab.run(Node::A, &list)?;
            let ports: Vec<_> = listed.lines().filter_map(local_port).collect();
            Ok(match &ports[..] {
                [port] => Some(format!(":{port}")),
                _ => None,
            })
        },
    )
}

/// Of a line of `ss`: Recv-Q, Send-Q, local address, peer's.
fn local_port(line: &str) -> Option<&str> {
    let local = line.split_whitespace().nth(2)?;
    local.rsplit_once(':').map(|(_, port)| port)
}

/// Node b's links are made anew, under a new certificate.
fn renew_links(lab: &mut Lab) -> Result<()> {
    let told_b = told(lab, Node::B)?;
    lab.issue_certificate(Node::B)?;
    is_told(lab, Node::B, told_b, &["svid-reloaded"])
}
