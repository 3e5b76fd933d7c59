//! Applications that reset a connection as soon as it is made.

use anyhow::{Result, ensure};
use serde_json::Value;
use std::time::Duration;
use xtask::lab::Lab;
use xtask::lab::topology::{CLIENT, Node};
use xtask::shell::wait_for;
use xtask::stage::{captured, load, play, server, told};

/// Packets leave the pod one by one, each 8 ms after the one before: the last of a handshake when
/// the application has its connection and has reset it, and the reset behind that.
const SLOW: &str = "tc qdisc replace dev eth0 root tbf rate 64kbit burst 100 latency 1s";
const UNDO: &str = "tc qdisc del dev eth0 root";
const LEAVERS: u64 = 50;

/// By all that the daemon can look up no program has redirected such a connection: its claim went
/// with its application.
#[test]
fn an_application_that_resets_what_it_has_just_connected_is_counted_and_no_alarm() {
    play(|lab| {
        let (since, before) = (told(lab, Node::A)?, captured(lab, Node::A, "left_early")?);
        lab.run(&CLIENT, &["sh", "-ec", SLOW])?;
        let left = leave(lab);
        lab.run(&CLIENT, &["sh", "-ec", UNDO])?;
        left?;
        let counted = captured(lab, Node::A, "left_early")? - before;
        // An application that a busy machine delays resets a connection that is complete: no case
        // of this test, as long as most of them are.
        ensure!(counted > LEAVERS / 2, "{counted} counted");
        let events = lab.events(Node::A)?;
        let alarms = |line: &&str| line.contains("no program had redirected");
        let alarms: Vec<_> = events.lines().skip(since).filter(alarms).collect();
        ensure!(alarms.is_empty(), "{alarms:#?}");
        Ok(())
    });
}

fn leave(lab: &Lab) -> Result<()> {
    let (to, count) = (server(), LEAVERS.to_string());
    let one_by_one = ["--in-turn", "--reset", "--at-once", "1"];
    let words = [&["flood", &to, "--connections", &count], &one_by_one[..]].concat();
    let done: Value = load(lab, &CLIENT, &words)?;
    ensure!(done["begun"] == LEAVERS, "{done}");
    wait_for("the last reset to leave", Duration::from_secs(5), || {
        let queue = lab.run(&CLIENT, &["tc", "-s", "qdisc", "show", "dev", "eth0"])?;
        Ok(queue.contains("backlog 0b 0p").then_some(()))
    })
}
