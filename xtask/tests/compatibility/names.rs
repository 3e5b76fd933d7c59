//! Addresses: those that a socket has, those that it shows, and those that it may not have.

use crate::{CAPTURED, DIRECT, PLAIN, Way, events, failed, ip_of, is_capture, is_told};
use crate::{refused, serve, serve_plainly, socket, succeeded, was_reset};
use anyhow::{Result, ensure};
use std::net::Ipv4Addr;
use xtask::lab::Lab;
use xtask::lab::topology::{BARE, CLIENT, LOCAL, Node, Place, Pod};
use xtask::stage::{at, play};

#[test]
fn getsockname_is_what_the_server_sees() {
    play(|lab| {
        serve_plainly(lab)?;
        for way in [&DIRECT, &CAPTURED] {
            let outcome = way.socket(lab, PLAIN, &[])?;
            succeeded(&outcome)?;
            ensure!(ip_of(&outcome["local"])? == way.client.v4(), "{outcome}");
            for name in ["accepted", "peername"] {
                ensure!(outcome["seen"][name] == outcome["local"], "{outcome}");
            }
        }
        Ok(())
    });
}

/// A pod with several addresses: routes choose one by destination, and the destination is the
/// daemon's.
#[test]
fn a_route_chooses_the_source_address_towards_the_daemon_not_towards_the_destination() {
    play(|lab| {
        serve_plainly(lab)?;
        with_second_address(lab, |lab| {
            for way in [&DIRECT, &CAPTURED] {
                route_by_second_address(lab, way, "add")?;
            }
            let direct = DIRECT.socket(lab, PLAIN, &[]);
            let captured = CAPTURED.socket(lab, PLAIN, &[]);
            for way in [&DIRECT, &CAPTURED] {
                route_by_second_address(lab, way, "del")?;
            }
            let (direct, captured) = (direct?, captured?);
            succeeded(&direct)?;
            ensure!(
                ip_of(&direct["local"])? == second_address(&BARE),
                "{direct}"
            );
            succeeded(&captured)?;
            ensure!(ip_of(&captured["local"])? == CLIENT.v4(), "{captured}");
            Ok(())
        })
    });
}

#[test]
fn the_kernels_tables_show_the_leg_to_the_daemon_and_getpeername_what_was_asked() {
    play(|lab| {
        serve_plainly(lab)?;
        for way in [&DIRECT, &CAPTURED] {
            let asked = at(way.server.v4(), PLAIN);
            let outcome = way.socket(lab, PLAIN, &[])?;
            succeeded(&outcome)?;
            ensure!(outcome["peer"] == asked, "{outcome}");
            match way.client.mode {
                "off" => ensure!(outcome["listed"] == asked, "{outcome}"),
                _ => ensure!(is_capture(&outcome["listed"])?, "{outcome}"),
            }
        }
        Ok(())
    });
}

/// The port too: it is free in the pod, which is all that direct TCP asks for.
#[test]
fn a_socket_bound_to_the_pods_own_address_and_port_keeps_both() {
    play(|lab| {
        serve_plainly(lab)?;
        for (way, port) in [(&DIRECT, 40_123), (&CAPTURED, 40_123)] {
            let own = at(way.client.v4(), port);
            let outcome = way.socket(lab, PLAIN, &["--bind", &own])?;
            succeeded(&outcome)?;
            ensure!(outcome["local"] == own, "{outcome}");
            ensure!(outcome["seen"]["accepted"] == own, "{outcome}");
        }
        Ok(())
    });
}

#[test]
fn an_address_that_leads_nowhere_fails_as_it_does_directly() {
    play(|lab| {
        serve_plainly(lab)?;
        for way in [&DIRECT, &CAPTURED] {
            let nobodys = at(Ipv4Addr::new(10, 244, 1, 200), 0);
            let outcome = way.socket(lab, PLAIN, &["--bind", &nobodys])?;
            failed(&outcome, "bind", "EADDRNOTAVAIL")?;
            let loopback = at(Ipv4Addr::LOCALHOST, 0);
            let outcome = way.socket(lab, PLAIN, &["--bind", &loopback])?;
            failed(&outcome, "connect", "EINVAL")?;
        }
        Ok(())
    });
}

