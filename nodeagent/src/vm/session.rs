//! The only unsafe code of this crate: child processes that get a session of their own or die with their parent, and a
//! descriptor that is waited for.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;

use tokio::io::unix::AsyncFd;
use tokio::process::Command;

/// Makes the child leader of a new session: signals to the agent's terminal or process group do not reach it, and it
/// outlives the agent.
pub(super) fn detach(command: &mut Command) {
    // SAFETY: between fork and exec only async-signal-safe functions may be called. setsid(2) is one, it allocates
    // nothing and touches no memory of the parent; the conversion of its error allocates nothing either.
    unsafe {
        command.pre_exec(|| rustix::process::setsid().map(|_| ()).map_err(io::Error::from));
    }
}

/// Lets the kernel kill the child when the calling thread ends, however it ends. Programs that change their user or
/// have capabilities of their own lose that; QEMU is none.
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

/// Lets a descriptor be waited for.
pub(super) fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd owns an open descriptor, always the same one, until it is dropped; that happens inside the
    // AsyncFd, after it was taken out of the reactor. Nobody forgets or takes apart the AsyncFd.
    unsafe { AsyncFd::register(fd) }.map_err(|error| io::Error::other(error.to_string()))
}
