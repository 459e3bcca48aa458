//! The system calls that have no safe wrapper: the only module with `unsafe`.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd};
use std::path::Path;

use bulkhead_guest_protocol::stream::TerminalSize;
use nix::NixPath as _;
use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal};
use nix::unistd::Pid;

/// Which side of [`clone_container`] the caller is on.
pub(crate) enum CloneResult {
    Parent(Pid),
    Child,
}

/// Makes a process in new mount, pid, ipc and uts namespaces. The child continues here with a copy of all memory.
pub(crate) fn clone_container() -> nix::Result<CloneResult> {
    let flags =
        libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::SIGCHLD;
    // SAFETY: without CLONE_VM and without a new stack this is fork(2) with extra flags. The program has one thread,
    // so no lock (allocator, stdio) can be held by a thread that does not exist in the child.
    let pid = unsafe { libc::syscall(libc::SYS_clone, libc::c_long::from(flags), 0, 0, 0, 0) };
    match Errno::result(pid)? {
        0 => Ok(CloneResult::Child),
        pid => {
            Ok(CloneResult::Parent(Pid::from_raw(libc::pid_t::try_from(pid).expect("a pid fits in pid_t"))))
        }
    }
}

/// Makes a process that continues here with a copy of all memory.
pub(crate) fn fork() -> nix::Result<CloneResult> {
    // SAFETY: the program has one thread, so no lock can be held by a thread that does not exist in the child.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Parent { child } => Ok(CloneResult::Parent(child)),
        nix::unistd::ForkResult::Child => Ok(CloneResult::Child),
    }
}

/// Sends a signal by its number: nix knows no real-time signals, with which systemd is asked to end.
pub(crate) fn send_signal(pid: Pid, number: i32) -> nix::Result<()> {
    // SAFETY: kill(2) takes two numbers, and refuses what is none of its own.
    Errno::result(unsafe { libc::kill(pid.as_raw(), number) }).map(drop)
}

/// Gives an ext4 file system so many blocks; as many as it has is fine. It never shrinks.
pub(crate) fn resize_ext4(root: &std::fs::File, blocks: u64) -> io::Result<()> {
    // SAFETY: EXT4_IOC_RESIZE_FS reads one u64, which outlives the call.
    unsafe { ext4_resize(root.as_raw_fd(), &raw const blocks) }?;
    Ok(())
}

/// Longest piece of randomness that is added at once, in bytes.
const ENTROPY_LENGTH_MAX: usize = bulkhead_guest_protocol::host::ENTROPY_LENGTH_MAX;

/// `struct rand_pool_info` of linux/random.h with its bytes.
#[repr(C)]
#[allow(unreachable_pub, reason = "the macro below makes a function that is as public")]
pub struct RandPoolInfo {
    entropy_bits: libc::c_int,
    length: libc::c_int,
    bytes: [u8; ENTROPY_LENGTH_MAX],
}

/// Adds randomness to the kernel's and counts all of its bits.
pub(crate) fn add_entropy(random: &std::fs::File, entropy: &[u8]) -> io::Result<()> {
    let too_long = || io::Error::from(io::ErrorKind::InvalidInput);
    let mut info = RandPoolInfo { entropy_bits: 0, length: 0, bytes: [0; ENTROPY_LENGTH_MAX] };
    info.bytes.get_mut(..entropy.len()).ok_or_else(too_long)?.copy_from_slice(entropy);
    info.length = libc::c_int::try_from(entropy.len()).map_err(|_| too_long())?;
    info.entropy_bits = info.length * 8;
    // SAFETY: RNDADDENTROPY reads the two numbers and then as many bytes as the second one says, which are there; it writes nothing.
    unsafe { random_add_entropy(random.as_raw_fd(), &raw const info) }?;
    Ok(())
}

/// Makes the kernel draw a new key from its randomness at once.
pub(crate) fn key_randomness_anew(random: &std::fs::File) -> io::Result<()> {
    // SAFETY: RNDRESEEDCRNG takes no argument.
    unsafe { random_reseed(random.as_raw_fd()) }?;
    Ok(())
}

/// Writes out everything of a file system, and lets nothing new in.
pub(crate) fn freeze(root: &std::fs::File) -> io::Result<()> {
    let mut unused = 0;
    // SAFETY: FIFREEZE takes an int, which outlives the call.
    unsafe { fs_freeze(root.as_raw_fd(), &raw mut unused) }?;
    Ok(())
}

/// Lets a file system go on.
pub(crate) fn thaw(root: &std::fs::File) -> io::Result<()> {
    let mut unused = 0;
    // SAFETY: FITHAW takes an int, which outlives the call.
    unsafe { fs_thaw(root.as_raw_fd(), &raw mut unused) }?;
    Ok(())
}

/// Ends the process without running exit handlers; for the child of [`clone_container`].
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Gives the signal state back that a command expects: nothing blocked, nothing ignored. The Rust runtime ignores
/// SIGPIPE and the init loop blocks SIGCHLD; both would survive execve(2).
pub(crate) fn reset_signals() -> nix::Result<()> {
    // SAFETY: the default disposition runs no code of this program.
    unsafe { nix::sys::signal::signal(Signal::SIGPIPE, SigHandler::SigDfl) }?;
    nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
}

/// Removes every capability that is not in `keep` (bit n = capability n) from the bounding set.
pub(crate) fn limit_bounding_set(keep: u64) -> nix::Result<()> {
    for capability in 0..u64::BITS {
        // SAFETY: both operations of prctl(2) take one integer and touch no memory of this program.
        unsafe {
            if libc::prctl(libc::PR_CAPBSET_READ, libc::c_ulong::from(capability), 0, 0, 0) < 0 {
                break; // EINVAL: the kernel knows no higher capability.
            }
            if keep & (1 << capability) == 0 {
                Errno::result(libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0))?;
            }
        }
    }
    Ok(())
}

