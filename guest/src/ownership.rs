//! What is in volumes that had content before is given to the pod's group, before any container starts.
//!
//! ```text
//!  (volume, folder) ─► fork ─► descend by descriptors, children before their folder ─► "p 4711" now and then ─► "d"
//!                                                                                  └─ what fails ─► "e why"
//! ```
//! A process of its own does it: there may be millions of files, while this program goes on to answer. Each folder and file is opened
//! below the one before it and never followed, so that a link that somebody left leads nowhere else. The volume's own folder is last:
//! it says that all the rest is done, which is what [`is_given`] looks at.
//!
//! Source: `SetVolumeOwnership` of Kubernetes 1.34 (`pkg/volume/volume_linux.go`): the group, and `rw` for it, `x` and the set-group-id
//! bit on folders; one file that cannot be changed does not stop the rest.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat};
use nix::libc::mode_t;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::unistd::{Gid, Pid, fchownat};

use crate::IS_CONTAINER_CHILD;
use crate::sys::{self, CloneResult};

/// How deep folders may be nested in a volume: each holds a descriptor.
const DEPTH_MAX: usize = 256;
/// What the group may do with files.
const FILE_BITS: mode_t = 0o660;
/// What it may do with folders, and that what is made in them belongs to it.
const FOLDER_BITS: mode_t = 0o2770;
/// How often the process tells how far it has come.
const TELLS_EVERY: Duration = Duration::from_secs(1);
/// Longest text of a failure, in bytes.
const TEXT_LENGTH_MAX: usize = 256;

/// A volume whose content is given to the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Given {
    /// Its name.
    pub(crate) volume: String,
    /// Where it is mounted.
    pub(crate) path: PathBuf,
}

/// How far it has come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// So many files and folders were looked at.
    Going {
        seen: u64,
    },
    /// All is given.
    Done,
    Failed(String),
}

/// The process that gives volumes to a group. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Giver {
    pid: Pid,
    stream: UnixStream,
    pub(crate) group: Gid,
    pub(crate) began_ms: u64,
}

impl Giver {
    /// Begins.
    ///
    /// # Errors
    /// When no process can be made for it.
    pub(crate) fn start(volumes: &[Given], group: Gid, now_ms: u64) -> Result<Self> {
        let (ours, theirs) = UnixStream::pair().context("make a pair of sockets")?;
        ours.set_nonblocking(true)?;
        match sys::fork().context("make a process")? {
            CloneResult::Parent(pid) => Ok(Self { pid, stream: ours, group, began_ms: now_ms }),
            CloneResult::Child => {
                IS_CONTAINER_CHILD.store(true, std::sync::atomic::Ordering::Relaxed);
                drop(ours);
                give_all(volumes, group, &theirs);
                sys::exit_now(0)
            }
        }
    }

    /// Where its news come from.
    pub(crate) fn fd(&self) -> &UnixStream {
        &self.stream
    }

    /// The last of what it told since the last look; `None` when it told nothing.
    pub(crate) fn news(&mut self) -> Option<News> {
        let mut buffer = [0; 4096];
        let ended = || Some(News::Failed("the process that gave them to the group has ended".to_owned()));
        match self.stream.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => Some(News::Failed(error.to_string())),
            Ok(0) => ended(),
            Ok(length) => {
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                let last = text.lines().next_back().unwrap_or_default();
                match last.split_at_checked(1) {
                    Some(("p", seen)) => Some(News::Going { seen: seen.trim().parse().unwrap_or_default() }),
                    Some(("d", _)) => Some(News::Done),
                    Some(("e", why)) => Some(News::Failed(why.trim().to_owned())),
                    _ => ended(),
                }
            }
        }
    }
}

impl Drop for Giver {
    fn drop(&mut self) {
        let _ = kill(self.pid, Signal::SIGKILL);
    }
}

/// The process: does all of it, and tells.
fn give_all(volumes: &[Given], group: Gid, stream: &UnixStream) {
    let tell = |text: &str| {
        let mut stream = stream;
        let _ = stream.write_all(text.as_bytes());
    };
    let (mut told, mut seen) = (Instant::now(), 0_u64);
    for given in volumes {
        let mut failures = Failures::default();
        let walked = give(&given.path, group, &mut failures, &mut || {
            seen += 1;
            if told.elapsed() >= TELLS_EVERY {
                told = Instant::now();
                tell(&format!("p {seen}\n"));
            }
        });
        if let Some(first) = &failures.first {
            eprintln!(
                "bulkhead-guest: volume {}: {} files and folders are not given to group {group}: {first}",
                given.volume, failures.count
            );
        }
        if let Err(error) = walked {
            let why = format!("volume {}: {error:#}", given.volume).replace('\n', " ");
            return tell(&format!("e {}\n", &why[..why.floor_char_boundary(TEXT_LENGTH_MAX)]));
        }
    }
    tell("d\n");
}

