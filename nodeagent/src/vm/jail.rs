//! Runs the calls that shut a guest's QEMU in, in its process, between fork and exec.
//!
//! What is called, with what and in which order is said by [`bulkhead_nodeagent_core::Jail::steps`]. Another thread of the parent may
//! have held any lock when it forked: so nothing here allocates, locks or formats; every step is system calls with what was made
//! before the fork.

use std::collections::BTreeSet;
use std::ffi::CStr;

use bulkhead_nodeagent_core::{Limit, Piece, Rights, Step};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::process::{Gid, Resource, Rlimit, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};

use super::session;

/// What begins the line that says which step failed.
pub(crate) const MARK: &str = "confinement: ";

/// Runs the steps. The first that fails is told on standard error.
pub(super) fn enter(steps: &[Step]) -> Result<(), Errno> {
    for step in steps {
        if let Err(error) = run(step) {
            tell(step);
            return Err(error);
        }
    }
    Ok(())
}

/// The name of a step, and what it is about.
fn name(step: &Step) -> (&'static str, &CStr) {
    match step {
        Step::Join(path) => ("join the control group ", path),
        Step::Tap(name, _) => ("open the tap ", name),
        Step::Unshare(_) => ("leave the host's namespaces", c""),
        Step::MakePrivate => ("make mounts private", c""),
        Step::Mask(_) => ("set the mask of files", c""),
        Step::Memory(path, _) => ("mount a file system in memory on ", path),
        Step::Folder(path) => ("make the folder ", path),
        Step::File(path) => ("make the file ", path),
        Step::Link(_, path) => ("make the link ", path),
        Step::Node(path, ..) => ("make the node ", path),
        Step::BlockNode(path, ..) => ("make the node ", path),
        Step::Own(path, ..) | Step::Give(path, ..) => ("give away ", path),
        Step::Bind(path, _) => ("show ", path),
        Step::Restrict(path, _) => ("restrict ", path),
        Step::Pivot(path) => ("change the root to ", path),
        Step::Enter(path) => ("enter ", path),
        Step::Limit(..) => ("set a limit", c""),
        Step::DropCapabilities => ("empty the capability bounding set", c""),
        Step::Become(..) => ("become another user", c""),
        Step::NoNewPrivileges => ("give up privileges", c""),
        Step::CloseFiles => ("close files", c""),
        Step::KeepFile(_) => ("keep a file open", c""),
    }
}

fn tell(step: &Step) {
    let (what, path) = name(step);
    // Only its descriptor is used: no lock is taken.
    for part in [MARK.as_bytes(), b"cannot ", what.as_bytes(), path.to_bytes(), b"\n"] {
        let _ = rustix::io::write(std::io::stderr(), part);
    }
}

