//! `cargo xtask`: see `cargo xtask` alone for its verbs.

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::os::unix::process::CommandExt as _;
use xtask::artifacts::{self, Tools};
use xtask::lab::topology::Place;
use xtask::lab::{self, Lab, Run};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Builds, shows, tests and measures kedge."
)]
struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Subcommand)]
enum Verb {
    /// Build the BPF object and the programs.
    Build,
    /// Two nodes and their pods on this machine.
    Lab {
        #[command(subcommand)]
        verb: LabVerb,
    },
}

#[derive(Subcommand)]
enum LabVerb {
    /// Make a lab and leave it there.
    Up {
        #[arg(long, default_value = "lab")]
        run: Run,
        /// Namespaces and servers only.
        #[arg(long)]
        without_kedge: bool,
    },
    /// Remove a lab, also one whose maker was killed.
    Down {
        #[arg(long, default_value = "lab")]
        run: Run,
    },
    /// Run a command in a node or pod.
    Exec {
        #[arg(long, default_value = "lab")]
        run: Run,
        /// A node (a, b) or a pod.
        place: String,
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// What is there.
    List,
}

fn main() -> Result<()> {
    match Arguments::parse().verb {
        None => Ok(()),
        Some(Verb::Build) => artifacts::build().map(drop),
        Some(Verb::Lab { verb }) => lab_verb(verb),
    }
}

fn lab_verb(verb: LabVerb) -> Result<()> {
    match verb {
        LabVerb::Up {
            run,
            without_kedge: _,
        } => {
            Lab::up(run, &Tools::release(), &std::env::current_exe()?)?.leave();
            Ok(())
        }
        LabVerb::Down { run } => lab::down(&run),
        LabVerb::Exec {
            run,
            place,
            command,
        } => {
            let lab = Lab::attach(run, &Tools::release())?;
            let words: Vec<_> = command.iter().map(String::as_str).collect();
            let mut command = lab.command(Place::parse(&place)?, &words)?;
            Err(command.stdin(std::process::Stdio::inherit()).exec().into())
        }
        LabVerb::List => {
            for run in lab::list()? {
                println!("lab {run}");
                println!("{}", lab::describe(&Lab::attach(run, &Tools::release())?));
            }
            Ok(())
        }
    }
}
