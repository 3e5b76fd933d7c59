//! What each command does.

mod ask;
mod attest;
mod ca;
mod cgroups;
mod check;
mod doctor;
mod manual;
mod node;

pub use manual::markdown;

use crate::arguments::{
    Arguments, CaCommand, Command, DirectoryCommand, EventCommand, FeatureCommand, FlowCommand,
    LinkCommand, PolicyCommand, SocketCommand,
};
use crate::failure::{Exit, Failure};
use std::io::Write;

/// Runs one command; its data goes to `out`.
///
/// # Errors
/// When it cannot be done; [`Failure::exit`] has the code.
pub fn run(arguments: &Arguments, out: &mut impl Write) -> Result<Exit, Failure> {
    match &arguments.command {
        Command::Status => ask::status(arguments, out),
        Command::Link(LinkCommand::List) => ask::links(arguments, out),
        Command::Flow(FlowCommand::List) => ask::flows(arguments, out),
        Command::Socket(SocketCommand::List) => ask::sockets(arguments, out),
        Command::Event(EventCommand::List(which)) => ask::events(arguments, which, false, out),
        Command::Event(EventCommand::Follow(which)) => ask::events(arguments, which, true, out),
        Command::Policy(PolicyCommand::Explain(what)) => ask::explain(arguments, what, out),
        Command::Policy(PolicyCommand::Check { folder }) => check::policy(arguments, folder, out),
        Command::Directory(DirectoryCommand::Check { file }) => {
            check::directory(arguments, file, out)
        }
        Command::Feature(FeatureCommand::Probe) => node::probe(arguments, out),
        Command::Doctor(what) => doctor::run(arguments, what, out),
        Command::Probe(what) => doctor::probe(what, out),
        Command::Off(what) => node::off(what),
        Command::Ca(CaCommand::Init { dir, trust_domain }) => ca::init(dir, trust_domain),
        Command::Ca(CaCommand::Issue(what)) => ca::issue(what),
        Command::Attest(what) => attest::run(arguments, what, out),
        Command::Man(what) => manual::man(what, out),
        Command::Completions { shell } => manual::completions(*shell, out),
    }
}

/// Writes one answer: as JSON or as its table.
fn print<T: serde::Serialize>(
    arguments: &Arguments,
    out: &mut impl Write,
    answer: &T,
    table: impl FnOnce(&T) -> String,
) -> Result<(), Failure> {
    let text = if arguments.json {
        crate::render::json(answer)
    } else {
        table(answer)
    };
    out.write_all(text.as_bytes()).map_err(Failure::Output)
}

/// One line of JSON.
fn print_line(out: &mut impl Write, answer: &impl serde::Serialize) -> Result<(), Failure> {
    let line = crate::render::json_line(answer);
    out.write_all(line.as_bytes()).map_err(Failure::Output)
}