fn run(step: &Step) -> Result<(), Errno> {
    match step {
        Step::Join(path) => join(path),
        Step::Tap(name, fd) => session::open_tap(name).and_then(|tap| session::put_at(tap, *fd)),
        Step::Unshare(pieces) => session::unshare(namespaces(pieces)),
        Step::MakePrivate => {
            rustix::mount::mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        }
        Step::Mask(mask) => {
            rustix::process::umask(Mode::from_raw_mode(*mask));
            Ok(())
        }
        Step::Memory(path, options) => {
            let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
            rustix::mount::mount(c"tmpfs", path.as_c_str(), c"tmpfs", flags, options.as_c_str())
        }
        Step::Folder(path) => match rustix::fs::mkdir(path.as_c_str(), Mode::from_raw_mode(0o755)) {
            Err(Errno::EXIST) => Ok(()),
            result => result,
        },
        Step::File(path) => node(path, FileType::RegularFile, 0o644, 0),
        Step::Link(says, path) => rustix::fs::symlink(says.as_c_str(), path.as_c_str()),
        Step::Node(path, major, minor) => {
            node(path, FileType::CharacterDevice, 0o666, rustix::fs::makedev(*major, *minor))
        }
        Step::BlockNode(path, major, minor, mode) => {
            node(path, FileType::BlockDevice, *mode, rustix::fs::makedev(*major, *minor))
        }
        Step::Own(path, uid, gid) => {
            rustix::fs::chown(path.as_c_str(), Some(Uid::from_raw(*uid)), Some(Gid::from_raw(*gid)))
        }
        Step::Give(path, uid, gid) => {
            rustix::fs::chmod(path.as_c_str(), Mode::from_raw_mode(0o600))?;
            rustix::fs::chown(path.as_c_str(), Some(Uid::from_raw(*uid)), Some(Gid::from_raw(*gid)))
        }
        Step::Bind(from, to) => rustix::mount::mount_bind(from.as_c_str(), to.as_c_str()),
        Step::Restrict(path, rights) => {
            rustix::mount::mount_remount(path.as_c_str(), MountFlags::BIND | flags(*rights), c"")
        }
        Step::Pivot(path) => {
            rustix::process::chdir(path.as_c_str())?;
            // The old root comes to lie over the new one (pivot_root(2)).
            rustix::process::pivot_root(c".", c".")?;
            rustix::mount::unmount(c".", UnmountFlags::DETACH)?;
            rustix::process::chdir(c"/")
        }
        Step::Enter(path) => rustix::process::chdir(path.as_c_str()),
        Step::Limit(limit, value) => limited(*limit, *value),
        Step::DropCapabilities => drop_capabilities(),
        Step::Become(uid, gid) => {
            let (uid, gid) = (Uid::from_raw(*uid), Gid::from_raw(*gid));
            rustix::thread::set_thread_groups(&[])?;
            rustix::thread::set_thread_res_gid(gid, gid, gid)?;
            rustix::thread::set_thread_res_uid(uid, uid, uid)
        }
        Step::NoNewPrivileges => {
            let none = CapabilitySet::empty();
            let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
            rustix::thread::set_capabilities(None, sets)?;
            rustix::thread::set_no_new_privs(true)
        }
        Step::CloseFiles => session::close_further_files(),
        Step::KeepFile(fd) => session::keep_open(*fd),
    }
}

fn join(path: &CStr) -> Result<(), Errno> {
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(file, b"0").map(|_| ())
}

fn namespaces(pieces: &BTreeSet<Piece>) -> UnshareFlags {
    let mut flags = UnshareFlags::empty();
    for piece in pieces {
        flags |= match piece {
            Piece::Mounts => UnshareFlags::NEWNS,
            Piece::Network => UnshareFlags::NEWNET,
            Piece::Ipc => UnshareFlags::NEWIPC | UnshareFlags::NEWUTS,
            Piece::User | Piece::Capabilities => UnshareFlags::empty(),
        };
    }
    flags
}

fn node(path: &CStr, kind: FileType, mode: u32, device: u64) -> Result<(), Errno> {
    rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(mode), device)
}

fn flags(rights: Rights) -> MountFlags {
    let basic = MountFlags::NOSUID;
    match rights {
        Rights::ReadExecute => basic | MountFlags::RDONLY | MountFlags::NODEV,
        Rights::ReadDevices => basic | MountFlags::RDONLY | MountFlags::NOEXEC,
        Rights::Read => basic | MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOEXEC,
        Rights::ReadWrite => basic | MountFlags::NODEV | MountFlags::NOEXEC,
    }
}

/// Nobody but root may go over the hard limit: where that is lower, it stays.
fn limited(limit: Limit, value: u64) -> Result<(), Errno> {
    let resource = match limit {
        Limit::Core => Resource::Core,
        Limit::OpenFiles => Resource::Nofile,
        Limit::LockedMemory => Resource::Memlock,
    };
    let set =
        |value| rustix::process::setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) });
    match set(value) {
        Err(Errno::PERM) => set(value.min(rustix::process::getrlimit(resource).maximum.unwrap_or(value))),
        result => result,
    }
}

fn drop_capabilities() -> Result<(), Errno> {
    // Their count grows with the kernel; the first that it does not know ends them.
    for number in 0..u64::BITS {
        match rustix::thread::remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(
            1 << number,
        )) {
            Err(Errno::INVAL) if number > 0 => break,
            result => result?,
        }
    }
    match rustix::thread::clear_ambient_capability_set() {
        // A kernel before 4.3 has none.
        Err(Errno::INVAL) => Ok(()),
        result => result,
    }
}
