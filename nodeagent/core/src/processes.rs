//! The processes of a machine, as `/proc` shows them: which there are, and which of them are guests of this agent, or guards of such.
//!
//! ```text
//!  /proc, or a map in memory ─► Processes ─┬─► guests   who has a `-pidfile`
//!                                          └─► guards   who works in the folder that its last argument names
//! ```
//! A process may end at any time, and its id be another's then: whoever does something to one looks again once it holds what can be no
//! other process's. What a process says of itself (its arguments) may be a lie, whose it is may not.
//!
//! Source: proc(5).

use std::collections::BTreeMap;

use crate::hardware::TreeError;

/// Longest arguments that are read of a process, in bytes: Linux takes no longer ones (three quarters of `_STK_LIM`).
pub const ARGUMENTS_BYTES_MAX: usize = 6 << 20;
/// Most processes, and most threads of one: Linux has no more (`PID_MAX_LIMIT`).
pub const PIDS_MAX: usize = 1 << 22;
/// Clock ticks a second in `/proc/PID/stat`: fixed at 100 for user space on Linux/x86-64 (`USER_HZ`).
const TICKS_PER_SECOND: u64 = 100;
/// The argument before the path that identifies a guest.
const PIDFILE: &[u8] = b"-pidfile";
/// How the folder of a process ends that was removed meanwhile.
const REMOVED: &str = " (deleted)";

/// What a process does, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessStat {
    /// `R` runs, `S` sleeps, `D` waits for a device, `T` is stopped, `Z` has ended and was not awaited, …
    pub state: char,
    /// When it was started, in ticks of a hundredth of a second since the machine's boot.
    pub started_ticks: u64,
}

/// Processes are looked at, and nothing is done to them. Each question is one of this moment.
pub trait Processes {
    /// The ids of all, in order.
    ///
    /// # Errors
    /// When they cannot be seen.
    fn pids(&self) -> Result<Vec<i32>, TreeError>;

    /// The arguments of one, the program's own name first; none of one that has ended and was not awaited, and of the kernel's own.
    ///
    /// # Errors
    /// When it is not there, or may not be looked at.
    fn arguments(&self, pid: i32) -> Result<Vec<Vec<u8>>, TreeError>;

    /// The folder that it works in; one that was removed ends with ` (deleted)`.
    ///
    /// # Errors
    /// When it is not there or has ended, it may not be looked at, or the folder's name is no text.
    fn working_dir(&self, pid: i32) -> Result<String, TreeError>;

    /// The user with whose rights it acts.
    ///
    /// # Errors
    /// When it is not there.
    fn user(&self, pid: i32) -> Result<u32, TreeError>;

    /// What it does, and since when.
    ///
    /// # Errors
    /// When it is not there.
    fn stat(&self, pid: i32) -> Result<ProcessStat, TreeError>;

    /// The ids of its threads, in order.
    ///
    /// # Errors
    /// When it is not there.
    fn threads(&self, pid: i32) -> Result<Vec<i32>, TreeError>;
}

/// Reads `/proc/PID/cmdline`: each argument is ended by a zero byte.
#[must_use]
pub fn process_arguments(cmdline: &[u8]) -> Vec<Vec<u8>> {
    if cmdline.is_empty() {
        return Vec::new();
    }
    let whole = cmdline.strip_suffix(&[0]).unwrap_or(cmdline);
    whole.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect()
}

/// Reads `/proc/PID/stat`; `None` for what is none. The name of its program may hold anything.
#[must_use]
pub fn process_stat(stat: &str) -> Option<ProcessStat> {
    let (_, after_name) = stat.rsplit_once(") ")?;
    let mut fields = after_name.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    // Field 22 of all, the third of which is the state.
    Some(ProcessStat { state, started_ticks: fields.nth(18)?.parse().ok()? })
}

