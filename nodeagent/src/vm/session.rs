//! The only unsafe code of this crate: a child process that gets a session of its own.

use std::io;

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
