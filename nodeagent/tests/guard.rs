//! The guard of a guest that must be unique, as a process, with a shell script for the guest.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use bulkhead_nodeagent_core::{Jail, Piece, QemuUser, SystemPath};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use rustix::time::{ClockId, clock_gettime};
use tempfile::TempDir;

/// Until something that must come is missed.
const DEADLINE: Timespec = Timespec { tv_sec: 60, tv_nsec: 0 };
/// A lease that does not end during a test, in milliseconds.
const LONG_MS: u64 = 3_600_000;
/// Runs until it is ended.
const FOREVER: &str = "exec sleep 1000";

fn boot_ms() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    u64::try_from(time.tv_sec * 1000 + time.tv_nsec / 1_000_000).expect("after the boot")
}

/// A guard, and the guest that it says it has started.
struct Guarded {
    dir: TempDir,
    guard: Child,
    word: String,
}

impl Guarded {
    fn start(lease_ms: u64, program: &str, script: &str) -> Self {
        Self::start_in(tempfile::tempdir().expect("a folder"), None, lease_ms, program, script)
    }

    fn start_in(dir: TempDir, jail: Option<&Jail>, lease_ms: u64, program: &str, script: &str) -> Self {
        let mut guard = Command::new(env!("CARGO_BIN_EXE_bulkhead-fence-guard"))
            .current_dir(dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the guard starts");
        let orders = serde_json::json!({
            "until_ms": boot_ms().saturating_add(lease_ms), "program": program, "args": ["-c", script], "jail": jail,
        });
        let mut stdin = guard.stdin.take().expect("piped");
        stdin.write_all(orders.to_string().as_bytes()).expect("it reads");
        drop(stdin);
        let mut word = String::new();
        BufReader::new(guard.stdout.take().expect("piped")).read_line(&mut word).expect("a line");
        Self { dir, guard, word: word.trim().to_owned() }
    }

    fn shell(lease_ms: u64, script: &str) -> Self {
        Self::start(lease_ms, "/bin/sh", script)
    }

    /// The guest's process, as something to wait for.
    fn guest(&self) -> OwnedFd {
        let pid = self.word.strip_prefix("started ").expect(&self.word).parse().expect("a number");
        pidfd_open(Pid::from_raw(pid).expect("not 0"), PidfdFlags::empty()).expect("it lives")
    }

    fn renew(&self, until_ms: u64) {
        let socket = UnixDatagram::unbound().expect("a socket");
        socket.send_to(&until_ms.to_le_bytes(), self.dir.path().join("fence.sock")).expect("it listens");
    }

    fn end(&mut self) -> ExitStatus {
        self.guard.wait().expect("ours")
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // The guest dies with it.
        let _ = self.guard.kill();
        let _ = self.guard.wait();
    }
}

fn await_end(process: &OwnedFd, what: &str) {
    let ended = poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&DEADLINE)).expect("polled");
    assert_eq!(ended, 1, "{what}");
}

