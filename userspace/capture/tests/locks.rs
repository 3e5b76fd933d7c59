//! Goal: of several daemons on one folder of pins, one starts at a time, and one serves.
//!
//! These tests have a program of their own and play one after the other: what forks meanwhile holds
//! its parent's locks until exec() (flock(2)), and a lab starts other programs.

#![allow(missing_docs)]

mod common;

use common::chain;
use kedge_capture::StartLock;
use std::sync::{Mutex, MutexGuard, PoisonError};

fn alone() -> MutexGuard<'static, ()> {
    static STAGE: Mutex<()> = Mutex::new(());
    STAGE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn of_two_daemons_that_start_at_once_the_second_is_told_to_wait() {
    let _alone = alone();
    let lab = lab_or_skip!();
    let first = StartLock::take(lab.bpffs()).expect("nobody else");
    let refused = StartLock::take(lab.bpffs()).expect_err("the first one holds it");
    assert!(chain(&refused).contains("starts just now"), "{refused}");
    drop(first);
    StartLock::take(lab.bpffs()).expect("free again");
}

#[test]
fn a_daemon_that_serves_is_joined_by_none_but_its_successor() {
    let _alone = alone();
    let lab = lab_or_skip!();
    let start = StartLock::take(lab.bpffs()).expect("nobody else");
    let serving = start.serve_alone().expect("nobody else");
    let refused = start.serve_alone().expect_err("somebody serves");
    assert!(chain(&refused).contains("run_dir"), "{refused}");
    let successor = start.serve_beside().expect("handed over to");
    drop((serving, successor));
    start.serve_alone().expect("both have ended");
}
