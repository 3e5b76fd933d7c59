//! What is exempt, and nothing beside it.

use crate::{counted, drops, enters, enters_from};
use anyhow::{Result, ensure};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;
use xtask::lab::process::{Family, Process, command_in};
use xtask::lab::topology::{CLIENT, LOAD, LOAD_PORT, LOCAL, Node, PODS, Place};
use xtask::lab::{Lab, documents};
use xtask::shell::wait_for;
use xtask::stage::{at, everywhere, is_told, next_version, play, reaches, told};

#[test]
fn a_probe_of_the_kubelet_enters_at_declared_ports_only() {
    play(|lab| {
        declare_probe_port(lab)?;
        let kubelet = lab.run.cgroup()?.join(Node::B.name()).join("kubelet");
        let probes = |port| enters_from(lab, Node::B.into(), &kubelet, &at(LOAD.v4(), port));
        wait_for("the probe", Duration::from_secs(10), || {
            Ok(probes(LOAD_PORT)?.then_some(()))
        })?;
        let since = told(lab, Node::B)?;
        let greeting = LOAD_PORT + 1;
        ensure!(!probes(greeting)?, "port {greeting} is not declared");
        let event = is_told(lab, Node::B, since, "the drop", |event| {
            drops(event, &at(LOAD.v4(), greeting))
        })?;
        let cause = event["cause"].as_str().unwrap_or_default();
        ensure!(cause.contains("declares no such port"), "{event}");
        Ok(())
    });
}

/// The lab's directory declares none.
fn declare_probe_port(lab: &Lab) -> Result<()> {
    let cgroup = format!("cgroup = \"pods/{}\"\n", LOAD.name);
    let declared = format!("{cgroup}ports = [{LOAD_PORT}]\n");
    let text = documents::directory(next_version(), &PODS).replace(&cgroup, &declared);
    everywhere(lab, |lab, node| {
        documents::replace(&lab.run.node_folder(node).join("directory.toml"), &text)
    })
}

#[test]
fn the_loopback_of_a_require_pod_is_free() {
    play(|lab| {
        let before = counted(lab, Node::B, "captured")?;
        for own in [
            IpAddr::from(Ipv4Addr::LOCALHOST),
            Ipv6Addr::LOCALHOST.into(),
        ] {
            ensure!(reaches(lab, &LOAD, &at(own, LOAD_PORT))?, "{own}");
        }
        ensure!(counted(lab, Node::B, "captured")? == before, "captured");
        Ok(())
    });
}

#[test]
fn other_protocols_of_a_require_pod_pass_and_are_counted() {
    play(|lab| {
        let listener = lab.spawn(&LOAD, "datagrams", &["nc", "-u", "-l", "5300"])?;
        let before = counted(lab, Node::A, "other_passed")?;
        let to = format!("printf passed >/dev/udp/{}/5300", LOAD.v4());
        let heard = wait_for("the datagram", Duration::from_secs(5), || {
            lab.run(&CLIENT, &["bash", "-c", &to])?;
            Ok(lab.log("datagrams").contains("passed").then_some(()))
        });
        listener.stop(nix::sys::signal::Signal::SIGTERM)?;
        heard?;
        ensure!(
            counted(lab, Node::A, "other_passed")? > before,
            "not counted"
        );
        Ok(())
    });
}

/// Also one that is made after the daemon, and below another one: they are the pod's.
#[test]
fn a_sub_cgroup_of_a_pod_is_the_pod() {
    play(|lab| {
        let pod = lab.run.cgroup_of(Place::from(&CLIENT))?;
        let below = pod.join("inner").join("more");
        std::fs::create_dir_all(&below)?;
        let server = at(LOAD.v4(), LOAD_PORT);
        let before = counted(lab, Node::A, "captured")?;
        let reached = enters_from(lab, Place::from(&CLIENT), &below, &server);
        let since = told(lab, Node::A)?;
        // Policy knows whose it is: `local` may not.
        let denied = lab.run.cgroup_of(Place::from(&LOCAL))?.join("inner");
        std::fs::create_dir_all(&denied)?;
        let refused = enters_from(lab, Place::from(&LOCAL), &denied, &server);
        for gone in [&below, &pod.join("inner"), &denied] {
            std::fs::remove_dir(gone)?;
        }
        ensure!(reached?, "a process below the pod's cgroup is not served");
        ensure!(
            counted(lab, Node::A, "captured")? >= before + 2,
            "not captured"
        );
        ensure!(!refused?, "a process below another pod's cgroup is");
        is_told(lab, Node::A, since, "the denial", |event| {
            event["refusal"] == "denied" && event["source"] == LOCAL.spiffe_id()
        })?;
        Ok(())
    });
}

/// Nobody enters from a sub-cgroup of its own: the guard of the pod holds there too.
#[test]
fn a_server_in_a_sub_cgroup_is_guarded_as_the_pod() {
    play(|lab| {
        let inner = lab.run.cgroup_of(Place::from(&LOAD))?.join("inner");
        std::fs::create_dir_all(&inner)?;
        let program = lab.tools.load.display().to_string();
        let words = [&*program, "server", "--listen", "[::]:7100"];
        let command = command_in(&lab.run, Place::from(&LOAD), &inner, &words);
        let server = Process::spawn(&lab.run, Place::from(&LOAD), "inner", command)?;
        server.listens_on(&lab.run, Family::V6, 7100)?;
        let to = at(LOAD.v4(), 7100);
        let (node, client) = (enters(lab, Node::B, &to), reaches(lab, &CLIENT, &to));
        server.stop(nix::sys::signal::Signal::SIGTERM)?;
        std::fs::remove_dir(&inner)?;
        ensure!(!node?, "its node entered");
        ensure!(client?, "the daemon did not");
        Ok(())
    });
}
