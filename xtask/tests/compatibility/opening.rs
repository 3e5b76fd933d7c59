//! Ways to open a connection.

use crate::{CAPTURED, DIRECT, MPTCP, PLAIN, events, failed, is_capture, serve_plainly};
use crate::{socket, succeeded};
use anyhow::{Result, ensure};
use xtask::lab::Lab;
use xtask::lab::topology::{BARE, LOAD, LOAD_PORT, NODES, Node, Place};
use xtask::stage::{at, play, under_the_oracle};

/// TFO for every client and every listener, also without a cookie (ip-sysctl, tcp_fastopen).
const FAST_OPEN_EVERYWHERE: &str = "0x607";
const FAST_OPEN_BY_DEFAULT: &str = "1";

/// A server that begins to listen once listeners do it.
const FAST: u16 = 7_506;

const FAST_OPENS: [&str; 2] = ["connect", "sendto"];

/// The SYN's bytes go to the daemon of the own node, once, and no further in the clear.
#[test]
fn fast_open_hands_its_bytes_to_the_daemon_once_and_none_leaves_in_the_clear() {
    play(|lab| {
        with_fast_open(lab, |lab| {
            for way in [&DIRECT, &CAPTURED] {
                way.serve(lab, FAST, &[])?;
            }
            for kind in FAST_OPENS {
                let direct = DIRECT.socket(lab, FAST, &["--fast-open", kind])?;
                succeeded(&direct)?;
                ensure!(direct["way"]["syn_data"] == true, "{direct}");
                ensure!(direct["seen"]["syn_data"] == true, "{direct}");
            }
            let report = under_the_oracle(lab, "fast-open", |lab| {
                for kind in FAST_OPENS {
                    let captured = CAPTURED.socket(lab, FAST, &["--fast-open", kind])?;
                    succeeded(&captured)?;
                    ensure!(captured["way"]["syn_data"] == true, "{captured}");
                    ensure!(captured["seen"]["syn_data"] == false, "{captured}");
                }
                Ok(())
            })?;
            report.is_clean()
        })
    });
}

/// As Linux comes, no listener takes bytes with a SYN: they follow it.
#[test]
fn fast_open_without_a_willing_server_falls_back_as_it_does_directly() {
    play(|lab| {
        serve_plainly(lab)?;
        for way in [&DIRECT, &CAPTURED] {
            for kind in FAST_OPENS {
                let outcome = way.socket(lab, PLAIN, &["--fast-open", kind])?;
                succeeded(&outcome)?;
                ensure!(outcome["way"]["syn_data"] == false, "{outcome}");
            }
        }
        Ok(())
    });
}

fn with_fast_open(lab: &mut Lab, act: impl FnOnce(&mut Lab) -> Result<()>) -> Result<()> {
    set_fast_open(lab, FAST_OPEN_EVERYWHERE)?;
    let acted = act(lab);
    set_fast_open(lab, FAST_OPEN_BY_DEFAULT)?;
    acted
}

fn set_fast_open(lab: &Lab, value: &str) -> Result<()> {
    let write = format!("echo $(({value})) > /proc/sys/net/ipv4/tcp_fastopen");
    let pods = [&DIRECT, &CAPTURED].map(|way| [way.client, way.server].map(Place::from));
    let nodes = NODES.map(Place::from);
    for place in pods.into_iter().flatten().chain(nodes) {
        lab.run(place, &["sh", "-c", &write])?;
    }
    Ok(())
}

#[test]
fn an_mptcp_client_is_captured_and_speaks_plain_tcp_to_the_daemon() {
    play(|lab| {
        for way in [&DIRECT, &CAPTURED] {
            way.serve(lab, MPTCP, &["--mptcp"])?;
        }
        let direct = DIRECT.socket(lab, MPTCP, &["--mptcp"])?;
        succeeded(&direct)?;
        ensure!(direct["seen"]["mptcp"] == true, "{direct}");
        ensure!(direct["peer"] == at(DIRECT.server.v4(), MPTCP), "{direct}");
        let report = under_the_oracle(lab, "mptcp", |lab| {
            let captured = CAPTURED.socket(lab, MPTCP, &["--mptcp"])?;
            succeeded(&captured)?;
            ensure!(captured["seen"]["mptcp"] == false, "{captured}");
            ensure!(
                captured["seen"]["accepted"] == captured["local"],
                "{captured}"
            );
            ensure!(is_capture(&captured["peer"])?, "{captured}");
            Ok(())
        })?;
        report.is_clean()
    });
}

/// Go's servers listen with MPTCP unless they are told not to.
#[test]
fn an_mptcp_server_sees_its_true_client_and_is_guarded() {
    play(|lab| {
        for way in [&DIRECT, &CAPTURED] {
            way.serve(lab, MPTCP, &["--mptcp"])?;
            let outcome = way.socket(lab, MPTCP, &[])?;
            succeeded(&outcome)?;
            for name in ["accepted", "peername"] {
                ensure!(outcome["seen"][name] == outcome["local"], "{outcome}");
            }
        }
        for protocol in [&[][..], &["--mptcp"]] {
            let past = socket(lab, &BARE, &at(LOAD.v4(), MPTCP), protocol)?;
            failed(&past, "connect", "ETIMEDOUT")?;
        }
        Ok(())
    });
}

/// A socket that is taken back and connected elsewhere shows nothing of its first connection.
#[test]
fn a_socket_that_is_taken_back_with_af_unspec_connects_elsewhere_as_a_new_one() {
    play(|lab| {
        serve_plainly(lab)?;
        let told = events(lab, Node::A)?.len();
        for way in [&DIRECT, &CAPTURED] {
            let speaks_first = at(way.server.v4(), LOAD_PORT + 1);
            let outcome = way.socket(lab, PLAIN, &["--before", &speaks_first])?;
            succeeded(&outcome)?;
            ensure!(outcome["peer"] == at(way.server.v4(), PLAIN), "{outcome}");
            ensure!(outcome["seen"]["accepted"] == outcome["local"], "{outcome}");
        }
        let events = events(lab, Node::A)?;
        let refused = events
            .iter()
            .skip(told)
            .find(|event| event["kind"] == "refused");
        ensure!(refused.is_none(), "{refused:?}");
        Ok(())
    });
}
