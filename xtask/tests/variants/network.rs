//! Networks that are stricter or narrower than the lab's own, and that connections work in.

use crate::{change, changed, is_well, last_event};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::time::Duration;
use xtask::lab::Lab;
use xtask::lab::topology::{CLIENT, LOAD, LOAD_PORT, LOCAL, NODES, Node, Place};
use xtask::shell::wait_for;
use xtask::stage::{at, client_reaches, load, play, seen, server, times, under_the_oracle};

/// Packets come in where routes lead out: pods to the capture range, and deliveries from it.
#[test]
fn strict_reverse_path_filters_on_nodes_and_in_pods_change_nothing() {
    play(|lab| {
        let set = |value| {
            format!("for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo {value} >$f; done")
        };
        let places = [
            Node::A.into(),
            Node::B.into(),
            Place::from(&CLIENT),
            Place::from(&LOAD),
        ];
        let changes = places.map(|place| change(place, set(1), set(0)));
        changed(lab, &changes, |lab| {
            let report = under_the_oracle(lab, "rp-filter", |lab| {
                exchanges(lab)?;
                is_well(lab)
            })?;
            report.is_clean()
        })
    });
}

/// A wire and pods that carry no packet of more than 1,280 bytes, and answers that are full.
#[test]
fn an_mtu_of_1280_on_the_wire_and_at_the_pods_carries_bulk_both_ways() {
    play(|lab| {
        let of_node = |node: Node, mtu: u16| {
            let pods = node.pods().map(|pod| format!("p-{}", pod.name));
            let devices = std::iter::once("wire".to_owned()).chain(pods);
            devices
                .map(|device| format!("ip link set {device} mtu {mtu}; "))
                .collect::<String>()
        };
        let of_pod = |mtu: u16| format!("ip link set eth0 mtu {mtu}");
        let nodes = NODES.map(|node| change(node, of_node(node, 1280), of_node(node, 1500)));
        let pods = [&CLIENT, &LOAD, &LOCAL].map(|pod| change(pod, of_pod(1280), of_pod(1500)));
        let changes: Vec<_> = nodes.into_iter().chain(pods).collect();
        changed(lab, &changes, |lab| {
            let report = under_the_oracle(lab, "mtu", bulk)?;
            report.is_clean()
        })
    });
}

/// A host firewall at the other end that knows nothing of kedge: no link, and the event says of
/// what port.
#[test]
fn a_peer_port_that_is_dropped_is_named_by_the_link_and_by_doctor() {
    play(|lab| {
        lab.stop_daemons()?;
        let apply = "nft -f - <<END
            table inet filter {
                chain input {
                    type filter hook input priority 0; policy accept
                    iifname wire tcp dport 15443 drop
                    iifname wire tcp sport 15443 drop
                }
            }\nEND";
        let undo = "nft delete table inet filter";
        changed(lab, &[change(Node::B, apply, undo)], |lab| {
            lab.start_daemons()?;
            let since = last_event(lab)?;
            ensure!(!client_reaches(lab)?, "there is a link");
            let told = wait_for("the failed link", Duration::from_secs(20), || {
                let events = crate::events(lab, since)?;
                let failed = |event: &&Value| event["kind"] == "link-failed";
                Ok(events.iter().find(failed).cloned())
            })?;
            ensure!(told["remedy"].to_string().contains("peer port"), "{told}");
            let findings = crate::doctor(lab)?;
            let link = findings.iter().find(|one| one["check"] == "link");
            let link = link.context("doctor says nothing of the link")?;
            ensure!(link["remedy"].to_string().contains("peer port"), "{link}");
            Ok(())
        })?;
        wait_for("a link", Duration::from_secs(20), || {
            Ok(client_reaches(lab)?.then_some(()))
        })
    });
}

fn exchanges(lab: &mut Lab) -> Result<()> {
    let count = times(100, 1_000).to_string();
    for to in [
        server(),
        at(LOAD.v6(), LOAD_PORT),
        at(LOCAL.v4(), LOAD_PORT),
    ] {
        let done: Value = load(lab, &CLIENT, &["seq", &to, &count])?;
        ensure!(done["errors"] == 0, "{to}: {done}");
    }
    Ok(())
}

/// A request of random bytes and an answer of as many, each of megabytes: packets are full.
fn bulk(lab: &mut Lab) -> Result<()> {
    let count = times(8, 64).to_string();
    for to in [
        server(),
        at(LOAD.v6(), LOAD_PORT),
        at(LOCAL.v4(), LOAD_PORT),
    ] {
        let words = ["concurrent", &to, &count, "--bytes-max", "4000000"];
        let done: Value = load(lab, &CLIENT, &words)?;
        ensure!(done["errors"] == 0, "{to}: {done}");
    }
    let seen = seen(lab)?;
    ensure!(
        seen["hash_errors"] == 0 && seen["duplicates"] == 0,
        "{seen}"
    );
    is_well(lab)
}
