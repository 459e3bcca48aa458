//! The `bulkhead` command: servers, agents, and everything an operator says to them.
//!
//! ```text
//!  bulkhead VERB ... ─► args ─► commands/VERB ─► client ─► any server (the next one when it does not answer)
//!                                   │               └ one request id per change: a retry is never a second change
//!                                   └─► output: tables, YAML, JSON, descriptions
//! ```
//!
//! Entry points: [`args::Cli`] (what may be typed), [`client::Client`] (how servers are reached), one file per
//! command in `commands/`.
//!
//! Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 not found, 4 no server answered in time, 5 conflict
//! with another change; `exec` ends with the code of the command that it ran. This crate decides nothing: what is acceptable is the servers' to say.

mod args;
mod client;
mod commands;
mod directory;
mod failure;
mod output;
mod progress;
mod target;
mod telemetry;
mod time;

use std::process::ExitCode;

use clap::Parser as _;

/// Servers and agents make and drop many small objects on several threads: with the C library's allocator that
/// took about a sixth of a server's processor time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // A guard is as small as can be: it has no threads, and parses nothing that a user types.
    if std::env::args_os().nth(1).is_some_and(|verb| verb == commands::agent::GUARD_VERB) {
        return bulkhead_nodeagent::run_guard();
    }
    let cli = args::Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(commands::run(cli));
    // A read of standard input that never ends must not keep the process.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report();
            failure.exit_code()
        }
    }
}
