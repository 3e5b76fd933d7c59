//! kedge-verifier: signs Attestation Results for nodes whose Evidence it believes.

use anyhow::{Context, Result};
use clap::Parser;
use kedge_verifier::config::{Config, pin_toml};
use kedge_verifier::judge::Judge;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::net::TcpListener;

/// Judges what nodes attest by their TPMs, and signs Attestation Results (docs/attestation.md).
#[derive(Parser)]
#[command(version)]
struct Flags {
    /// The configuration (docs/configuration.md).
    #[arg(long, default_value = "/etc/kedge/verifier.toml")]
    config: PathBuf,
    /// Make the key that the configuration names, and print what nodes pin. Overwrites nothing.
    #[arg(long)]
    make_key: bool,
    /// Print what nodes pin, and exit.
    #[arg(long)]
    pin: bool,
    /// Check the configuration and what it names, and exit.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    match start(&Flags::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kedge-verifier: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(flags: &Flags) -> Result<()> {
    tracing_subscriber::fmt()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let config = Config::load(&flags.config)?;
    if flags.make_key {
        config.make_key()?;
    }
    if flags.make_key || flags.pin {
        print!("{}", pin_toml(&config.read_key()?.1));
        return Ok(());
    }
    let judge = Arc::new(Judge::new(config)?);
    if flags.check {
        println!("{}: nothing wrong", flags.config.display());
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listen = judge.config().listen;
        let listener = TcpListener::bind(listen)
            .await
            .with_context(|| format!("listen on {listen}"))?;
        tracing::info!(%listen, name = judge.config().name, "serves");
        Ok(kedge_verifier::serve(judge, listener).await?)
    })
}
