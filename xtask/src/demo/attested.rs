//! What a machine is, in the demo: both nodes are attested by TPMs of their own, and one that changes
//! is refused by name.

use super::screen::Screen;
use crate::lab::Lab;
use crate::lab::attestation::Attesting;
use crate::lab::topology::{CLIENT, Node, WEB, WEB_PORT};
use crate::shell::wait_for;
use anyhow::{Context, Result};
use serde_json::Value;
use std::time::{Duration, Instant};

/// How long a Result is fresh here: what is shown before is over by half of it, so that no renewal
/// is on the captured wire.
const LIFETIME_S: u64 = 60;
/// The longest wait between two questions to the Verifier, and the question.
const BACK: Duration = Duration::from_secs(70);

/// Daemons that require attestation, and have it. What they say to the Verifier is said by now.
pub fn begin(lab: &mut Lab) -> Result<()> {
    lab.attest(&Attesting {
        lifetime_s: LIFETIME_S,
        ..Attesting::default()
    })
}

/// Changes node b under its daemon: it is refused, and taken back once the policy allows it.
pub fn tamper(lab: &Lab, screen: &Screen) -> Result<()> {
    let step = screen.step(&format!(
        "node b's machine changes: refused within {LIFETIME_S} s and 2 s more"
    ));
    let began = Instant::now();
    let pcr = lab.extend_pcr(Node::B)?;
    wait_for(
        "node b to be refused",
        Duration::from_secs(LIFETIME_S + 2),
        || Ok((!is_served(lab)?).then_some(())),
    )?;
    let refused = began.elapsed().as_secs_f64();
    let says = wait_for("the reason", Duration::from_secs(10), || reason(lab, pcr))?;
    step.done();
    screen.say(&format!("refused after {refused:.1} s; node a says:"));
    screen.say(&format!("  {says}"));

    let step = screen.step("the Verifier's policy allows what it holds now: back");
    lab.allow_what_holds(Node::B)?;
    wait_for("node b to be taken back", BACK, || {
        Ok(is_served(lab)?.then_some(()))
    })?;
    step.done();
    Ok(())
}

fn is_served(lab: &Lab) -> Result<bool> {
    let url = format!("http://{}:{WEB_PORT}/", WEB.v4());
    let words = ["curl", "-sS", "--max-time", "5", &url];
    Ok(lab.try_run(&CLIENT, &words)?.status.success())
}

/// The newest event that names the PCR.
fn reason(lab: &Lab, pcr: u8) -> Result<Option<String>> {
    let pcr = format!("PCR {pcr} is");
    let events = lab.events(Node::A)?;
    let Some(line) = events.lines().rev().find(|line| line.contains(&pcr)) else {
        return Ok(None);
    };
    let event: Value = serde_json::from_str(line)?;
    let cause = event["cause"].as_str().context("an event has a cause")?;
    Ok(Some(cause.to_owned()))
}
