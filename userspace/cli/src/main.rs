use clap::Parser;
use kedge_cli::arguments::Arguments;
use kedge_cli::{Exit, Failure, command};
use std::io::{self, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut stdout = io::stdout().lock();
    let ended = command::run(&arguments, &mut stdout)
        .and_then(|exit| stdout.flush().map(|()| exit).map_err(Failure::Output));
    match ended {
        Ok(exit) => exit.into(),
        // The reader has what it wanted: `kedge flow list | head` is no failure.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            Exit::Done.into()
        }
        Err(failure) => {
            eprintln!("kedge: {}", failure.report());
            failure.exit().into()
        }
    }
}
