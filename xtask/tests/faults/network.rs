//! Faults of processes and of the network.

use crate::{Fault, try_to_reach, works};
use anyhow::Result;
use nix::sys::signal::Signal;
use std::net::Ipv4Addr;
use xtask::lab::process::Family;
use xtask::lab::topology::{BARE, CLIENT, LOAD, Node, PEER_PORT};
use xtask::lab::{Lab, documents};
use xtask::stage::{at, everywhere, reaches, server};

const CLOSED_PORT: u16 = 7_999;
const FREE_PORT: u16 = 15_999;

pub const FAULTS: [Fault; 4] = [
    Fault {
        name: "kedged does not run on the other node",
        node: Node::A,
        inject: |lab| {
            lab.daemon(Node::B)?.stop(Signal::SIGTERM)?;
            try_to_reach(lab)
        },
        kind: "link-failed",
        says: &["Connection refused", "start kedged on that node"],
        cure: |lab| {
            lab.start_daemon(Node::B)?;
            lab.daemon_answers(Node::B)
        },
        works,
    },
    Fault {
        name: "nothing listens at the destination",
        node: Node::A,
        inject: |lab| reaches(lab, &CLIENT, &at(LOAD.v4(), CLOSED_PORT)).map(drop),
        kind: "refused",
        says: &["workload refused", "check that it listens"],
        cure: |lab| serves(lab, CLOSED_PORT),
        works: |lab| reaches(lab, &CLIENT, &at(LOAD.v4(), CLOSED_PORT)),
    },
    Fault {
        name: "plaintext past the daemon to a workload in require",
        node: Node::B,
        inject: |lab| {
            let program = lab.tools.load.display().to_string();
            let words = ["timeout", "2", &program, "peer", &server()];
            lab.try_run(&BARE, &words).map(drop)
        },
        kind: "guard-dropped",
        says: &[
            "plaintext towards a workload in mode require",
            "mode permissive",
        ],
        cure: |lab| {
            let rule = format!(
                "\n[[mode]]\nworkload = \"{}\"\nmode = \"permissive\"\n",
                LOAD.spiffe_id()
            );
            let policy = documents::policy() + &rule;
            everywhere(lab, |lab, node| lab.write_policy(node, "lab", &policy))
        },
        works: |lab| {
            let program = lab.tools.load.display().to_string();
            let words = ["timeout", "2", &program, "peer", &server()];
            Ok(lab.try_run(&BARE, &words)?.status.success())
        },
    },
    Fault {
        name: "a process wants the port of peers",
        node: Node::B,
        inject: |lab| {
            let program = lab.tools.load.display().to_string();
            let listen = at(Ipv4Addr::LOCALHOST, PEER_PORT);
            let words = ["timeout", "2", &program, "server", "--listen", &listen];
            lab.try_run(Node::B, &words).map(drop)
        },
        kind: "capture-refused",
        says: &["kept for kedged", "use another port"],
        cure: |lab| {
            let program = lab.tools.load.display().to_string();
            let listen = at(Ipv4Addr::LOCALHOST, FREE_PORT);
            lab.spawn(Node::B, "free", &[&program, "server", "--listen", &listen])
                .map(drop)
        },
        works: |lab| {
            let program = lab.tools.load.display().to_string();
            let server = at(Ipv4Addr::LOCALHOST, FREE_PORT);
            let done = lab.try_run(Node::B, &[&program, "peer", &server])?;
            Ok(done.status.success())
        },
    },
];

/// Another server in pod `load`.
fn serves(lab: &mut Lab, port: u16) -> Result<()> {
    let program = lab.tools.load.display().to_string();
    let listen = format!("[::]:{port}");
    let server = lab.spawn(&LOAD, "late", &[&program, "server", "--listen", &listen])?;
    server.listens_on(&lab.run, Family::V6, port)
}
