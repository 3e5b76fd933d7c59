//! Goal: a generation takes over from the one before without a moment unguarded; what is attached
//! outlives the daemon; `off` leaves nothing.

#![allow(missing_docs)]

mod common;

use common::{PORT_BASE, claim, count};
use kedge_capture::{Counter, off};
use kedge_model::Mode;
use std::os::fd::AsFd;
use std::process::Command;

#[test]
fn a_dead_daemon_leaves_its_verdicts_and_guard_in_force() {
    let lab = lab_or_skip!();
    drop(lab.capturing(Mode::Require));
    let mut pod = lab.actor("pods/a", "a");
    assert_eq!(pod.connect("10.66.3.3:80"), Err(libc::EHOSTUNREACH));
    // Nobody listens on the capture port, and its worker has beaten a moment ago.
    assert_eq!(pod.connect("10.66.2.2:80"), Err(libc::ECONNREFUSED));
    let mut thief = lab.actor("pods/a", "n");
    let port = format!("0.0.0.0:{PORT_BASE}");
    assert_eq!(thief.bind(&port), Err(libc::EADDRINUSE));
}

#[test]
fn a_new_generation_takes_the_links_over_and_keeps_what_is_filed() {
    let lab = lab_or_skip!();
    let first = lab.capturing(Mode::Require);
    let mut daemon = lab.daemon();
    daemon.listen(&format!("[::]:{PORT_BASE}"));
    let mut pod = lab.actor("pods/a", "a");
    pod.connect("10.66.2.2:80").expect("connect");
    daemon.accept();
    let links = links(&lab);

    let second = lab.capturing(Mode::Require);
    assert_eq!(second.generation(), first.generation() + 1);
    drop(first);
    assert_eq!(links, self::links(&lab), "the links are the same ones");
    let claim = claim(&second, &mut daemon);
    assert!(claim.is_some(), "filed under the first");
    assert_eq!(pod.peer_name().to_string(), "10.66.2.2:80");
    assert_eq!(pod.connect("10.66.3.3:80"), Err(libc::EHOSTUNREACH));
    pod.connect("10.66.2.2:80").expect("connect");
    assert_eq!(count(&second, Counter::Captured), 1);
}

/// A connection is asked of every mixture of the two generations' programs, there and back.
#[test]
fn at_every_step_of_a_change_connections_are_captured_and_guarded() {
    let lab = lab_or_skip!();
    let mut daemon = lab.daemon();
    daemon.listen(&format!("[::]:{PORT_BASE}"));
    let mut server = lab.actor("pods/b", "b");
    server.listen("10.66.2.2:80");
    let (mut pod, mut outside) = (lab.actor("pods/a", "a"), lab.actor("outside", "n"));
    let mut first = lab.capturing(Mode::Require);
    let mut second = lab.filled(Mode::Require);
    let claims = first.claims();
    let mut look = |step: &str| {
        pod.connect("10.66.2.2:80")
            .unwrap_or_else(|errno| panic!("{step}: errno {errno}"));
        daemon.accept();
        let socket = daemon.share();
        let claim = claims.of(socket.as_fd()).expect("map");
        let asked = claim.expect(step).original_dst.socket_addr();
        assert_eq!(asked.to_string(), "10.66.2.2:80", "{step}");
        assert_eq!(pod.peer_name(), asked, "{step}");
        assert_eq!(pod.connect("10.66.3.3:80"), Err(libc::EHOSTUNREACH));
        assert!(
            outside.connect("10.66.2.2:80").is_err(),
            "{step}: unguarded"
        );
    };
    look("filled");
    second.attach(&mut look).expect("attach");
    first.attach(&mut look).expect("take back");
}

#[test]
fn tables_of_a_generation_that_is_not_attached_decide_nothing() {
    let lab = lab_or_skip!();
    let mut first = lab.capturing(Mode::Require);
    let mut second = lab.filled(Mode::Off);
    let mut pod = lab.actor("pods/a", "a");
    assert_eq!(pod.connect("10.66.3.3:80"), Err(libc::EHOSTUNREACH));
    second.attach(|_| {}).expect("attach");
    first
        .replace_cgroups(&lab.cgroups_in(Mode::Require))
        .expect("its own table is there as long as it is");
    let mut server = lab.actor("pods/b", "b");
    server.listen("10.66.2.2:80");
    assert_eq!(pod.connect("10.66.2.2:80"), Ok(()), "off by the second");
    let tables = std::fs::read_dir(lab.bpffs()).expect("list");
    let names = tables.map(|entry| entry.expect("entry").file_name());
    let generations = names.filter(|name| name.to_string_lossy().starts_with("generation-"));
    assert_eq!(generations.count(), 1, "the first one's are gone");
}

#[test]
fn off_leaves_no_program_no_pin_and_no_trace_in_connections() {
    let lab = lab_or_skip!();
    let capture = lab.capturing(Mode::Require);
    assert_eq!(links(&lab).len(), kedge_abi::program::ALL.len());
    off(lab.bpffs()).expect("off");
    assert!(!lab.bpffs().exists());
    assert_eq!(
        attached(&lab),
        0,
        "with the daemon's descriptors still open"
    );
    drop(capture);

    let mut server = lab.actor("pods/b", "b");
    server.listen("10.66.2.2:80");
    let mut pod = lab.actor("pods/a", "a");
    pod.connect("10.66.2.2:80").expect("connect");
    assert_eq!(server.accept().from, pod.local_name());
    off(lab.bpffs()).expect("a second time is no error");
}

/// Inode numbers of the pinned links, by name.
fn links(lab: &common::Lab) -> Vec<(String, u64)> {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(lab.bpffs().join("links")).expect("links");
    let mut links: Vec<_> = entries
        .map(|entry| {
            let entry = entry.expect("entry");
            let inode = entry.metadata().expect("metadata").ino();
            (entry.file_name().to_string_lossy().into_owned(), inode)
        })
        .collect();
    links.sort();
    links
}

/// Programs attached to the lab's cgroup, as bpftool sees them.
fn attached(lab: &common::Lab) -> usize {
    let output = Command::new("bpftool")
        .args(["cgroup", "show"])
        .arg(lab.cgroup_root())
        .output();
    let Ok(output) = output else {
        common::skip("no bpftool to look for attached programs with");
        return 0;
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().filter(|line| line.contains("kedge_")).count()
}