/// Makes `set` the effective and permitted capabilities; none are inheritable.
pub(crate) fn set_capabilities(set: u64) -> nix::Result<()> {
    /// `_LINUX_CAPABILITY_VERSION_3`: two 32-bit halves.
    const VERSION_3: u32 = 0x2008_0522;
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    let half = |bits: u32| Data { effective: bits, permitted: bits, inheritable: 0 };
    let header = Header { version: VERSION_3, pid: 0 };
    #[allow(clippy::cast_possible_truncation)]
    let data = [half(set as u32), half((set >> 32) as u32)];
    // SAFETY: header and data have the layout that capset(2) demands for version 3 and outlive the call.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) })?;
    Ok(())
}

/// Filters the system calls of the calling process and of what it makes. Needs CAP_SYS_ADMIN, or no new privileges.
pub(crate) fn install_filter(program: &seccompiler::BpfProgram) -> nix::Result<()> {
    let length = libc::c_ushort::try_from(program.len()).map_err(|_| Errno::EINVAL)?;
    // The kernel's and the library's instruction have one layout; the kernel only reads them.
    let filter = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: prctl(2) reads the program, which outlives the call.
    Errno::result(unsafe {
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter, 0, 0)
    })?;
    Ok(())
}

/// A copy of the mount that holds this file or folder, from there on, which is mounted nowhere.
pub(crate) fn clone_tree(path: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    /// `OPEN_TREE_CLONE`; `OPEN_TREE_CLOEXEC` is `O_CLOEXEC`.
    const OPEN_TREE_CLONE: libc::c_int = 1;
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC | libc::AT_EMPTY_PATH;
    // SAFETY: open_tree(2) reads an empty path, which outlives the call, and touches no other memory.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, path.as_raw_fd(), c"".as_ptr(), flags) };
    let fd = libc::c_int::try_from(Errno::result(fd)?).expect("a descriptor fits in an int");
    // SAFETY: the call made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Mounts a copy of a mount at `target`, whose links are followed.
pub(crate) fn move_tree(tree: BorrowedFd<'_>, folder: BorrowedFd<'_>, target: &Path) -> nix::Result<()> {
    /// `MOVE_MOUNT_F_EMPTY_PATH`.
    const FROM_EMPTY_PATH: libc::c_uint = 0x4;
    /// `MOVE_MOUNT_T_SYMLINKS`.
    const TO_FOLLOWS_LINKS: libc::c_uint = 0x10;
    let flags = FROM_EMPTY_PATH | TO_FOLLOWS_LINKS;
    target.with_nix_path(|target| {
        let (tree, folder) = (tree.as_raw_fd(), folder.as_raw_fd());
        // SAFETY: move_mount(2) reads two paths, which outlive the call, and touches no other memory.
        let result = unsafe {
            libc::syscall(libc::SYS_move_mount, tree, c"".as_ptr(), folder, target.as_ptr(), flags)
        };
        Errno::result(result).map(drop)
    })?
}

nix::ioctl_write_ptr_bad!(random_add_entropy, nix::request_code_write!(b'R', 3, 8), RandPoolInfo);
nix::ioctl_none!(random_reseed, b'R', 7);
nix::ioctl_write_ptr!(ext4_resize, b'f', 16, u64);
nix::ioctl_readwrite!(fs_freeze, b'X', 119, libc::c_int);
nix::ioctl_readwrite!(fs_thaw, b'X', 120, libc::c_int);
nix::ioctl_write_ptr_bad!(set_window_size, libc::TIOCSWINSZ, libc::winsize);
nix::ioctl_write_ptr_bad!(lock_terminal, libc::TIOCSPTLCK, libc::c_int);
nix::ioctl_write_int_bad!(open_terminal_peer, libc::TIOCGPTPEER);
nix::ioctl_write_int_bad!(set_controlling_terminal, libc::TIOCSCTTY);

/// Gives a terminal a size; one that takes none keeps its own.
pub(crate) fn resize_terminal(terminal: &impl AsRawFd, size: TerminalSize) {
    let short = |number: u32| libc::c_ushort::try_from(number).unwrap_or(libc::c_ushort::MAX);
    let size =
        libc::winsize { ws_row: short(size.rows), ws_col: short(size.columns), ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the request reads one winsize, which outlives the call.
    let _ = unsafe { set_window_size(terminal.as_raw_fd(), &raw const size) };
}

/// Opens the other end of a new terminal, by no path.
pub(crate) fn terminal_peer(master: &OwnedFd) -> nix::Result<OwnedFd> {
    let unlocked: libc::c_int = 0;
    // SAFETY: the request reads one int, which outlives the call.
    unsafe { lock_terminal(master.as_raw_fd(), &raw const unlocked) }?;
    // SAFETY: the request takes flags and touches no memory of this program.
    let fd =
        unsafe { open_terminal_peer(master.as_raw_fd(), libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC) }?;
    // SAFETY: the call made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes the terminal at standard input that of the calling process's session.
pub(crate) fn control_terminal() -> nix::Result<()> {
    // SAFETY: the request takes an integer and touches no memory of this program.
    unsafe { set_controlling_terminal(0, 0) }.map(drop)
}

/// Closes all descriptors from this one on. Whoever owns one must not use it any more: for a child that ends without
/// dropping anything.
pub(crate) fn close_from(first: libc::c_uint) -> nix::Result<()> {
    // SAFETY: close_range(2) touches no memory of this program.
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) }).map(drop)
}
