//! Names of peers, which no table of bounded size may forget.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::Stdio;
use xtask::lab::Lab;
use xtask::lab::topology::{CLIENT, LOAD, LOAD_PORT, SERVICES};
use xtask::stage::{at, load, play, server, times};

#[test]
fn both_ends_of_an_open_flow_keep_their_names_through_a_hundred_thousand_others() {
    play(|lab| {
        let program = lab.tools.load.display().to_string();
        let words = [&program, "peer", &server(), "--again"];
        let mut command = lab.command(&CLIENT, &words)?;
        let mut held = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(held.stdout.take().context("the pipe")?).lines();
        let mut told = || -> Result<Value> {
            let line = lines.next().context("it says nothing")??;
            serde_json::from_str(&line).with_context(|| format!("parse {line:?}"))
        };
        let first = told()?;
        others(lab)?;
        drop(held.stdin.take());
        let later = told()?;
        held.wait()?;
        ensure!(first == later, "{first}, then {later}");
        ensure!(later["server"] == server(), "{later}");
        for seen in ["accepted", "peername"] {
            ensure!(end(&later, seen)? == end(&later, "client")?, "{later}");
        }
        Ok(())
    });
}

/// To four places in turn: each has the client's whole range of ports.
fn others(lab: &Lab) -> Result<()> {
    let service = SERVICES.iter().find(|service| service.pod == &LOAD);
    let service = service.context("load has a service")?;
    let places = [
        at(LOAD.v4(), LOAD_PORT),
        at(LOAD.v6(), LOAD_PORT),
        at(service.v4(), service.port),
        at(service.v6(), service.port),
    ];
    let each = (times(2_000, 100_000) / places.len()).to_string();
    for place in &places {
        let _: Value = load(lab, &CLIENT, &["connect", place, "--count", &each])?;
    }
    Ok(())
}

fn end(told: &Value, name: &str) -> Result<SocketAddr> {
    let end: SocketAddr = told[name].as_str().context("an address")?.parse()?;
    Ok(SocketAddr::new(end.ip().to_canonical(), end.port()))
}
