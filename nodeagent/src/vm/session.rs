//! The only unsafe code of this crate: a child process that gets a session of its own, and a descriptor that is waited for.

use std::io;
use std::os::fd::OwnedFd;

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

/// Lets a descriptor be waited for.
pub(super) fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd owns an open descriptor, always the same one, until it is dropped; that happens inside the
    // AsyncFd, after it was taken out of the reactor. Nobody forgets or takes apart the AsyncFd.
    unsafe { AsyncFd::register(fd) }.map_err(|error| io::Error::other(error.to_string()))
}
