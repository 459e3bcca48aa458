//! One container: its disk, its cgroup, its process and its output.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use bulkhead_guest_protocol::guest::LogStream;
use bulkhead_guest_protocol::host::{
    CheckConfig, ContainerConfig, ContainerLimits, ProbeConfig, SysctlConfig,
};
use bulkhead_guest_protocol::{LOG_DATA_LENGTH_MAX, TEXT_LENGTH_MAX};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::mount::{MsFlags, mount, umount};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::WaitStatus;
use nix::unistd::{Pid, pipe2};

use crate::cgroup::{Cgroup, UsageSample};
use crate::logs::LogRing;
use crate::message::LastWords;
use crate::sandbox::{Sandbox, SetupFailure};
use crate::setup::find_disk;
use crate::stdio::{self, Ends};
use crate::supervisor::{Outcome, Reason, Task, bounded};
use crate::sys::{self, CloneResult};
use crate::task::Target;
use crate::volumes::Volumes;

/// Exit code when the container could not be made at all (as container runtimes have it).
const EXIT_CANNOT_CREATE: i32 = 128;
/// How often a pipe is read for the last output of a container: twice what one holds that nobody made larger.
const LAST_READS_MAX: usize = 2 * (64 << 10) / LOG_DATA_LENGTH_MAX + 1;
/// What a terminal reads as the end of its input.
pub(crate) const END_OF_TRANSMISSION: &[u8] = &[4];

/// What containers of a pod share.
#[derive(Clone, Debug, Default)]
pub(crate) struct PodFiles {
    pub(crate) hostname: String,
    /// Most processes of the pod; 0 where the host does not say it.
    pub(crate) pids_max: u32,
    pub(crate) hosts: String,
    pub(crate) resolv_conf: String,
    /// Those that every container has for itself are set in each.
    pub(crate) sysctls: Vec<SysctlConfig>,
}

/// What the exec pipe said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExecReport {
    /// Nothing yet.
    Pending,
    /// The command executes.
    Executing,
    /// It does not; the process is about to end.
    Failed,
}

/// A running instance.
#[derive(Debug)]
pub(crate) struct Process {
    pid: Pid,
    instance: u32,
    /// Closed by a successful execve; carries the reason if there is none.
    pub(crate) exec: Option<File>,
    exec_report: Vec<u8>,
    pub(crate) stdio: Ends,
    oom_kills_before: u64,
}

/// One container with everything it owns.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) config: ContainerConfig,
    pub(crate) logs: LogRing,
    pub(crate) process: Option<Process>,
    root: PathBuf,
    is_mounted: bool,
    /// What its root file system held when it was mounted first, in bytes.
    held_at_first: Option<u64>,
    cgroup: Option<Cgroup>,
    /// It got limits for which it is restarted, and was not yet.
    is_restart_due: bool,
    words: LastWords,
}

impl Container {
    pub(crate) fn new(config: ContainerConfig) -> Self {
        let root = Path::new("/run/bulkhead").join(&config.name).join("rootfs");
        Self {
            logs: LogRing::new(&config.name),
            process: None,
            root,
            is_mounted: false,
            held_at_first: None,
            cgroup: None,
            is_restart_due: false,
            words: LastWords::new(&config),
            config,
        }
    }

    /// Starts an instance. It executes its command only when [`Self::read_exec_report`] says so.
    ///
    /// # Errors
    /// The outcome to report when not even a process could be made.
    pub(crate) fn start(
        &mut self,
        instance: u32,
        files: &PodFiles,
        volumes: &Volumes,
    ) -> Result<(), Outcome> {
        assert!(self.process.is_none(), "container {} already has a process", self.config.name);
        self.prepare(files.pids_max).and_then(|()| self.spawn(instance, files, volumes)).map_err(|error| {
            Outcome {
                exit_code: EXIT_CANNOT_CREATE,
                signal: 0,
                reason: Reason::ContainerCannotRun,
                message: bounded(format!("{error:#}")),
            }
        })
    }

