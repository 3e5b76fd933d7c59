//! Ports, where each namespace has a thousand and each port rests for a minute in TIME_WAIT.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::net::IpAddr;
use std::thread;
use xtask::lab::Lab;
use xtask::lab::documents;
use xtask::lab::process::Family;
use xtask::lab::topology::{CLIENT, LOAD, LOCAL, NODES, Node, Place, Pod};
use xtask::stage::{becomes_reachable, everywhere, load, play};

const DESTINATIONS: u16 = 8;
const FIRST_PORT: u16 = 8_000;
/// Each server of shapes has this many ports to itself.
const PORTS_EACH: u16 = 100;
const CONNECTIONS: usize = 20_000;
const PER_SECOND: usize = 500;

/// Clients that end first keep their ports: two pods with two addresses each have enough of their
/// own for this test (4 × 8 × 1,000), as they would without kedge. The daemons must not have less.
#[test]
fn clients_that_end_first_find_ports_wherever_direct_tcp_has_them() {
    play(|lab| {
        let sources: [Source; 4] = [
            (&CLIENT, |pod| pod.v4().into()),
            (&CLIENT, |pod| pod.v6().into()),
            (&LOCAL, |pod| pod.v4().into()),
            (&LOCAL, |pod| pod.v6().into()),
        ];
        with_few_ports(lab, |lab| connect_from(lab, &sources, "no-answer"))
    });
}

/// A server that ends first keeps the port on its side, where nobody needs it: one client address
/// is enough for any number.
#[test]
fn servers_that_end_first_use_up_no_port_of_a_client() {
    play(|lab| {
        let sources: [Source; 1] = [(&CLIENT, |pod| pod.v4().into())];
        with_few_ports(lab, |lab| connect_from(lab, &sources, "server-first"))
    });
}

type Source = (&'static Pod, fn(&Pod) -> IpAddr);

fn connect_from(lab: &Lab, sources: &[Source], shape: &str) -> Result<()> {
    let clients = sources.len() * usize::from(DESTINATIONS);
    let (count, pace) = (CONNECTIONS / clients, PER_SECOND.div_ceil(clients));
    let (wanted, pace) = (count.to_string(), pace.to_string());
    thread::scope(|scope| {
        let mut running = Vec::new();
        for (pod, family) in sources {
            for destination in 0..DESTINATIONS {
                let port = (FIRST_PORT + destination * PORTS_EACH).to_string();
                let (server, wanted, pace) = (family(&LOAD).to_string(), &wanted, &pace);
                running.push(scope.spawn(move || -> Result<Value> {
                    let words = ["shapes", "edge", &server, &port, shape, "--count", wanted];
                    let words = [&words[..], &["--at-once", "64", "--per-second", pace]].concat();
                    load(lab, *pod, &words)
                }));
            }
        }
        for client in running {
            let played = client.join().ok().context("a client panicked")??;
            ensure!(played["bad"] == 0 && played["good"] == count, "{played}");
        }
        Ok(())
    })
}

/// Eight servers, and a thousand ports in every namespace, until `act` is done.
fn with_few_ports(lab: &mut Lab, act: impl FnOnce(&Lab) -> Result<()>) -> Result<()> {
    let program = lab.tools.load.display().to_string();
    for destination in 0..DESTINATIONS {
        let port = FIRST_PORT + destination * PORTS_EACH;
        let name = format!("shapes-{port}");
        if !lab
            .processes()
            .iter()
            .any(|process| process.name == name && process.is_alive())
        {
            let listen = format!("[::]:{port}");
            let server = lab.spawn(&LOAD, &name, &[&program, "shapes-server", "edge", &listen])?;
            server.listens_on(&lab.run, Family::V6, port)?;
        }
    }
    let policy = documents::policy() + &documents::allow(&LOCAL.spiffe_id(), &LOAD.spiffe_id());
    everywhere(lab, |lab, node| lab.write_policy(node, "lab", &policy))?;
    becomes_reachable(lab, &LOCAL)?;
    port_range(lab, "32000 32999")?;
    let acted = act(lab);
    port_range(lab, "32768 60999")?;
    acted
}

fn port_range(lab: &Lab, range: &str) -> Result<()> {
    let write = format!("echo {range} > /proc/sys/net/ipv4/ip_local_port_range");
    let nodes = NODES.map(|node: Node| Place::from(node));
    let pods = [&CLIENT, &LOCAL, &LOAD].map(Place::from);
    for place in nodes.into_iter().chain(pods) {
        lab.run(place, &["sh", "-c", &write])?;
    }
    Ok(())
}
