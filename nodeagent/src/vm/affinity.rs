//! On which CPUs processes may run: `sched_setaffinity(2)`, thread by thread, and no cgroup.

use std::collections::BTreeSet;
use std::io;

use bulkhead_nodeagent_core::Processes as _;
use bulkhead_types::{CPUS_MAX, CpuSet};
use rustix::process::Pid;
use rustix::thread::{sched_getaffinity, sched_setaffinity};

use super::host_processes::HostProcesses;

/// Looks for threads that were made meanwhile, at most: those that are made by a moved one are where it is.
const ROUNDS_MAX: usize = 8;

/// Lets every thread of a process run on these CPUs only. Threads that it makes from then on inherit that.
///
/// # Errors
/// When none of the CPUs is there, or the process has ended.
pub(crate) fn set(pid: i32, cpus: &CpuSet) -> io::Result<()> {
    let mut mask = rustix::thread::CpuSet::new();
    cpus.iter().for_each(|cpu| mask.set(cpu as usize));
    let mut moved = BTreeSet::new();
    for _ in 0..ROUNDS_MAX {
        let new: Vec<i32> =
            HostProcesses.threads(pid)?.into_iter().filter(|thread| moved.insert(*thread)).collect();
        if new.is_empty() {
            return Ok(());
        }
        for thread in new {
            match sched_setaffinity(Pid::from_raw(thread), &mask) {
                // It has ended meanwhile; that the process has is found out by the next look.
                Err(rustix::io::Errno::SRCH) | Ok(()) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// Pins threads of a process to one CPU each.
///
/// # Errors
/// When one of them is no thread of the process, or cannot be pinned; those before it are.
pub(crate) fn pin(pid: i32, plan: &[(i32, u32)]) -> io::Result<()> {
    let own = HostProcesses.threads(pid)?;
    for (thread, cpu) in plan {
        if !own.contains(thread) {
            return Err(io::Error::other(format!("{thread} is no thread of process {pid}")));
        }
        let mut mask = rustix::thread::CpuSet::new();
        mask.set(*cpu as usize);
        sched_setaffinity(Pid::from_raw(*thread), &mask)?;
    }
    Ok(())
}

/// The CPUs on which this process may run; `None` when the kernel does not say.
pub(crate) fn own() -> Option<CpuSet> {
    let mask = sched_getaffinity(None).ok()?;
    Some((0..CPUS_MAX).filter(|cpu| mask.is_set(*cpu as usize)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_threads_of_a_process_are_moved_and_so_are_those_that_follow() {
        let all = own().expect("known");
        let one: CpuSet = all.iter().take(1).collect();
        let mut child = std::process::Command::new("/bin/sh")
            .args(["-c", "read line; cat /proc/self/status"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("a shell");
        set(i32::try_from(child.id()).expect("small"), &one).expect("moved");
        drop(child.stdin.take());
        let output = child.wait_with_output().expect("it ends");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        assert_eq!(line.map(|line| line.trim().to_owned()), Some(one.to_string()), "{text}");
        let none = set(i32::try_from(child_of_nobody()).expect("small"), &all);
        assert!(none.is_err(), "a process that has ended is told apart");
        assert!(set(i32::try_from(std::process::id()).expect("small"), &CpuSet::new()).is_err());
    }

    #[test]
    fn one_thread_is_pinned_and_no_other_processs() {
        let all = own().expect("known");
        let (last, me) = (all.iter().last().expect("a CPU"), std::process::id().cast_signed());
        let thread = std::thread::spawn(move || {
            let id = rustix::thread::gettid().as_raw_nonzero().get();
            pin(me, &[(id, last)]).expect("pinned");
            own().expect("known").to_string()
        });
        assert_eq!(thread.join().expect("no panic"), last.to_string());
        assert_eq!(own().expect("known"), all, "other threads are where they were");
        let mut child = std::process::Command::new("/bin/cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .expect("a program");
        let refused = pin(me, &[(child.id().cast_signed(), last)]).expect_err("it is another's");
        assert!(refused.to_string().contains("is no thread of"), "{refused}");
        child.kill().expect("killed");
        child.wait().expect("ended");
    }

    /// The id of a process that has ended.
    fn child_of_nobody() -> u32 {
        let mut child = std::process::Command::new("/bin/true").spawn().expect("a program");
        let id = child.id();
        child.wait().expect("it ends");
        id
    }
}
