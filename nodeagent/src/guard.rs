//! The guard's process: parent of one guest that must be unique, which it ends with the node's lease.
//!
//! ```text
//!  agent ─ starts ─► guard ─ starts ─► QEMU
//!     ▲                │  ▲              │ dies with its parent, by the kernel's hand (PR_SET_PDEATHSIG)
//!     └── first line ──┘  └ fence.sock ◄─┼─ renewals, from this agent or the next one
//! ```
//!
//! It outlives the agent, and ends with its guest, as its guest did. A guest without a guard cannot be: who kills the
//! guard kills the guest. It holds no lock, reads no file and knows no server; when it decides is in the core
//! ([`bulkhead_nodeagent_core::Guard`]), on the clock since boot, which goes on while the machine sleeps.

use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use bulkhead_nodeagent_core::{Guard, Jail};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use serde::{Deserialize, Serialize};

use crate::clock;
use crate::vm::session;

/// The socket on which a guard is told of renewals, in the instance's folder: until when, eight bytes, little-endian.
pub(crate) const FENCE_SOCKET: &str = "fence.sock";
/// The clock is looked at this often although the timer is silent: what a test adds to it moves no timer.
const LOOK: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// The kernel takes this one last when memory runs out (proc(5)).
const OOM_SCORE_ADJ: &str = "-1000";
/// How eager the scheduler is to run it (setpriority(2)).
const NICE: i32 = -20;

/// The guard's first line: what became of the guest's start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// It runs, as this process.
    Started(i32),
    /// The lease is over: nothing was started.
    Over,
    /// The guest's program could not be run: the operating system's number of the reason, 0 for another one.
    Failed(i32),
}

impl Word {
    fn line(&self) -> String {
        match self {
            Self::Started(pid) => format!("started {pid}\n"),
            Self::Over => "over 0\n".to_owned(),
            Self::Failed(number) => format!("failed {number}\n"),
        }
    }

    /// What a line says; `None` when it is none of a guard's.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (word, number) = line.trim_end().split_once(' ')?;
        let number = number.parse().ok()?;
        match word {
            "started" => Some(Self::Started(number)),
            "over" => Some(Self::Over),
            "failed" => Some(Self::Failed(number)),
            _ => None,
        }
    }
}

/// What a guard is told on its standard input, as JSON: until when the lease runs, and the guest's program with its
/// arguments. (On its command line they would make it look like the guest.)
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Orders {
    pub(crate) until_ms: u64,
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    /// Where the guest is shut in. The guard is not: it must be able to end the guest.
    #[serde(default)]
    pub(crate) jail: Option<Jail>,
}

/// Runs a guard until its guest has ended, in the guest's folder, and ends as the guest did. Its orders come on standard
/// input, standard output goes to the agent, standard error to the guest's log. Agents start it; arguments, such as the
/// guest's folder, are for people.
#[must_use]
pub fn run_guard() -> ExitCode {
    let orders: Orders = match serde_json::from_reader(io::stdin().lock()) {
        Ok(orders) => orders,
        Err(error) => {
            eprintln!("no orders: {error}; a guard is started by an agent, not by hand");
            return ExitCode::from(2);
        }
    };
    match guard(&orders) {
        Ok(Some(status)) => end_like(status),
        Ok(None) => ExitCode::FAILURE,
        // The guest dies with this process.
        Err(error) => {
            eprintln!("the guard fails: {error}");
            ExitCode::FAILURE
        }
    }
}

/// How the guest ended; `None` when it was not started.
fn guard(orders: &Orders) -> io::Result<Option<ExitStatus>> {
    let renewals = listen()?;
    let Some(mut guard) = Guard::new(clock::boot_ms(), orders.until_ms) else {
        tell(&Word::Over)?;
        return Ok(None);
    };
    let mut guest = match start(orders) {
        Ok(guest) => guest,
        Err(error) => {
            tell(&Word::Failed(error.raw_os_error().unwrap_or(0)))?;
            return Ok(None);
        }
    };
    harden();
    let pid = i32::try_from(guest.id()).map_err(io::Error::other)?;
    // Nobody reaps it but this process, so its id cannot be used again before.
    let pidfd = pidfd_open(Pid::from_raw(pid).expect("a child is not 0"), PidfdFlags::empty())?;
    tell(&Word::Started(pid))?;
    watch(&mut guard, &mut guest, &pidfd, &renewals).map(Some)
}

