//! The lab that the scenarios of one test binary share, and what they do with it all the time.
//!
//! `KEDGE_LAB` names the lab (default `test`), so that two checkouts can test at once; what
//! `cargo xtask test` plays at once has a number behind it.
//! `KEDGE_FULL=1`, set by `cargo xtask test --full`, asks for the heavy counts;
//! `KEDGE_TIMES_PERCENT`, set in virtual machines, for less than the light ones. Each scenario says
//! how long it played.

use crate::artifacts::Tools;
use crate::lab::process::tail;
use crate::lab::topology::{CLIENT, LOAD, LOAD_PORT, NODES, Node, PODS, Place, Pod};
use crate::lab::{Lab, documents, needs_root};
use crate::shell::wait_for;
use crate::wire::{Capture, Report};
use anyhow::{Context, Result, bail, ensure};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// The variable that names the lab.
pub const LAB: &str = "KEDGE_LAB";

/// Plays one scenario, alone on the stage.
pub fn play(scenario: impl FnOnce(&mut Lab) -> Result<()>) {
    static STAGE: OnceLock<Result<Mutex<Lab>, String>> = OnceLock::new();
    if let Err(reason) = possible() {
        return skip(&format!("{reason:#}"));
    }
    // It stays until this process ends; then the lab's janitor removes it.
    let stage = STAGE.get_or_init(|| {
        set_up()
            .map(Mutex::new)
            .map_err(|error| format!("{error:#}"))
    });
    let stage = stage
        .as_ref()
        .unwrap_or_else(|error| panic!("no lab: {error}"));
    // A scenario that failed before this one says nothing about this one.
    let mut lab = stage.lock().unwrap_or_else(PoisonError::into_inner);
    let started = Instant::now();
    let played = at_the_beginning(&mut lab).and_then(|()| scenario(&mut lab));
    println!("played for {:.1} s", started.elapsed().as_secs_f64());
    played.unwrap_or_else(|error| panic!("{error:#}\n{}", last_words(&lab)));
}

/// Says aloud that a scenario is not played here.
///
/// # Panics
/// When everything is asked for: that is a failure then.
pub fn skip(reason: &str) {
    let strict = std::env::var_os("KEDGE_STRICT").is_some_and(|value| value == "1");
    assert!(!strict, "strict, and this machine cannot: {reason}");
    println!("SKIP: {reason}");
}

/// What both daemons said last: a scenario that failed is often explained there.
fn last_words(lab: &Lab) -> String {
    let of = |node: Node| {
        let name = format!("kedged-{}", node.name());
        format!("{name} said last:\n{}\n", tail(&lab.run, &name))
    };
    NODES.map(of).concat()
}

fn possible() -> Result<()> {
    needs_root()?;
    let tools = Tools::release();
    for tool in [&tools.kedged, &tools.kedge, &tools.load] {
        ensure!(
            tool.exists(),
            "{} is not built: cargo xtask build",
            tool.display()
        );
    }
    Ok(())
}

fn set_up() -> Result<Lab> {
    let run = std::env::var(LAB).unwrap_or_else(|_| "test".to_owned());
    let mut lab = Lab::up(run.parse()?, &Tools::release(), &xtask()?)?;
    lab.start_daemons()?;
    Ok(lab)
}

/// The program: cargo puts tests into `deps/`, beside the programs of their package, and builds
/// those first.
///
/// # Errors
/// When this is no test.
pub fn xtask() -> Result<PathBuf> {
    let test = std::env::current_exe().context("the path of this program")?;
    let profile = test.parent().and_then(|deps| deps.parent());
    Ok(profile.context("this is no test of cargo's")?.join("xtask"))
}

/// How often to do something: `light` in every run, `full` when somebody asked for it.
///
/// # Panics
/// When the variable for less is no number.
#[must_use]
pub fn times(light: usize, full: usize) -> usize {
    if std::env::var("KEDGE_FULL").is_ok_and(|value| value == "1") {
        return full;
    }
    match std::env::var("KEDGE_TIMES_PERCENT") {
        Ok(percent) => {
            let percent: usize = percent.parse().expect("KEDGE_TIMES_PERCENT is a number");
            (light * percent).div_ceil(100)
        }
        Err(_) => light,
    }
}

/// Documents as the lab has them, and a daemon on each node, whatever was played before.
fn at_the_beginning(lab: &mut Lab) -> Result<()> {
    if NODES.into_iter().any(|node| lab.daemon(node).is_err()) {
        lab.stop_daemons()?;
        lab.start_daemons()?;
    }
    everywhere(lab, |lab, node| {
        lab.write_policy(node, "lab", &documents::policy())
    })?;
    let version = put_into_directory(lab, &PODS)?;
    everywhere(lab, |lab, node| takes_effect(lab, node, version))?;
    clear(lab)
}

