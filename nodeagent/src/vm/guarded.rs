//! Guests that must be unique, as the agent sees them: started through a guard, which is told of every renewal.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixDatagram;
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::process::{Process, QEMU_LOG};
use super::session;
use crate::guard::{FENCE_SOCKET, Orders, Word};
use crate::steps::{Step, passed};

/// How long a guard may take from its start to its first word, which it says when it has started one process.
const WORD_TIMEOUT: Duration = Duration::from_secs(60);
/// How long what was killed of a start that is refused may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a guest does not run under a guard.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The lease is over.
    LeaseOver,
    /// The guest's program cannot be run.
    Guest(io::Error),
    /// The guard cannot be run, or said nothing in time.
    Guard(io::Error),
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::LeaseOver => f.write_str("the node's lease is over"),
            Self::Guest(error) => write!(f, "QEMU cannot be run: {error}"),
            Self::Guard(error) => write!(f, "its guard fails: {error}"),
        }
    }
}

/// Starts a program under a guard in `dir`, in a session of its own; what both say goes to a file there. `guard` is the
/// program that becomes one, with what it needs to be told for that.
pub(crate) async fn start(guard: &[OsString], orders: &Orders, dir: &Path) -> Result<Process, Refusal> {
    start_until(guard, orders, dir, tokio::time::sleep(WORD_TIMEOUT)).await
}

/// [`start`]: once it is late, a guard that said nothing is killed, with its guest.
async fn start_until(
    guard: &[OsString],
    orders: &Orders,
    dir: &Path,
    late: impl Future<Output = ()>,
) -> Result<Process, Refusal> {
    let (program, args) = guard.split_first().ok_or_else(|| Refusal::Guard(io::Error::other("no guard")))?;
    let log = File::create(dir.join(QEMU_LOG)).map_err(Refusal::Guard)?;
    let mut command = Command::new(program);
    command
        .args(args)
        .arg(dir)
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::from(log));
    session::detach(&mut command);
    if let Some(memory) = orders.jail.as_ref().and_then(|jail| jail.memory_fd) {
        session::inherit(&mut command, memory);
    }
    let mut child = command.spawn().map_err(Refusal::Guard)?;
    passed(Step::GuardForked);
    let orders = serde_json::to_vec(orders).map_err(|error| Refusal::Guard(error.into()))?;
    let mut stdin = child.stdin.take().expect("it is piped");
    let words = child.stdout.take().expect("it is piped");
    let mut line = String::new();
    let talk = async {
        // One that does not read them says why, or nothing.
        let _ = stdin.write_all(&orders).await;
        drop(stdin);
        passed(Step::GuardOrdered);
        BufReader::new(words).read_line(&mut line).await
    };
    let read = tokio::select! {
        biased;
        read = talk => read,
        () = late => {
            end(child, dir).await;
            let silent = "it said nothing in time, and was killed";
            return Err(Refusal::Guard(io::Error::new(io::ErrorKind::TimedOut, silent)));
        }
    };
    match (Word::parse(&line), read) {
        (Some(Word::Started(pid)), _) => Process::guarded(pid, child, dir).map_err(Refusal::Guard),
        (Some(Word::Over), _) => Err(Refusal::LeaseOver),
        (Some(Word::Failed(0)), _) => Err(Refusal::Guest(io::Error::other("it cannot be started"))),
        (Some(Word::Failed(number)), _) => Err(Refusal::Guest(io::Error::from_raw_os_error(number))),
        (None, Err(error)) => Err(Refusal::Guard(error)),
        (None, Ok(_)) => Err(Refusal::Guard(io::Error::other("it ended without a word"))),
    }
}

