//! The only unsafe code of this crate besides VFIO's requests: child processes that get a session of their own, are shut in or die with their parent,
//! descriptors of taps, and a descriptor that is waited for.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd as _, IntoRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::sync::{Mutex, PoisonError};

use bulkhead_nodeagent_core::Step;
use nix::libc;
use rustix::fs::{Mode, OFlags};
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

/// `TUNSETIFF`, `TUNSETPERSIST` and `TUNSETOWNER` of linux/if_tun.h.
const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
const TUNSETPERSIST: libc::Ioctl = 0x4004_54cb;
const TUNSETOWNER: libc::Ioctl = 0x4004_54cc;
/// A tap without a header of its own, with virtio's: QEMU finds out and makes use of it.
const TAP_FLAGS: libc::c_int = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;

/// Opens the tap of this name in the network that the caller is in, and makes it when there is none. Allocates nothing.
pub(crate) fn open_tap(name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let tap = rustix::fs::open(c"/dev/net/tun", flags, Mode::empty())?;
    attach_tap(tap.as_raw_fd(), name)?;
    Ok(tap)
}

/// Makes a descriptor of `/dev/net/tun` the tap of this name. The kernel refuses one that is a tap already.
pub(super) fn attach_tap(tun: RawFd, name: &CStr) -> Result<(), Errno> {
    let name = name.to_bytes_with_nul();
    // SAFETY: an ifreq is plain numbers, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() > request.ifr_name.len() {
        return Err(Errno::NAMETOOLONG);
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name) {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    request.ifr_ifru.ifru_flags = TAP_FLAGS as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which is there while it runs; a descriptor of anything else is refused.
    checked(unsafe { libc::ioctl(tun, TUNSETIFF, &raw mut request) })
}

/// Lets a tap outlive its descriptors. Nobody opens it but root: without an owner every user of the machine could.
pub(crate) fn persist_tap(tap: &OwnedFd) -> Result<(), Errno> {
    let (root, yes): (libc::c_ulong, libc::c_ulong) = (0, 1);
    // SAFETY: the descriptor is open, and TUNSETOWNER takes a number.
    checked(unsafe { libc::ioctl(tap.as_raw_fd(), TUNSETOWNER, root) })?;
    // SAFETY: the descriptor is open, and TUNSETPERSIST takes a number.
    checked(unsafe { libc::ioctl(tap.as_raw_fd(), TUNSETPERSIST, yes) })
}

/// Gives a descriptor a certain number, in a process that is about to execute a program. Whatever had it is closed.
pub(super) fn put_at(from: OwnedFd, number: RawFd) -> Result<(), Errno> {
    let from = from.into_raw_fd();
    // SAFETY: what has the number is a copy of what the parent keeps there to keep it free (`network::reserve`): nobody in this process
    // uses it. `from` is closed by nobody else.
    let result = checked(unsafe { libc::dup2(from, number) });
    if from != number {
        // SAFETY: as above; it is not used after this.
        unsafe { libc::close(from) };
    }
    result
}

/// Lets the program that is about to be executed have a descriptor.
pub(super) fn keep_open(number: RawFd) -> Result<(), Errno> {
    // SAFETY: F_SETFD takes a number and no pointer; at worst nothing is open there, and that is an error.
    checked(unsafe { libc::fcntl(number, libc::F_SETFD, 0) })
}

/// Lets the child have a descriptor of this process, by the same number.
pub(super) fn inherit(command: &mut Command, number: RawFd) {
    // SAFETY: between fork and exec only async-signal-safe functions may be called. fcntl(2) is one, and allocates nothing.
    unsafe {
        command.pre_exec(move || keep_open(number).map_err(io::Error::from));
    }
}

/// Keeps a number free of other descriptors of this process for as long as it lives.
pub(crate) fn reserve(number: RawFd) -> io::Result<()> {
    // Of this process, which may run several agents, one after another or at a time.
    static RESERVED: Mutex<BTreeSet<RawFd>> = Mutex::new(BTreeSet::new());
    let mut reserved = RESERVED.lock().unwrap_or_else(PoisonError::into_inner);
    if reserved.contains(&number) {
        return Ok(());
    }
    let null = std::fs::File::open("/dev/null")?;
    // SAFETY: F_DUPFD_CLOEXEC takes numbers and no pointer, and gives a descriptor that was not open before.
    let got = unsafe { libc::fcntl(null.as_raw_fd(), libc::F_DUPFD_CLOEXEC, number) };
    if got == number {
        reserved.insert(number);
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if got < 0 {
        return Err(error);
    }
    // SAFETY: it was just made, and nobody else knows of it.
    unsafe { libc::close(got) };
    Err(io::Error::other(format!("descriptor {number} is open already")))
}

fn checked(result: libc::c_int) -> Result<(), Errno> {
    if result < 0 {
        Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO))
    } else {
        Ok(())
    }
}

/// Lets a descriptor be waited for.
pub(super) fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd owns an open descriptor, always the same one, until it is dropped; that happens inside the
    // AsyncFd, after it was taken out of the reactor. Nobody forgets or takes apart the AsyncFd.
    unsafe { AsyncFd::register(fd) }.map_err(|error| io::Error::other(error.to_string()))
}
