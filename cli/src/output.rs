//! What is printed.

pub(crate) mod describe;
pub(crate) mod row;
pub(crate) mod table;

use std::io::Write as _;

use crate::failure::{Class, Failure};

/// How objects are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// A table.
    #[default]
    Table,
    /// A table with more columns.
    Wide,
    /// YAML, which `apply` reads again.
    Yaml,
    /// JSON.
    Json,
    /// `kind/name` lines.
    Name,
}

/// Prints text on standard output. A reader that went away (`| head`) ends the command without complaint.
pub(crate) fn emit(text: &str) -> Result<(), Failure> {
    emit_bytes(text.as_bytes())
}

/// Prints one line on standard output.
pub(crate) fn emit_line(line: &str) -> Result<(), Failure> {
    emit(&format!("{line}\n"))
}

/// Prints bytes on standard output, at once.
pub(crate) fn emit_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| match error.kind() {
        std::io::ErrorKind::BrokenPipe => Failure::new(Class::Quiet, ""),
        _ => Failure::failed(format!("cannot write to standard output: {error}")),
    })
}
