//! Processes that a test starts, and ends again by their id.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait;

/// How long a process may take to end when asked to.
const END_SECONDS: u64 = 90;

/// The program under test: `<target dir>/debug/bulkhead`, beside the folder of the test's own executable.
///
/// # Panics
/// When it is not built.
#[must_use]
pub fn bulkhead() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let profile = test.parent().and_then(Path::parent).expect("<target dir>/debug/deps/<test>");
    let program = profile.join("bulkhead");
    assert!(program.is_file(), "{} is missing; remedy: cargo build -p bulkhead-cli", program.display());
    program
}

/// A program on the search path.
#[must_use]
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// The running processes whose command line has all of `parts`, this one left out.
#[must_use]
pub fn pids_with(parts: &[&str]) -> Vec<i32> {
    let own = std::process::id().to_string();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let names = entries.flatten().filter_map(|e| e.file_name().into_string().ok());
    names
        .filter(|name| *name != own)
        .filter_map(|name| {
            let pid = name.parse().ok()?;
            let line = fs::read(format!("/proc/{name}/cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).into_owned();
            parts.iter().all(|part| line.contains(part)).then_some(pid)
        })
        .collect()
}

/// A child process with its output in a file.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    /// Where its own output begins: before it is what its predecessors of the same name printed.
    begin: usize,
}

impl Process {
    /// Starts `command`; its output goes to the end of `<dir>/<name>.log`.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(dir: &Path, name: &str, command: &mut Command) -> Self {
        let log = dir.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).expect("a log file");
        let begin = usize::try_from(file.metadata().expect("its length").len()).expect("a small log");
        let other = file.try_clone().expect("the same log file");
        let child = command.stdin(Stdio::null()).stdout(file).stderr(other).spawn();
        let child = child.unwrap_or_else(|e| panic!("{name} cannot be started: {e}"));
        Self { name: name.to_owned(), child, log, begin }
    }

    /// Its id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far.
    #[must_use]
    pub fn output(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(bytes.get(self.begin..).unwrap_or_default()).into_owned()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Waits until it has ended by itself.
    ///
    /// # Panics
    /// When it does not within `seconds`.
    pub fn wait(&mut self, seconds: u64) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        let log = self.log.clone();
        let otherwise = move || format!("; its output:\n{}", tail(&log));
        wait::until_or(&what, seconds, || self.ended(), otherwise)
    }

    /// Sends a signal, if it still runs.
    pub fn signal(&mut self, signal: Signal) {
        if self.ended().is_none() {
            // A process that ends meanwhile stays a zombie until it is waited for: the id is still its own.
            let _ = kill(Pid::from_raw(self.pid().cast_signed()), signal);
        }
    }

    /// Ends it with SIGKILL.
    pub fn kill(mut self) {
        self.signal(Signal::SIGKILL);
        self.wait(END_SECONDS);
    }

    /// Ends it with SIGTERM.
    ///
    /// # Panics
    /// When it does not end, or not well.
    pub fn terminate(mut self) {
        self.signal(Signal::SIGTERM);
        let status = self.wait(END_SECONDS);
        assert!(status.success(), "{} ended with {status}:\n{}", self.name, tail(&self.log));
    }

    /// Waits for its end and gives the exit code and all output.
    ///
    /// # Panics
    /// When it does not end in time, or by a signal.
    pub fn refused(mut self, seconds: u64) -> (i32, String) {
        let status = self.wait(seconds);
        assert_eq!(status.signal(), None, "{} died of a signal:\n{}", self.name, tail(&self.log));
        (status.code().expect("not by a signal"), self.output())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.child.try_wait().ok().flatten().is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The last lines of a file.
fn tail(path: &Path) -> String {
    const LINES: usize = 40;
    let text = fs::read(path).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