fn listen() -> io::Result<UnixDatagram> {
    // A guard of an earlier instance had a folder of its own; only a start that was cut short leaves one here.
    match std::fs::remove_file(FENCE_SOCKET) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = UnixDatagram::bind(FENCE_SOCKET)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn start(orders: &Orders) -> io::Result<Child> {
    let mut command = Command::new(&orders.program);
    command.args(&orders.args).stdin(Stdio::null());
    // The agent reads the guard's standard output to its end; the guest's goes where its errors go.
    command.stdout(Stdio::from(io::stderr()));
    if let Some(jail) = &orders.jail {
        command.env_clear();
        session::confine(&mut command, jail.steps().map_err(io::Error::other)?);
    }
    // After the confinement: who becomes another user loses this (prctl(2)).
    session::die_with_parent(&mut command);
    command.spawn()
}

/// Makes sure that this process runs when it is needed, as far as it may.
fn harden() {
    let _ = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ);
    let _ = rustix::process::setpriority_process(None, NICE);
    // What it runs through again and again stays in memory; nothing more is fetched for that.
    let _ = rustix::mm::mlockall(rustix::mm::MlockAllFlags::CURRENT | rustix::mm::MlockAllFlags::ONFAULT);
}

fn tell(word: &Word) -> io::Result<()> {
    let mut out = io::stdout().lock();
    // An agent that died meanwhile is no reason to end: the next one adopts the guest.
    match out.write_all(word.line().as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

fn watch(
    guard: &mut Guard,
    guest: &mut Child,
    pidfd: &OwnedFd,
    renewals: &UnixDatagram,
) -> io::Result<ExitStatus> {
    let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC)?;
    loop {
        let now_ms = clock::boot_ms();
        if guard.is_over(now_ms) {
            guest.kill()?;
            eprintln!("the node's lease ran out: the guest must be unique and was killed");
            return guest.wait();
        }
        set(&timer, guard.until_ms() - now_ms)?;
        let mut fds = [
            PollFd::new(pidfd, PollFlags::IN),
            PollFd::new(renewals, PollFlags::IN),
            PollFd::new(&timer, PollFlags::IN),
        ];
        match poll(&mut fds, Some(&LOOK)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if !fds[0].revents().is_empty() {
            return guest.wait();
        }
        take(guard, renewals);
    }
}

/// Takes in all renewals that have arrived. Anything else is no word of an agent.
fn take(guard: &mut Guard, renewals: &UnixDatagram) {
    let mut bytes = [0; 8];
    loop {
        match renewals.recv(&mut bytes) {
            Ok(8) => guard.renew(clock::boot_ms(), u64::from_le_bytes(bytes)),
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

fn set(timer: &OwnedFd, after_ms: u64) -> io::Result<()> {
    let after = Duration::from_millis(after_ms.max(1));
    let seconds = i64::try_from(after.as_secs()).unwrap_or(i64::MAX);
    let value = Timespec { tv_sec: seconds, tv_nsec: i64::from(after.subsec_nanos()) };
    let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
    timerfd_settime(timer, TimerfdTimerFlags::empty(), &once)?;
    Ok(())
}

/// Ends with the guest's exit code, or by its signal.
fn end_like(status: ExitStatus) -> ExitCode {
    if let Some(signal) = status.signal().and_then(Signal::from_named_raw) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), signal);
    }
    ExitCode::from(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_they_were_written() {
        for word in [Word::Started(17), Word::Over, Word::Failed(2)] {
            assert_eq!(Word::parse(&word.line()), Some(word));
        }
        assert_eq!(Word::parse("started\n"), None);
        assert_eq!(Word::parse(""), None);
    }
}
