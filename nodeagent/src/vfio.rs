//! VFIO itself: who has its files open, and resets that sysfs does not have.
//!
//! Source: "VFIO" (`driver-api/vfio.rst`) and `include/uapi/linux/vfio.h` of Linux; proc(5), pid_namespaces(7).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::path::Path;

use bulkhead_nodeagent_core::hardware::Bdf;
use nix::libc;

/// Where files of VFIO are.
const VFIO: &str = "/dev/vfio/";
/// The number of the machine's first PID namespace (`PROC_PID_INIT_INO` of Linux): from another one not all processes are seen.
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";
/// Most descriptors that are looked at of one process: who has more has them for connections.
const DESCRIPTORS_MAX: usize = 65_536;

/// The files below `/dev/vfio` that processes have open, each with one of those. Nothing is opened but folders of `/proc`.
///
/// # Errors
/// When this user may not look at all processes, or does not see them all.
pub(crate) fn open_files(proc: &Path) -> io::Result<BTreeMap<String, u32>> {
    let namespace = fs::read_link(proc.join("self/ns/pid"))?;
    if namespace != Path::new(FIRST_PID_NAMESPACE) {
        return Err(io::Error::other("the agent is in a PID namespace of its own"));
    }
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(proc)? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let descriptors = match fs::read_dir(entry.path().join("fd")) {
            Ok(descriptors) => descriptors,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
            // It has ended.
            Err(_) => continue,
        };
        for descriptor in descriptors.take(DESCRIPTORS_MAX).flatten() {
            let Ok(target) = fs::read_link(descriptor.path()) else { continue };
            if let Some(path) = target.to_str().filter(|path| path.starts_with(VFIO)) {
                found.entry(path.to_owned()).or_insert(pid);
            }
        }
    }
    Ok(found)
}

/// Numbers of requests: `_IO(';', 100 + n)`.
const fn request(number: u32) -> libc::Ioctl {
    ((';' as u32) << 8 | (100 + number)) as libc::Ioctl
}

const SET_IOMMU: libc::Ioctl = request(2);
const GROUP_SET_CONTAINER: libc::Ioctl = request(4);
const GROUP_GET_DEVICE_FD: libc::Ioctl = request(6);
const GET_PCI_HOT_RESET_INFO: libc::Ioctl = request(12);
const PCI_HOT_RESET: libc::Ioctl = request(13);
/// `VFIO_TYPE1v2_IOMMU`.
const TYPE1_V2: libc::c_int = 3;
/// Words of the head of the structures of both resets: `argsz`, `flags`, `count`.
const HEAD: usize = 3;
/// Most functions of one bus.
const BELOW_MAX: usize = 256;

/// Resets a function with everything below its bridge, of which these are the IOMMU groups.
///
/// # Errors
/// When a file cannot be opened, the kernel refuses, or something else than these groups would be reached.
pub(crate) fn hot_reset(address: Bdf, groups: &BTreeSet<u32>) -> io::Result<()> {
    let open = |path: String| {
        OpenOptions::new().read(true).write(true).open(&path).map_err(|error| during(&path, &error))
    };
    let container = open(format!("{VFIO}vfio"))?;
    let mut files = BTreeMap::new();
    for group in groups {
        let file = open(format!("{VFIO}{group}"))?;
        let mut descriptor = container.as_raw_fd();
        call(file.as_raw_fd(), GROUP_SET_CONTAINER, Argument::Pointer(&mut descriptor))
            .map_err(|error| during(&format!("VFIO_GROUP_SET_CONTAINER of IOMMU group {group}"), &error))?;
        files.insert(*group, file);
    }
    call(container.as_raw_fd(), SET_IOMMU, Argument::Value(TYPE1_V2))
        .map_err(|error| during("VFIO_SET_IOMMU", &error))?;
    let mut name = format!("{address}\0").into_bytes();
    let attempts = files.iter().map(|(group, file): (&u32, &File)| {
        (*group, call(file.as_raw_fd(), GROUP_GET_DEVICE_FD, Argument::Bytes(&mut name)))
    });
    let fd = of_one_group(address, attempts)?;
    // SAFETY: the kernel made the descriptor in this very call, and nobody else knows of it.
    let device = unsafe { OwnedFd::from_raw_fd(fd) };
    let reached = reached_groups(device.as_raw_fd())?;
    if let Some(other) = reached.difference(groups).next() {
        return Err(io::Error::other(format!("it would reach IOMMU group {other}")));
    }
    let mut words = vec![0, 0, 0];
    words.extend(files.values().map(|file| file.as_raw_fd().cast_unsigned()));
    (words[0], words[2]) =
        (size_of_words(words.len()), u32::try_from(files.len()).map_err(io::Error::other)?);
    call(device.as_raw_fd(), PCI_HOT_RESET, Argument::Words(&mut words)).map(drop)
}

