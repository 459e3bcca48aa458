//! Commands and archives in a container: a process in its namespaces, with its rights, for a client.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use bulkhead_guest_archive::{Links, pack, unpack};
use bulkhead_guest_protocol::stream::{LogFiles, StreamKind};
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Pid, Uid, fchown, pipe2};

use super::{Port, Stream, Subject, port};
use crate::container::set_nonblocking;
use crate::sandbox::{SetupFailure, execute, rights};
use crate::stdio::{TTY_GROUP, with_term};
use crate::sys;
use crate::tail::{self, Wanted};
use crate::task::{Target, start_in};

/// An archive is written in pieces of this size, in bytes: one message each.
const BUFFER_LENGTH: usize = 16 * 1024;

/// A process of a stream.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) pid: Pid,
    pub(super) has_terminal: bool,
}

impl Command {
    /// Sends a signal to it and what it started in its session's first group.
    pub(super) fn signal(&self, signal: Signal) {
        // It makes its group a moment after its start.
        if kill(Pid::from_raw(-self.pid.as_raw()), signal).is_err() {
            let _ = kill(self.pid, signal);
        }
    }
}

/// What a new process reads and writes.
struct Stdio {
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
    is_terminal: bool,
}

/// Log files are what is in a volume: there is nothing else that a container's programs are to leave for others.
fn check_mounted(logs: &LogFiles, target: &Target<'_>) -> Result<()> {
    let paths = || target.config.mounts.iter().map(|mount| mount.path.as_str());
    let is_below = |mount: &str| logs.pattern.strip_prefix(mount).is_some_and(|rest| rest.starts_with('/'));
    if paths().any(is_below) {
        return Ok(());
    }
    let mounts: Vec<&str> = paths().collect();
    let mounts = if mounts.is_empty() { "it mounts none".to_owned() } else { mounts.join(", ") };
    bail!("log files are read below the paths of its volumes only: {mounts}")
}

/// Starts the process.
pub(super) fn begin(number: u64, kind: &StreamKind, target: &Target<'_>) -> Result<Stream> {
    if let StreamKind::ReadLogs(logs) = kind {
        check_mounted(logs, target)?;
    }
    let size = match kind {
        StreamKind::Exec(exec) if exec.tty => Some(exec.size.unwrap_or_default()),
        _ => None,
    };
    let reads = match kind {
        StreamKind::Exec(exec) => exec.stdin,
        other => matches!(other, StreamKind::WriteFiles(_)),
    };
    let has_terminal = size.is_some();
    let subject = |pid| Subject::Command(Command { pid, has_terminal });
    if let Some(size) = size {
        let (master, slave) = open_terminal(target).context("open a terminal")?;
        sys::resize_terminal(&master, size);
        let input = reads.then(|| master.try_clone()).transpose().context("copy a descriptor")?;
        let stdio = Stdio {
            stdin: slave.try_clone().context("copy a descriptor")?,
            stdout: slave.try_clone().context("copy a descriptor")?,
            stderr: slave,
            is_terminal: true,
        };
        let mut stream = Stream::new(number, subject(start(kind, target, stdio)?));
        stream.input = input.map(|file| Port { file, is_ready: false });
        stream.output = Some(Port { file: master, is_ready: false });
        return Ok(stream);
    }
    let (stdin, input) = if reads {
        let (reader, writer) = pipe(target)?;
        (reader, Some(writer))
    } else {
        (nix::fcntl::open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?, None)
    };
    let ((output, stdout), (errors, stderr)) = (pipe(target)?, pipe(target)?);
    let stdio = Stdio { stdin, stdout, stderr, is_terminal: false };
    let mut stream = Stream::new(number, subject(start(kind, target, stdio)?));
    stream.input = input.map(port).transpose()?;
    (stream.output, stream.errors) = (Some(port(output)?), Some(port(errors)?));
    Ok(stream)
}

