//! Ways round the daemon that end in nothing.

use crate::{drops, enters};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::net::IpAddr;
use std::time::Duration;
use xtask::lab::topology::{
    BARE, BARELOAD, CLIENT, LOAD, LOAD_PORT, LOCAL, NODES, Node, PODS, Pod,
};
use xtask::lab::{Lab, documents};
use xtask::shell::wait_for;
use xtask::stage::{
    at, captured, client_reaches, is_told, load, next_version, play, reaches, server, told,
    under_the_oracle,
};
use xtask::wire::{Problem, Report};

#[test]
fn a_process_of_a_node_enters_no_require_pod_of_either_node() {
    play(|lab| {
        for node in NODES {
            for ip in LOAD.addresses() {
                let to = at(ip, LOAD_PORT);
                let since = told(lab, LOAD.node)?;
                ensure!(!enters(lab, node, &to)?, "{node:?} enters {to}");
                is_told(lab, LOAD.node, since, "the drop", |event| drops(event, &to))?;
            }
            for ip in BARELOAD.addresses() {
                let to = at(ip, LOAD_PORT);
                ensure!(enters(lab, node, &to)?, "{to} is in mode off");
            }
        }
        Ok(())
    });
}

const NODE_PORT: u16 = 30_080;
const BARE_NODE_PORT: u16 = 30_081;

/// As kube-proxy does it: the destination is rewritten, and the source is the node's, so that the
/// answer comes back this way. To the pod it looks like its own node.
#[test]
fn masqueraded_node_port_traffic_enters_no_require_pod() {
    play(|lab| {
        let rules = format!(
            "table ip lab {{
                chain prerouting {{
                    type nat hook prerouting priority dstnat;
                    tcp dport {NODE_PORT} dnat to {load}:{LOAD_PORT}
                    tcp dport {BARE_NODE_PORT} dnat to {bare}:{LOAD_PORT}
                }}
                chain postrouting {{
                    type nat hook postrouting priority srcnat;
                    ct status dnat masquerade
                }}
            }}",
            load = LOAD.v4(),
            bare = BARELOAD.v4(),
        );
        lab.run(Node::B, &["nft", &rules])?;
        let tried = try_node_ports(lab);
        lab.run(Node::B, &["nft", "delete", "table", "ip", "lab"])?;
        tried
    });
}

fn try_node_ports(lab: &Lab) -> Result<()> {
    let since = told(lab, Node::B)?;
    let port = |port| at(Node::B.v4(), port);
    ensure!(!enters(lab, Node::A, &port(NODE_PORT))?, "it enters");
    let event = is_told(lab, Node::B, since, "the drop", |event| {
        drops(event, &server())
    })?;
    let client = event["client"].as_str().unwrap_or_default();
    let gateway = Node::B.gateway_v4().to_string();
    ensure!(client.starts_with(&gateway), "masqueraded: {event}");
    ensure!(
        enters(lab, Node::A, &port(BARE_NODE_PORT))?,
        "a pod in mode off is served so"
    );
    Ok(())
}

/// The segments of a raw socket see no connect(). They are the pod's all the same.
#[test]
fn raw_segments_of_a_require_pod_never_reach_the_wire() {
    play(|lab| {
        let report = under_the_oracle(lab, "raw", |lab| {
            let since = told(lab, Node::A)?;
            let forged = forge(lab, &CLIENT, &CLIENT, &LOAD)?;
            for segment in ["syn", "data"] {
                ensure!(forged[segment] != "sent", "{forged}");
            }
            is_told(lab, Node::A, since, "the drop", |event| {
                drops(event, &server())
            })?;
            Ok(())
        })?;
        report.is_clean()?;

        let control = under_the_oracle(lab, "raw-control", |lab| {
            let forged = forge(lab, &BARE, &BARE, &LOAD)?;
            ensure!(forged["data"] == "sent", "{forged}");
            Ok(())
        })?;
        ensure!(sent_by(&control, BARE.v4().into()) >= 2, "{control}");
        Ok(())
    });
}

/// Somebody in mode off says that he is `client`, whose connections to `load` are allowed.
#[test]
fn a_forged_source_opens_no_connection_to_a_require_pod() {
    play(|lab| {
        let report = under_the_oracle(lab, "forged", |lab| {
            forge(lab, &BARE, &CLIENT, &LOAD)?;
            is_told(lab, Node::B, 0, "the drop", |event| {
                let client = event["client"].as_str().unwrap_or_default();
                drops(event, &server()) && client.starts_with(&CLIENT.v4().to_string())
            })?;
            // The SYN was told; data of no connection is nobody's attempt, and as much dropped.
            wait_for("the stray to be counted", Duration::from_secs(5), || {
                Ok((captured(lab, Node::B, "stray_dropped")? > 0).then_some(()))
            })
        })?;
        ensure!(sent_by(&report, CLIENT.v4().into()) >= 2, "{report}");
        ensure!(sent_by(&report, LOAD.v4().into()) == 0, "{report}");

        let control = under_the_oracle(lab, "forged-control", |lab| {
            forge(lab, &BARE, &CLIENT, &BARELOAD)?;
            Ok(())
        })?;
        ensure!(
            sent_by(&control, BARELOAD.v4().into()) > 0,
            "a pod in mode off answers: {control}"
        );
        Ok(())
    });
}

