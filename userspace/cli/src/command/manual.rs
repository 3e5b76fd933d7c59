//! Man pages, completions and docs/cli.md, all from the one definition of the command line.

use crate::arguments::{Arguments, ManArguments};
use crate::failure::{Exit, Failure};
use clap::builder::StyledStr;
use clap::{Arg, Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use std::fmt::Write as _;
use std::fs;
use std::io::Write;

pub fn man(what: &ManArguments, out: &mut impl Write) -> Result<Exit, Failure> {
    match &what.out {
        Some(dir) => {
            let failed = |source| Failure::Write {
                path: dir.clone(),
                source,
            };
            fs::create_dir_all(dir).map_err(failed)?;
            clap_mangen::generate_to(Arguments::command(), dir).map_err(failed)?;
        }
        None if what.markdown => {
            out.write_all(markdown().as_bytes())
                .map_err(Failure::Output)?;
        }
        None => Man::new(Arguments::command())
            .render(out)
            .map_err(Failure::Output)?,
    }
    Ok(Exit::Done)
}

pub fn completions(shell: Shell, out: &mut impl Write) -> Result<Exit, Failure> {
    // Through memory: the generator panics where it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "kedge", &mut script);
    out.write_all(&script).map_err(Failure::Output)?;
    Ok(Exit::Done)
}

/// docs/cli.md.
#[must_use]
pub fn markdown() -> String {
    let mut command = Arguments::command();
    command.build();
    let mut text =
        "# The command line\n\nPrinted by `kedge man --markdown`; not to be edited by hand.\n"
            .to_owned();
    section(&mut text, &command);
    text
}

/// One command and those below it; only commands that do something have options to show.
fn section(text: &mut String, command: &Command) {
    let name = command.get_display_name().unwrap_or(command.get_name());
    let name = name.replace('-', " ");
    let about = plain(command.get_long_about().or_else(|| command.get_about()));
    let is_root = name == "kedge";
    if is_root || !command.has_subcommands() {
        let usage = command.clone().render_usage().to_string();
        let usage = usage.trim_start_matches("Usage: ").trim();
        let _ = write!(text, "\n## {name}\n\n{about}\n\n```text\n{usage}\n```\n");
        arguments(text, command, is_root);
    }
    if let Some(after) = command.get_after_help() {
        let _ = write!(text, "\n```text\n{after}\n```\n");
    }
    for below in command
        .get_subcommands()
        .filter(|below| below.get_name() != "help")
    {
        section(text, below);
    }
}

/// The global options are shown once, at the root.
fn arguments(text: &mut String, command: &Command, is_root: bool) {
    let shown = |arg: &&Arg| {
        (is_root || !arg.is_global_set()) && !matches!(arg.get_id().as_str(), "help" | "version")
    };
    let mut rows = command.get_arguments().filter(shown).peekable();
    if rows.peek().is_some() {
        text.push_str("\n| argument | meaning |\n| --- | --- |\n");
    }
    for arg in rows {
        let default = arg
            .get_default_values()
            .first()
            .map_or(String::new(), |value| {
                if arg.get_action().takes_values() {
                    format!(" Default `{}`.", value.to_string_lossy())
                } else {
                    String::new()
                }
            });
        let help = plain(arg.get_long_help().or_else(|| arg.get_help()));
        let _ = writeln!(text, "| `{}` | {help}{default} |", spelled(arg));
    }
}

fn spelled(arg: &Arg) -> String {
    let values: Vec<_> = arg.get_value_names().unwrap_or_default().iter().collect();
    let value = values
        .first()
        .map_or(String::new(), |value| value.to_string());
    match arg.get_long() {
        Some(long) if arg.get_action().takes_values() => format!("--{long} {value}"),
        Some(long) => format!("--{long}"),
        None => value,
    }
}

/// One line, with the full stop that clap takes off.
fn plain(text: Option<&StyledStr>) -> String {
    let text = text.map(ToString::to_string).unwrap_or_default();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.is_empty() || text.ends_with('.') {
        text
    } else {
        text + "."
    }
}
