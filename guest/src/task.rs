//! Probes and hooks, done: a process each, so that nothing that a container answers can hold or harm this program.
//!
//! ```text
//!  command:          fork in the container's pid namespace ─► its other namespaces ─► its user ─► execve
//!  request to self:  fork ─► nobody's rights ─► ask ─► exit code, which may say that it needs TLS: then the agent asks
//! ```

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use anyhow::{Context as _, Result};
use bulkhead_guest_http::Failure;
use bulkhead_guest_protocol::host::{Check, CheckConfig, ContainerConfig};
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::WaitStatus;
use nix::unistd::{Pid, pipe2};

use crate::cgroup::Cgroup;
use crate::container::{run_child, set_nonblocking};
use crate::sandbox::{SetupFailure, execute, redirect_stdio, rights};
use crate::stdio::Ends;
use crate::supervisor::Task;
use crate::sys::{self, CloneResult};
use crate::{IS_CONTAINER_CHILD, request};

/// Exit code of a process that was asked for what needs TLS.
const NEEDS_TLS: i32 = 3;
/// How often what a command prints is read at a time: one that prints without end must not hold up everything else.
const READS_MAX: usize = 16;
/// How much of what a command prints is told, in bytes.
const OUTPUT_LENGTH_MAX: usize = 512;
/// The namespaces that a command joins after its process was made.
const NAMESPACES: [(&str, CloneFlags); 4] = [
    ("cgroup", CloneFlags::CLONE_NEWCGROUP),
    ("ipc", CloneFlags::CLONE_NEWIPC),
    ("uts", CloneFlags::CLONE_NEWUTS),
    // Last: with it the guest's own files are out of sight.
    ("mnt", CloneFlags::CLONE_NEWNS),
];

/// The container that a command joins.
pub(crate) struct Target<'a> {
    pub(crate) config: &'a ContainerConfig,
    pub(crate) cgroup: &'a Cgroup,
    /// Its first process.
    pub(crate) pid: Pid,
    /// That process's standard streams.
    pub(crate) stdio: &'a Ends,
}

/// A probe or hook that is being done.
#[derive(Debug)]
pub(crate) struct TaskProcess {
    pub(crate) index: usize,
    pub(crate) task: Task,
    pub(crate) number: u64,
    pid: Pid,
    /// What it prints, until it is closed.
    pub(crate) output: Option<File>,
    printed: Vec<u8>,
    /// It asks the guest itself: what it prints says all.
    is_request: bool,
}

impl TaskProcess {
    /// Starts it, in a pod with this address of its own.
    ///
    /// # Errors
    /// When no process could be made for it.
    pub(crate) fn start(
        (index, task, number): (usize, Task, u64),
        check: &CheckConfig,
        own: Option<IpAddr>,
        target: &Target<'_>,
    ) -> Result<Self> {
        let (output, writer) = pipe2(OFlag::O_CLOEXEC).context("make a pipe")?;
        set_nonblocking(&output)?;
        let host = check.asked(own);
        let check = check.kind.as_ref().context("there is nothing to do")?;
        let is_request = !matches!(check, Check::Exec(_));
        let pid = match check {
            Check::Exec(exec) => start_command(&exec.argv, target, writer)?,
            other => start_request(other, host, writer)?,
        };
        Ok(Self {
            index,
            task,
            number,
            pid,
            output: Some(File::from(output)),
            printed: Vec::new(),
            is_request,
        })
    }

    /// True if this is its process.
    pub(crate) fn has_pid(&self, pid: Pid) -> bool {
        self.pid == pid
    }

