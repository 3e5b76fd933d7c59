//! Streams of shapes (`bench/src/shapes`) from pod `client` to a server in pod `load`: each end
//! checks every byte and how the stream ended.

use crate::lab::Lab;
use crate::lab::process::{Family, Process};
use crate::lab::topology::{CLIENT, LOAD, Pod};
use crate::shell::wait_for;
use crate::stage::{at, load};
use anyhow::{Context, Result, anyhow, ensure};
use serde::Deserialize;
use serde_json::Value;
use std::net::Ipv4Addr;
use std::time::Duration;

const PORT: u16 = 7_100;

/// Every shape, and whether one thread can play it that never sends and receives at once.
pub const SHAPES: [(&str, bool); 12] = [
    ("client-first", true),
    ("server-first", true),
    ("client-half-closes", true),
    ("server-half-closes", true),
    ("no-answer", true),
    ("client-resets", true),
    ("server-resets", true),
    ("reset-under-way", true),
    ("one-byte-writes", true),
    ("slow-reader", true),
    ("small-buffers", false),
    ("both-at-once", false),
];

/// What the client saw.
#[derive(Debug, Deserialize)]
pub struct Played {
    pub good: u64,
    /// Ended by an error of the connection, with right bytes before it.
    pub cut: u64,
    pub first_cut: Option<String>,
    /// Ended by a lie: other bytes, a clean end too early, or no end at all.
    pub bad: u64,
    pub first_bad: Option<String>,
}

/// Starts the server, unless that was done before.
///
/// # Errors
/// When it does not come up.
pub fn serve(lab: &mut Lab) -> Result<()> {
    let name = "shapes-edge-load";
    let running = |process: &Process| process.name == name && process.is_alive();
    if lab.processes().iter().any(running) {
        return Ok(());
    }
    let (program, listen) = (lab.tools.load.display().to_string(), format!("[::]:{PORT}"));
    let server = lab.spawn(&LOAD, name, &[&program, "shapes-server", "edge", &listen])?;
    server.listens_on(&lab.run, Family::V6, PORT)
}

/// Plays `count` streams of a shape, eight at a time.
///
/// # Errors
/// When the client cannot be run, or was lied to.
pub fn play(lab: &Lab, shape: &str, count: usize) -> Result<Played> {
    let (address, port) = (LOAD.v4().to_string(), PORT.to_string());
    let count = count.to_string();
    let words = ["shapes", "edge", &address, &port, shape, "--count", &count];
    let played: Played = load(lab, &CLIENT, &[&words[..], &["--at-once", "8"]].concat())?;
    ensure!(played.bad == 0, "{shape}, the client: {played:?}");
    Ok(played)
}

/// Waits until the server has seen whatever the client believes to be whole: nothing twice, and
/// every end that was not meant as an error.
///
/// # Errors
/// When it has not, or was lied to.
pub fn agrees(lab: &Lab, shape: &str, played: &Played) -> Result<()> {
    let itself = Ipv4Addr::LOCALHOST;
    agrees_when_asked(lab, &LOAD, itself, shape, played)
}

/// The same, of a server on another machine: its client asks it, through kedge.
///
/// # Errors
/// As [`agrees`]'s.
pub fn agrees_from_afar(lab: &Lab, shape: &str, played: &Played) -> Result<()> {
    agrees_when_asked(lab, &CLIENT, LOAD.v4(), shape, played)
}

fn agrees_when_asked(
    lab: &Lab,
    from: &'static Pod,
    server: Ipv4Addr,
    shape: &str,
    played: &Played,
) -> Result<()> {
    let report = at(server, PORT);
    let mut good = 0;
    let verdict = wait_for("the server's view", Duration::from_secs(20), || {
        let seen: Value = load(lab, from, &["shapes-report", &report])?;
        let of = |key: &str| seen[shape][key].as_u64().unwrap_or(0);
        good += of("good");
        // The server tells each thing once: a lie is the end of waiting.
        if of("bad") + of("repeated") > 0 {
            return Ok(Some(Err(anyhow!("{shape}, the server: {seen}"))));
        }
        Ok((good >= played.good).then_some(Ok(())))
    });
    verdict.with_context(|| format!("{shape}: {good} at the server; the client: {played:?}"))?
}
