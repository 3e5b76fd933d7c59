//! connect() means something: real programs that take its outcome for an answer behave as with
//! direct TCP towards a dead service, a closed port, a denied place and one that refused a second
//! ago; what still differs is in docs/compatibility.md.
//!
//! ```text
//!  client, local ── nc, haproxy, curl, libpq ── kedged a ══ kedged b ── load, web, db: some listen
//!  bare ────────── nc, haproxy, curl ────────────── direct TCP ──────── bareload
//! ```

mod checks;
mod fallback;
mod leavers;
mod netcat;

use anyhow::{Result, ensure};
use std::net::IpAddr;
use std::time::{Duration, Instant};
use xtask::lab::Lab;
use xtask::lab::process::{Family, Process};
use xtask::lab::topology::Pod;
use xtask::shell::wait_for;

/// Nobody listens there, until a test says so.
const CLOSED: u16 = 7_777;

/// `nc -z` once: `None` when it connected, else what it complains of.
fn netcat(
    lab: &Lab,
    from: &'static Pod,
    to: impl Into<IpAddr>,
    port: u16,
) -> Result<Option<String>> {
    let (to, port) = (to.into().to_string(), port.to_string());
    let output = lab.try_run(from, &["nc", "-z", "-v", "-w", "5", &to, &port])?;
    let says = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        output.status.success() == says.contains("succeeded"),
        "{says}"
    );
    Ok((!output.status.success()).then_some(says))
}

/// Until `nc -z` complains of `errno`, and then for three seconds each time.
fn is_refused(
    lab: &Lab,
    from: &'static Pod,
    to: impl Into<IpAddr> + Copy,
    port: u16,
    errno: &str,
) -> Result<()> {
    wait_for("connect() to fail", Duration::from_secs(10), || {
        // One that was made before the programs knew is reset, and no refusal by connect().
        let says = netcat(lab, from, to, port)?;
        Ok(says.filter(|says| says.contains(errno)).map(drop))
    })?;
    let (begun, mut tries) = (Instant::now(), 0);
    while begun.elapsed() < Duration::from_secs(3) {
        tries += 1;
        let says = netcat(lab, from, to, port)?;
        ensure!(
            says.as_ref().is_some_and(|says| says.contains(errno)),
            "try {tries}, {:?} later: {says:?} instead of {errno}",
            begun.elapsed()
        );
    }
    Ok(())
}

/// A server of kedge-load on a port that was closed.
fn listen(lab: &mut Lab, pod: &'static Pod, port: u16) -> Result<Process> {
    let (load, listen) = (lab.tools.load.display().to_string(), format!("[::]:{port}"));
    let name = format!("{}-{port}", pod.name);
    let process = lab.spawn(pod, &name, &[&load, "server", "--listen", &listen])?;
    process.listens_on(&lab.run, Family::V6, port)?;
    Ok(process)
}
