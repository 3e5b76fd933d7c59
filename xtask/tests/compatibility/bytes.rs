//! What becomes of bytes that are not only bytes in a row, and of what is known about them.

use crate::{CAPTURED, DIRECT, PLAIN, SAID, SLOW, Way, serve_plainly, told_by, told_next};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xtask::lab::Lab;
use xtask::stage::play;

/// More than a slow server's kernel takes, and less than the buffers of the daemons.
const ZEROS: usize = 64 * 1024;

#[test]
fn an_urgent_byte_arrives_in_its_place_instead_of_beside_the_stream() {
    play(|lab| {
        serve_plainly(lab)?;
        let direct = DIRECT.socket(lab, PLAIN, &["--urgent"])?;
        ensure!(direct["seen"]["text"] == "before  after", "{direct}");
        ensure!(direct["seen"]["urgent"] == "!", "{direct}");
        let captured = CAPTURED.socket(lab, PLAIN, &["--urgent"])?;
        ensure!(captured["seen"]["text"] == SAID, "{captured}");
        ensure!(captured["seen"]["urgent"].is_null(), "{captured}");
        Ok(())
    });
}

#[test]
fn a_lingering_close_waits_for_the_daemon_only_and_no_byte_is_lost() {
    play(|lab| {
        let (direct, at_direct) = pour(lab, &DIRECT, &["--linger", "2"])?;
        let (captured, at_captured) = pour(lab, &CAPTURED, &["--linger", "2"])?;
        let waited = |outcome: &Value| outcome["close_ms"].as_u64().context("a time");
        ensure!(waited(&direct)? >= 1_900, "{direct}");
        ensure!(waited(&captured)? < 1_000, "{captured}");
        for seen in [at_direct, at_captured] {
            ensure!(seen["bytes"] == ZEROS && seen["end"] == "fin", "{seen}");
        }
        Ok(())
    });
}

#[test]
fn a_close_that_lingers_for_no_time_is_a_reset_for_the_server() {
    play(|lab| {
        serve_plainly(lab)?;
        for way in [&DIRECT, &CAPTURED] {
            let told = told_by(lab, way.server, PLAIN)?.len();
            way.socket(lab, PLAIN, &["--linger", "0"])?;
            let seen = told_next(lab, way.server, PLAIN, told)?;
            ensure!(seen["end"] == "ConnectionReset", "{seen}");
        }
        Ok(())
    });
}

#[test]
fn tcp_info_tells_of_the_leg_to_the_daemon() {
    play(|lab| {
        let (direct, _) = pour(lab, &DIRECT, &[])?;
        let (captured, _) = pour(lab, &CAPTURED, &[])?;
        let acked = |outcome: &Value| outcome["way"]["bytes_acked"].as_u64().context("a count");
        ensure!(acked(&direct)? < ZEROS as u64, "{direct}");
        ensure!(acked(&captured)? >= ZEROS as u64, "{captured}");
        Ok(())
    });
}

/// Zeros to a server that reads nothing for a while: what the client saw, and what came in the end.
fn pour(lab: &mut Lab, way: &Way, words: &[&str]) -> Result<(Value, Value)> {
    way.serve(
        lab,
        SLOW,
        &["--receive-buffer", "4096", "--pause-ms", "3000"],
    )?;
    let told = told_by(lab, way.server, SLOW)?.len();
    let zeros = ZEROS.to_string();
    let outcome = way.socket(lab, SLOW, &[&["--zeros", &zeros], words].concat())?;
    ensure!(outcome["failed"].is_null(), "{outcome}");
    Ok((outcome, told_next(lab, way.server, SLOW, told)?))
}
