//! The only unsafe code of this crate: child processes that get a session of their own, are shut in or die with their parent, and
//! a descriptor that is waited for.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;

use bulkhead_nodeagent_core::Step;
use nix::libc;
use rustix::io::Errno;
use rustix::thread::UnshareFlags;
use tokio::io::unix::AsyncFd;
use tokio::process::Command;

use super::jail;

/// Makes the child leader of a new session: signals to the agent's terminal or process group do not reach it, and it
/// outlives the agent.
pub(super) fn detach(command: &mut Command) {
    // SAFETY: between fork and exec only async-signal-safe functions may be called. setsid(2) is one, it allocates
    // nothing and touches no memory of the parent; the conversion of its error allocates nothing either.
    unsafe {
        command.pre_exec(|| rustix::process::setsid().map(|_| ()).map_err(io::Error::from));
    }
}

/// Lets the kernel kill the child when the calling thread ends, however it ends. A child that changes its user
/// after this call, and programs that do so or have capabilities of their own, lose that; QEMU is none.
pub(crate) fn die_with_parent(command: &mut std::process::Command) {
    let parent = rustix::process::getpid();
    // SAFETY: between fork and exec only async-signal-safe functions may be called. prctl(2) and getppid(2) are system
    // calls that allocate nothing and touch no memory of the parent; neither does the conversion of an error's number.
    unsafe {
        command.pre_exec(move || {
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
            // The parent may have died before the kernel was asked.
            if rustix::process::getppid() == Some(parent) {
                Ok(())
            } else {
                Err(io::Error::from(rustix::io::Errno::SRCH))
            }
        });
    }
}

/// Shuts the child in before it executes its program. What is registered after this runs inside.
pub(crate) fn confine(command: &mut std::process::Command, steps: Vec<Step>) {
    // SAFETY: between fork and exec only async-signal-safe functions may be called. The steps were made before the fork and are
    // only read; `jail::enter` makes system calls and nothing else: it allocates nothing, takes no lock and formats nothing (its
    // paths are C strings already, and rustix calls the kernel without libc). The conversion of an error's number allocates nothing.
    unsafe {
        command.pre_exec(move || jail::enter(&steps).map_err(io::Error::from));
    }
}

/// Leaves namespaces, in a process that is about to execute a program.
pub(super) fn unshare(flags: UnshareFlags) -> Result<(), Errno> {
    // SAFETY: what is shared with other threads may not be left behind their backs; namespaces are no such thing for the single thread
    // of a forked child, and the file descriptors (CLONE_FILES), on which Rust's I/O safety rests, are not among the flags.
    unsafe { rustix::thread::unshare_unsafe(flags.difference(UnshareFlags::FILES)) }
}

/// Marks every descriptor but the first three to be closed when the program is executed: until then the standard library needs one of
/// its own, to tell of errors.
pub(super) fn close_further_files() -> Result<(), Errno> {
    const FIRST: libc::c_uint = 3;
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    // SAFETY: close_range(2) takes three numbers and no pointer. With this flag it closes nothing now, so no descriptor that somebody
    // owns goes away; it only sets a flag on each.
    let result =
        unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC) };
    match result {
        0 => Ok(()),
        // Kernels before 5.11 cannot; everything that this program opens is closed by itself (O_CLOEXEC).
        _ => Ok(()),
    }
}

/// Lets a descriptor be waited for.
pub(super) fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd owns an open descriptor, always the same one, until it is dropped; that happens inside the
    // AsyncFd, after it was taken out of the reactor. Nobody forgets or takes apart the AsyncFd.
    unsafe { AsyncFd::register(fd) }.map_err(|error| io::Error::other(error.to_string()))
}
