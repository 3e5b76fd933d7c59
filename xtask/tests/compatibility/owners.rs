//! Whose a socket is: its maker's cgroup is what the kernel knows of it for good; connect() asks
//! for the caller's.

use crate::{CAPTURED, DIRECT, PLAIN, any, counted, events, failed, host_cgroup, is_capture};
use crate::{is_told, pod_cgroup, refused, serve, serve_plainly, server_name, socket, socket_in};
use crate::{succeeded, was_reset};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::path::Path;
use xtask::lab::Lab;
use xtask::lab::process::{Family, Process, command_in};
use xtask::lab::topology::{BARE, CLIENT, LOAD, LOCAL, Node, Place, Pod};
use xtask::stage::{at, load, play};

/// Made by somebody else's hands.
const ACTIVATED: u16 = 7_503;
const HANDED_OUT: u16 = 7_504;
const DATAGRAMS: u16 = 7_505;

/// A socket that another process connects, having inherited it or been sent it (SCM_RIGHTS).
#[test]
fn a_socket_connected_from_another_cgroup_reaches_nothing_in_the_clear() {
    play(|lab| {
        serve_plainly(lab)?;
        let host = host_cgroup(lab, Node::A)?;
        let direct = DIRECT.socket(lab, PLAIN, &["--by", text(&host)?])?;
        succeeded(&direct)?;

        let told = events(lab, Node::A)?.len();
        for cgroup in [host, pod_cgroup(lab, &BARE)?] {
            let outcome = CAPTURED.socket(lab, PLAIN, &["--by", text(&cgroup)?])?;
            failed(&outcome, "connect", "ETIMEDOUT")?;
        }
        let server = at(CAPTURED.server.v4(), PLAIN);
        is_told(lab, Node::A, told, |event| {
            event["kind"] == "guard-dropped" && event["original_destination"] == server
        })?;

        let told = events(lab, Node::A)?.len();
        let neighbour = pod_cgroup(lab, &LOCAL)?;
        was_reset(&CAPTURED.socket(lab, PLAIN, &["--by", text(&neighbour)?])?)?;
        is_told(lab, Node::A, told, |event| {
            refused(event, "source-mismatch") && event["source"] == LOCAL.spiffe_id()
        })?;

        let told = events(lab, Node::A)?.len();
        let client = pod_cgroup(lab, &CLIENT)?;
        was_reset(&DIRECT.socket(lab, PLAIN, &["--by", text(&client)?])?)?;
        is_told(lab, Node::A, told, |event| {
            refused(event, "source-mismatch") && event["source"] == CLIENT.spiffe_id()
        })
    });
}

#[test]
fn a_socket_made_before_its_process_came_into_the_pod_is_captured_as_the_pods() {
    play(|lab| {
        serve_plainly(lab)?;
        let host = host_cgroup(lab, Node::A)?;
        for way in [&DIRECT, &CAPTURED] {
            let cgroup = pod_cgroup(lab, way.client)?;
            let to = at(way.server.v4(), PLAIN);
            let words = ["--move-to", text(&cgroup)?];
            let outcome = socket_in(lab, &host, Place::from(way.client), &to, &words)?;
            succeeded(&outcome)?;
            ensure!(outcome["seen"]["accepted"] == outcome["local"], "{outcome}");
            let is_captured = way.client.mode != "off";
            ensure!(is_capture(&outcome["listed"])? == is_captured, "{outcome}");
        }
        Ok(())
    });
}

/// Socket activation: whoever made the listener decides whether plaintext enters.
#[test]
fn a_listener_is_guarded_by_the_cgroup_that_made_it_whoever_serves_it() {
    play(|lab| {
        let (host, pod) = (host_cgroup(lab, Node::B)?, pod_cgroup(lab, &LOAD)?);
        serve_moved(lab, ACTIVATED, &host, &pod)?;
        serve_moved(lab, HANDED_OUT, &pod, &host)?;
        for port in [ACTIVATED, HANDED_OUT] {
            let captured = CAPTURED.socket(lab, port, &[])?;
            succeeded(&captured)?;
            ensure!(
                captured["seen"]["accepted"] == captured["local"],
                "{captured}"
            );
        }
        succeeded(&socket(lab, &BARE, &at(LOAD.v4(), ACTIVATED), &[])?)?;
        let past = socket(lab, &BARE, &at(LOAD.v4(), HANDED_OUT), &[])?;
        failed(&past, "connect", "ETIMEDOUT")
    });
}