/// What failed, and with what.
fn during(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// What the one of some groups gives that has this function; the others say that they have no such device.
fn of_one_group<T>(address: Bdf, attempts: impl Iterator<Item = (u32, io::Result<T>)>) -> io::Result<T> {
    let mut refused = None;
    for (group, attempt) in attempts {
        match attempt {
            Ok(found) => return Ok(found),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
            Err(error) => refused = refused.or(Some((group, error))),
        }
    }
    Err(match refused {
        Some((group, error)) => {
            during(&format!("VFIO_GROUP_GET_DEVICE_FD of {address} in IOMMU group {group}"), &error)
        }
        None => io::Error::other(format!("none of these IOMMU groups has {address}")),
    })
}

/// The groups that a hot reset of a device would reach.
fn reached_groups(device: RawFd) -> io::Result<BTreeSet<u32>> {
    // Each of what is reached is two words: its group, and where it is.
    let mut words = vec![0; HEAD + 2 * BELOW_MAX];
    words[0] = size_of_words(words.len());
    call(device, GET_PCI_HOT_RESET_INFO, Argument::Words(&mut words))?;
    let count = (words[2] as usize).min(BELOW_MAX);
    Ok(words[HEAD..HEAD + 2 * count].chunks(2).map(|entry| entry[0]).collect())
}

fn size_of_words(count: usize) -> u32 {
    u32::try_from(count * size_of::<u32>()).unwrap_or(u32::MAX)
}

/// What a request is given.
enum Argument<'a> {
    Value(libc::c_int),
    Pointer(&'a mut RawFd),
    Bytes(&'a mut [u8]),
    Words(&'a mut [u32]),
}

/// One request; what it returns.
fn call(fd: RawFd, request: libc::Ioctl, argument: Argument<'_>) -> io::Result<RawFd> {
    // SAFETY: each request of this module is called with what the kernel's header says that it takes: a number, or a pointer to memory that
    // is valid and mutable until the call returns. What has a length says it in its first word, which is that of the slice; the name of
    // a device ends with 0.
    let outcome = unsafe {
        match argument {
            Argument::Value(value) => libc::ioctl(fd, request, value),
            Argument::Pointer(pointer) => libc::ioctl(fd, request, std::ptr::from_mut(pointer)),
            Argument::Bytes(bytes) => libc::ioctl(fd, request, bytes.as_mut_ptr()),
            Argument::Words(words) => libc::ioctl(fd, request, words.as_mut_ptr()),
        }
    };
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(outcome) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Processes with these descriptors, as `/proc` shows them.
    fn proc(namespace: &str, processes: &[(u32, &[&str])]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(dir.path().join("self/ns")).expect("made");
        symlink(namespace, dir.path().join("self/ns/pid")).expect("made");
        fs::write(dir.path().join("uptime"), "1").expect("made");
        for (pid, targets) in processes {
            let fds = dir.path().join(format!("{pid}/fd"));
            fs::create_dir_all(&fds).expect("made");
            for (number, target) in targets.iter().enumerate() {
                symlink(target, fds.join(number.to_string())).expect("made");
            }
        }
        fs::create_dir(dir.path().join("99")).expect("made");
        dir
    }

    #[test]
    fn who_has_files_of_vfio_open_is_seen_without_opening_any() {
        let processes: &[(u32, &[&str])] = &[
            (7, &["/dev/null", "socket:[1]", "/dev/vfio/vfio", "/dev/vfio/44"]),
            (8, &["/dev/vfio/devices/vfio3", "/home/dev/vfio/45"]),
            (9, &[]),
        ];
        let found = open_files(proc(FIRST_PID_NAMESPACE, processes).path()).expect("all are seen");
        let expected = [("/dev/vfio/44", 7), ("/dev/vfio/devices/vfio3", 8), ("/dev/vfio/vfio", 7)];
        assert_eq!(found, expected.map(|(path, pid)| (path.to_owned(), pid)).into());
        let error = open_files(proc("pid:[4026532000]", processes).path()).expect_err("a container");
        assert!(error.to_string().contains("PID namespace"), "{error}");
    }

    #[test]
    fn this_machine_is_looked_at() {
        let started = std::time::Instant::now();
        let found = open_files(Path::new("/proc"));
        let count =
            fs::read_dir("/proc").expect("listed").flatten().filter(|one| one.path().join("fd").exists());
        println!("{} processes in {:?}: {found:?}", count.count(), started.elapsed());
    }

    #[test]
    fn requests_have_the_numbers_of_the_kernels_header() {
        assert_eq!((SET_IOMMU, GET_PCI_HOT_RESET_INFO, PCI_HOT_RESET), (0x3b66, 0x3b70, 0x3b71));
        let error = hot_reset("0000:01:00.0".parse().expect("an address"), &BTreeSet::from([u32::MAX]))
            .expect_err("no machine has that group");
        assert!(error.to_string().starts_with(VFIO), "which file: {error}");
    }

    #[test]
    fn why_no_group_gives_a_device_is_said() {
        let check = |attempts: &[(u32, i32)], expected: Result<i32, &str>| {
            let attempts = attempts.iter().map(|(group, outcome)| {
                let failed = *outcome < 0;
                (*group, if failed { Err(io::Error::from_raw_os_error(-outcome)) } else { Ok(*outcome) })
            });
            let found = of_one_group("0000:01:00.0".parse().expect("an address"), attempts);
            assert_eq!(found.map_err(|error| error.to_string()), expected.map_err(str::to_owned));
        };
        let (absent, busy, denied) = (-libc::ENODEV, -libc::EBUSY, -libc::EPERM);
        check(&[(7, absent), (8, 5)], Ok(5));
        check(&[(7, busy), (8, 5)], Ok(5));
        check(&[], Err("none of these IOMMU groups has 0000:01:00.0"));
        check(&[(7, absent), (8, absent)], Err("none of these IOMMU groups has 0000:01:00.0"));
        let said = "VFIO_GROUP_GET_DEVICE_FD of 0000:01:00.0 in IOMMU group 8: Device or resource busy (os error 16)";
        check(&[(7, absent), (8, busy), (9, denied)], Err(said));
    }
}
