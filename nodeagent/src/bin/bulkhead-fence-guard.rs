//! The guard of a guest that must be unique, as a program of its own: for whoever runs the agent inside another program.
//! `bulkhead agent` starts itself as one.

use std::process::ExitCode;

fn main() -> ExitCode {
    bulkhead_nodeagent::run_guard()
}