/// The user with whose rights a process acts, of `/proc/PID/status`; `None` for what is none. Line breaks in the name of its program
/// are escaped there.
#[must_use]
pub fn effective_user(status: &str) -> Option<u32> {
    let users = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    users.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// When a process was started, in milliseconds since the epoch, by both clocks of now.
#[must_use]
pub fn started_at_ms(stat: ProcessStat, boot_ms: u64, unix_ms: u64) -> u64 {
    let age_ms = boot_ms.saturating_sub(stat.started_ticks.saturating_mul(1000 / TICKS_PER_SECOND));
    unix_ms.saturating_sub(age_ms)
}

/// The path after `-pidfile` in a process's arguments.
#[must_use]
pub fn pid_file_of(processes: &dyn Processes, pid: i32) -> Option<String> {
    let arguments = processes.arguments(pid).ok()?;
    let mut arguments = arguments.into_iter().skip_while(|argument| argument != PIDFILE);
    String::from_utf8(arguments.nth(1)?).ok()
}

/// All processes that have a pid file, with its path.
///
/// # Errors
/// When processes cannot be seen.
pub fn guests(processes: &dyn Processes) -> Result<Vec<(i32, String)>, TreeError> {
    Ok(processes.pids()?.into_iter().filter_map(|pid| Some((pid, pid_file_of(processes, pid)?))).collect())
}

/// The last argument of a process, if it is the folder that it works in, be that there or removed.
#[must_use]
pub fn guarded_folder(processes: &dyn Processes, pid: i32) -> Option<String> {
    let last = String::from_utf8(processes.arguments(pid).ok()?.pop()?).ok()?;
    let works_in = processes.working_dir(pid).ok()?;
    let works_in = works_in.strip_suffix(REMOVED).unwrap_or(&works_in);
    (last.starts_with('/') && last == works_in).then_some(last)
}

/// All processes that work in the folder that their last argument names, with that folder.
///
/// # Errors
/// When processes cannot be seen.
pub fn guards(processes: &dyn Processes) -> Result<Vec<(i32, String)>, TreeError> {
    Ok(processes.pids()?.into_iter().filter_map(|pid| Some((pid, guarded_folder(processes, pid)?))).collect())
}

/// A process of [`FakeProcesses`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FakeProcess {
    /// Its arguments.
    pub arguments: Vec<Vec<u8>>,
    /// The folder that it works in.
    pub working_dir: String,
    /// Whose it is.
    pub user: u32,
    /// What it does. One that has ended (`Z`) shows neither arguments nor folder.
    pub stat: ProcessStat,
    /// Its threads beside the first.
    pub more_threads: Vec<i32>,
}

/// Processes in memory, for tests.
#[derive(Clone, Debug, Default)]
pub struct FakeProcesses(pub BTreeMap<i32, FakeProcess>);

impl FakeProcesses {
    fn one(&self, pid: i32) -> Result<&FakeProcess, TreeError> {
        self.0.get(&pid).ok_or(TreeError::NotFound)
    }
}

impl Processes for FakeProcesses {
    fn pids(&self) -> Result<Vec<i32>, TreeError> {
        Ok(self.0.keys().copied().collect())
    }

    fn arguments(&self, pid: i32) -> Result<Vec<Vec<u8>>, TreeError> {
        let one = self.one(pid)?;
        Ok(if one.stat.state == 'Z' { Vec::new() } else { one.arguments.clone() })
    }

    fn working_dir(&self, pid: i32) -> Result<String, TreeError> {
        let one = self.one(pid)?;
        if one.stat.state == 'Z' { Err(TreeError::NotFound) } else { Ok(one.working_dir.clone()) }
    }

    fn user(&self, pid: i32) -> Result<u32, TreeError> {
        self.one(pid).map(|one| one.user)
    }

    fn stat(&self, pid: i32) -> Result<ProcessStat, TreeError> {
        self.one(pid).map(|one| one.stat)
    }

    fn threads(&self, pid: i32) -> Result<Vec<i32>, TreeError> {
        let mut all = self.one(pid)?.more_threads.clone();
        all.push(pid);
        all.sort_unstable();
        Ok(all)
    }
}

/// What a process is known to be.
#[derive(Clone, Copy, Debug)]
pub struct KnownProcess<'a> {
    /// Its id.
    pub pid: i32,
    /// Its arguments.
    pub arguments: &'a [&'a str],
    /// The folder that it works in.
    pub working_dir: &'a str,
    /// Whose it is.
    pub user: u32,
    /// What it does, and goes on to do.
    pub state: char,
    /// How many threads it has.
    pub threads: usize,
}

