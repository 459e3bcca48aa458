//! One guest VM as the host sees it: a QEMU process, its sockets and its disks.
//!
//! ```text
//!  <instance dir>/   the process's working directory; socket paths stay short however deep it lies
//!    qemu.pid        names the process; its path on the command line is how a process is found again
//!    qmp.sock        control          ◄── Qmp
//!    guest.sock      guest channel    ◄── channel
//!    console.sock    serial console   ◄── console, bounded on the host
//!    <disk>.qcow2    one for each container
//!    pod.bin         the guest's configuration
//!    qemu.log        what QEMU itself said
//!    fence.sock      renewals of the lease  ◄── guarded, for a guest that must be unique: its guard listens
//! ```

pub(crate) mod affinity;
#[cfg(test)]
mod breakout_tests;
pub(crate) mod command;
pub(crate) mod console;
pub(crate) mod guarded;
mod host_processes;
pub(crate) mod jail;
pub(crate) mod process;
#[allow(unsafe_code)]
pub(crate) mod session;
pub(crate) mod socket;
