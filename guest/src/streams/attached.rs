//! Clients at the input of a container's own process. What it prints goes to its log, which no client holds up.

use std::fs::File;

use anyhow::{Context as _, Result, bail};
use bulkhead_guest_protocol::host::ContainerConfig;
use bulkhead_guest_protocol::stream::Attach;
use nix::unistd::Pid;

use super::{Port, Stream, Subject};
use crate::stdio::Ends;
use crate::sys;

/// A client at a process.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) pid: Pid,
    /// It is one of those that write to the process's input, and has not been told to be none any more.
    pub(super) writes: bool,
    /// The process's terminal, to be resized.
    pub(super) terminal: Option<File>,
}

/// Begins to write to the process, if the client asks for it and the process reads.
///
/// # Errors
/// Why nobody can write to it.
pub(super) fn begin(
    number: u64,
    attach: &Attach,
    pid: Pid,
    config: &ContainerConfig,
    stdio: &Ends,
) -> Result<Stream> {
    let input = match (&stdio.stdin, attach.stdin) {
        (_, false) => None,
        (Some(input), true) => Some(input.try_clone().context("copy a descriptor")?),
        (None, true) if config.stdin => {
            bail!("its input has ended with the first client that wrote to it (stdinOnce)")
        }
        (None, true) => bail!("its process reads no input: its spec does not say stdin: true"),
    };
    let terminal = stdio.stdout.as_ref().filter(|_| config.tty);
    let terminal = terminal.map(File::try_clone).transpose().context("copy a descriptor")?;
    if let (Some(terminal), Some(size)) = (&terminal, attach.size) {
        sys::resize_terminal(terminal, size);
    }
    let attached = Attached { pid, writes: input.is_some(), terminal };
    let mut stream = Stream::new(number, Subject::Attached(attached));
    stream.input = input.map(|file| Port { file, is_ready: false });
    Ok(stream)
}
