//! `cargo xtask`: see `cargo xtask` alone for its verbs.

#![forbid(unsafe_code)]

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::os::unix::process::CommandExt as _;
use std::process::{ExitCode, Stdio};
use xtask::artifacts::{self, Tools};
use xtask::lab::topology::Place;
use xtask::lab::{self, Lab, Run};
use xtask::{bench, demo, fuzz, setup, tiers, vm};

const VERBS: &str = "\
verb                     root  takes            what
setup [--yes]            yes   5 min, then 0 s  install what is missing; prints its plan first
build                    no    9 min, then 1 s  the BPF object, kedged, kedge and kedge-load
demo [--keep]            yes   80 s             unmodified applications across two nodes, proven
test [FILTER] [--strict] yes   15 min           everything that can be tested; --fuzz, --kernels: more
test --full              yes   25 min           the same with the heavy counts
bench [--quick] [--json] yes   4 min            direct TCP and kedge, side by side
lab up | down | list     yes   2 s              two nodes and nine pods, to play with
lab exec PLACE -- CMD    yes   -                run a command in one of them
vm test [KERNEL…]        yes   13 to 26 min     the tests that touch the kernel, on other kernels
vm test --full           yes   hours            the same with the heavy counts, in all suites
vm pair KERNEL KERNEL    yes   2 min            two nodes on two kernels, a machine and a TPM each
vm bench [KERNEL]        yes   20 min           instructions a byte and a round trip, by each way of records
vm shell KERNEL          yes   10 s             one of them with a shell in it
fuzz [SECONDS]           no    30 s a target    the parsers of the wire
ci                       yes   80 min           test --strict --fuzz --kernels: what .ci/run runs

