//! A peer that has gone without a word.

use anyhow::{Result, ensure};
use serde_json::Value;
use std::thread;
use std::time::Duration;
use xtask::lab::Lab;
use xtask::lab::topology::{CLIENT, LOAD, LOAD_PORT, LOCAL, NODES, Node};
use xtask::shell::wait_for;
use xtask::stage::{at, becomes_reachable, clear, client_reaches, play, seen, server};
use xtask::waiting::{Waiting, unix_ms};

/// What every application is promised.
const ANYBODY: Duration = Duration::from_secs(30);
/// What is promised beyond a client's own limit.
const MARGIN: Duration = Duration::from_secs(5);
/// A MAC address that nobody has: frames to it are lost without a word.
const NOBODY: &str = "02:00:5e:00:00:99";

/// Node and neighbour pod vanish at once; what was open and what was not yet gets its error in
/// time, at both ends of the wire.
#[test]
fn every_application_learns_in_time_that_its_peer_is_dead() {
    play(|lab| {
        ensure!(client_reaches(lab)?, "the server is there at first");
        clear(lab)?;
        let (v4, v6, local) = (
            server(),
            at(LOAD.v6(), LOAD_PORT),
            at(LOCAL.v4(), LOAD_PORT),
        );
        let own = |seconds| Duration::from_secs(seconds) + MARGIN;
        let cases: [(&[&str], Duration); 10] = [
            (&["silence", &v4, "held"], ANYBODY),
            (&["silence", &v4, "idle"], ANYBODY),
            (&["silence", &v6, "idle"], ANYBODY),
            (&["silence", &v4, "up"], ANYBODY),
            (&["silence", &v4, "down"], ANYBODY),
            (&["silence", &v4, "up", "--user-timeout-s", "3"], own(3)),
            (&["silence", &v4, "idle", "--keepalive-s", "2"], own(5)),
            (&["silence", &local, "idle"], ANYBODY),
            (&["silence", &local, "up"], ANYBODY),
            (&["silence", &local, "up", "--user-timeout-s", "3"], own(3)),
        ];
        let over_the_wire = 7;
        let start = |(words, _): &(&[&str], _)| Waiting::start(lab, &CLIENT, words)?.opened();
        let mut open = vec![start(&cases[0])?];
        stands_still(lab)?;
        for case in &cases[1..] {
            open.push(start(case)?);
        }

        let since = unix_ms();
        black_hole(lab, true)?;
        let opening: [(&[&str], Duration); 2] = [
            (&["silence-opening", &v4, "idle"], ANYBODY),
            (
                &["silence-opening", &v4, "idle", "--user-timeout-s", "3"],
                own(3),
            ),
        ];
        let start = |(words, _): &(&[&str], _)| Waiting::start(lab, &CLIENT, words);
        let unopened = opening.iter().map(start).collect::<Result<Vec<_>>>()?;
        let all = cases
            .iter()
            .chain(&opening)
            .zip(open.into_iter().chain(unopened));
        let learned = learn(all, since);
        let servers = deaths(lab, since, over_the_wire);
        black_hole(lab, false)?;
        learned.and(servers)?;
        becomes_reachable(lab, &CLIENT)
    });
}

type Case<'a> = (&'a (&'a [&'a str], Duration), Waiting);

/// All of them wait at once.
fn learn<'a>(cases: impl Iterator<Item = Case<'a>>, since: u64) -> Result<()> {
    thread::scope(|scope| {
        let wait = |((words, bound), waiting): Case<'a>| {
            scope.spawn(move || -> Result<()> {
                let took = waiting.error_after(since, *bound);
                println!("{words:?}: {took:?}");
                took.map(drop)
            })
        };
        let waiting: Vec<_> = cases.map(wait).collect();
        let learned = waiting.into_iter().map(|case| match case.join() {
            Ok(learned) => learned,
            Err(_) => anyhow::bail!("a client panicked"),
        });
        // All are waited for, whatever the first one says.
        learned.collect::<Vec<_>>().into_iter().collect()
    })
}

/// Until the one flow's reader holds it: what had room has moved.
fn stands_still(lab: &Lab) -> Result<()> {
    let moved = || -> Result<Option<u64>> {
        let list: Value = serde_json::from_str(&lab.kedge(Node::A, &["flow", "list", "--json"])?)?;
        Ok(list["flows"][0]["bytes_sent"].as_u64())
    };
    wait_for(
        "the reader to hold the flow",
        Duration::from_secs(10),
        || {
            let before = moved()?;
            thread::sleep(Duration::from_millis(300));
            Ok((before > Some(0) && before == moved()?).then_some(()))
        },
    )
}

/// The server has seen its clients die too.
fn deaths(lab: &Lab, since: u64, wanted: u64) -> Result<()> {
    let left = since + 30_000;
    while seen(lab)?["deaths"].as_u64() < Some(wanted) && unix_ms() < left {
        thread::sleep(Duration::from_millis(200));
    }
    let seen: Value = seen(lab)?;
    println!("the server: {seen}");
    let last = seen["last_death_unix_ms"].as_u64().unwrap_or(u64::MAX);
    ensure!(
        seen["deaths"] == wanted && last <= left,
        "the server saw {seen}, {wanted} clients died"
    );
    Ok(())
}

/// Takes away, or gives back, everything that is sent between the nodes, and to pod `local`. No
/// link goes down and no route changes: nobody is told.
fn black_hole(lab: &Lab, opens: bool) -> Result<()> {
    let neighbours = NODES.into_iter().flat_map(|node| {
        let far = node.other();
        [far.v4().to_string(), far.v6().to_string()].map(|address| (node, address, "wire"))
    });
    let local = (Node::A, LOCAL.v4().to_string(), "p-local");
    for (node, address, device) in neighbours.chain([local]) {
        let words = match opens {
            true => vec!["replace", &address, "lladdr", NOBODY, "dev", device],
            false => vec!["del", &address, "dev", device],
        };
        lab.run(node, &[&["ip", "neigh"], &words[..]].concat())?;
    }
    Ok(())
}