/// What could not be changed.
#[derive(Debug, Default)]
struct Failures {
    count: u64,
    first: Option<String>,
}

/// Whether the volume's own folder belongs to the group with the rights that it would be given: then all in it does.
///
/// # Errors
/// When it cannot be looked at.
pub(crate) fn is_given(path: &Path, group: Gid) -> Result<bool> {
    let found = fstat(File::open(path).with_context(|| format!("open {}", path.display()))?)?;
    Ok(found.st_gid == group.as_raw() && found.st_mode & FOLDER_BITS == FOLDER_BITS)
}

/// Gives a folder and all that is in it to a group; `seen` hears of each.
fn give(path: &Path, group: Gid, failures: &mut Failures, seen: &mut impl FnMut()) -> Result<()> {
    let root = open(AT_FDCWD, path.as_os_str()).with_context(|| format!("open {}", path.display()))?;
    let found = fstat(&root).context("look at it")?;
    descend(&root, group, 0, failures, seen)?;
    change(&root, &found, group, path.as_os_str(), failures);
    seen();
    Ok(())
}

/// What is in a folder.
fn descend(
    folder: &OwnedFd,
    group: Gid,
    depth: usize,
    failures: &mut Failures,
    seen: &mut impl FnMut(),
) -> Result<()> {
    if depth >= DEPTH_MAX {
        bail!(
            "folders are nested more than {DEPTH_MAX} deep, and cannot be given to group {group}: leave fsGroup out, or \
             set fsGroupChangePolicy: OnRootMismatch and give the volume's own folder to the group"
        );
    }
    for entry in fs::read_dir(own_path(folder)).context("read a folder")? {
        let name = entry.context("read a folder")?.file_name();
        let opened = open(folder.as_fd(), &name).and_then(|one| Ok((fstat(&one)?, one)));
        let (found, one) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                failures.add(&name, error);
                continue;
            }
        };
        if is_a(&found, SFlag::S_IFDIR) {
            descend(&one, group, depth + 1, failures, seen)?;
        }
        change(&one, &found, group, &name, failures);
        seen();
    }
    Ok(())
}

