//! Goal: each command, run as an operator would, prints what it should and ends with the documented
//! exit code; with no daemon, with one that answers, and with one that does not like the question.
//!
//! ```text
//!   kedge ── admin.sock ── a listener that answers one request with a fixed text
//! ```

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use clap::Parser;
use kedge_cli::arguments::Arguments;
use kedge_cli::{Exit, Failure, command};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread::{self, JoinHandle};
use tempfile::TempDir;

fn run(words: &[&str]) -> (Result<Exit, Failure>, String) {
    let arguments = Arguments::try_parse_from(["kedge"].iter().chain(words)).unwrap();
    let mut out = Vec::new();
    let ended = command::run(&arguments, &mut out);
    (ended, String::from_utf8(out).unwrap())
}

fn failure(words: &[&str]) -> (Exit, String) {
    let failure = run(words).0.unwrap_err();
    (failure.exit(), failure.report())
}

fn path(dir: &TempDir) -> &str {
    dir.path().to_str().unwrap()
}

/// Answers one request; returns its first line.
fn daemon(dir: &Path, status: &str, body: &str) -> JoinHandle<String> {
    let listener = UnixListener::bind(dir.join("admin.sock")).unwrap();
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        lines.find(|line| line.as_ref().unwrap().is_empty());
        stream.write_all(answer.as_bytes()).unwrap();
        first
    })
}

#[test]
fn without_a_daemon_the_exit_code_is_3_and_says_what_to_do() {
    let dir = TempDir::new().unwrap();
    let (exit, report) = failure(&["status", "--run-dir", path(&dir)]);
    assert_eq!(exit, Exit::Unreachable);
    assert!(report.contains("--socket PATH"), "{report}");
}