    /// Takes what it has printed; what is beyond the bound is read and forgotten.
    pub(crate) fn read_output(&mut self) {
        let mut buffer = [0; 4096];
        for _ in 0..READS_MAX {
            let Some(pipe) = &mut self.output else { return };
            match pipe.read(&mut buffer) {
                Ok(length) if length > 0 => {
                    let room = OUTPUT_LENGTH_MAX.saturating_sub(self.printed.len());
                    self.printed.extend_from_slice(&buffer[..length.min(room)]);
                    if length < buffer.len() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Ok(_) | Err(_) => self.output = None,
            }
        }
    }

    /// Ends it; its end is nobody's business any more.
    pub(crate) fn kill(&self) {
        let _ = kill(self.pid, Signal::SIGKILL);
    }

    /// Its process is gone: how it went.
    pub(crate) fn finish(mut self, status: WaitStatus) -> Result<(), Failure> {
        self.read_output();
        let text = String::from_utf8_lossy(&self.printed);
        let ended = match status {
            WaitStatus::Exited(_, 0) => return Ok(()),
            WaitStatus::Exited(_, NEEDS_TLS) if self.is_request => return Err(Failure::NeedsTls),
            WaitStatus::Exited(_, code) => format!("exit code {code}"),
            WaitStatus::Signaled(_, signal, _) => format!("ended by {signal}"),
            other => unreachable!("only ends are waited for: {other:?}"),
        };
        let text = text.trim();
        Err(Failure::Text(match (text.is_empty(), self.is_request) {
            (true, _) => ended,
            (false, true) => text.to_owned(),
            (false, false) => format!("{ended}: {text}"),
        }))
    }
}

/// A process in the container that executes a command.
fn start_command(argv: &[String], target: &Target<'_>, writer: OwnedFd) -> Result<Pid> {
    let output = writer.try_clone().context("copy a descriptor")?;
    start_in(target, |joined| {
        run_child(writer, || {
            joined?;
            redirect_stdio(&output, &output)?;
            enter(argv, target.config)
        })
    })
}

/// A process in the container's namespaces and cgroup, which ends with the exit code of `work`. That is told whether it
/// is in there.
pub(crate) fn start_in(target: &Target<'_>, work: impl FnOnce(Result<()>) -> i32) -> Result<Pid> {
    let proc = Path::new("/proc").join(target.pid.to_string()).join("ns");
    let open = |name: &str| File::open(proc.join(name)).with_context(|| format!("open its {name} namespace"));
    let own = File::open("/proc/self/ns/pid").context("open the pid namespace")?;
    let namespaces = NAMESPACES.map(|(name, flag)| open(name).map(|file| (file, flag)));
    let namespaces: Vec<(File, CloneFlags)> = namespaces.into_iter().collect::<Result<_>>()?;
    // Only children enter a pid namespace; this program itself stays where it is.
    setns(open("pid")?.as_fd(), CloneFlags::CLONE_NEWPID).context("enter its pid namespace")?;
    let made = sys::fork();
    if matches!(made, Ok(CloneResult::Child)) {
        IS_CONTAINER_CHILD.store(true, std::sync::atomic::Ordering::Relaxed);
        let joined = target.cgroup.join().context("join the cgroup").and_then(|()| {
            namespaces
                .iter()
                .try_for_each(|(file, flag)| setns(file.as_fd(), *flag).context("enter a namespace"))
        });
        sys::exit_now(work(joined));
    }
    setns(own.as_fd(), CloneFlags::CLONE_NEWPID).expect("the own namespace can always be entered");
    match made.context("make a process")? {
        CloneResult::Parent(pid) => Ok(pid),
        CloneResult::Child => unreachable!("the child executes or ends"),
    }
}

/// The child, in the container's namespaces: becomes the command.
fn enter(argv: &[String], config: &ContainerConfig) -> Result<std::convert::Infallible, SetupFailure> {
    let directory = if config.working_dir.is_empty() { "/" } else { &config.working_dir };
    nix::unistd::chdir(directory).with_context(|| format!("enter the working directory {directory}"))?;
    rights(config)?;
    Err(execute(argv, &config.env))
}

/// A process that asks the guest itself.
fn start_request(check: &Check, host: IpAddr, writer: OwnedFd) -> Result<Pid> {
    match sys::fork().context("make a process")? {
        CloneResult::Parent(pid) => Ok(pid),
        CloneResult::Child => {
            IS_CONTAINER_CHILD.store(true, std::sync::atomic::Ordering::Relaxed);
            let answer = give_up_rights()
                .map_err(|error| format!("{error:#}").into())
                .and_then(|()| request::ask(check, host));
            let (code, text) = match &answer {
                Ok(()) => (0, ""),
                Err(Failure::NeedsTls) => (NEEDS_TLS, ""),
                Err(Failure::Text(text)) => (1, text.as_str()),
            };
            let end = text.floor_char_boundary(OUTPUT_LENGTH_MAX);
            let _ = File::from(writer).write_all(&text.as_bytes()[..end]);
            sys::exit_now(code)
        }
    }
}

/// What a container answers is read as nobody, who may do nothing.
fn give_up_rights() -> Result<()> {
    const NOBODY: u32 = 65_534;
    let (uid, gid) = (nix::unistd::Uid::from_raw(NOBODY), nix::unistd::Gid::from_raw(NOBODY));
    nix::unistd::setgroups(&[gid]).context("set the groups")?;
    nix::unistd::setresgid(gid, gid, gid).context("change the group")?;
    nix::unistd::setresuid(uid, uid, uid).context("change the user")?;
    nix::sys::prctl::set_no_new_privs().context("give up new privileges")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_prints_without_end_holds_nobody_up() {
        let mut task = TaskProcess {
            index: 0,
            task: Task::Liveness,
            number: 1,
            pid: Pid::from_raw(7),
            output: Some(File::open("/dev/zero").expect("every Linux has it")),
            printed: Vec::new(),
            is_request: false,
        };
        task.read_output();
        assert_eq!(task.printed.len(), OUTPUT_LENGTH_MAX);
        assert!(task.output.is_some(), "it is read again at the next look");
        assert!(task.finish(WaitStatus::Exited(Pid::from_raw(7), 1)).is_err());
    }
}