    /// Sends a signal to the container's first process; SIGKILL there ends all of them.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process
            && let Err(error) = kill(process.pid, signal)
        {
            eprintln!("bulkhead-guest: {signal} to container {}: {error}", self.config.name);
        }
    }

    /// Asks the container's first process to end, in the way that the image wants.
    pub(crate) fn ask_to_end(&self) {
        let number = match self.config.stop_signal {
            0 => Signal::SIGTERM as i32,
            number => number,
        };
        if let Some(process) = &self.process
            && let Err(error) = sys::send_signal(process.pid, number)
        {
            eprintln!("bulkhead-guest: signal {number} to container {}: {error}", self.config.name);
        }
    }

    /// True if this is the container's first process.
    pub(crate) fn has_pid(&self, pid: Pid) -> bool {
        self.process.as_ref().is_some_and(|process| process.pid == pid)
    }

    /// What a command in it needs, while its own runs. Before that, what the container sees may still be the guest's.
    pub(crate) fn target(&self) -> Option<Target<'_>> {
        let (process, cgroup) = (self.process.as_ref()?, self.cgroup.as_ref()?);
        if process.exec.is_some() {
            return None;
        }
        Some(Target { config: &self.config, cgroup, pid: process.pid, stdio: &process.stdio })
    }

    /// Its input ends, if this is its process and a client that leaves takes it along (`stdinOnce`).
    /// Returns whether it is so.
    pub(crate) fn end_input(&mut self, pid: Pid) -> bool {
        let once = self.config.stdin_once;
        let process = self.process.as_mut().filter(|process| once && process.pid == pid);
        let Some(process) = process else { return false };
        if let Some(mut terminal) = process.stdio.stdin.take().filter(|_| self.config.tty) {
            // There is nobody to tell of a failure: a terminal without room has no reader.
            let _ = terminal.write_all(END_OF_TRANSMISSION);
        }
        true
    }

    /// What is to be done for a probe or hook.
    pub(crate) fn check(&self, task: Task) -> Option<&CheckConfig> {
        fn probe(probe: &Option<ProbeConfig>) -> Option<&CheckConfig> {
            probe.as_ref()?.check.as_ref()
        }
        match task {
            Task::Startup => probe(&self.config.startup_probe),
            Task::Readiness => probe(&self.config.readiness_probe),
            Task::Liveness => probe(&self.config.liveness_probe),
            Task::PostStart => self.config.post_start.as_ref(),
            Task::PreStop => self.config.pre_stop.as_ref(),
        }
    }

    /// CPU and memory since the first start; `None` before it.
    pub(crate) fn usage(&self) -> Option<UsageSample> {
        self.cgroup.as_ref().map(Cgroup::usage)
    }

    /// Other limits, for its group if there is one and for all that starts later.
    pub(crate) fn set_limits(&mut self, limits: &ContainerLimits) -> Result<()> {
        let config = &mut self.config;
        let wanted = (limits.cpu_millis, limits.memory_bytes, limits.cpu_request_millis);
        let had = (config.cpu_millis, config.memory_bytes, config.cpu_request_millis);
        if let Some(cgroup) = &self.cgroup {
            let changed = ContainerConfig {
                cpu_millis: limits.cpu_millis,
                memory_bytes: limits.memory_bytes,
                cpu_request_millis: limits.cpu_request_millis,
                ..ContainerConfig::default()
            };
            cgroup.limit(&changed).context("set the limits")?;
        }
        (config.cpu_millis, config.memory_bytes, config.cpu_request_millis) = wanted;
        self.is_restart_due |= wanted != had && limits.restart;
        Ok(())
    }

    /// Whether it is to be restarted for its limits; told once.
    pub(crate) fn take_restart(&mut self) -> bool {
        std::mem::take(&mut self.is_restart_due)
    }

    /// Why the pod must end, if the container has written more than it may (Kubernetes' `Evicted`).
    pub(crate) fn exceeds_its_storage(&self) -> Option<String> {
        let limit = Some(self.config.ephemeral_storage_bytes).filter(|limit| *limit > 0)?;
        let written = held(&self.root).filter(|_| self.is_mounted)?.saturating_sub(self.held_at_first?);
        (written > limit).then(|| {
            let name = &self.config.name;
            format!(
                "container {name} exceeded its ephemeral-storage limit of {limit} bytes: it wrote {written}"
            )
        })
    }

    /// Takes what the exec pipe holds.
    pub(crate) fn read_exec_report(&mut self) -> ExecReport {
        let Some(process) = &mut self.process else { return ExecReport::Pending };
        let Some(exec) = &mut process.exec else { return ExecReport::Pending };
        let ended = drain(exec, &mut process.exec_report, TEXT_LENGTH_MAX);
        match (ended, process.exec_report.is_empty()) {
            (false, _) => ExecReport::Pending,
            (true, true) => {
                process.exec = None;
                ExecReport::Executing
            }
            (true, false) => {
                process.exec = None;
                ExecReport::Failed
            }
        }
    }

    /// Moves a bounded piece of output from a pipe to the log. Returns false when there is nothing in it now, or never will be.
    pub(crate) fn read_output(&mut self, stream: LogStream, wall_ms: u64) -> bool {
        let Some(process) = &mut self.process else { return false };
        let slot = match stream {
            LogStream::Stdout => &mut process.stdio.stdout,
            LogStream::Stderr => &mut process.stdio.stderr,
        };
        let Some(pipe) = slot else { return false };
        let mut buffer = vec![0; LOG_DATA_LENGTH_MAX];
        match pipe.read(&mut buffer) {
            Ok(length) if length > 0 => {
                self.logs.push(process.instance, stream, wall_ms, &buffer[..length]);
                self.words.printed(&buffer[..length]);
                true
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Ok(_) | Err(_) => {
                *slot = None;
                false
            }
        }
    }

    /// The first process is gone: takes its last output and says how it ended. All other processes of the container
    /// died before it was reaped, because its pid namespace ended, so the pipes hold all there will ever be.
    pub(crate) fn finish(&mut self, status: WaitStatus, wall_ms: u64) -> (ExecReport, Outcome) {
        let executed = self.read_exec_report();
        for stream in [LogStream::Stdout, LogStream::Stderr] {
            // A pipe holds 64 KiB, a terminal less, and their writers are gone; but those that were given away, to a process of another
            // container.
            for _ in 0..LAST_READS_MAX {
                if !(self.has_unread_output(stream) && self.read_output(stream, wall_ms)) {
                    break;
                }
            }
        }
        let process = self.process.take().expect("only a container with a process ends");
        let oom_kills = self.cgroup.as_ref().map_or(0, Cgroup::oom_kills);
        let was_oom = oom_kills > process.oom_kills_before;
        let mut outcome = outcome(status, was_oom, &process.exec_report);
        let words = self.words.end(outcome.reason != Reason::Completed);
        if !words.is_empty() {
            outcome.message = bounded(words);
        }
        (executed, outcome)
    }

    /// Writes everything to the disk and lets go of it.
    pub(crate) fn unmount(&mut self) {
        if self.is_mounted
            && let Err(error) = umount(&self.root)
        {
            eprintln!("bulkhead-guest: unmount {}: {error}", self.root.display());
        }
    }

    fn has_unread_output(&self, stream: LogStream) -> bool {
        let process = self.process.as_ref();
        process.is_some_and(|p| {
            if stream == LogStream::Stdout { p.stdio.stdout.is_some() } else { p.stdio.stderr.is_some() }
        })
    }

    fn prepare(&mut self, pids_max: u32) -> Result<()> {
        if self.cgroup.is_none() {
            self.cgroup = Some(Cgroup::make_container(&self.config, pids_max).context("make the cgroup")?);
        }
        if !self.is_mounted {
            let disk = find_disk(&self.config.disk_serial)?;
            fs::create_dir_all(&self.root).with_context(|| format!("make {}", self.root.display()))?;
            mount(
                Some(&disk),
                &self.root,
                Some("ext4"),
                MsFlags::MS_NODEV | MsFlags::MS_NOATIME,
                None::<&str>,
            )
            .with_context(|| format!("mount disk {} ({})", self.config.disk_serial, disk.display()))?;
            self.is_mounted = true;
            // The image's file system is as large as the image. With the size that it has the container runs as well.
            if let Err(error) = crate::volumes::fill_disk(&self.root, &disk, 0) {
                eprintln!("bulkhead-guest: container {}: {error:#}", self.config.name);
            }
            self.held_at_first = self.held_at_first.or(held(&self.root));
        }
        Ok(())
    }

    fn spawn(&mut self, instance: u32, files: &PodFiles, volumes: &Volumes) -> Result<()> {
        let message = self.words.begin()?.map(Path::to_owned);
        let cgroup = self.cgroup.as_ref().expect("prepared");
        let folder = self.root.parent().expect("the root has a folder");
        let (ends, stdio) = stdio::make(&self.config, folder)?;
        let (exec, exec_writer) = pipe2(OFlag::O_CLOEXEC)?;
        set_nonblocking(&exec)?;
        let sandbox = Sandbox {
            config: &self.config,
            cgroup,
            root: &self.root,
            volumes,
            message: message.as_deref().map(|file| (file, &self.words.mount)),
            hostname: &files.hostname,
            hosts: &files.hosts,
            resolv_conf: &files.resolv_conf,
            sysctls: &files.sysctls,
            stdio: &stdio,
        };
        let oom_kills_before = cgroup.oom_kills();
        match sys::clone_container().context("make a process")? {
            CloneResult::Parent(pid) => {
                let exec = Some(File::from(exec));
                let exec_report = Vec::new();
                self.process =
                    Some(Process { pid, instance, exec, exec_report, stdio: ends, oom_kills_before });
                Ok(())
            }
            CloneResult::Child => run_child(exec_writer, || sandbox.enter()),
        }
    }
}

