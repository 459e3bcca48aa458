//! `completion`: scripts for shells.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::args::Cli;
use crate::failure::Failure;
use crate::output::emit_bytes;

#[derive(Debug, Args)]
pub(crate) struct CompletionArgs {
    /// For which shell
    shell: Shell,
}

pub(crate) fn run(args: &CompletionArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "bulkhead", &mut script);
    emit_bytes(&script)
}
