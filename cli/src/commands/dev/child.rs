//! A child process of this program, its output in a file.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Command;

/// How long a child may take to end before it is killed.
const END_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) struct Child {
    pub(super) name: String,
    pub(super) address: String,
    pub(super) log: PathBuf,
    pid: u32,
    process: tokio::process::Child,
    ended: Option<ExitStatus>,
}

impl Child {
    /// Starts this program with `arguments`.
    pub(super) fn start(
        name: String,
        address: String,
        arguments: &[String],
        dir: &Path,
    ) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let log = dir.join(format!("{name}.log"));
        let open = || OpenOptions::new().create(true).append(true).open(&log);
        let output = open().with_context(|| format!("cannot open {}", log.display()))?;
        let errors = output.try_clone().with_context(|| format!("cannot open {}", log.display()))?;
        let process = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            // Ctrl-C is for the parent, which ends its children in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let pid = process.id().context("the child ended before it began")?;
        Ok(Self { name, address, log, pid, process, ended: None })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns when the child ends, with words on how; never again after that.
    pub(super) async fn exited(&mut self) -> String {
        if self.ended.is_some() {
            return std::future::pending().await;
        }
        match self.process.wait().await {
            Ok(status) => {
                self.ended = Some(status);
                format!("{} ended: {status}; its log is {}", self.name, self.log.display())
            }
            Err(error) => format!("{} cannot be waited for: {error}", self.name),
        }
    }

    /// Asks the child to end, and kills it when it does not.
    pub(super) async fn end(&mut self) {
        if self.ended.is_some() {
            return;
        }
        let asked = i32::try_from(self.pid).map(|pid| kill(Pid::from_raw(pid), Signal::SIGTERM));
        if !matches!(asked, Ok(Ok(()))) {
            eprintln!("{}: cannot be asked to end", self.name);
        }
        if let Ok(Ok(status)) = tokio::time::timeout(END_TIMEOUT, self.process.wait()).await {
            eprintln!("{} ended: {status}", self.name);
            return;
        }
        eprintln!("{} does not end within {END_TIMEOUT:?}: killing it", self.name);
        if let Err(error) = self.process.kill().await {
            eprintln!("{}: {error}", self.name);
        }
    }
}

/// Called by a child that must not outlive its parent, whatever happens to that.
pub(crate) fn end_with_parent() -> anyhow::Result<()> {
    let parent = nix::unistd::getppid();
    nix::sys::prctl::set_pdeathsig(Signal::SIGTERM).context("cannot ask for a signal at the parent's end")?;
    // The parent may have ended just before.
    anyhow::ensure!(nix::unistd::getppid() == parent, "the parent has ended");
    Ok(())
}