/// A descriptor of what has this name, whatever it is: nothing is followed, and no device or pipe is really opened.
fn open(folder: impl std::os::fd::AsFd, name: &OsStr) -> nix::Result<OwnedFd> {
    openat(folder, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
}

/// By this path the kernel goes to what a descriptor stands for, and nowhere else.
fn own_path(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

fn is_a(found: &FileStat, kind: SFlag) -> bool {
    found.st_mode & SFlag::S_IFMT.bits() == kind.bits()
}

/// Gives one thing to the group, as far as it does not belong to it.
fn change(one: &OwnedFd, found: &FileStat, group: Gid, name: &OsStr, failures: &mut Failures) {
    let is_other = found.st_gid != group.as_raw();
    if is_other && let Err(error) = fchownat(one, "", None, Some(group), AtFlags::AT_EMPTY_PATH) {
        return failures.add(name, error);
    }
    // A link has no rights of its own.
    if is_a(found, SFlag::S_IFLNK) {
        return;
    }
    let bits = if is_a(found, SFlag::S_IFDIR) { FOLDER_BITS } else { FILE_BITS };
    let (mode, former) = ((found.st_mode & 0o7777) | bits, found.st_mode & 0o7777);
    // With the change of its group a program lost the bits by which it runs as another.
    let lost_bits = is_other && former & 0o6000 != 0;
    if (mode != former || lost_bits)
        && let Err(error) = fs::set_permissions(own_path(one), fs::Permissions::from_mode(mode))
    {
        failures.add(name, error);
    }
}

impl Failures {
    fn add(&mut self, name: &OsStr, error: impl std::fmt::Display) {
        self.count += 1;
        self.first.get_or_insert_with(|| format!("{}: {error}", name.display()));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use super::*;

    /// The calls need root's rights over other groups; tests run as root, or see nothing.
    fn group() -> Option<Gid> {
        nix::unistd::geteuid().is_root().then(|| Gid::from_raw(4242))
    }

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("bulkhead-ownership-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir(&path).expect("made");
            Self(path)
        }

        fn file(&self, name: &str, mode: u32) {
            fs::write(self.0.join(name), name).expect("written");
            fs::set_permissions(self.0.join(name), fs::Permissions::from_mode(mode)).expect("changed");
        }

        /// Group and rights of what has this name, which is not followed.
        fn of(&self, name: &str) -> (u32, u32) {
            let found = fs::symlink_metadata(self.0.join(name)).expect("there");
            (found.gid(), found.mode() & 0o7777)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn all_in_a_volume_belongs_to_the_group_and_no_link_is_followed() {
        let Some(group) = group() else { return };
        let (volume, outside) = (Dir::new("tree"), Dir::new("outside"));
        outside.file("secret", 0o600);
        volume.file("plain", 0o600);
        volume.file("program", 0o4755);
        fs::create_dir_all(volume.0.join("a/b/c")).expect("made");
        volume.file("a/b/c/deep", 0o644);
        symlink(&outside.0, volume.0.join("a/out")).expect("linked");
        symlink(outside.0.join("secret"), volume.0.join("link")).expect("linked");
        nix::unistd::mkfifo(&volume.0.join("pipe"), Mode::S_IRUSR).expect("made");
        let (mut failures, mut count) = (Failures::default(), 0);
        give(&volume.0, group, &mut failures, &mut || count += 1).expect("given");
        assert_eq!((count, failures.count), (10, 0), "{failures:?}");
        assert_eq!(volume.of(""), (4242, 0o2775));
        assert_eq!(volume.of("plain"), (4242, 0o660));
        assert_eq!(volume.of("program"), (4242, 0o4775), "it runs as its owner as before");
        assert_eq!(volume.of("a/b/c"), (4242, 0o2775));
        assert_eq!(volume.of("a/b/c/deep"), (4242, 0o664));
        assert_eq!(volume.of("a/out").0, 4242);
        assert_eq!(volume.of("pipe"), (4242, 0o660));
        assert_eq!((outside.of("secret"), outside.of("").1), ((0, 0o600), 0o755), "what links lead to stays");
        assert!(is_given(&volume.0, group).expect("there"));
        assert!(!is_given(&volume.0, Gid::from_raw(4243)).expect("there"));
    }

    #[test]
    fn the_volumes_own_folder_is_given_last_and_deep_nesting_ends() {
        let Some(group) = group() else { return };
        let volume = Dir::new("deep");
        let mut path = volume.0.clone();
        for _ in 0..=DEPTH_MAX {
            path.push("d");
        }
        fs::create_dir_all(&path).expect("made");
        let found = give(&volume.0, group, &mut Failures::default(), &mut || {}).expect_err("too deep");
        assert!(found.to_string().contains("nested more than 256 deep"), "{found}");
        assert!(!is_given(&volume.0, group).expect("there"), "so the next start tries again");
    }

    #[test]
    fn a_process_tells_when_all_is_given() {
        let Some(group) = group() else { return };
        let volume = Dir::new("process");
        volume.file("one", 0o600);
        let (ours, theirs) = UnixStream::pair().expect("made");
        let given = |path: PathBuf| Given { volume: "data".into(), path };
        give_all(&[given(volume.0.clone())], group, &theirs);
        let giver = |stream| Giver { pid: Pid::from_raw(i32::MAX), stream, group, began_ms: 0 };
        assert_eq!(giver(ours).news(), Some(News::Done));
        assert_eq!(volume.of("one"), (4242, 0o660));
        let (ours, theirs) = UnixStream::pair().expect("made");
        give_all(&[given("/nowhere".into()), given(volume.0.clone())], group, &theirs);
        let Some(News::Failed(why)) = giver(ours).news() else { panic!("there is no such folder") };
        assert!(why.starts_with("volume data: open /nowhere: "), "{why}");
        let (ours, theirs) = UnixStream::pair().expect("made");
        (&theirs).write_all(b"p 7\np 12\n").expect("told");
        ours.set_nonblocking(true).expect("set");
        let mut giver = giver(ours);
        assert_eq!(giver.news(), Some(News::Going { seen: 12 }));
        assert_eq!(giver.news(), None);
        drop(theirs);
        assert!(matches!(giver.news(), Some(News::Failed(_))), "it died");
    }
}
