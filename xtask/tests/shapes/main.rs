//! Every way in which applications use a connection, many times: each byte arrives once and in
//! order, each end arrives as what it was, and nothing but records is on the wire.
//!
//! ```text
//!  client: blocking, epoll, io_uring ──► kedged a ══ wire, captured ══ kedged b ──► load: the same,
//!                  └──────────────────► kedged a ──► local                           and forked
//! ```

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;
use std::net::IpAddr;
use std::time::Duration;
use xtask::lab::Lab;
use xtask::lab::topology::{CLIENT, LOAD, LOCAL, Pod};
use xtask::shapes::SHAPES;
use xtask::shell::wait_for;
use xtask::stage::{load, play, times, under_the_oracle};

/// What a server of each engine listens on first; its shapes have the ports behind it.
const SERVERS: [(&str, u16); 4] = [
    ("edge", 7_100),
    ("blocking", 7_200),
    ("uring", 7_300),
    ("inherited", 7_400),
];

/// A client's engine and a server's; io_uring's sockets reset nothing and have no options.
struct Pair {
    client: &'static str,
    server: &'static str,
    v6: bool,
}

const PAIRS: [Pair; 5] = [
    pair("edge", "edge", false),
    pair("blocking", "inherited", true),
    pair("uring", "uring", false),
    pair("uring", "blocking", true),
    pair("blocking", "edge", true),
];

const fn pair(client: &'static str, server: &'static str, v6: bool) -> Pair {
    Pair { client, server, v6 }
}

/// How often each pair plays while one capture grows: a virtual machine has it in its memory, twice.
const IN_ONE_CAPTURE: usize = 40;

/// All of them, or as many as `KEDGE_PAIRS` says: set in virtual machines, where time is dear.
fn pairs() -> &'static [Pair] {
    match std::env::var("KEDGE_PAIRS") {
        Ok(count) => &PAIRS[..count.parse().expect("KEDGE_PAIRS is a number")],
        Err(_) => &PAIRS,
    }
}

impl Pair {
    fn plays(&self, (shape, sequential): (&str, bool)) -> bool {
        let plays = |engine| match engine {
            "edge" => true,
            "uring" => shape != "small-buffers",
            _ => sequential,
        };
        let resets = |end| {
            shape == format!("{end}-resets") || (end == "server" && shape == "reset-under-way")
        };
        plays(self.client)
            && plays(self.server)
            && !(self.client == "uring" && resets("client"))
            && !(self.server == "uring" && resets("server"))
    }
}

#[test]
fn every_shape_is_exact_over_the_wire_with_every_kind_of_system_call() {
    play(|lab| {
        serve(lab, &LOAD)?;
        let mut left = times(70, 200);
        while left > 0 {
            let count = left.min(IN_ONE_CAPTURE);
            let report = under_the_oracle(lab, "shapes", |lab| play_all(lab, &LOAD, count))?;
            println!("{count} times by each pair: {report}");
            report.is_clean()?;
            ensure!(report.full_handshakes() == 1, "{report}");
            left -= count;
        }
        Ok(())
    });
}

#[test]
fn every_shape_is_exact_on_the_same_node() {
    play(|lab| {
        serve(lab, &LOCAL)?;
        play_all(lab, &LOCAL, times(50, 200))
    });
}

#[test]
fn sixty_four_mib_each_way_at_once_are_exact() {
    play(|lab| {
        serve(lab, &LOAD)?;
        // In full, 10 GiB.
        let count = times(3, 80);
        let pair = &PAIRS[0];
        one(lab, &LOAD, pair, "64-mib-both-at-once", count)?;
        agrees(lab, &LOAD, pair.server, &[("64-mib-both-at-once", count)])
    });
}

/// Starts a server of each engine in `pod`, unless that was done for an earlier scenario.
fn serve(lab: &mut Lab, pod: &'static Pod) -> Result<()> {
    let program = lab.tools.load.display().to_string();
    for (engine, port) in SERVERS {
        let name = format!("shapes-{engine}-{}", pod.name);
        if lab
            .processes()
            .iter()
            .any(|process| process.name == name && process.is_alive())
        {
            continue;
        }
        let listen = format!("[::]:{port}");
        let server = lab.spawn(pod, &name, &[&program, "shapes-server", engine, &listen])?;
        server.listens_on(&lab.run, xtask::lab::process::Family::V6, port)?;
    }
    Ok(())
}

/// Every shape by every pair, `count` times; then both ends must agree.
fn play_all(lab: &Lab, pod: &'static Pod, count: usize) -> Result<()> {
    for (engine, _) in SERVERS {
        let mut played = Vec::new();
        for shape in SHAPES {
            let pairs = pairs()
                .iter()
                .filter(|pair| pair.server == engine && pair.plays(shape));
            let mut streams = 0;
            for pair in pairs {
                one(lab, pod, pair, shape.0, count)?;
                streams += count;
            }
            if streams > 0 {
                played.push((shape.0, streams));
            }
        }
        agrees(lab, pod, engine, &played)?;
    }
    Ok(())
}

fn one(lab: &Lab, pod: &Pod, pair: &Pair, shape: &str, count: usize) -> Result<()> {
    let address: IpAddr = if pair.v6 {
        pod.v6().into()
    } else {
        pod.v4().into()
    };
    let (address, port) = (address.to_string(), port_of(pair.server).to_string());
    let words = [
        "shapes",
        pair.client,
        &address,
        &port,
        shape,
        "--count",
        &count.to_string(),
        "--at-once",
        "8",
    ];
    let played: Value = load(lab, &CLIENT, &words)?;
    ensure!(
        played["good"] == count && played["bad"] == 0,
        "{} to {}: {played}",
        pair.client,
        pair.server
    );
    Ok(())
}

/// The server has seen each stream once, and liked it. Its own end of the last ones may still be
/// on its way.
fn agrees(lab: &Lab, pod: &'static Pod, engine: &str, played: &[(&str, usize)]) -> Result<()> {
    let mut good = vec![0; played.len()];
    let base = format!("127.0.0.1:{}", port_of(engine));
    let verdict = wait_for(
        &format!("{engine} to have seen all streams"),
        Duration::from_secs(20),
        || {
            let seen: Value = load(lab, pod, &["shapes-report", &base])?;
            let mut all = true;
            for ((shape, streams), good) in played.iter().zip(&mut good) {
                let of = |key: &str| seen[shape][key].as_u64().unwrap_or(0);
                *good += usize::try_from(of("good"))?;
                // The server tells each thing once: a lie is the end of waiting.
                let lies = ["bad", "cut", "silent", "repeated"].map(of);
                if lies != [0; 4] || *good > *streams {
                    let seen = &seen[shape];
                    return Ok(Some(Err(anyhow!("{shape}: {good} of {streams}: {seen}"))));
                }
                all &= *good == *streams;
            }
            Ok(all.then_some(Ok(())))
        },
    );
    verdict.with_context(|| format!("{engine} has seen {good:?} of {played:?}"))?
}

fn port_of(engine: &str) -> u16 {
    let server = SERVERS.iter().find(|(name, _)| *name == engine);
    server.map_or(0, |(_, port)| *port)
}
