//! Runs of the program `nft`, none of which is waited for without end.
//!
//! The kernel takes one set of rules at a time, and lets whoever brings another wait where nothing can end them. So a run that takes too
//! long is killed and said to have failed, whether it ends then or not; and as long as one that was killed is there, which may still
//! bring its rules, there is no other: rules never come after those that follow them.

use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// The packet filter's program.
const NFT: &str = "nft";
/// How long a run may take. Rules of a thousand guests take a second or two.
const RUN_WITHIN: Duration = Duration::from_secs(30);
/// How long what a run said may still come once it has ended: a process that it left may hold the pipe.
const WORDS_WITHIN: Duration = Duration::from_secs(1);
/// Most of what it says that is read, in bytes.
const WORDS_LENGTH_MAX: u64 = 64 << 10;

/// See the module.
#[derive(Debug)]
pub(super) struct Nft {
    program: PathBuf,
    within: Duration,
    /// One that was killed and has not ended.
    late: Mutex<Option<Child>>,
}

impl Default for Nft {
    fn default() -> Self {
        Self { program: NFT.into(), within: RUN_WITHIN, late: Mutex::default() }
    }
}

impl Nft {
    /// Runs it with these rules on its standard input. Blocks.
    ///
    /// # Errors
    /// What it says when it fails; [`io::ErrorKind::TimedOut`] when it takes too long, or an earlier one does: its rules may be in force
    /// or not.
    pub(super) fn run(&self, args: &[&str], rules: &str) -> io::Result<()> {
        // One at a time, as the kernel takes them.
        let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(child) = late.as_mut() {
            if child.try_wait()?.is_none() {
                let message = format!("an earlier nft (process {}) was killed and does not end", child.id());
                return Err(io::Error::new(io::ErrorKind::TimedOut, message));
            }
            *late = None;
        }
        let mut child = self.start(args)?;
        let words = talk(&mut child, rules);
        if !ends_within(&child, self.within)? {
            child.kill()?;
            let message =
                format!("nft (process {}) did not end within {:?} and was killed", child.id(), self.within);
            // One that ends at once leaves nothing behind.
            if !ends_within(&child, WORDS_WITHIN)? || child.try_wait()?.is_none() {
                *late = Some(child);
            }
            return Err(io::Error::new(io::ErrorKind::TimedOut, message));
        }
        judge(child.wait()?, &words.recv_timeout(WORDS_WITHIN).unwrap_or_default())
    }

    fn start(&self, args: &[&str]) -> io::Result<Child> {
        let mut command = Command::new(&self.program);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                io::Error::new(error.kind(), "nft is missing; run: apt-get install nftables")
            }
            _ => error,
        })
    }
}

/// Gives it its rules and takes what it says, beside whoever waits for its end.
fn talk(child: &mut Child, rules: &str) -> Receiver<Vec<u8>> {
    let (mut stdin, stderr) =
        (child.stdin.take().expect("it is piped"), child.stderr.take().expect("it is piped"));
    let (rules, (said, words)) = (rules.to_owned(), channel());
    std::thread::spawn(move || {
        // One that does not read it says why.
        let _ = stdin.write_all(rules.as_bytes());
        drop(stdin);
        let mut text = Vec::new();
        let _ = stderr.take(WORDS_LENGTH_MAX).read_to_end(&mut text);
        // Nobody may wait any more.
        let _ = said.send(text);
    });
    words
}

/// Whether it ends in this time; it is not reaped then.
fn ends_within(child: &Child, within: Duration) -> io::Result<bool> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a child is not 0");
    // Nobody reaps it but this thread, so the id is its own.
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let until = Instant::now() + within;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let seconds = i64::try_from(left.as_secs()).unwrap_or(i64::MAX);
        let left = Timespec { tv_sec: seconds, tv_nsec: i64::from(left.subsec_nanos()) };
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&left)) {
            Err(rustix::io::Errno::INTR) => {}
            ready => return Ok(ready? > 0),
        }
    }
}

fn judge(status: ExitStatus, said: &[u8]) -> io::Result<()> {
    if status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(said);
    let said: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).take(2).collect();
    let said = format!("nft ended with {status}: {}", said.join(" "));
    match said.contains("Operation not permitted") {
        true => Err(io::Error::new(io::ErrorKind::PermissionDenied, said)),
        false => Err(io::Error::other(said)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::OpenOptionsExt as _;
    use std::path::Path;

    use super::*;

    /// More than a pipe holds.
    const RULES_LENGTH: usize = 1 << 20;

    /// A program that does this instead of setting rules.
    fn stand_in(dir: &Path, script: &str, within: Duration) -> Nft {
        let program = dir.join(format!("nft-{}", script.len()));
        let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o700).open(&program);
        write!(file.expect("made"), "#!/bin/sh\n{script}\n").expect("written");
        Nft { program, within, late: Mutex::default() }
    }

    #[test]
    fn a_run_that_does_not_end_is_killed_and_said_to_have_failed() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let fifo = dir.path().join("never");
        assert!(Command::new("mkfifo").arg(&fifo).status().expect("mkfifo runs").success());
        // It reads no rules, and waits for what nobody writes.
        let script = format!("echo $$ >{}/pid; exec cat <{}", dir.path().display(), fifo.display());
        let nft = stand_in(dir.path(), &script, Duration::from_millis(300));
        for _ in 0..2 {
            let error = nft.run(&["-f", "-"], &"x".repeat(RULES_LENGTH)).expect_err("it hangs");
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            assert!(error.to_string().ends_with("did not end within 300ms and was killed"), "{error}");
            assert!(nft.late.lock().expect("whole").is_none(), "it ended");
        }
    }

    #[test]
    fn while_one_that_was_killed_is_there_no_other_brings_rules() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let nft = stand_in(dir.path(), "cat >/dev/null", RUN_WITHIN);
        // It stands for one that the kernel does not let go.
        let stuck = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it runs");
        *nft.late.lock().expect("whole") = Some(stuck);
        for _ in 0..2 {
            let error = nft.run(&[], "add table x").expect_err("an earlier one is there");
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            assert!(error.to_string().contains("was killed and does not end"), "{error}");
        }
        {
            let mut late = nft.late.lock().expect("whole");
            let stuck = late.as_mut().expect("it is there");
            drop(stuck.stdin.take());
            assert!(ends_within(stuck, RUN_WITHIN).expect("watched"));
        }
        nft.run(&[], &"x".repeat(RULES_LENGTH)).expect("it has ended");
    }

    #[test]
    fn what_it_says_is_why_it_failed() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let check = |script: &str, kind: io::ErrorKind, said: &str| {
            let error = stand_in(dir.path(), script, RUN_WITHIN).run(&[], "x").expect_err("it fails");
            assert_eq!((error.kind(), error.to_string().as_str()), (kind, said));
        };
        let failed = "nft ended with exit status: 1: Error: no such table";
        check("echo Error: no such table >&2; exit 1", io::ErrorKind::Other, failed);
        let denied = "nft ended with exit status: 2: Operation not permitted";
        check("echo; echo Operation not permitted >&2; exit 2", io::ErrorKind::PermissionDenied, denied);
        let missing = Nft { program: "/nonexistent/nft".into(), ..Nft::default() };
        assert_eq!(missing.run(&[], "").expect_err("missing").kind(), io::ErrorKind::NotFound);
    }
}