/// What a file system holds, in bytes.
fn held(root: &Path) -> Option<u64> {
    let stat = nix::sys::statvfs::statvfs(root).ok()?;
    Some((stat.blocks() - stat.blocks_free()) * stat.fragment_size())
}

/// The child: becomes something else, or says why it cannot and ends.
pub(crate) fn run_child(
    why: OwnedFd,
    enter: impl FnOnce() -> Result<std::convert::Infallible, SetupFailure>,
) -> ! {
    crate::IS_CONTAINER_CHILD.store(true, std::sync::atomic::Ordering::Relaxed);
    let SetupFailure { exit_code, message } = match enter() {
        Ok(never) => match never {},
        Err(failure) => failure,
    };
    // The pipe holds more than the bound, so the write neither blocks nor splits.
    let _ = File::from(why).write_all(bounded(message).as_bytes());
    sys::exit_now(exit_code)
}

fn outcome(status: WaitStatus, was_oom: bool, exec_report: &[u8]) -> Outcome {
    let (exit_code, signal) = match status {
        WaitStatus::Exited(_, code) => (code, 0),
        WaitStatus::Signaled(_, signal, _) => (128 + signal as i32, signal as i32),
        other => unreachable!("only ends are waited for: {other:?}"),
    };
    if !exec_report.is_empty() {
        let message = bounded(String::from_utf8_lossy(exec_report).into_owned());
        return Outcome { exit_code, signal, reason: Reason::ContainerCannotRun, message };
    }
    let killed = signal == Signal::SIGKILL as i32 || exit_code == 128 + Signal::SIGKILL as i32;
    let (reason, message) = match (was_oom && killed, exit_code) {
        (true, _) => (Reason::OomKilled, "it used more memory than its limit".to_owned()),
        (false, 0) => (Reason::Completed, String::new()),
        (false, _) => (Reason::Error, String::new()),
    };
    Outcome { exit_code, signal, reason, message }
}