/// Until a node has this directory, and with it whatever was written before.
///
/// # Errors
/// When it has not within ten seconds.
pub fn takes_effect(lab: &Lab, node: Node, version: u64) -> Result<()> {
    wait_for(
        "the documents of the beginning",
        Duration::from_secs(10),
        || {
            let status: Value = serde_json::from_str(&lab.kedge(node, &["status", "--json"])?)?;
            let has = status["directory"]["version"].as_u64();
            Ok((has >= Some(version)).then_some(()))
        },
    )
}

pub fn everywhere(lab: &Lab, act: impl Fn(&Lab, Node) -> Result<()>) -> Result<()> {
    NODES.into_iter().try_for_each(|node| act(lab, node))
}

/// Every node's directory, one version on.
pub fn put_into_directory(lab: &Lab, pods: &[&Pod]) -> Result<u64> {
    let version = next_version();
    everywhere(lab, |lab, node| lab.write_directory(node, version, pods))?;
    Ok(version)
}

/// Every node's directory, one version on, with `more` at its end; in force when this returns.
pub fn add_to_directory(lab: &Lab, more: &str) -> Result<()> {
    let version = next_version();
    let text = documents::directory(version, &PODS) + more;
    everywhere(lab, |lab, node| lab.write_directory_text(node, &text))?;
    everywhere(lab, |lab, node| takes_effect(lab, node, version))
}

pub fn next_version() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static VERSION: AtomicU64 = AtomicU64::new(2);
    VERSION.fetch_add(1, Ordering::Relaxed)
}

/// Plays with daemons that know nothing of each other, and captures all that they say.
pub fn under_the_oracle(
    lab: &mut Lab,
    name: &str,
    act: impl FnOnce(&mut Lab) -> Result<()>,
) -> Result<Report> {
    lab.stop_daemons()?;
    let capture = Capture::start(lab, name)?;
    lab.start_daemons()?;
    act(lab)?;
    capture.finish(lab)
}

/// One run of kedge-load, and the JSON line that it ends with.
pub fn load<T: DeserializeOwned>(lab: &Lab, from: impl Into<Place>, words: &[&str]) -> Result<T> {
    let program = lab.tools.load.display().to_string();
    let all: Vec<_> = std::iter::once(program.as_str())
        .chain(words.iter().copied())
        .collect();
    let text = lab.run(from, &all)?;
    serde_json::from_str(&text).with_context(|| format!("parse what kedge-load says: {text}"))
}

/// What the server in pod `load` has seen since [`clear`].
pub fn seen(lab: &Lab) -> Result<Value> {
    load(lab, &LOAD, &["report", &format!("127.0.0.1:{LOAD_PORT}")])
}

/// What a node's programs have counted under that name.
///
/// # Errors
/// When there is no such counter.
pub fn captured(lab: &Lab, node: Node, counter: &str) -> Result<u64> {
    let status: Value = serde_json::from_str(&lab.kedge(node, &["status", "--json"])?)?;
    let counted = status["capture"]["counters"][counter].as_u64();
    counted.with_context(|| format!("no counter {counter}: {status}"))
}

pub fn clear(lab: &Lab) -> Result<()> {
    load::<Value>(
        lab,
        &LOAD,
        &["report", "--clear", &format!("127.0.0.1:{LOAD_PORT}")],
    )?;
    Ok(())
}

/// How many events a node's daemon has told so far.
pub fn told(lab: &Lab, node: Node) -> Result<usize> {
    Ok(lab.events(node)?.lines().count())
}

/// Waits for an event after the first `told` ones.
///
/// # Errors
/// When none within ten seconds is what `is_it` looks for; the message lists them.
pub fn is_told(
    lab: &Lab,
    node: Node,
    told: usize,
    what: &str,
    is_it: impl Fn(&Value) -> bool,
) -> Result<Value> {
    wait_for(what, Duration::from_secs(10), || {
        let events = lab.events(node)?;
        for line in events.lines().skip(told) {
            let event: Value = serde_json::from_str(line).context("parse an event")?;
            if is_it(&event) {
                return Ok(Some(event));
            }
        }
        bail!("no event says so:\n{events}")
    })
}

pub fn at(ip: impl Into<IpAddr>, port: u16) -> String {
    SocketAddr::new(ip.into(), port).to_string()
}

/// Whether `from` can exchange bytes with a load server right now.
pub fn reaches(lab: &Lab, from: &'static Pod, server: &str) -> Result<bool> {
    let program = lab.tools.load.display().to_string();
    Ok(lab
        .try_run(from, &[&program, "peer", server])?
        .status
        .success())
}

/// The address of the server in pod `load`, as its clients usually name it.
pub fn server() -> String {
    at(LOAD.v4(), LOAD_PORT)
}

pub fn client_reaches(lab: &Lab) -> Result<bool> {
    reaches(lab, &CLIENT, &server())
}

/// Waits until a change of documents lets `from` reach the server in pod `load`.
///
/// # Errors
/// When it does not within ten seconds.
pub fn becomes_reachable(lab: &Lab, from: &'static Pod) -> Result<()> {
    let what = format!("{} to reach {}", from.name, server());
    wait_for(&what, Duration::from_secs(10), || {
        Ok(reaches(lab, from, &server())?.then_some(()))
    })
}
