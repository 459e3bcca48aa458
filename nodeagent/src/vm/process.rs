//! QEMU's process: started, found again, awaited, killed.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use bulkhead_nodeagent_core::{
    Jail, Processes as _, guarded_folder, guards, guests, pid_file_of, started_at_ms,
};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::process::{Child, Command};

use super::host_processes::HostProcesses;
use super::jail::MARK;
use super::session;
use crate::steps::{Step, passed};

/// File of the process id, in the instance's folder. Its whole path is an argument of QEMU and identifies the process.
pub(crate) const PID_FILE: &str = "qemu.pid";
/// What QEMU itself said, in the instance's folder.
pub(crate) const QEMU_LOG: &str = "qemu.log";

/// A process that was started by this agent, or by its last life.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    /// A process id can be used again; this cannot.
    pidfd: OwnedFd,
    /// Ours to reap: it, or its guard, which ends as it did.
    child: Option<Child>,
}

impl Process {
    /// Starts a program in `dir`, shut in, in its own session, with no input; what it says goes to a file there.
    pub(crate) fn start(launch: &Launch, dir: &Path) -> io::Result<Self> {
        let log = File::create(dir.join(QEMU_LOG))?;
        let mut command = Command::new(&launch.program);
        command
            .args(&launch.args)
            .env_clear()
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(Stdio::from(log));
        session::detach(&mut command);
        session::confine(command.as_std_mut(), launch.jail.steps().map_err(io::Error::other)?);
        let mut child = command.spawn()?;
        passed(Step::QemuForked);
        let pid =
            child.id().and_then(|id| i32::try_from(id).ok()).expect("a child that was not awaited has an id");
        // Nobody reaps it but us, so its id cannot be used again before this.
        match open(pid) {
            Ok(pidfd) => Ok(Self { pid, pidfd, child: Some(child) }),
            Err(error) => {
                // A guest that nobody watches must not be.
                let _ = child.start_kill();
                Err(error)
            }
        }
    }

    /// The guest of a guard that was just started, which tells how it ended.
    pub(crate) fn guarded(pid: i32, mut guard: Child, dir: &Path) -> io::Result<Self> {
        // The guard reaps its guest: the id may be another process's by now.
        let is_it = |pidfd| match has_pid_file(pid, &dir.join(PID_FILE)) {
            true => Ok(pidfd),
            false => Err(io::Error::other("the guest has ended already")),
        };
        match open(pid).and_then(is_it) {
            Ok(pidfd) => Ok(Self { pid, pidfd, child: Some(guard) }),
            Err(error) => {
                // Its guest ends with it.
                let _ = guard.start_kill();
                Err(error)
            }
        }
    }

    /// Finds the process that was started with this folder, if it lives: one of a user that may be its own. (A hostile process can
    /// change what its command line seems to be, but not its user.)
    pub(crate) fn find(dir: &Path, is_user: impl Fn(u32) -> bool) -> io::Result<Option<Self>> {
        let wanted = dir.join(PID_FILE);
        for (pid, path) in guests(&HostProcesses)? {
            if Path::new(&path) != wanted || !HostProcesses.user(pid).is_ok_and(&is_user) {
                continue;
            }
            let Ok(pidfd) = open(pid) else { continue };
            // It may have ended, and its id be used by another process, before the descriptor was open.
            if has_pid_file(pid, &wanted) {
                return Ok(Some(Self { pid, pidfd, child: None }));
            }
        }
        Ok(None)
    }

    /// Waits until it has ended, and leaves it to be reaped by [`Self::wait`].
    pub(crate) async fn ended(&self) -> io::Result<()> {
        self.watch()?.await
    }

    /// The same from elsewhere.
    pub(crate) fn watch(&self) -> io::Result<impl Future<Output = io::Result<()>> + Send + use<>> {
        let pidfd = session::register(self.pidfd.try_clone()?)?;
        Ok(async move { pidfd.readable().await.map(drop) })
    }

    /// A handle that can kill the process from elsewhere.
    pub(crate) fn killer(&self) -> io::Result<Killer> {
        Ok(Killer { pidfd: self.pidfd.try_clone()? })
    }

    /// Waits until it has ended and, if it is ours, reaps it. Says how it ended.
    pub(crate) async fn wait(self) -> String {
        if let Some(mut child) = self.child {
            return match child.wait().await {
                Ok(status) => status.to_string(),
                Err(error) => format!("unknown status ({error})"),
            };
        }
        let unknown = || "unknown status (the agent was restarted meanwhile)".to_owned();
        match session::register(self.pidfd) {
            Ok(pidfd) => pidfd.readable().await.map_or_else(|error| error.to_string(), |_| unknown()),
            Err(error) => format!("unknown status ({error})"),
        }
    }

    /// When it started, milliseconds since the epoch; 0 when it has ended.
    pub(crate) fn started_at_ms(&self) -> u64 {
        let stat = HostProcesses.stat(self.pid);
        stat.map_or(0, |stat| started_at_ms(stat, crate::clock::boot_ms(), crate::clock::unix_ms()))
    }
}

/// A program and where it is shut in; also the orders of a guard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Launch {
    /// From the root.
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) jail: Jail,
}

/// Which step of its confinement a process that was to run in `dir` did not get over, if it was one.
pub(crate) fn confinement_failure(dir: &Path) -> Option<String> {
    let said = fs::read_to_string(dir.join(QEMU_LOG)).ok()?;
    said.lines().find(|line| line.starts_with(MARK)).map(str::to_owned)
}

