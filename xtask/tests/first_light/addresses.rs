//! Who the applications believe to talk to: the same as without kedge, at both ends.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::net::{IpAddr, SocketAddr};
use xtask::lab::Lab;
use xtask::lab::topology::{CLIENT, LOAD, LOAD_PORT, LOCAL, SERVICES, Service};
use xtask::stage::{at, load, play};

#[derive(Debug, Deserialize)]
struct Peer {
    client: SocketAddr,
    server: SocketAddr,
    accepted: SocketAddr,
    peername: SocketAddr,
}

#[test]
fn the_server_sees_the_true_client_by_ipv4_ipv6_and_mapped() {
    play(|lab| {
        let service = load_service()?;
        for ip in [LOAD.v4().into(), LOAD.v6().into(), mapped(LOAD.v4())] {
            both_ends_agree(lab, &at(ip, LOAD_PORT), ip)?;
        }
        for ip in [
            service.v4().into(),
            service.v6().into(),
            mapped(service.v4()),
        ] {
            both_ends_agree(lab, &at(ip, service.port), ip)?;
        }
        Ok(())
    });
}

#[test]
fn the_server_sees_the_true_client_on_the_same_node_too() {
    play(|lab| both_ends_agree(lab, &at(LOCAL.v4(), LOAD_PORT), LOCAL.v4().into()));
}

#[test]
fn a_server_that_speaks_first_is_heard() {
    play(|lab| {
        for ip in [IpAddr::from(LOAD.v4()), LOAD.v6().into()] {
            let said: serde_json::Value = load(lab, &CLIENT, &["greet", &at(ip, LOAD_PORT + 1)])?;
            ensure!(said["greeting"] == "220 kedge-load is ready", "{said}");
            let answer = said["answer"].as_str().context("no answer")?;
            ensure!(answer.ends_with("said hello"), "{said}");
        }
        Ok(())
    });
}

/// The client's getpeername() names what it asked for; the server's accept() and getpeername()
/// name the client's own address and port.
fn both_ends_agree(lab: &Lab, server: &str, asked: IpAddr) -> Result<()> {
    let peer: Peer = load(lab, &CLIENT, &["peer", server])?;
    ensure!(
        peer.server.ip() == asked,
        "the client asked for {asked}: {peer:?}"
    );
    let client = SocketAddr::new(peer.client.ip().to_canonical(), peer.client.port());
    let addresses = CLIENT.addresses();
    ensure!(
        addresses.contains(&client.ip()),
        "the client is none of {addresses:?}: {peer:?}"
    );
    for seen in [peer.accepted, peer.peername] {
        let seen = SocketAddr::new(seen.ip().to_canonical(), seen.port());
        ensure!(seen == client, "by {server}: {peer:?}");
    }
    Ok(())
}

fn mapped(ip: std::net::Ipv4Addr) -> IpAddr {
    ip.to_ipv6_mapped().into()
}

fn load_service() -> Result<&'static Service> {
    SERVICES
        .iter()
        .find(|service| service.pod == &LOAD)
        .context("load has a service")
}
