//! How connections end: by halves, in order, or by a reset, each seen as such at the other end.

use anyhow::{Result, ensure};
use serde_json::Value;
use std::time::Duration;
use xtask::lab::topology::{CLIENT, LOAD, LOAD_PORT, LOCAL};
use xtask::shell::wait_for;
use xtask::stage::{at, load, play, seen, server};

#[test]
fn each_side_can_end_its_direction_and_go_on_with_the_other() {
    play(|lab| {
        for server in [server(), at(LOAD.v6(), LOAD_PORT)] {
            load::<Value>(lab, &CLIENT, &["half-close", &server])?;
        }
        wait_for("the late bytes", Duration::from_secs(5), || {
            let seen = seen(lab)?;
            ensure!(seen["late_bytes"] == 200_000, "{seen}");
            Ok(Some(()))
        })
    });
}

#[test]
fn half_close_works_on_the_same_node() {
    play(|lab| {
        load::<Value>(lab, &CLIENT, &["half-close", &at(LOCAL.v4(), LOAD_PORT)])?;
        Ok(())
    });
}

#[test]
fn a_reset_of_either_side_is_a_reset_at_the_other() {
    play(|lab| {
        let reset: Value = load(lab, &CLIENT, &["reset", &server()])?;
        ensure!(reset["by_server"] == "reset", "{reset}");
        wait_for("the client's reset", Duration::from_secs(5), || {
            server_saw_a_reset(&seen(lab)?)
        })
    });
}

fn server_saw_a_reset(seen: &Value) -> Result<Option<()>> {
    ensure!(seen["ends"] == 0, "the reset arrived as an end: {seen}");
    ensure!(seen["resets"] == 1, "{seen}");
    Ok(Some(()))
}
