//! The command line of weightmark.
//!
//! stdout is data, stderr is for people. Exit status: 0 done or yes, 1 the answer is no, 2 usage, 3 input, output or
//! format, 4 a key is missing or does not fit, 130 interrupted.

mod claim;
mod cli;
mod decrypt;
mod detect;
mod diff;
mod embed;
mod encrypt;
#[cfg(target_os = "linux")]
mod exec;
mod inspect;
mod judge;
mod keygen;
mod keys;
mod lineage;
mod outline;
mod output;
mod progress;
mod protect;
mod rekey;
mod rewrap;
mod sign;
mod verify;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};
use output::Failure;
use progress::Bars;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // a command that takes the place of this process is to find it as it was
    #[cfg(target_os = "linux")]
    let leaves_process = matches!(cli.command, Command::Exec(_));
    #[cfg(not(target_os = "linux"))]
    let leaves_process = false;
    let reads = matches!(
        cli.command,
        Command::Keygen(_)
            | Command::Inspect(_)
            | Command::Verify(_)
            | Command::Diff(_)
            | Command::Detect(_)
            | Command::Lineage(_)
            | Command::Judge(_)
    );
    if !leaves_process {
        raise_file_limit();
    }
    let bars = Bars::new(!cli.quiet && !cli.json, !reads && !leaves_process);
    let done = match &cli.command {
        Command::Keygen(args) => keygen::run(args, cli.json),
        Command::Encrypt(args) => encrypt::run(args, cli.json, &bars),
        Command::Decrypt(args) => decrypt::run(args, cli.json, &bars),
        Command::Rewrap(args) => rewrap::run(args, cli.json, &bars),
        Command::Rekey(args) => rekey::run(args, cli.json, &bars),
        #[cfg(target_os = "linux")]
        Command::Exec(args) => exec::run(args, &bars),
        Command::Inspect(args) => inspect::run(args, cli.json),
        Command::Sign(args) => sign::run(args, cli.json, &bars),
        Command::Verify(args) => verify::run(args, cli.json, &bars),
        Command::Diff(args) => diff::run(args, cli.json),
        Command::Embed(args) => embed::run(args, cli.json, &bars),
        Command::Detect(args) => detect::run(args, cli.json, &bars),
        Command::Lineage(args) => lineage::run(args, cli.json, &bars),
        Command::Claim(args) => claim::run(args, cli.json, &bars),
        Command::Judge(args) => judge::run(args, cli.json, &bars),
        Command::Protect(args) => protect::run(args, cli.json, &bars),
    };
    bars.clear();
    match done {
        Ok(()) | Err(Failure::BrokenPipe) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report();
            ExitCode::from(failure.status())
        }
    }
}

/// Large files of a model stay open while it is worked on: allow as many as the system lets us.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }); // best effort
}