/// A pipe that the container's user may open again, as /dev/stdout does.
fn pipe(target: &Target<'_>) -> Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).context("make a pipe")?;
    let (uid, gid) = (Uid::from_raw(target.config.uid), Gid::from_raw(target.config.gid));
    fchown(&writer, Some(uid), Some(gid)).context("give the pipe away")?;
    Ok((reader, writer))
}

/// A new terminal of the container's own: the end that this program keeps, and the process's.
fn open_terminal(target: &Target<'_>) -> Result<(File, OwnedFd)> {
    let root = Path::new("/proc").join(target.pid.to_string()).join("root");
    let root = nix::fcntl::open(&root, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    // The container cannot move its mounts; should it still lead elsewhere, this is refused.
    let how = OpenHow::new()
        .flags(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    let master = openat2(&root, "dev/pts/ptmx", how).context("/dev/pts/ptmx")?;
    set_nonblocking(&master)?;
    let slave = sys::terminal_peer(&master).context("its other end")?;
    let (uid, gid) = (Uid::from_raw(target.config.uid), Gid::from_raw(TTY_GROUP));
    fchown(&slave, Some(uid), Some(gid)).context("give the terminal away")?;
    Ok((File::from(master), slave))
}

fn start(kind: &StreamKind, target: &Target<'_>, stdio: Stdio) -> Result<Pid> {
    start_in(target, |joined| {
        let entered = joined.map_err(SetupFailure::from).and_then(|()| enter(kind, target, &stdio));
        let Err(SetupFailure { exit_code, message }) = entered;
        let line_end = if stdio.is_terminal { "\r\n" } else { "\n" };
        let _ = File::from(stdio.stderr).write_all(format!("{message}{line_end}").as_bytes());
        exit_code
    })
}

/// The child, in the container's namespaces: becomes the command, or does the archive's work and ends.
fn enter(
    kind: &StreamKind,
    target: &Target<'_>,
    stdio: &Stdio,
) -> Result<std::convert::Infallible, SetupFailure> {
    nix::unistd::dup2_stdin(&stdio.stdin).context("redirect")?;
    nix::unistd::dup2_stdout(&stdio.stdout).context("redirect")?;
    nix::unistd::dup2_stderr(&stdio.stderr).context("redirect")?;
    let config = target.config;
    let directory = if config.working_dir.is_empty() { "/" } else { &config.working_dir };
    nix::unistd::chdir(directory).with_context(|| format!("enter the working directory {directory}"))?;
    rights(config)?;
    match kind {
        StreamKind::Exec(exec) => {
            if stdio.is_terminal {
                sys::control_terminal().context("take the terminal")?;
            }
            Err(execute(&exec.argv, &with_term(&config.env, exec.tty)))
        }
        StreamKind::ReadFiles(files) => {
            let out = io::BufWriter::with_capacity(BUFFER_LENGTH, io::stdout().lock());
            archive(|| pack(Path::new(&files.path), out, &mut warn))
        }
        StreamKind::WriteFiles(files) => {
            let path = Path::new(&files.path);
            archive(|| unpack(io::stdin().lock(), path, Links::Make, &mut warn))
        }
        StreamKind::ReadLogs(logs) => {
            let out = io::BufWriter::with_capacity(BUFFER_LENGTH, io::stdout().lock());
            let wanted = Wanted { pattern: &logs.pattern, follow: logs.follow, tail_lines: logs.tail_lines };
            archive(|| tail::print(wanted, out))
        }
        StreamKind::Connect(_) | StreamKind::Attach(_) => unreachable!("makes no process"),
    }
}

/// The child stays this program, with a container's user and files: it keeps nothing open by which a path in the
/// container could lead back to the guest's own.
fn archive(work: impl FnOnce() -> io::Result<()>) -> ! {
    let done = sys::close_from(3).context("close the guest's files").and_then(|()| Ok(work()?));
    match done {
        Ok(()) => sys::exit_now(0),
        Err(error) => {
            warn(&format!("{error:#}"));
            sys::exit_now(1)
        }
    }
}

fn warn(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
