//! `cargo xtask demo`: unmodified applications talk across two nodes, first without kedge, then
//! with it, and everything that is claimed is looked up where it can be seen: in the servers' own
//! logs, in the daemons' words, and in every byte on the wire.

mod applications;
mod attested;
mod screen;

use crate::artifacts::Tools;
use crate::lab::topology::{CLIENT, DB, DB_PORT, LOCAL, Node, WEB, WEB_PORT};
use crate::lab::{Lab, Run, services::WEB_PAGE};
use crate::wire::{Capture, Report, group_name};
use anyhow::{Context, Result, ensure};
use applications::APPLICATIONS;
use screen::Screen;
use std::path::Path;

/// Shows it all; `keep` leaves the lab for the user to go on with.
///
/// # Errors
/// When anything is not as it should be.
pub fn demo(run: Run, tools: &Tools, xtask: &Path, keep: bool) -> Result<()> {
    let screen = Screen::new(9);
    let step = screen.step("two nodes, nine pods: nginx, PostgreSQL, Redis, a mail server");
    let mut lab = Lab::up(run, tools, xtask)?;
    step.done();

    let step = screen.step("the control: curl without kedge, under the wire oracle");
    let objection = without_kedge(&mut lab)?;
    step.done();
    screen.say(&format!("the oracle objects: {objection}"));

    let step = screen.step("kedged on both nodes, each attested by a TPM of its own (swtpm)");
    attested::begin(&mut lab)?;
    step.done();

    let step = screen.step("from here on every packet between the nodes is captured");
    let capture = Capture::start(&mut lab, "demo")?;
    step.done();

    let step = screen.step("unmodified applications");
    step.newline();
    for application in &APPLICATIONS {
        let seen = application.run(&lab)?;
        screen.say(&format!(
            "{:36} {:24} {seen}",
            application.shown(),
            application.trait_shown()
        ));
    }

    let step = screen.step("a connection that policy does not allow");
    let explanation = forbidden(&lab)?;
    step.done();
    screen.say(&format!(
        "{} -> {} port {DB_PORT}: refused",
        LOCAL.name, DB.name
    ));
    explanation
        .lines()
        .for_each(|line| screen.say(&format!("  {line}")));

    let step = screen.step("the wire between the nodes, byte by byte");
    let report = capture.finish(&lab)?;
    report.is_clean()?;
    let group = one_handshake(&report)?;
    step.done();
    screen.say(&report.to_string());

    attested::tamper(&lab, &screen)?;
    proven(&screen, &report, &group);
    if keep {
        leave(lab, &screen)
    } else {
        drop(lab)
    }
    Ok(())
}

/// What the oracle says about plain HTTP on the same wire: it must say something.
fn without_kedge(lab: &mut Lab) -> Result<String> {
    let capture = Capture::start(lab, "control")?;
    let url = format!("http://{}:{WEB_PORT}/", WEB.v4());
    let page = lab.run(&CLIENT, &["curl", "-sS", "--max-time", "5", &url])?;
    ensure!(page == WEB_PAGE, "curl got {page:?} without kedge");
    let findings = capture.finish(lab)?.findings;
    let telling = findings
        .iter()
        .find(|finding| finding.to_string().contains("|GET "));
    Ok(telling
        .context("the oracle did not see plain HTTP on the wire")?
        .to_string())
}

fn forbidden(lab: &Lab) -> Result<String> {
    let words = format!(
        "host={} user=postgres dbname=postgres connect_timeout=5",
        DB.v4()
    );
    let done = lab.try_run(&LOCAL, &["psql", "-XAt", &words, "-c", "select 1"])?;
    ensure!(
        !done.status.success(),
        "psql from {} was not refused",
        LOCAL.name
    );
    let port = DB_PORT.to_string();
    let (source, destination) = (LOCAL.spiffe_id(), DB.spiffe_id());
    let words = ["policy", "explain", &source, &destination, &port];
    let explanation = lab.kedge_any_end(Node::A, &words)?;
    ensure!(
        explanation.starts_with("denied"),
        "policy explains: {explanation}"
    );
    Ok(explanation)
}

/// The group of the one full handshake that everything was keyed from.
fn one_handshake(report: &Report) -> Result<String> {
    ensure!(
        report.full_handshakes() == 1,
        "{} full handshakes instead of one",
        report.full_handshakes()
    );
    let group = report
        .links
        .iter()
        .find_map(|link| link.group)
        .context("no group was chosen")?;
    Ok(group_name(group))
}

fn proven(screen: &Screen, report: &Report, group: &str) {
    screen.title("Proven, on this machine, just now");
    screen.point(&format!(
        "{} connections of unmodified curl, psql, redis-cli over IPv4 and IPv6, the client or the \
         server speaking first",
        APPLICATIONS.len()
    ));
    screen.point("every server's own log has the client's true address");
    screen.point(&format!(
        "one full TLS 1.3 handshake, {group}, keyed all {} flows between the nodes",
        report.flows
    ));
    screen.point(&format!(
        "every byte of {} packets between the nodes is a clear header or a TLS record; the same \
         parse without kedge found the HTTP request",
        report.packets
    ));
    screen.point("what policy does not allow is refused, and policy says why");
    screen.point(
        "both machines were attested before a byte moved; one that changed was refused, with the PCR \
         named, and taken back when the policy allowed it",
    );
}

fn leave(lab: Lab, screen: &Screen) {
    let run = lab.run.clone();
    let socket = run.node_folder(Node::A).join("admin.sock");
    lab.leave();
    screen.title("The lab stays; things to try");
    for line in [
        format!("cargo xtask lab exec --run {run} client -- curl http://10.96.0.10/"),
        format!("cargo xtask lab exec --run {run} a -- tcpdump -ni wire -A"),
        format!(
            "target/release/kedge --socket {} flow list",
            socket.display()
        ),
        format!("cargo xtask lab list; cargo xtask lab down --run {run}"),
    ] {
        screen.say(&line);
    }
}
