//! One daemon after the other, under load.

use crate::load::Load;
use crate::{ended, faulty, follow, next, present, serving};
use anyhow::{Context, Result, ensure};
use std::thread;
use std::time::Duration;
use xtask::lab::topology::{CLIENT, LOAD, LOCAL, NODES, Node};
use xtask::lab::{Build, Lab, documents};
use xtask::stage::{becomes_reachable, everywhere, play, times, under_the_oracle};

/// Where a daemon that starts may die, from its first look at the node to the moment at which it
/// says that it serves; `start-swapped:N` after the Nth of ten programs.
const STEPS: [&str; 16] = [
    "start-loaded",
    "start-filled",
    "start-routed",
    "start-swapped:1",
    "start-swapped:2",
    "start-swapped:3",
    "start-swapped:4",
    "start-swapped:5",
    "start-swapped:6",
    "start-swapped:7",
    "start-swapped:8",
    "start-swapped:9",
    "start-swapped:10",
    "start-attached",
    "start-alone",
    "start-workers",
];

#[test]
fn restarts_upgrades_and_downgrades_under_load_lose_no_connection() {
    play(|lab| {
        let builds = [present(lab, 2), next(2)?, present(lab, 3), next(1)?];
        let report = under_the_oracle(lab, "generations", |lab| {
            allow_all(lab)?;
            let load = Load::start(lab)?;
            for round in 0..times(8, 50) {
                // Each node in its turn: a restart, an upgrade, a restart, a downgrade.
                let node = NODES[round % 2];
                follow(lab, node, &builds[(round / 2).div_ceil(2) % 4])?;
                thread::sleep(Duration::from_millis(300));
            }
            let connections = load.finish(lab)?;
            println!("{connections} connections");
            Ok(())
        })?;
        lab.stop_daemons()?;
        report.is_clean()
    });
}

#[test]
fn a_follower_killed_at_any_step_leaves_the_old_generation_serving() {
    play(|lab| {
        let builds = [faulty(lab)?, next(2)?];
        let report = under_the_oracle(lab, "killed", |lab| {
            allow_all(lab)?;
            let load = Load::start(lab)?;
            for round in 0..times(1, 4) {
                let node = NODES[round % 2];
                for build in &builds {
                    STEPS
                        .iter()
                        .try_for_each(|step| die_at(lab, node, build, step))?;
                }
            }
            // Beats of the dead would be too old by now, and tables of theirs stale.
            thread::sleep(Duration::from_secs(6));
            let connections = load.finish(lab)?;
            println!("{connections} connections");
            Ok(())
        })?;
        lab.stop_daemons()?;
        report.is_clean()
    });
}

/// A daemon starts and dies there; who served before serves after.
fn die_at(lab: &mut Lab, node: Node, build: &Build, step: &str) -> Result<()> {
    let before = serving(lab, node)?;
    let follower = lab.start_build(node, build, Some(step))?;
    ended(&follower).with_context(|| format!("at {step}"))?;
    let after = serving(lab, node)?;
    ensure!(
        before == after,
        "{step}: {before} served before, {after} after"
    );
    Ok(())
}

/// What the load of this binary needs beyond the lab's own policy.
pub fn allow_all(lab: &Lab) -> Result<()> {
    let policy = documents::policy() + &documents::allow(&LOAD.spiffe_id(), &LOCAL.spiffe_id());
    everywhere(lab, |lab, node| lab.write_policy(node, "lab", &policy))?;
    becomes_reachable(lab, &CLIENT)
}