fn await_file(path: &Path) {
    for _ in 0..6000 {
        if path.exists() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("{} never came", path.display());
}

#[test]
fn a_guest_dies_with_its_lease_and_nobody_needs_to_say_so() {
    let mut guarded = Guarded::shell(300, FOREVER);
    let guest = guarded.guest();
    await_end(&guest, "the guest outlives its lease");
    assert_eq!(guarded.end().signal(), Some(9), "the guard ends as its guest did");
}

#[test]
fn a_renewal_is_taken_from_anybody_who_knows_the_folder() {
    let lease_ms = 2000;
    let mut guarded = Guarded::shell(lease_ms, "sleep 4; echo > alive; exec sleep 1000");
    let guest = guarded.guest();
    guarded.renew(boot_ms() + LONG_MS);
    await_file(&guarded.dir.path().join("alive"));
    assert!(guarded.guard.try_wait().expect("ours").is_none(), "it lives although the first lease is over");
    // An older word changes nothing, rubbish neither.
    guarded.renew(boot_ms());
    let socket = UnixDatagram::unbound().expect("a socket");
    socket.send_to(b"junk", guarded.dir.path().join("fence.sock")).expect("it listens");
    let guard = Pid::from_child(&guarded.guard);
    kill_process(guard, Signal::TERM).expect("it lives");
    await_end(&guest, "the guest outlives its guard");
    assert_eq!(guarded.end().signal(), Some(15));
}

#[test]
fn a_guest_of_nobody_lives_until_it_is_a_pods_and_by_its_lease_from_then_on() {
    let mut guarded = Guarded::shell(u64::MAX, FOREVER);
    let guest = guarded.guest();
    guarded.renew(boot_ms() + 300);
    guarded.renew(boot_ms() + 200);
    await_end(&guest, "the guest outlives its first lease");
    assert_eq!(guarded.end().signal(), Some(9));
}

#[test]
fn a_guest_dies_with_its_guard() {
    let mut guarded = Guarded::shell(LONG_MS, FOREVER);
    let guest = guarded.guest();
    guarded.guard.kill().expect("killed");
    await_end(&guest, "the guest outlives its guard");
}

/// What the guest is shut in with.
fn jail(dir: &Path) -> Jail {
    let system = ["/usr", "/lib", "/lib64", "/bin"].map(|path| match std::fs::read_link(path) {
        Ok(says) => SystemPath::Link(path.to_owned(), says.display().to_string()),
        Err(_) => SystemPath::Folder(path.to_owned()),
    });
    let root = dir.join("root");
    std::fs::create_dir(&root).expect("a folder");
    let own = dir.join("own");
    std::fs::create_dir(&own).expect("a folder");
    Jail {
        pieces: Piece::ALL.into(),
        user: QemuUser::DEFAULT_RANGE.of(bulkhead_types::ObjectId(7)),
        groups: Vec::new(),
        root: root.display().to_string(),
        dir: own.display().to_string(),
        system: system.into(),
        files: [].into(),
        devices: Vec::new(),
        locked_bytes: None,
        tap: None,
        memory_fd: None,
    }
}

#[test]
fn a_guest_that_is_shut_in_as_another_user_dies_with_its_guard_and_with_its_lease() {
    for lease_ms in [LONG_MS, 2000] {
        let dir = tempfile::tempdir().expect("a folder");
        let jail = jail(dir.path());
        let mut guarded = Guarded::start_in(dir, Some(&jail), lease_ms, "/bin/sh", FOREVER);
        if guarded.word == "failed 1" {
            return eprintln!("skipped: this process may not shut anybody in; run the test as root");
        }
        let guest = guarded.guest();
        let pid = guarded.word.strip_prefix("started ").expect("checked").to_owned();
        let user = std::fs::metadata(format!("/proc/{pid}")).expect("it lives").uid();
        assert_eq!(Some(user), jail.user.map(|(uid, _)| uid));
        if lease_ms == LONG_MS {
            guarded.guard.kill().expect("killed");
        }
        await_end(&guest, "the guest outlives its guard, or its lease");
        assert_eq!(guarded.end().signal(), Some(9));
    }
}

#[test]
fn a_guard_ends_as_its_guest_does() {
    let mut guarded = Guarded::shell(LONG_MS, "exit 7");
    assert!(guarded.word.starts_with("started "), "{}", guarded.word);
    assert_eq!(guarded.end().code(), Some(7));
}

#[test]
fn nothing_starts_after_the_lease() {
    let mut guarded = Guarded::shell(0, "echo > started");
    assert_eq!(guarded.word, "over 0");
    assert_eq!(guarded.end().code(), Some(1));
    assert!(!guarded.dir.path().join("started").exists());
}

#[test]
fn a_program_that_is_missing_is_told_apart() {
    let mut guarded = Guarded::start(LONG_MS, "/nonexistent", "");
    assert_eq!(guarded.word, "failed 2");
    assert_eq!(guarded.end().code(), Some(1));
}

#[test]
fn a_clock_that_is_ahead_ends_a_lease_too() {
    // What the agent's tests do to its clock they do to its guards' as well.
    let offsets = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(offsets.path(), "0 0").expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_bulkhead-fence-guard"));
    let dir = tempfile::tempdir().expect("a folder");
    command.current_dir(dir.path()).env("BULKHEAD_TEST_CLOCK", offsets.path());
    let mut guard = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("started");
    let orders = serde_json::json!({
        "until_ms": boot_ms() + LONG_MS, "program": "/bin/sh", "args": ["-c", FOREVER],
    });
    let mut stdin = guard.stdin.take().expect("piped");
    stdin.write_all(orders.to_string().as_bytes()).expect("it reads");
    drop(stdin);
    let mut word = String::new();
    BufReader::new(guard.stdout.take().expect("piped")).read_line(&mut word).expect("a line");
    assert!(word.starts_with("started "), "{word}");
    std::fs::write(offsets.path(), format!("{LONG_MS} 0")).expect("written");
    assert_eq!(guard.wait().expect("ours").signal(), Some(9));
}