The first build takes as long as its dependencies do. Without root, `test` runs what needs none
and counts the rest as skipped. `cargo xtask VERB --help` tells more.";

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
    /// Install what is missing, after printing the plan.
    Setup {
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Build the BPF object and the programs, optimised.
    Build,
    /// Show it: unmodified applications across two nodes, with proof.
    Demo {
        /// Leave the lab there and say what to try.
        #[arg(long)]
        keep: bool,
        #[arg(long, default_value = "demo")]
        run: Run,
    },
    /// Test everything that can be tested here.
    Test {
        /// Take a skip for a failure.
        #[arg(long)]
        strict: bool,
        /// The fuzz targets too, 15 s each.
        #[arg(long)]
        fuzz: bool,
        /// The tests that touch the kernel also on other kernels, in virtual machines.
        #[arg(long)]
        kernels: bool,
        /// The heavy counts too: hours.
        #[arg(long)]
        full: bool,
        /// Only tests whose name contains it.
        filter: Option<String>,
    },
    /// Measure direct TCP and kedge over the same wire.
    Bench {
        /// One JSON object a line: system, figure, unit, min, median, max.
        #[arg(long)]
        json: bool,
        /// Fewer and shorter rounds.
        #[arg(long)]
        quick: bool,
        #[arg(long, default_value = "bench")]
        run: Run,
    },
    /// Two nodes and their pods on this machine.
    Lab {
        #[command(subcommand)]
        verb: LabVerb,
    },
    /// Fuzz each parser of the wire.
    Fuzz {
        #[arg(default_value_t = 30)]
        seconds: u64,
    },
    /// Other kernels, in QEMU.
    Vm {
        #[command(subcommand)]
        verb: VmVerb,
    },
    /// `test --strict --fuzz --kernels`.
    Ci,
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

#[derive(Subcommand)]
enum VmVerb {
    /// Run the tests that touch the kernel.
    Test {
        /// As vm-tests/kernels.toml names them; all of them without one.
        kernels: Vec<String>,
        /// Only runs with one of these words in their name, or one test of such, also those that are
        /// played on request only: `--only records,shapes/kernel:sixty_four`.
        #[arg(long, value_delimiter = ',')]
        only: Vec<String>,
        /// Play all scenarios, with the heavy counts and in all suites: hours a kernel where it is emulated.
        #[arg(long)]
        full: bool,
        /// Write what was seen of all kernels to vm-tests/seen.toml and README.md, if nothing failed.
        #[arg(long, conflicts_with_all = ["kernels", "only"])]
        record: bool,
    },
    /// Two nodes, each on a machine with its own kernel and TPM; flows open on the first one.
    Pair {
        opens: String,
        accepts: String,
        /// With the heavy counts.
        #[arg(long)]
        full: bool,
    },
    /// Count the instructions of a byte and of a round trip, by each way of records.
    Bench {
        #[arg(default_value = "7.3")]
        kernel: String,
    },
    /// A shell, with kedge in it.
    Shell { kernel: String },
}

fn main() -> ExitCode {
    let Some(verb) = Arguments::parse().verb else {
        println!("{VERBS}");
        return ExitCode::SUCCESS;
    };
    match run(verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nxtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn extent(full: bool) -> vm::Extent {
    match full {
        true => vm::Extent::Full,
        false => vm::Extent::Light,
    }
}

fn run(verb: Verb) -> Result<()> {
    match verb {
        Verb::Setup { yes } => setup::setup(yes),
        Verb::Build => artifacts::build().map(drop),
        Verb::Demo { keep, run } => demo::demo(run, &ready()?, &std::env::current_exe()?, keep),
        Verb::Test {
            strict,
            fuzz,
            kernels,
            full,
            filter,
        } => tiers::test(&tiers::Options {
            strict,
            fuzz,
            kernels,
            full,
            filter,
        }),
        Verb::Bench { json, quick, run } => {
            let options = bench::Options { json, quick };
            bench::bench(run, &ready()?, &std::env::current_exe()?, options)
        }
        Verb::Lab { verb } => lab_verb(verb),
        Verb::Fuzz { seconds } => fuzz::run(&artifacts::repository(), seconds).map(drop),
        Verb::Vm { verb } => {
            let tools = ready()?;
            match verb {
                VmVerb::Test {
                    kernels,
                    only,
                    full,
                    record,
                } => {
                    let seen = vm::test(&kernels, &only, extent(full), &tools)?;
                    if record { seen.record() } else { Ok(()) }
                }
                VmVerb::Pair {
                    opens,
                    accepts,
                    full,
                } => vm::pair(&opens, &accepts, extent(full), &tools),
                VmVerb::Bench { kernel } => vm::bench(&kernel, &tools),
                VmVerb::Shell { kernel } => vm::shell(&kernel, &tools),
            }
        }
        Verb::Ci => tiers::test(&tiers::Options {
            strict: true,
            fuzz: true,
            kernels: true,
            full: false,
            filter: None,
        }),
    }
}

/// Everything installed and built, and we may use it.
fn ready() -> Result<Tools> {
    lab::needs_root()?;
    setup::prepare()?;
    artifacts::build()
}

fn lab_verb(verb: LabVerb) -> Result<()> {
    match verb {
        LabVerb::Up { run, without_kedge } => lab_up(run, without_kedge),
        LabVerb::Down { run } => lab::down(&run),
        LabVerb::Exec {
            run,
            place,
            command,
        } => lab_exec(run, &place, &command),
        LabVerb::List => {
            for run in lab::list()? {
                println!("lab {run}");
                println!("{}", lab::describe(&Lab::attach(run, &Tools::release())?));
            }
            Ok(())
        }
    }
}

fn lab_up(run: Run, without_kedge: bool) -> Result<()> {
    let mut lab = Lab::up(run, &ready()?, &std::env::current_exe()?)?;
    if !without_kedge {
        lab.start_daemons()?;
    }
    println!("{}", lab::describe(&lab));
    println!(
        "try: cargo xtask lab exec --run {} client -- curl http://10.96.0.10/",
        lab.run
    );
    lab.leave();
    Ok(())
}

/// Becomes the command: its terminal, signals and exit code are the user's.
fn lab_exec(run: Run, place: &str, words: &[String]) -> Result<()> {
    let lab = Lab::attach(run, &Tools::release())?;
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let mut command = lab.command(Place::parse(place)?, &words)?;
    Err(command.stdin(Stdio::inherit()).exec().into())
}