/// What all processes that can be looked at do: `known` are there and stay as they are, `ended` has ended and was not awaited, and no
/// process has or gets the id `gone`.
///
/// # Panics
/// When they do something else.
pub fn check_processes(processes: &dyn Processes, known: &[KnownProcess<'_>], ended: i32, gone: i32) {
    let pids = processes.pids().expect("they are seen");
    assert!(pids.is_sorted_by(|a, b| a < b) && pids.iter().all(|pid| *pid > 0), "each once, in order");
    assert!(pids.contains(&ended) && !pids.contains(&gone));
    for one in known {
        assert!(pids.contains(&one.pid), "{one:?}");
        let arguments = processes.arguments(one.pid).expect("it is there");
        let arguments: Vec<_> = arguments.iter().map(|word| String::from_utf8_lossy(word)).collect();
        assert_eq!(arguments, one.arguments, "{one:?}");
        assert_eq!(processes.working_dir(one.pid).as_deref(), Ok(one.working_dir));
        assert_eq!(processes.user(one.pid), Ok(one.user));
        let stat = processes.stat(one.pid).expect("it is there");
        assert!(stat.state == one.state && stat.started_ticks > 0, "{stat:?} of {one:?}");
        let threads = processes.threads(one.pid).expect("it is there");
        assert!(threads.contains(&one.pid) && threads.is_sorted_by(|a, b| a < b), "{threads:?} of {one:?}");
        assert_eq!(threads.len(), one.threads, "{one:?}");
    }
    assert_eq!(processes.stat(ended).map(|stat| stat.state), Ok('Z'));
    assert_eq!(processes.arguments(ended), Ok(Vec::new()), "what has ended has no arguments");
    assert!(processes.working_dir(ended).is_err(), "and works nowhere");
    assert_eq!(processes.arguments(gone), Err(TreeError::NotFound));
    assert_eq!(processes.working_dir(gone), Err(TreeError::NotFound));
    assert_eq!(processes.user(gone), Err(TreeError::NotFound));
    assert_eq!(processes.stat(gone), Err(TreeError::NotFound));
    assert_eq!(processes.threads(gone), Err(TreeError::NotFound));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(arguments: &[&[u8]], working_dir: &str, state: char) -> FakeProcess {
        FakeProcess {
            arguments: arguments.iter().map(|word| word.to_vec()).collect(),
            working_dir: working_dir.to_owned(),
            user: 100_007,
            stat: ProcessStat { state, started_ticks: 4711 },
            more_threads: Vec::new(),
        }
    }

    #[test]
    fn the_fake_does_what_all_do() {
        let mut qemu = process(&[b"qemu", b"-pidfile", b"/d/pods/7/1/qemu.pid"], "/", 'S');
        qemu.more_threads = vec![9, 12];
        let known = KnownProcess {
            pid: 10,
            arguments: &["qemu", "-pidfile", "/d/pods/7/1/qemu.pid"],
            working_dir: "/",
            user: 100_007,
            state: 'S',
            threads: 3,
        };
        let all = [(10, qemu), (11, process(&[b"qemu"], "/", 'Z'))];
        check_processes(&FakeProcesses(all.into()), &[known], 11, 8);
    }

    #[test]
    fn guests_and_guards_are_told_from_everybody_else() {
        let dir = "/d/pods/7/1";
        let all = [
            (1, process(&[b"init"], "/", 'S')),
            (2, process(&[], "/", 'I')),
            (10, process(&[b"qemu", b"-name", b"x", b"-pidfile", b"/d/pods/7/1/qemu.pid", b"-S"], dir, 'S')),
            (11, process(&[b"qemu", b"-pidfile", b"/d/pods/7/1/qemu.pid"], dir, 'Z')),
            (12, process(&[b"qemu", b"-pidfile"], dir, 'S')),
            (13, process(&[b"qemu", b"-pidfile", b"\xff"], dir, 'S')),
            (20, process(&[b"guard", b"/d/pods/7/1"], dir, 'S')),
            (21, process(&[b"guard", b"/d/pods/8/1"], "/d/pods/8/1 (deleted)", 'S')),
            (22, process(&[b"guard", b"/d/pods/7/1"], "/d", 'S')),
            (23, process(&[b"guard", b"."], ".", 'S')),
            (24, process(&[b"guard", b"/d/pods/7/1"], dir, 'Z')),
        ];
        let processes = FakeProcesses(all.into());
        assert_eq!(guests(&processes), Ok(vec![(10, format!("{dir}/qemu.pid"))]));
        assert_eq!(guards(&processes), Ok(vec![(20, dir.to_owned()), (21, "/d/pods/8/1".to_owned())]));
    }

    #[test]
    fn arguments_end_with_a_zero_byte() {
        let check = |cmdline: &[u8], expected: &[&[u8]]| assert_eq!(process_arguments(cmdline), expected);
        check(b"", &[]);
        check(b"\0", &[b""]);
        check(b"a\0-b\0\0", &[b"a", b"-b", b""]);
        check(b"title", &[b"title"]);
    }

    #[test]
    fn the_kernels_texts_are_read_whatever_a_program_is_called() {
        let rest = "1 7 7 0 -1 4194304 100 0 0 0 1 2 0 0 20 0 3 0 8675309 1000 200";
        let stat = |name: &str| process_stat(&format!("7 ({name}) S {rest}\n"));
        for name in ["qemu", "a b", ") Z 9 (", "x) R 1", "\u{1b}"] {
            assert_eq!(stat(name), Some(ProcessStat { state: 'S', started_ticks: 8_675_309 }), "{name}");
        }
        for broken in
            ["", "7 (a) ", "7 (a) S 1 2", "7 a S 1", &format!("7 (a) S {}", rest.replace("8675309", "x"))]
        {
            assert_eq!(process_stat(broken), None, "{broken}");
        }
        let status = "Name:\tx\\nUid:\t0 0\nState:\tS\nUid:\t1\t100007\t2\t3\nGid:\t9\t9\t9\t9\n";
        assert_eq!(effective_user(status), Some(100_007));
        for broken in ["", "Uid:", "Uid:\t1", "Uid:\t1\tx"] {
            assert_eq!(effective_user(broken), None);
        }
    }

    #[test]
    fn starts_are_counted_from_the_boot() {
        let at = |ticks, boot_ms, unix_ms| {
            started_at_ms(ProcessStat { state: 'S', started_ticks: ticks }, boot_ms, unix_ms)
        };
        assert_eq!(at(500, 60_000, 1_000_000), 945_000);
        assert_eq!(at(u64::MAX, 60_000, 1_000_000), 1_000_000);
        assert_eq!(at(0, 60_000, 5), 0);
    }
}