#[test]
fn an_address_that_the_directory_does_not_give_to_the_pod_is_refused() {
    play(|lab| {
        serve_plainly(lab)?;
        with_second_address(lab, |lab| {
            let second = |way: &Way| at(second_address(way.client), 0);
            let direct = DIRECT.socket(lab, PLAIN, &["--bind", &second(&DIRECT)])?;
            succeeded(&direct)?;
            ensure!(
                ip_of(&direct["seen"]["accepted"])? == second_address(&BARE),
                "{direct}"
            );
            let told = events(lab, Node::A)?.len();
            was_reset(&CAPTURED.socket(lab, PLAIN, &["--bind", &second(&CAPTURED)])?)?;
            is_told(lab, Node::A, told, |event| {
                refused(event, "source-mismatch") && event["source"] == CLIENT.spiffe_id()
            })
        })
    });
}

/// IP_TRANSPARENT, which needs CAP_NET_ADMIN or CAP_NET_RAW, binds to what belongs to others. The
/// answers go to those, with kedge and without.
#[test]
fn a_borrowed_source_address_connects_nowhere() {
    play(|lab| {
        serve_plainly(lab)?;
        for way in [&DIRECT, &CAPTURED] {
            let borrowed = at(LOCAL.v4(), 0);
            let outcome = way.socket(lab, PLAIN, &["--transparent", "--bind", &borrowed])?;
            failed(&outcome, "connect", "ETIMEDOUT")?;
            let own = at(way.client.v4(), 0);
            succeeded(&way.socket(lab, PLAIN, &["--transparent", "--bind", &own])?)?;
        }
        Ok(())
    });
}

#[test]
fn a_device_must_lead_to_the_daemon_as_it_must_to_the_destination() {
    play(|lab| {
        serve_plainly(lab)?;
        for way in [&DIRECT, &CAPTURED] {
            succeeded(&way.socket(lab, PLAIN, &["--device", "eth0"])?)?;
            let outcome = way.socket(lab, PLAIN, &["--device", "lo"])?;
            failed(&outcome, "connect", "ETIMEDOUT")?;
        }
        Ok(())
    });
}

/// `local` is allowed to nobody, itself included: no policy is asked, and no daemon.
#[test]
fn a_pod_that_connects_to_its_own_address_stays_within_the_pod() {
    play(|lab| {
        for pod in [&BARE, &CLIENT, &LOCAL] {
            serve(lab, pod, PLAIN, &[])?;
            let own = at(pod.v4(), PLAIN);
            let outcome = socket(lab, pod, &own, &[])?;
            succeeded(&outcome)?;
            for name in ["peer", "listed"] {
                ensure!(outcome[name] == own, "{outcome}");
            }
            ensure!(outcome["seen"]["accepted"] == outcome["local"], "{outcome}");
        }
        Ok(())
    });
}

/// An address beside the one that the directory knows, routed like it.
fn second_address(pod: &Pod) -> Ipv4Addr {
    Ipv4Addr::new(10, 244, 1, pod.host + 100)
}

fn with_second_address(lab: &mut Lab, act: impl FnOnce(&Lab) -> Result<()>) -> Result<()> {
    for pod in [&BARE, &CLIENT] {
        second_addresses(lab, pod, "add")?;
    }
    let acted = act(lab);
    for pod in [&BARE, &CLIENT] {
        second_addresses(lab, pod, "del")?;
    }
    acted
}

fn second_addresses(lab: &Lab, pod: &'static Pod, verb: &str) -> Result<()> {
    let address = second_address(pod).to_string();
    let veth = format!("p-{}", pod.name);
    ip(
        lab,
        pod,
        &["address", verb, &format!("{address}/32"), "dev", "eth0"],
    )?;
    ip(lab, pod.node, &["route", verb, &address, "dev", &veth])
}

fn route_by_second_address(lab: &Lab, way: &Way, verb: &str) -> Result<()> {
    let (to, gateway) = (
        way.server.v4().to_string(),
        way.client.node.gateway_v4().to_string(),
    );
    let source = second_address(way.client).to_string();
    ip(
        lab,
        way.client,
        &["route", verb, &to, "via", &gateway, "src", &source],
    )
}

fn ip(lab: &Lab, place: impl Into<Place>, words: &[&str]) -> Result<()> {
    lab.run(place, &[&["ip"], words].concat()).map(drop)
}
