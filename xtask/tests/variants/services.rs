//! Service addresses that nft translates on the node, as kube-proxy does, known to kedge or not.

use crate::{change, changed};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::net::Ipv4Addr;
use xtask::lab::Lab;
use xtask::lab::topology::{CLIENT, LOAD, LOAD_PORT, Node, SERVICES, Service};
use xtask::stage::{at, load, play, times, under_the_oracle};

/// Managed, and in no directory.
const FORGOTTEN: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 99);
/// Not even managed.
const FOREIGN: Ipv4Addr = Ipv4Addr::new(10, 97, 0, 50);

/// kedge resolves the service itself, before nft sees a packet of it.
#[test]
fn a_service_that_nft_translates_too_is_captured_by_its_address() {
    play(|lab| {
        let service = SERVICES.iter().find(|service| service.pod == &LOAD);
        let service = service.context("load has a service")?;
        translated(lab, service.v4(), |lab| {
            let report = under_the_oracle(lab, "translated", |lab| through(lab, service))?;
            report.is_clean()?;
            translations(lab, 0)
        })
    });
}

fn through(lab: &Lab, service: &Service) -> Result<()> {
    let count = times(100, 1_000).to_string();
    let to = at(service.v4(), service.port);
    let done: Value = load(lab, &CLIENT, &["seq", &to, &count])?;
    ensure!(done["errors"] == 0, "{done}");
    let peer: Value = load(lab, &CLIENT, &["peer", &to])?;
    ensure!(peer["server"] == to, "{peer}");
    Ok(())
}

/// The one is refused by connect(), since it is managed; the other passes connect(), and the guard
/// of the pod that it turns out to be drops its SYN. No byte is sent.
#[test]
fn an_address_that_only_nft_knows_leads_no_require_pod_into_plaintext() {
    play(|lab| {
        translated(lab, FORGOTTEN, |lab| {
            let report = under_the_oracle(lab, "forgotten", |lab| is_not_reached(lab, FORGOTTEN))?;
            report.is_clean()?;
            translations(lab, 0)
        })?;
        translated(lab, FOREIGN, |lab| {
            is_not_reached(lab, FOREIGN)?;
            translations(lab, 1)?;
            let events = lab.events(Node::B)?;
            ensure!(events.contains("\"guard-dropped\""), "{events}");
            Ok(())
        })
    });
}

/// No handshake is completed, so that nothing could be sent.
fn is_not_reached(lab: &Lab, address: Ipv4Addr) -> Result<()> {
    let program = lab.tools.load.display().to_string();
    let to = at(address, LOAD_PORT);
    let done = lab.try_run(&CLIENT, &["timeout", "3", &program, "peer", &to])?;
    ensure!(!done.status.success(), "{to} is reached in the clear");
    Ok(())
}

/// `act`, while node a translates `address` to the pod `load`.
fn translated(
    lab: &mut Lab,
    address: Ipv4Addr,
    act: impl FnOnce(&mut Lab) -> Result<()>,
) -> Result<()> {
    let apply = format!(
        "nft -f - <<END
            table ip services {{
                counter translated {{}}
                chain prerouting {{
                    type nat hook prerouting priority -100
                    ip daddr {address} tcp dport {LOAD_PORT} counter name translated dnat to {}
                }}
            }}\nEND",
        at(LOAD.v4(), LOAD_PORT)
    );
    let undo = "nft delete table ip services";
    changed(lab, &[change(Node::A, apply, undo)], act)
}

/// Connections that nft has translated: exactly so many.
fn translations(lab: &Lab, wanted: u64) -> Result<()> {
    let words = [
        "nft",
        "-j",
        "list",
        "counter",
        "ip",
        "services",
        "translated",
    ];
    let listed: Value = serde_json::from_str(&lab.run(Node::A, &words)?)?;
    let objects = listed["nftables"].as_array().context("a list")?;
    let counted = objects
        .iter()
        .find_map(|one| one["counter"]["packets"].as_u64());
    ensure!(counted == Some(wanted), "{wanted} wanted: {listed}");
    Ok(())
}