#[test]
fn datagrams_pass_untouched_and_are_counted() {
    play(|lab| {
        for way in [&DIRECT, &CAPTURED] {
            serve_datagrams(lab, way.server)?;
            let before = counted(lab, "other_passed")?;
            let server = at(way.server.v4(), DATAGRAMS);
            let answered: Value = load(lab, way.client, &["datagram", &server])?;
            ensure!(answered["peer"] == server, "{answered}");
            ensure!(answered["seen"] == answered["local"], "{answered}");
            let after = counted(lab, "other_passed")?;
            // One there and one back, of workloads that are guarded.
            let passed = if way.client.mode == "off" { 0 } else { 2 };
            ensure!(after == before + passed, "{before}, then {after}");
        }
        Ok(())
    });
}

/// A process in kedged's cgroup has no more rights than kedged: no plaintext off the node, and
/// into a `require` pod only what was filed.
#[test]
fn kedgeds_own_sockets_are_never_captured_and_leave_the_node_only_towards_nodes() {
    play(|lab| {
        serve_plainly(lab)?;
        for pod in [&BARE, &LOCAL] {
            serve(lab, pod, PLAIN, &[])?;
        }
        let daemon = lab.run.cgroup()?.join(Node::A.name()).join("kedged");
        let host = host_cgroup(lab, Node::A)?;
        let from = |cgroup: &Path, to: &Pod| {
            let to = at(to.v4(), PLAIN);
            socket_in(lab, cgroup, Place::from(Node::A), &to, &[])
        };
        succeeded(&from(&host, DIRECT.server)?)?;
        let told = events(lab, Node::A)?.len();
        failed(&from(&daemon, DIRECT.server)?, "connect", "EPERM")?;
        failed(&from(&daemon, CAPTURED.server)?, "connect", "EPERM")?;
        is_told(lab, Node::A, told, |event| event["kind"] == "guard-dropped")?;

        for cgroup in [&host, &daemon] {
            let outcome = from(cgroup, &BARE)?;
            succeeded(&outcome)?;
            ensure!(outcome["listed"] == at(BARE.v4(), PLAIN), "{outcome}");
            failed(&from(cgroup, &LOCAL)?, "connect", "ETIMEDOUT")?;
        }
        Ok(())
    });
}

/// A server of pod `load` whose listener is made in one cgroup and served in another.
fn serve_moved(lab: &mut Lab, port: u16, from: &Path, to: &Path) -> Result<()> {
    let name = server_name(&LOAD, port);
    let (program, listen) = (lab.tools.load.display().to_string(), any(port));
    let words = [&*program, "socket-server", &listen, "--move-to", text(to)?];
    let command = command_in(&lab.run, Place::from(&LOAD), from, &words);
    let server = Process::spawn(&lab.run, Place::from(&LOAD), &name, command)?;
    server.listens_on(&lab.run, Family::V4, port)
}

fn serve_datagrams(lab: &mut Lab, pod: &'static Pod) -> Result<()> {
    let (program, listen) = (lab.tools.load.display().to_string(), any(DATAGRAMS));
    let name = server_name(pod, DATAGRAMS);
    lab.spawn(pod, &name, &[&program, "datagram-server", &listen])?;
    let bound = format!("ss -Hlun sport = :{DATAGRAMS} | grep -q .");
    xtask::shell::wait_for(
        "the datagram server",
        std::time::Duration::from_secs(10),
        || {
            Ok(lab
                .try_run(pod, &["sh", "-c", &bound])?
                .status
                .success()
                .then_some(()))
        },
    )
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path of the lab is valid UTF-8")
}
