//! kedged: the daemon of one node.

use anyhow::{Context, Result};
use clap::Parser;
use kedge_daemon::config::Config;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

/// Carries the TCP connections of this node's workloads over mutually authenticated,
/// post-quantum links to other nodes.
#[derive(Parser)]
#[command(version)]
struct Flags {
    /// The configuration (docs/configuration.md).
    #[arg(long, default_value = "/etc/kedge/kedged.toml")]
    config: PathBuf,
    /// Check the configuration and what it names, and exit.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    match start(&Flags::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kedged: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(flags: &Flags) -> Result<()> {
    let config = Config::load(&flags.config)?;
    let filter = tracing_subscriber::EnvFilter::try_new(&config.log_filter)
        .with_context(|| format!("log.filter {:?}", config.log_filter))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    if flags.check {
        kedge_daemon::check(&config)?;
        println!("{}: nothing wrong", flags.config.display());
        return Ok(());
    }
    kedge_daemon::run(config)
}
