//! Results that are not of this node, this key or this time.

use super::status;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;
use std::time::Duration;
use xtask::artifacts::build_faulty_kedged;
use xtask::lab::attestation::Attesting;
use xtask::lab::topology::{CLIENT, Node};
use xtask::lab::{Build, Lab};
use xtask::shell::wait_for;
use xtask::stage::{becomes_reachable, client_reaches, play, told};
use xtask::waiting::is_told;

#[test]
fn a_result_of_another_node_or_key_or_past_its_time_is_refused_on_the_link() {
    play(|lab| {
        let faulty = build_faulty_kedged()?;
        let attesting = Attesting {
            lifetime_s: 20,
            hard_lifetime_s: 20,
            ..Attesting::default()
        };
        lab.attest(&attesting)?;
        becomes_reachable(lab, &CLIENT)?;
        let of_a = token(lab, Node::A)?;
        let of_b = token(lab, Node::B)?;
        shows_instead(lab, (&faulty, &attesting), &of_a)?;
        refused(lab, "SVID has another key")?;

        // Its own, and its SVID has another key since.
        lab.issue_certificate(Node::B)?;
        shows_instead(lab, (&faulty, &attesting), &of_b)?;
        refused(lab, "SVID has another key")?;

        lab.attest(&attesting)?;
        becomes_reachable(lab, &CLIENT)?;
        let old = token(lab, Node::B)?;
        wait_for("the Result to end", Duration::from_secs(30), || {
            Ok((token(lab, Node::B)? != old).then_some(()))
        })?;
        std::thread::sleep(Duration::from_secs(attesting.lifetime_s));
        shows_instead(lab, (&faulty, &attesting), &old)?;
        refused(lab, "past its hard expiry")?;

        shows_instead(lab, (&faulty, &attesting), "a.b.c")?;
        refused(lab, "malformed")
    });
}

fn token(lab: &Lab, node: Node) -> Result<String> {
    let status = status(lab, node)?;
    let token = status["result"]["token"].as_str();
    Ok(token
        .with_context(|| format!("a token: {status}"))?
        .to_owned())
}

/// Node b's daemon shows this token from now on, whatever it has itself.
fn shows_instead(
    lab: &mut Lab,
    (faulty, attesting): (&Path, &Attesting<'_>),
    token: &str,
) -> Result<()> {
    let path = lab.run.node_folder(Node::B).join("foreign-result");
    fs::write(&path, token)?;
    let build = Build {
        kedged: faulty.to_owned(),
        object: lab.tools.object.clone(),
        lines: lab.section(Node::B, attesting),
    };
    lab.stop_daemon(Node::B)?;
    lab.start_build(Node::B, &build, Some("foreign-result"))?;
    lab.daemon_answers(Node::B)
}

fn refused(lab: &Lab, why: &str) -> Result<()> {
    let told_a = told(lab, Node::A)?;
    ensure!(!client_reaches(lab)?, "a foreign Result made a link");
    is_told(lab, Node::A, told_a, &["link-failed", why])?;
    is_told(
        lab,
        Node::B,
        0,
        &["link-failed", "does not take us for attested", why],
    )
}
