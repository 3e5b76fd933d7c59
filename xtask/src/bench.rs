//! `cargo xtask bench`: direct TCP and kedge over the same wire, in one interleaved run, with the
//! cores kept awake. Ratios are taken within a round, so that what else the machine does touches
//! both sides alike.

mod cost;
mod figures;
mod flood;
mod rounds;

use crate::artifacts::Tools;
use crate::lab::{Lab, Run};
use anyhow::Result;
use figures::Figures;
use std::path::Path;

#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// One JSON object a line instead of the table.
    pub json: bool,
    /// Fewer and shorter rounds: shows that it works, measures little.
    pub quick: bool,
}

/// How much of everything a round does.
#[derive(Clone, Copy, Debug)]
struct Amounts {
    rounds: usize,
    bulk_seconds: &'static str,
    requests: &'static str,
    connections: &'static str,
    connections_of_16: &'static str,
    /// Made while strangers flood the peer port.
    flows_in_flood: &'static str,
    /// Idle connections held for the two memory figures: one pod gets at most half of 8,976 places.
    idle: [u32; 2],
}

impl Amounts {
    fn rr(&self) -> [&'static str; 5] {
        ["rr", "--size", "1024", "--count", self.requests]
    }

    fn connect(&self) -> [&'static str; 5] {
        ["connect", "--clients", "1", "--count", self.connections]
    }

    fn connect_16(&self) -> [&'static str; 5] {
        [
            "connect",
            "--clients",
            "16",
            "--count",
            self.connections_of_16,
        ]
    }

    fn bulk(&self) -> [&'static str; 3] {
        ["bulk", "--seconds", self.bulk_seconds]
    }
}

const FULL: Amounts = Amounts {
    rounds: 5,
    bulk_seconds: "3",
    requests: "5000",
    connections: "1000",
    connections_of_16: "100",
    flows_in_flood: "300",
    idle: [1000, 4000],
};
const QUICK: Amounts = Amounts {
    rounds: 2,
    bulk_seconds: "0.5",
    requests: "1000",
    connections: "300",
    connections_of_16: "50",
    flows_in_flood: "50",
    idle: [1000, 4000],
};

/// # Errors
/// When the lab cannot be made, or a measurement fails.
pub fn bench(run: Run, tools: &Tools, xtask: &Path, options: Options) -> Result<()> {
    let amounts = if options.quick { QUICK } else { FULL };
    eprintln!("bench: a lab of two nodes, {} rounds", amounts.rounds);
    if options.quick {
        eprintln!("bench: quick: this shows that it works; these are no figures");
    }
    let mut lab = Lab::up(run, tools, xtask)?;
    rounds::keep_cores_awake(&mut lab)?;
    let mut figures = Figures::default();
    for round in 1..=amounts.rounds {
        eprintln!("bench: round {round} of {}", amounts.rounds);
        rounds::round(&mut lab, &amounts, round, &mut figures)?;
    }
    rounds::idle_connections(&mut lab, &amounts, &mut figures)?;
    if options.json {
        figures.print_json()
    } else {
        figures.print_table()
    }
}
