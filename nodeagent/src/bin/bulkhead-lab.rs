//! The hardware lab's process: see `scripts/lab.sh`. Release builds have no lab, as they have no steps to die at.

use std::process::ExitCode;

#[cfg(debug_assertions)]
fn main() -> ExitCode {
    bulkhead_nodeagent::run_lab()
}

#[cfg(not(debug_assertions))]
fn main() -> ExitCode {
    eprintln!("release builds have no hardware lab: run `make lab`");
    ExitCode::FAILURE
}