/// Ends a guard, and the guest that it may have started: that dies with it, but not before it.
async fn end(mut guard: Child, dir: &Path) {
    let guest = Process::find(dir, |_| true).ok().flatten();
    let mut kill =
        || guest.as_ref().map_or(Ok(()), |guest| guest.killer()?.kill()).and_then(|()| guard.start_kill());
    if let Err(error) = kill() {
        tracing::error!(dir = %dir.display(), %error, "a guard that says nothing cannot be killed");
    }
    let ended = async {
        let _ = guard.wait().await;
        if let Some(guest) = guest {
            guest.wait().await;
        }
    };
    if tokio::time::timeout(END_TIMEOUT, ended).await.is_err() {
        // It is killed once it leaves the kernel; it starts nothing any more.
        tracing::error!(dir = %dir.display(), "a guard that said nothing was killed, and does not end");
    }
}

/// Tells a guest's guard of every renewal until nobody listens any more. A guest without a guard has nobody to tell.
pub(crate) async fn renew(dir: PathBuf, mut lease_until_ms: watch::Receiver<u64>) {
    if !dir.join(FENCE_SOCKET).exists() {
        return;
    }
    lease_until_ms.mark_changed();
    while lease_until_ms.changed().await.is_ok() {
        let until_ms = *lease_until_ms.borrow_and_update();
        if let Err(error) = tell(&dir, until_ms).await {
            // The guard is gone, and its guest with it.
            tracing::debug!(dir = %dir.display(), %error, "a guard is not told of the lease");
        }
    }
}

/// A guest that was nobody's is a pod's now, which must be unique: from here on it lives no longer than this lease and its renewals. The
/// word is in the guard's socket when this returns, and the guard takes it whatever becomes of the agent.
pub(crate) async fn bind(dir: &Path, until_ms: u64) -> io::Result<()> {
    tell(dir, until_ms).await
}

/// A guest that was nobody's is a pod's now that need not be unique: no lease holds for it, whoever renews one.
pub(crate) fn let_go(dir: &Path) -> io::Result<()> {
    crate::disk::remove_file(&dir.join(FENCE_SOCKET))
}

async fn tell(dir: &Path, until_ms: u64) -> io::Result<()> {
    // Through the folder's descriptor, because a socket's path is at most 107 bytes long (unix(7)).
    let dir = rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(FENCE_SOCKET);
    UnixDatagram::unbound()?.send_to(&until_ms.to_le_bytes(), path).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::process::{find_below, guards_below};
    use super::*;

    fn orders() -> Orders {
        Orders { until_ms: 1, program: "/nonexistent".into(), args: vec!["more".repeat(100_000)], jail: None }
    }

    fn script(text: &str) -> [OsString; 3] {
        ["/bin/sh", "-c", text].map(OsString::from)
    }

    async fn refused(text: &str, dir: &Path, late: impl Future<Output = ()>) -> String {
        start_until(&script(text), &orders(), dir, late).await.expect_err("no guest").to_string()
    }

    #[tokio::test]
    async fn a_guard_that_says_nothing_is_killed_with_its_guest() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let dir = std::fs::canonicalize(dir.path()).expect("there").join("1");
        std::fs::create_dir(&dir).expect("made");
        // It reads no orders, which fit into no pipe, and hangs once its guest hangs.
        let (begun, hangs) = (dir.join("begun"), dir.join("hangs"));
        let made = std::process::Command::new("mkfifo").args([&begun, &hangs]).status().expect("mkfifo runs");
        assert!(made.success());
        let text = r#"
            /bin/sh -c 'echo > begun; kill -STOP $$' fake -pidfile "$0/qemu.pid" &
            read -r word < begun
            echo > hangs
            kill -STOP $$
        "#;
        let late = async {
            let read = tokio::task::spawn_blocking(move || std::fs::read(hangs));
            read.await.expect("no panic").expect("it is written");
        };
        let why = refused(text, &dir, late).await;
        assert_eq!(why, "its guard fails: it said nothing in time, and was killed");
        assert!(find_below(&dir).expect("scanned").is_empty());
        assert!(guards_below(&dir).expect("scanned").is_empty());
    }

    #[tokio::test]
    async fn a_guard_that_speaks_is_not_late() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let never = std::future::pending;
        assert_eq!(refused("echo over 0", dir.path(), never()).await, "the node's lease is over");
        let nothing = refused("exit 0", dir.path(), never()).await;
        assert_eq!(nothing, "its guard fails: it ended without a word");
    }
}