/// Kills a process.
#[derive(Debug)]
pub(crate) struct Killer {
    pidfd: OwnedFd,
}

impl Killer {
    /// SIGKILL; one that has ended is fine.
    pub(crate) fn kill(&self) -> io::Result<()> {
        match pidfd_send_signal(&self.pidfd, Signal::KILL) {
            Err(rustix::io::Errno::SRCH) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// The guards whose guests' folders lie under `dir`, with those folders: such a process works in the folder that its last argument
/// names. One that an agent had just started when it was killed may not have started its guest yet.
pub(crate) fn guards_below(dir: &Path) -> io::Result<Vec<(PathBuf, Process)>> {
    let mut found = Vec::new();
    for (pid, folder) in guards(&HostProcesses)? {
        if !Path::new(&folder).starts_with(dir) {
            continue;
        }
        let Ok(pidfd) = open(pid) else { continue };
        if guarded_folder(&HostProcesses, pid).as_ref() == Some(&folder) {
            found.push((folder.into(), Process { pid, pidfd, child: None }));
        }
    }
    Ok(found)
}

/// Every QEMU process whose pid file lies under `dir`.
pub(crate) fn find_below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let all = guests(&HostProcesses)?.into_iter().map(|(_, path)| PathBuf::from(path));
    Ok(all.filter(|path| path.starts_with(dir)).collect())
}

fn open(pid: i32) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(pid).ok_or_else(|| io::Error::other("process id 0"))?;
    Ok(pidfd_open(pid, PidfdFlags::NONBLOCK)?)
}

/// Whether a process has this pid file, as its arguments say.
fn has_pid_file(pid: i32, path: &Path) -> bool {
    pid_file_of(&HostProcesses, pid).is_some_and(|found| Path::new(&found) == path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program that is not shut in.
    fn launch(program: &str, args: Vec<String>, dir: &Path) -> Launch {
        let jail = Jail {
            pieces: [].into(),
            user: None,
            groups: Vec::new(),
            root: String::new(),
            dir: dir.display().to_string(),
            system: Vec::new(),
            files: [].into(),
            devices: Vec::new(),
            locked_bytes: None,
            tap: None,
            memory_fd: None,
        };
        Launch { program: program.into(), args, jail }
    }

    /// Stands for QEMU: stays, and has its arguments. It starts no process of its own, because a child has the
    /// arguments of its parent until it executes a program.
    fn start(dir: &Path) -> Process {
        let script = "exec 2>&1; echo started; kill -STOP $$";
        let pidfile = dir.join(PID_FILE).display().to_string();
        let args = ["-c", script, "fake", "-pidfile", &pidfile].map(str::to_owned);
        Process::start(&launch("/bin/sh", args.into(), dir), dir).expect("started")
    }

    #[tokio::test]
    async fn a_process_is_found_by_its_folder_and_killed() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let process = start(dir.path());
        let anybody = |_| true;
        let found = Process::find(dir.path(), anybody).expect("scanned").expect("found");
        assert!(Process::find(dir.path(), |_| false).expect("scanned").is_none(), "of another user");
        assert_eq!(found.pid, process.pid);
        let age_ms = crate::clock::unix_ms().abs_diff(found.started_at_ms());
        assert!(age_ms < 3_600_000, "{age_ms}");
        assert_eq!(find_below(dir.path()).expect("scanned").len(), 1);
        found.killer().expect("handle").kill().expect("killed");
        assert_eq!(process.wait().await, "signal: 9 (SIGKILL)");
        assert!(found.wait().await.contains("restarted"));
        assert!(Process::find(dir.path(), anybody).expect("scanned").is_none());
    }

    #[tokio::test]
    async fn a_guard_is_found_by_the_folder_that_it_works_in_and_nobody_else_is() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let data = fs::canonicalize(dir.path()).expect("there");
        let folder = data.join("pods/7/1");
        fs::create_dir_all(&folder).expect("made");
        let start = |works_in: &Path| {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", "kill -STOP $$", "guard"]).arg(&folder).current_dir(works_in);
            command.kill_on_drop(true).spawn().expect("started")
        };
        let (mut guard, _other) = (start(&folder), start(&data));
        let mut found = guards_below(&data.join("pods")).expect("scanned");
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(guards_below(&data.join("elsewhere")).expect("scanned").is_empty());
        // Its folder may be gone by then.
        fs::remove_dir(&folder).expect("removed");
        assert_eq!(guards_below(&data.join("pods")).expect("scanned").len(), 1);
        let (path, process) = found.remove(0);
        assert_eq!(path, folder);
        process.killer().expect("handle").kill().expect("killed");
        guard.wait().await.expect("ours");
        assert!(guards_below(&data.join("pods")).expect("scanned").is_empty());
    }

    #[tokio::test]
    async fn a_process_has_its_own_session() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let process = start(dir.path());
        let pid = Pid::from_raw(process.pid).expect("not 0");
        assert_eq!(rustix::process::getsid(Some(pid)).expect("it lives"), pid);
        process.killer().expect("handle").kill().expect("killed");
        process.wait().await;
    }

    #[test]
    fn a_missing_program_is_told_apart() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let runtime = tokio::runtime::Runtime::new().expect("runtime");
        let _guard = runtime.enter();
        let launch = launch("/nonexistent", Vec::new(), dir.path());
        let error = Process::start(&launch, dir.path()).expect_err("missing");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
