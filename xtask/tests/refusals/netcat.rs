//! `nc -z`: the exit status is connect()'s.

use crate::{CLOSED, is_refused, listen, netcat};
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};
use xtask::lab::topology::{BARE, BARELOAD, CLIENT, LOAD, LOAD_PORT, LOCAL, Node, SERVICES, WEB};
use xtask::lab::{Lab, documents};
use xtask::shell::wait_for;
use xtask::stage::{add_to_directory, everywhere, play};

const REFUSED: &str = "Connection refused";
const NO_ROUTE: &str = "No route to host";
/// Of a service that a test adds.
const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 99);

#[test]
fn a_closed_port_is_refused_as_by_direct_tcp_and_reached_within_two_seconds_when_it_opens() {
    play(|lab| {
        let direct = netcat(lab, &BARE, BARELOAD.v4(), CLOSED)?;
        ensure!(direct.is_some_and(|says| says.contains(REFUSED)), "direct");
        is_refused(lab, &CLIENT, LOAD.v4(), CLOSED, REFUSED)?;
        is_told(lab, "workload-refused")?;
        let server = listen(lab, &LOAD, CLOSED)?;
        let back = Instant::now();
        let reached = wait_for("connect() to succeed", Duration::from_secs(10), || {
            Ok(netcat(lab, &CLIENT, LOAD.v4(), CLOSED)?
                .is_none()
                .then_some(back.elapsed()))
        });
        server.stop(Signal::SIGKILL)?;
        let reached = reached?;
        println!("reached {} ms after it listened", reached.as_millis());
        ensure!(reached < Duration::from_secs(2), "{reached:?}");
        Ok(())
    });
}

#[test]
fn a_closed_port_on_the_same_node_is_refused_too() {
    play(|lab| is_refused(lab, &CLIENT, LOCAL.v6(), CLOSED, REFUSED));
}

#[test]
fn a_service_without_an_endpoint_is_refused_from_the_first_time_on() {
    play(|lab| {
        add_to_directory(lab, &service("[]"))?;
        let says = netcat(lab, &CLIENT, SERVICE, 80)?;
        ensure!(
            says.as_ref().is_some_and(|says| says.contains(REFUSED)),
            "{says:?}"
        );
        is_refused(lab, &CLIENT, SERVICE, 80, REFUSED)?;
        is_told(lab, "no-endpoint")
    });
}

#[test]
fn a_denied_place_is_refused_while_policy_denies_it_and_no_longer() {
    play(|lab| {
        is_refused(lab, &LOCAL, LOAD.v4(), LOAD_PORT, NO_ROUTE)?;
        is_told(lab, "denied")?;
        let allow = documents::policy() + &documents::allow(&LOCAL.spiffe_id(), &LOAD.spiffe_id());
        everywhere(lab, |lab, node| lab.write_policy(node, "lab", &allow))?;
        wait_for("connect() to succeed", Duration::from_secs(5), || {
            Ok(netcat(lab, &LOCAL, LOAD.v4(), LOAD_PORT)?
                .is_none()
                .then_some(()))
        })
    });
}

#[test]
fn one_closed_endpoint_of_two_refuses_nobody_and_two_refuse_everybody() {
    play(|lab| {
        let endpoint = |uid: &str, port| format!("{{ uid = \"{uid}\", port = {port} }}");
        let (open, closed) = (
            endpoint(&LOAD.uid(), LOAD_PORT),
            endpoint(&WEB.uid(), CLOSED),
        );
        add_to_directory(lab, &service(&format!("[{open}, {closed}]")))?;
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(4) {
            let says = netcat(lab, &CLIENT, SERVICE, 80)?;
            // A reset that is quicker than nc may look is no refusal by connect().
            ensure!(
                !says.as_ref().is_some_and(|says| says.contains(REFUSED)),
                "{says:?}, {:?} after the first",
                begun.elapsed()
            );
        }
        let other = endpoint(&LOAD.uid(), CLOSED);
        add_to_directory(lab, &service(&format!("[{other}, {closed}]")))?;
        is_refused(lab, &CLIENT, SERVICE, 80, REFUSED)
    });
}

#[test]
fn a_place_that_refused_is_looked_at_once_a_second_however_often_somebody_asks() {
    play(|lab| {
        is_refused(lab, &CLIENT, LOAD.v4(), CLOSED, REFUSED)?;
        let (before, begun) = (looks(lab)?, Instant::now());
        while begun.elapsed() < Duration::from_secs(4) {
            netcat(lab, &CLIENT, LOAD.v4(), CLOSED)?.context("it was reached")?;
        }
        let made = looks(lab)? - before;
        // What earlier tests asked for stands for a minute, and each of these places is looked at.
        let places = 8;
        ensure!((3..=5 * places).contains(&made), "{made} looks in 4 s");
        Ok(())
    });
}

fn service(endpoints: &str) -> String {
    assert!(SERVICES.iter().all(|service| service.v4() != SERVICE));
    format!(
        "\n[[service]]\nname = \"added\"\naddresses = [\"{SERVICE}\"]\nport = 80\nendpoints = {endpoints}\n"
    )
}

fn looks(lab: &Lab) -> Result<u64> {
    let status: Value = serde_json::from_str(&lab.kedge(Node::A, &["status", "--json"])?)?;
    let looks = status["counters"]["refusals.looks"].as_u64();
    looks.with_context(|| format!("no count of looks in {status}"))
}

/// The operator reads which refusal it is that connect() repeats, and what to do about it.
fn is_told(lab: &Lab, label: &str) -> Result<()> {
    wait_for("the event", Duration::from_secs(5), || {
        for line in lab.events(Node::A)?.lines() {
            let event: Value = serde_json::from_str(line).context("parse an event")?;
            if event["kind"] == "capture-refused" && event["refusal"] == label {
                let says = |key: &str| event[key].as_str().is_some_and(|text| !text.is_empty());
                ensure!(says("cause") && says("remedy"), "{line}");
                return Ok(Some(()));
            }
        }
        bail!("no event says that connect() was refused as {label}")
    })
}
