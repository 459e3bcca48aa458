//! The hardware lab's process: see `scripts/lab.sh`.

use std::process::ExitCode;

fn main() -> ExitCode {
    bulkhead_nodeagent::run_lab()
}
