//! What ends, and what goes on after it.

use crate::changes::allow_all;
use crate::{ended, follow, next, present, serving};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use xtask::lab::topology::{BARE, CLIENT, Node};
use xtask::lab::{Build, Lab};
use xtask::shell::wait_for;
use xtask::stage::{client_reaches, load, play, reaches, server};

#[test]
fn an_open_flow_goes_on_in_the_daemon_that_has_it() {
    play(|lab| {
        let steady = steady(lab)?;
        let first = lab.daemon(Node::A)?.clone();
        follow(lab, Node::A, &present(lab, 2))?;
        ensure!(client_reaches(lab)?, "a new connection");
        std::thread::sleep(Duration::from_secs(2));
        ensure!(first.is_alive(), "it has a flow");
        let outcome = finish(steady)?;
        ensure!(outcome["errors"] == 0, "{outcome}");
        ensure!(outcome["requests"].as_u64() > Some(15), "{outcome}");
        first.ended_within(Duration::from_secs(30))
    });
}

#[test]
fn a_daemon_that_is_asked_to_stop_is_not_chosen_any_more_and_carries_what_is_open() {
    play(|lab| {
        let steady = steady(lab)?;
        let daemon = lab.daemon(Node::A)?.clone();
        daemon.signal(Signal::SIGTERM)?;
        wait_for("connect() to fail", Duration::from_secs(2), || {
            let refused = load::<Value>(lab, &CLIENT, &["peer", &server()]).is_err();
            Ok(refused.then_some(()))
        })?;
        ensure!(daemon.is_alive(), "it carries a flow");
        let outcome = finish(steady)?;
        ensure!(outcome["errors"] == 0, "{outcome}");
        ended(&daemon)?;
        lab.stop_daemons()
    });
}

#[test]
fn an_object_of_another_layout_is_refused_and_the_old_generation_serves() {
    play(|lab| {
        let before = serving(lab, Node::A)?;
        let mixed = Build {
            object: next(2)?.object,
            ..present(lab, 2)
        };
        let follower = lab.start_build(Node::A, &mixed, None)?;
        ended(&follower)?;
        let log = lab.log(&follower.name);
        ensure!(log.contains("another layout"), "{log}");
        ensure!(serving(lab, Node::A)? == before, "somebody else serves");
        ensure!(client_reaches(lab)?, "a new connection");
        Ok(())
    });
}

#[test]
fn off_needs_no_daemon_and_no_configuration_whatever_generations_are_there() {
    play(|lab| {
        allow_all(lab)?;
        // A dead follower's tables of the next layout, and the programs of both.
        let daemon = lab.daemon(Node::A)?.clone();
        let follower = lab.start_build(Node::A, &next(2)?, Some("start-swapped:4"))?;
        ended(&follower)?;
        daemon.stop(Signal::SIGKILL)?;
        ensure!(
            !client_reaches(lab)?,
            "require refuses while no daemon runs"
        );
        let pins = lab.run.pins().join(Node::A.name());
        let mut off = Command::new(&lab.tools.kedge);
        let off = off
            .arg("off")
            .arg("--bpffs")
            .arg(&pins)
            .env_clear()
            .output()?;
        ensure!(
            off.status.success(),
            "{}",
            String::from_utf8_lossy(&off.stderr)
        );
        ensure!(!pins.exists(), "pins are left");
        // Node b guards its own pods still; within a nobody is in the way.
        let local = xtask::stage::at(xtask::lab::topology::LOCAL.v4(), 7000);
        ensure!(reaches(lab, &BARE, &local)?, "a is as without kedge");
        lab.stop_daemons()
    });
}

/// One connection with a request every 100 ms.
fn steady(lab: &Lab) -> Result<Child> {
    let program = lab.tools.load.display().to_string();
    let mut command = lab.command(&CLIENT, &[&program, "steady", &server()])?;
    let child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    std::thread::sleep(Duration::from_millis(500));
    Ok(child)
}

fn finish(mut child: Child) -> Result<Value> {
    drop(child.stdin.take());
    let mut text = String::new();
    let mut pipe = child.stdout.take().context("the pipe")?;
    pipe.read_to_string(&mut text)?;
    child.wait()?;
    serde_json::from_str(&text).with_context(|| format!("parse {text:?}"))
}