/// A pod takes its neighbour's address, and even binds to it: the daemon's answer goes to the true
/// owner, who never asked.
#[test]
fn a_pod_with_its_neighbours_address_on_its_interface_gets_no_connection() {
    play(|lab| {
        let stolen = CLIENT.v4().to_string();
        let address = format!("{stolen}/32");
        let report = under_the_oracle(lab, "stolen", |lab| {
            lab.run(&LOCAL, &["ip", "address", "add", &address, "dev", "lo"])?;
            let (ip, port) = (LOAD.v4().to_string(), LOAD_PORT.to_string());
            let words = ["nc", "-z", "-w", "2", "-s", &stolen, &ip, &port];
            let connected = lab.try_run(&LOCAL, &words)?.status.success();
            lab.run(&LOCAL, &["ip", "address", "del", &address, "dev", "lo"])?;
            ensure!(!connected, "{} got a connection", LOCAL.name);
            ensure!(client_reaches(lab)?, "the owner is served");
            Ok(())
        })?;
        report.is_clean()?;
        ensure!(report.flows == 1, "the owner's alone: {report}");
        Ok(())
    });
}

/// The directory gives the address to nobody else, and not to this pod either.
#[test]
fn a_source_with_another_address_than_its_own_is_refused() {
    play(|lab| {
        let own = CLIENT.v4().to_string();
        let report = under_the_oracle(lab, "mismatch", |lab| {
            let moved = documents::directory(next_version(), &PODS)
                .replace(&format!("\"{own}\""), "\"10.244.1.99\"");
            let path = lab.run.node_folder(Node::A).join("directory.toml");
            documents::replace(&path, &moved)?;
            wait_for("the refusal", Duration::from_secs(10), || {
                Ok((!client_reaches(lab)?).then_some(()))
            })?;
            is_told(lab, Node::A, 0, "the refusal", |event| {
                event["refusal"] == "source-mismatch" && event["source"] == CLIENT.spiffe_id()
            })?;
            Ok(())
        })?;
        report.is_clean()
    });
}

/// Whoever knows where captured connections go finds nobody there who takes his word.
#[test]
fn a_pod_that_dials_the_capture_address_itself_is_refused() {
    play(|lab| {
        let since = told(lab, Node::A)?;
        ensure!(!reaches(lab, &CLIENT, "169.254.76.9:15001")?, "it answers");
        is_told(lab, Node::A, since, "the refusal", |event| {
            event["refusal"] == "not-captured"
        })?;
        Ok(())
    });
}

#[test]
fn ports_of_kedged_are_kept_while_it_lives_and_when_it_is_dead() {
    play(|lab| {
        // Not where it listens: there anybody would be refused.
        let kept = ["127.0.0.1 15443", "127.0.0.1 15032"];
        for place in kept {
            ensure!(!binds(lab, place)?, "{place} while it lives");
        }
        ensure!(binds(lab, "127.0.0.1 15440")?, "the control run");
        lab.daemon(Node::B)?
            .stop(nix::sys::signal::Signal::SIGKILL)?;
        let own = format!("{} 15443", Node::B.v4());
        for place in kept.into_iter().chain([&*own, "0.0.0.0 15001"]) {
            ensure!(!binds(lab, place)?, "{place} while it is dead");
        }
        lab.start_daemon(Node::B)?;
        lab.daemon_answers(Node::B)?;
        is_told(lab, Node::B, 0, "the refusals", |event| {
            let cause = event["cause"].as_str().unwrap_or_default();
            cause.starts_with("bind()") && event["original_destination"] == "0.0.0.0:15001"
        })?;
        Ok(())
    });
}

/// Whether a process of node b can listen there: nc then waits until `timeout` ends it.
fn binds(lab: &Lab, place: &str) -> Result<bool> {
    const TIMED_OUT: i32 = 124;
    let words = ["timeout", "0.3", "nc", "-l"].into_iter();
    let words: Vec<_> = words.chain(place.split(' ')).collect();
    let done = lab.try_run(Node::B, &words)?;
    let says = String::from_utf8_lossy(&done.stderr).into_owned();
    match done.status.code() {
        Some(TIMED_OUT) => Ok(true),
        _ if says.contains("Address already in use") => Ok(false),
        _ => anyhow::bail!("nc -l {place}: {says}"),
    }
}

/// What `from` sends from a raw socket as if it were `source`.
fn forge(lab: &Lab, from: &'static Pod, source: &Pod, to: &Pod) -> Result<Value> {
    let (source, to) = (at(source.v4(), 40_000), at(to.v4(), LOAD_PORT));
    load(lab, from, &["forge", &source, &to]).context("forge")
}

/// Frames on the wire past kedge with this source.
fn sent_by(report: &Report, source: IpAddr) -> usize {
    let past = |finding: &&xtask::wire::Finding| {
        let from = finding.at.as_ref().map(|at| at.from.ip());
        finding.problem == Problem::UnexpectedTuple && from == Some(source)
    };
    report.findings.iter().filter(past).count()
}
