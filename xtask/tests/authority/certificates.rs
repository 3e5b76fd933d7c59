//! What peers have proven stops counting: for their links, and for the flows that rest on it.

use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;
use std::time::Duration;
use xtask::lab::topology::{CLIENT, Node};
use xtask::lab::{Lab, documents};
use xtask::shell::{command, output};
use xtask::stage::{becomes_reachable, client_reaches, play, told};
use xtask::waiting::{Waiting, is_told, unix_ms};

/// A change of certificates decides open flows within this long.
const DECIDED: Duration = Duration::from_secs(5);
const HOURS_OF_A_SECOND: f64 = 1.0 / 3_600.0;

/// Node b has its certificate of a second CA, before node a believes that one; then node a stops
/// believing it.
#[test]
fn a_ca_that_leaves_the_bundle_takes_links_and_flows_with_it() {
    play(|lab| {
        let (first, second) = (lab.ca(), lab.make_ca("ca-second")?);
        let [first, both] = [vec![&first], vec![&first, &second]].map(|cas| bundle(&cas));
        let (first, both) = (first?, both?);
        let issued = lab.run.folder().join("of-second");
        lab.issue(&second, Node::B, &issued, 24.0)?;
        renews_its_link(lab, || {
            let told_a = told(lab, Node::A)?;
            give(lab, Node::B, "bundle.pem", &both)?;
            for name in ["node.key", "node.pem"] {
                give(lab, Node::B, name, &fs::read_to_string(issued.join(name))?)?;
            }
            // The old link serves meanwhile, and the new one is asked for again.
            let refused = ["link-failed", "not signed by an authority"];
            is_told(lab, Node::A, told_a, &refused)?;
            ensure!(client_reaches(lab)?, "a link that cannot be renewed serves");
            give(lab, Node::A, "bundle.pem", &both)
        })?;

        let flow = Waiting::idle(lab)?;
        let (told_a, since) = (told(lab, Node::A)?, unix_ms());
        give(lab, Node::A, "bundle.pem", &first)?;
        println!("reset after {} ms", flow.error_after(since, DECIDED)?);
        is_told(
            lab,
            Node::A,
            told_a,
            &["\"peer-untrusted\"", &CLIENT.spiffe_id()],
        )?;
        is_told(
            lab,
            Node::A,
            told_a,
            &["link-down", "no longer believed", "bundle.pem"],
        )?;
        ensure!(
            !client_reaches(lab)?,
            "a link with an untrusted node was made"
        );
        is_told(
            lab,
            Node::A,
            told_a,
            &["link-failed", "not signed by an authority"],
        )?;

        give(lab, Node::A, "bundle.pem", &both)?;
        becomes_reachable(lab, &CLIENT)?;
        lab.issue_certificate(Node::B)?;
        for node in [Node::A, Node::B] {
            give(lab, node, "bundle.pem", &first)?;
        }
        becomes_reachable(lab, &CLIENT)
    });
}

#[test]
fn revoked_svid_closes_its_links_and_flows_and_makes_no_new_link() {
    play(|lab| {
        let flow = Waiting::idle(lab)?;
        let (told_a, since) = (told(lab, Node::A)?, unix_ms());
        let leaf = fingerprint(&lab.run.node_folder(Node::B).join("node.pem"))?;
        give(lab, Node::A, "revoked", &format!("{leaf}  # lost\n"))?;
        println!("reset after {} ms", flow.error_after(since, DECIDED)?);
        is_told(
            lab,
            Node::A,
            told_a,
            &["\"peer-revoked\"", &CLIENT.spiffe_id()],
        )?;
        is_told(
            lab,
            Node::A,
            told_a,
            &["link-down", "is revoked", "svid.revoked"],
        )?;
        ensure!(
            !client_reaches(lab)?,
            "a link with a revoked certificate was made"
        );
        is_told(lab, Node::A, told_a, &["link-failed", "is revoked"])?;

        // A list that cannot be read takes nobody's revocation back.
        give(lab, Node::A, "revoked", "nonsense\n")?;
        is_told(lab, Node::A, told_a, &["trust-rejected", "line 1"])?;
        ensure!(
            !client_reaches(lab)?,
            "a spoiled list took a revocation back"
        );

        lab.issue_certificate(Node::B)?;
        becomes_reachable(lab, &CLIENT)?;
        give(lab, Node::A, "revoked", "")
    });
}

/// A flow rests on its node's identity: it ends with the certificate, unless its node has shown a
/// later one by then.
#[test]
fn a_certificate_s_end_ends_its_flows_unless_it_was_renewed() {
    play(|lab| {
        let b = lab.run.node_folder(Node::B);
        let brief = |lab: &Lab| -> Result<u64> {
            let end = unix_ms() + 12_000;
            renews_its_link(lab, || {
                lab.issue(&lab.ca(), Node::B, &b, 12.0 * HOURS_OF_A_SECOND)
            })?;
            Ok(end)
        };
        let end = brief(lab)?;
        let told_a = told(lab, Node::A)?;
        let flow = Waiting::idle(lab)?;
        let bound = Duration::from_millis(end.saturating_sub(unix_ms())) + DECIDED;
        flow.error_after(unix_ms(), bound)?;
        is_told(
            lab,
            Node::A,
            told_a,
            &["\"peer-expired\"", "kedge ca issue"],
        )?;

        let told_b = told(lab, Node::B)?;
        lab.issue_certificate(Node::B)?;
        is_told(lab, Node::B, told_b, &["svid-reloaded"])?;
        let end = brief(lab)?;
        let mut flow = Waiting::idle(lab)?;
        lab.issue_certificate(Node::B)?;
        while unix_ms() < end + 3_000 {
            ensure!(flow.is_open()?, "a renewed node's flow ended");
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    });
}

/// Node b gets another certificate by `change`; then flows are opened on a link under that.
fn renews_its_link(lab: &Lab, change: impl FnOnce() -> Result<()>) -> Result<()> {
    becomes_reachable(lab, &CLIENT)?;
    let told_a = told(lab, Node::A)?;
    change()?;
    is_told(lab, Node::A, told_a, &["link-renewed"])
}

fn give(lab: &Lab, node: Node, name: &str, text: &str) -> Result<()> {
    let path = lab.run.node_folder(node).join(name);
    let mode = fs::metadata(&path).map(|known| known.permissions());
    documents::replace(&path, text)?;
    mode.and_then(|mode| fs::set_permissions(&path, mode))
        .with_context(|| format!("set the mode of {}", path.display()))
}

fn bundle(cas: &[&std::path::PathBuf]) -> Result<String> {
    let read = |ca: &&std::path::PathBuf| fs::read_to_string(ca.join("ca.pem"));
    Ok(cas.iter().map(read).collect::<Result<String, _>>()?)
}

/// As an operator would take it.
fn fingerprint(certificate: &Path) -> Result<String> {
    let words = [
        "openssl",
        "x509",
        "-noout",
        "-fingerprint",
        "-sha256",
        "-in",
    ];
    let printed = output(command(words).arg(certificate))?;
    let (_, digits) = printed.trim().split_once('=').context("a fingerprint")?;
    Ok(digits.to_owned())
}
