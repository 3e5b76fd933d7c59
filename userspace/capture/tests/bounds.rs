//! Goal: a table that is full fails closed: what needs room in it does not happen, aloud, and what
//! is in it stays.

#![allow(missing_docs)]

mod common;

use common::{Lab, PORT_BASE, claim, count, pinned, verdicts};
use kedge_abi::{Claim, limits, map};
use kedge_capture::{Cgroup, CgroupKind, Counter, EventKind, Refusal, Rule, Verdict};
use kedge_model::Mode;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

#[test]
fn deliveries_beyond_the_bound_are_not_filed() {
    let lab = lab_or_skip!();
    let capture = lab.capturing(Mode::Require);
    let claims = capture.claims();
    let client = "203.0.113.7:55555".parse().expect("literal");
    let beyond = u64::from(limits::DELIVERIES);
    for cookie in 1..=beyond {
        claims
            .file_delivery(cookie, client)
            .expect("within the bound");
    }
    assert!(claims.file_delivery(beyond + 1, client).is_err());
    claims.withdraw_delivery(1).expect("withdraw");
    claims
        .file_delivery(beyond + 1, client)
        .expect("there is room again");
}

#[test]
fn a_claim_beyond_the_bound_leaves_the_connection_without_one() {
    let lab = lab_or_skip!();
    let mut capture = lab.capturing(Mode::Require);
    let mut events = capture.events().expect("first call");
    fill_claims(&lab);
    let mut daemon = lab.daemon();
    daemon.listen(&format!("[::]:{PORT_BASE}"));
    let mut pod = lab.actor("pods/a", "a");
    pod.connect("10.66.2.2:80")
        .expect("the daemon is who refuses");
    let accepted = daemon.accept();
    assert_eq!(claim(&capture, &mut daemon), None);
    assert_eq!(count(&capture, Counter::ClaimLost), 1);
    let event = events.next_event().expect("told");
    assert_eq!(event.kind, EventKind::ClaimLost);
    let source = event.source.expect("known before the SYN");
    assert_eq!(source, kedge_model::canonical(accepted.from));
}

/// Refused before anything is written: a prefix without those within it would pass what they refuse.
#[test]
fn prefixes_beyond_the_bound_are_refused_whole_and_those_that_are_there_hold() {
    let lab = lab_or_skip!();
    let mut capture = lab.capturing(Mode::Require);
    let mut too_many = verdicts();
    let held = too_many.require.len() + too_many.permissive.len();
    too_many
        .require
        .extend((held..=limits::VERDICTS as usize).map(|number| {
            let ip = Ipv4Addr::from(0x1400_0000 + u32::try_from(number).expect("below the bound"));
            Rule {
                net: IpAddr::from(ip).into(),
                port: None,
                verdict: Verdict::Pass,
            }
        }));
    let told = capture
        .replace_verdicts(&too_many)
        .expect_err("one too many")
        .to_string();
    let prefixes = format!("{} prefixes", limits::VERDICTS + 1);
    assert!(told.starts_with(&prefixes), "{told}");
    let mut pod = lab.actor("pods/a", "a");
    assert_eq!(pod.connect("10.66.3.3:80"), Err(libc::EHOSTUNREACH));
}

#[test]
fn cgroups_beyond_the_bound_are_an_error_and_those_that_hold_stay() {
    let lab = lab_or_skip!();
    let mut capture = lab.capturing(Mode::Require);
    let mut too_many = lab.cgroups_in(Mode::Require);
    too_many.extend((0..u64::from(limits::CGROUPS)).map(|number| Cgroup {
        id: u64::MAX - number,
        mode: Mode::Require,
        kind: CgroupKind::Workload,
        probe_ports: Vec::new(),
    }));
    assert!(capture.replace_cgroups(&too_many).is_err());
    let mut pod = lab.actor("pods/a", "a");
    assert_eq!(pod.connect("10.66.3.3:80"), Err(libc::EHOSTUNREACH));
}

#[test]
fn refusals_beyond_the_bound_are_an_error_and_run_out_by_themselves() {
    let lab = lab_or_skip!();
    let capture = lab.capturing(Mode::Require);
    let refusals = capture.refusals();
    let place = |number: u32| SocketAddr::new(Ipv4Addr::from(0x0a42_0000 + number).into(), 80);
    let valid = Duration::from_secs(60);
    let refusal = Refusal {
        errno: 111,
        reason: 20,
    };
    for number in 0..limits::REFUSALS {
        let filed = refusals.file(7, place(number), refusal, valid);
        filed.expect("within the bound");
    }
    let beyond = place(limits::REFUSALS);
    assert!(refusals.file(7, beyond, refusal, valid).is_err());
    refusals.withdraw(7, place(0)).expect("withdraw");
    let filed = refusals.file(7, beyond, refusal, valid);
    filed.expect("there is room again");
}

/// Every place but those of real connections.
fn fill_claims(lab: &Lab) {
    let mut claims = pinned::hash::<[u8; 48], [u8; size_of::<Claim>()]>(lab, map::CLAIMS);
    for number in 0..limits::CLAIMS {
        let mut key = [0xff; 48];
        key[..4].copy_from_slice(&number.to_ne_bytes());
        claims
            .insert(key, [0; size_of::<Claim>()], 0)
            .expect("within the bound");
    }
}