/// Reads what is there, keeps at most `limit` bytes of it; true at the end of the pipe.
fn drain(pipe: &mut File, into: &mut Vec<u8>, limit: usize) -> bool {
    let mut buffer = [0; 1024];
    loop {
        match pipe.read(&mut buffer) {
            Ok(0) => return true,
            Ok(length) => into.extend_from_slice(&buffer[..length.min(limit.saturating_sub(into.len()))]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
}

pub(crate) fn set_nonblocking(fd: &OwnedFd) -> Result<()> {
    fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).with_context(|| format!("fd {}", fd.as_raw_fd()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: WaitStatus, was_oom: bool, report: &str, expected: (i32, i32, Reason)) {
        let got = outcome(status, was_oom, report.as_bytes());
        assert_eq!((got.exit_code, got.signal, got.reason), expected);
        assert!(got.message.starts_with(report));
    }

    #[test]
    fn outcomes() {
        let pid = Pid::from_raw(7);
        let exited = |code| WaitStatus::Exited(pid, code);
        let killed = |signal| WaitStatus::Signaled(pid, signal, false);
        check(exited(0), false, "", (0, 0, Reason::Completed));
        check(exited(0), true, "", (0, 0, Reason::Completed));
        check(exited(3), false, "", (3, 0, Reason::Error));
        check(exited(137), true, "", (137, 0, Reason::OomKilled));
        check(killed(Signal::SIGKILL), true, "", (137, 9, Reason::OomKilled));
        check(killed(Signal::SIGKILL), false, "", (137, 9, Reason::Error));
        check(killed(Signal::SIGTERM), false, "", (143, 15, Reason::Error));
        check(exited(127), false, "x: not found", (127, 0, Reason::ContainerCannotRun));
    }

    /// A process of another container may have been given the end of the pipe that the first one wrote to.
    #[test]
    fn a_container_ends_although_somebody_else_could_still_write_its_output() {
        let mut container = Container::new(ContainerConfig { name: "web".into(), ..Default::default() });
        let pid = Pid::from_raw(7);
        let mut give = |reader: OwnedFd| {
            set_nonblocking(&reader).expect("set");
            let stdio = Ends { stdin: None, stdout: Some(reader.into()), stderr: None };
            container.process = Some(Process {
                pid,
                instance: 0,
                exec: None,
                exec_report: vec![],
                stdio,
                oom_kills_before: 0,
            });
            let (_, outcome) = container.finish(WaitStatus::Exited(pid, 0), 1);
            assert_eq!((outcome.reason, container.process.is_none()), (Reason::Completed, true));
        };
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC).expect("made");
        let mut writer = File::from(writer);
        writer.write_all(b"last words").expect("written");
        give(reader);
        drop(writer);
        // And it may write without end.
        give(File::open("/dev/zero").expect("every Linux has it").into());
        let first = container.logs.next_message().expect("kept");
        assert!(format!("{first:?}").contains("offset: 0"), "{first:?}");
    }

    #[test]
    fn texts_are_cut_at_a_character() {
        assert_eq!(bounded("short".into()), "short");
        let long = bounded("ä".repeat(TEXT_LENGTH_MAX));
        assert_eq!(long.len(), TEXT_LENGTH_MAX);
        let odd = bounded(format!("x{}", "ä".repeat(TEXT_LENGTH_MAX)));
        assert_eq!(odd.len(), TEXT_LENGTH_MAX - 1);
    }
}
