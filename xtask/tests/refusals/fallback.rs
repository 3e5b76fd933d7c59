//! Programs that try the next address when connect() fails.

use crate::CLOSED;
use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use std::net::{Ipv6Addr, SocketAddr};
use std::process::Output;
use std::time::Duration;
use xtask::lab::Lab;
use xtask::lab::process::{Family, Process};
use xtask::lab::topology::{BARE, BARELOAD, CLIENT, DB, DB_PORT, LOAD, Pod, WEB, WEB_PORT};
use xtask::shell::wait_for;
use xtask::stage::{add_to_directory, play};

/// An IPv6 address of nobody but a service that a test adds.
const SERVICE: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 0x99);

#[test]
fn curl_falls_back_from_a_dead_ipv6_service_at_once() {
    play(|lab| {
        add_to_directory(
            lab,
            &format!(
                "\n[[service]]\nname = \"dead\"\naddresses = [\"{SERVICE}\"]\nport = {WEB_PORT}\nendpoints = []\n"
            ),
        )?;
        let output = curl(lab, &CLIENT, SERVICE, &WEB, WEB_PORT)?;
        fell_back(&output, &WEB)
    });
}

/// The first one to find out is reset, after that connect() says it (docs/compatibility.md).
#[test]
fn curl_falls_back_from_a_dead_ipv6_endpoint_once_somebody_was_refused() {
    play(|lab| {
        let servers = [only_ipv4(lab, &LOAD)?, only_ipv4(lab, &BARELOAD)?];
        let played = fall_back(lab);
        for server in servers {
            server.stop(Signal::SIGKILL)?;
        }
        played
    });
}

fn fall_back(lab: &Lab) -> Result<()> {
    let direct = curl(lab, &BARE, BARELOAD.v6(), &BARELOAD, CLOSED)?;
    fell_back(&direct, &BARELOAD)?;
    wait_for("curl to fall back", Duration::from_secs(5), || {
        let output = curl(lab, &CLIENT, LOAD.v6(), &LOAD, CLOSED)?;
        Ok(output.status.success().then_some(()))
    })?;
    for _ in 0..20 {
        let output = curl(lab, &CLIENT, LOAD.v6(), &LOAD, CLOSED)?;
        fell_back(&output, &LOAD)?;
    }
    Ok(())
}

#[test]
fn libpq_goes_to_its_second_host_when_the_first_is_closed() {
    play(|lab| {
        let hosts = format!(
            "host={},{} port={CLOSED},{DB_PORT} user=postgres connect_timeout=5",
            LOAD.v4(),
            DB.v4()
        );
        let ask = |lab: &Lab| lab.try_run(&CLIENT, &["psql", &hosts, "-Atc", "select 'second'"]);
        wait_for("libpq to go on", Duration::from_secs(5), || {
            Ok(ask(lab)?.status.success().then_some(()))
        })?;
        for _ in 0..10 {
            let output = ask(lab)?;
            let says = String::from_utf8_lossy(&output.stdout);
            ensure!(says.trim() == "second", "{output:?}");
        }
        Ok(())
    });
}

/// One name with two addresses, of which curl tries the IPv6 one first.
fn curl(lab: &Lab, from: &'static Pod, dead: Ipv6Addr, alive: &Pod, port: u16) -> Result<Output> {
    let resolve = format!("two.test:{port}:[{dead}],{}", alive.v4());
    let url = format!("http://two.test:{port}/");
    let words = [
        "curl",
        "-sS",
        "-o",
        "/dev/null",
        "--max-time",
        "5",
        "-w",
        "%{remote_ip}",
    ];
    lab.try_run(from, &[&words[..], &["--resolve", &resolve, &url]].concat())
}

fn fell_back(output: &Output, to: &Pod) -> Result<()> {
    let reached = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success() && reached == to.v4().to_string(),
        "{output:?}"
    );
    Ok(())
}

/// An HTTP server that nobody finds at the pod's IPv6 address.
fn only_ipv4(lab: &mut Lab, pod: &'static Pod) -> Result<Process> {
    let listen = SocketAddr::new(pod.v4().into(), CLOSED);
    let (ip, port) = (listen.ip().to_string(), listen.port().to_string());
    let name = format!("{}-http", pod.name);
    let words = ["python3", "-m", "http.server", "--bind", &ip, &port];
    let server = lab.spawn(pod, &name, &words)?;
    server.listens_on(&lab.run, Family::V4, CLOSED)?;
    Ok(server)
}