#[test]
fn links_are_asked_for_and_shown() {
    let dir = TempDir::new().unwrap();
    let daemon = daemon(dir.path(), "200 OK", r#"{"links":[]}"#);
    let (ended, out) = run(&["link", "list", "--run-dir", path(&dir)]);
    assert_eq!(
        (ended.unwrap(), out.starts_with("PEER  STATE")),
        (Exit::Done, true)
    );
    assert_eq!(daemon.join().unwrap(), "GET /v1/links HTTP/1.1");
}

#[test]
fn the_daemons_refusal_comes_with_its_remedy() {
    let dir = TempDir::new().unwrap();
    let daemon = daemon(
        dir.path(),
        "503 Service Unavailable",
        r#"{"cause":"c","remedy":"r"}"#,
    );
    let (exit, report) = failure(&["flow", "list", "--run-dir", path(&dir)]);
    assert_eq!(exit, Exit::Failed);
    assert_eq!(report, "the daemon says no (503): c\n       r");
    daemon.join().unwrap();
}

#[test]
fn an_answer_of_another_version_is_a_failure() {
    let dir = TempDir::new().unwrap();
    let daemon = daemon(dir.path(), "200 OK", r#"{"flows":1}"#);
    let (exit, report) = failure(&["flow", "list", "--run-dir", path(&dir)]);
    assert_eq!(exit, Exit::Failed);
    assert!(report.contains("kedge --version"), "{report}");
    daemon.join().unwrap();
}

#[test]
fn events_are_one_a_line() {
    let dir = TempDir::new().unwrap();
    let event = include_str!("golden/event-directory.json").replace('\n', "") + "\n";
    let daemon = daemon(dir.path(), "200 OK", &event.repeat(2));
    let (ended, out) = run(&[
        "event",
        "follow",
        "--since",
        "40",
        "--json",
        "--run-dir",
        path(&dir),
    ]);
    assert_eq!((ended.unwrap(), out.lines().count()), (Exit::Done, 2));
    assert_eq!(
        daemon.join().unwrap(),
        "GET /v1/events?follow=true&since=40 HTTP/1.1"
    );
}

#[test]
fn explaining_asks_the_daemon_with_both_identities() {
    let dir = TempDir::new().unwrap();
    let daemon = daemon(
        dir.path(),
        "200 OK",
        include_str!("golden/explain-denied.json"),
    );
    let words = ["policy", "explain", "spiffe://td/a", "spiffe://td/b", "80"];
    let (ended, out) = run(&[&words[..], &["--run-dir", path(&dir)]].concat());
    assert_eq!(
        (ended.unwrap(), out.starts_with("denied")),
        (Exit::No, true)
    );
    assert_eq!(
        daemon.join().unwrap(),
        "GET /v1/policy/explain?source=spiffe://td/a&destination=spiffe://td/b&port=80 HTTP/1.1"
    );
}

#[test]
fn explaining_works_without_a_daemon_and_exits_by_the_verdict() {
    let policies = concat!(env!("CARGO_MANIFEST_DIR"), "/../../policies");
    let explain = |port| {
        let shop = "spiffe://example.org/ns/shop/sa";
        let (source, destination) = (format!("{shop}/till"), format!("{shop}/database"));
        run(&[
            "policy",
            "explain",
            &source,
            &destination,
            port,
            "--policies",
            policies,
        ])
        .0
    };
    assert_eq!(
        (explain("5432").unwrap(), explain("5433").unwrap()),
        (Exit::Done, Exit::No)
    );
}

#[test]
fn checks_tell_what_is_there_or_the_line_that_is_wrong() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("x.toml");
    fs::write(
        &file,
        "version = 1\n[[node]]\nname = 'a'\naddresses = ['192.0.2.1']\n",
    )
    .unwrap();
    let file = file.to_str().unwrap();
    let (ended, out) = run(&["directory", "check", file, "--json"]);
    assert_eq!(ended.unwrap(), Exit::Done);
    assert!(out.contains("\"nodes\": 1"), "{out}");
    let (exit, report) = failure(&["policy", "check", path(&dir)]);
    assert_eq!(exit, Exit::BadInput);
    assert!(
        report.starts_with("policy x.toml line 2: unknown field `node`"),
        "{report}"
    );
    assert_eq!(
        failure(&["directory", "check", "/nowhere"]).0,
        Exit::BadInput
    );
}

#[test]
fn a_ca_is_made_once_and_issues_for_nodes_and_workloads() {
    let dir = TempDir::new().unwrap();
    let (ca, out) = (dir.path().join("ca"), dir.path().join("out"));
    let (ca, out) = (ca.to_str().unwrap(), out.to_str().unwrap());
    let init = ["ca", "init", "--dir", ca, "--trust-domain", "lab.kedge"];
    assert_eq!(run(&init).0.unwrap(), Exit::Done);
    assert_eq!(failure(&init).0, Exit::BadInput);
    let issue =
        |words: &[&str]| run(&[&["ca", "issue", "--dir", ca, "--out", out], words].concat()).0;
    assert_eq!(issue(&["--node", "a"]).unwrap(), Exit::Done);
    assert_eq!(issue(&["--workload", "default/web"]).unwrap(), Exit::Done);
    assert_eq!(
        issue(&["--workload", "web"]).unwrap_err().exit(),
        Exit::BadInput
    );
    assert_eq!(
        issue(&["--node", "a", "--lifetime-hours", "0"])
            .unwrap_err()
            .exit(),
        Exit::BadInput
    );
    for name in [
        "node.pem",
        "node.key",
        "workload.pem",
        "workload.key",
        "bundle.pem",
    ] {
        let mode = fs::metadata(Path::new(out).join(name))
            .unwrap()
            .permissions()
            .mode()
            & 0o777;
        assert_eq!(
            mode,
            if name.ends_with("key") { 0o600 } else { 0o644 },
            "{name}"
        );
    }
}

#[test]
fn off_where_there_are_no_pins_says_no() {
    let dir = TempDir::new().unwrap();
    let gone = dir.path().join("gone");
    assert_eq!(
        run(&["off", "--bpffs", gone.to_str().unwrap()]).0.unwrap(),
        Exit::No
    );
}

#[test]
fn man_pages_and_completions_come_out() {
    let dir = TempDir::new().unwrap();
    assert_eq!(run(&["man", "--out", path(&dir)]).0.unwrap(), Exit::Done);
    assert!(dir.path().join("kedge-policy-explain.1").exists());
    assert!(run(&["man"]).1.contains(".TH kedge 1"));
    assert!(run(&["completions", "bash"]).1.contains("_kedge()"));
}
