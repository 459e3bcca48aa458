//! What this host lets its agent do to shut guests' QEMUs in: found out by doing it.
//!
//! QEMU itself is the trial's program (`-version`), so a trial that ends well tells, too, that it finds its libraries in there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bulkhead_nodeagent_core::hardware::iommu_group_of;
use bulkhead_nodeagent_core::qemu::{Accel, Device, QemuCommand, Ram, locked_bytes};
use bulkhead_nodeagent_core::{DeviceNode, Jail, NodeKind, Piece, QemuUser, Rights, SystemPath};
use bulkhead_types::ObjectId;
use rustix::process::{Gid, Uid};

use crate::machine::MachineTree;
use crate::vm::jail::MARK;
use crate::vm::session;
use crate::{AgentConfig, ConfinementChoice};

/// Folders and links of a system that programs and their libraries are found by.
const SYSTEM: [&str; 9] =
    ["/usr", "/lib", "/lib32", "/lib64", "/libx32", "/bin", "/sbin", "/nix/store", "/gnu/store"];
/// Further files and folders of which the dynamic loader makes use (ld.so(8), update-alternatives(1)).
const LOADER: [&str; 2] = ["/etc/ld.so.cache", "/etc/alternatives"];
/// How long a trial may take.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(20);
/// Stands in for QEMU in a trial while that is not installed.
const NO_QEMU: &str = "/bin/true";

/// How guests of this agent are shut in.
#[derive(Debug)]
pub(crate) struct Confinement {
    pieces: BTreeSet<Piece>,
    /// What this host does not permit, and why.
    missing: BTreeMap<Piece, String>,
    user: QemuUser,
    system: Vec<SystemPath>,
    /// An empty folder, for the root of namespaces.
    root: PathBuf,
    choice: ConfinementChoice,
}

/// What one guest's QEMU is to see and to be.
pub(crate) struct Inmate<'a> {
    pub(crate) pod: ObjectId,
    /// The instance's folder.
    pub(crate) dir: &'a Path,
    pub(crate) program: &'a Path,
    pub(crate) command: &'a QemuCommand,
    /// Images below its disks.
    pub(crate) images: Vec<PathBuf>,
    /// Files of its control groups.
    pub(crate) groups: Vec<PathBuf>,
}

impl Confinement {
    /// Finds out what this host permits.
    pub(crate) async fn find_out(config: &AgentConfig, data: &Path) -> io::Result<Self> {
        let root = data.join("root");
        fs::create_dir_all(&root)?;
        let user = config.qemu_user.unwrap_or(match rustix::process::geteuid().is_root() {
            true => QemuUser::DEFAULT_RANGE,
            false => QemuUser::Agent,
        });
        let mut confinement = Self::none(user, root, config.confinement);
        if config.confinement != ConfinementChoice::Off {
            confinement.try_pieces(config, data).await?;
        }
        Ok(confinement)
    }

    /// One that shuts nobody in yet.
    pub(crate) fn none(user: QemuUser, root: PathBuf, choice: ConfinementChoice) -> Self {
        let (pieces, missing) = (BTreeSet::new(), BTreeMap::new());
        Self { pieces, missing, user, system: system(), root, choice }
    }

    /// First everything at once; where that fails each by itself, and those that work together.
    async fn try_pieces(&mut self, config: &AgentConfig, data: &Path) -> io::Result<()> {
        let mut wanted = BTreeSet::from(Piece::ALL);
        if self.user == QemuUser::Agent {
            wanted.remove(&Piece::User);
            self.missing.insert(Piece::User, "it is the agent's".to_owned());
        }
        let dir = data.join("trial");
        if self.attempt(&wanted, config, &dir).await?.is_some() {
            for piece in wanted.clone() {
                if let Some(why) = self.attempt(&BTreeSet::from([piece]), config, &dir).await? {
                    wanted.remove(&piece);
                    self.missing.insert(piece, why);
                }
            }
        }
        // Another user finds no way to the pod's folder but by its own mounts.
        if !wanted.contains(&Piece::Mounts) && wanted.remove(&Piece::User) {
            self.missing.insert(Piece::User, "it needs a mount namespace".to_owned());
        }
        while let Some(why) = self.attempt(&wanted, config, &dir).await? {
            let Some(piece) = wanted.pop_first() else { break };
            self.missing.insert(piece, why);
        }
        self.pieces = wanted;
        crate::disk::remove_dir(&dir)
    }

    /// Runs the trial's program with some pieces; why it failed.
    async fn attempt(
        &self,
        pieces: &BTreeSet<Piece>,
        config: &AgentConfig,
        dir: &Path,
    ) -> io::Result<Option<String>> {
        crate::disk::remove_dir(dir)?;
        fs::create_dir_all(dir)?;
        let program = resolve(&config.qemu).unwrap_or_else(|| PathBuf::from(NO_QEMU));
        let mut jail = self.jail_of(ObjectId(0), dir, pieces.clone());
        jail.files.insert(text(&program), Rights::ReadExecute);
        if let Err(error) = self.hand_over(&jail, &[]) {
            return Ok(Some(error.to_string()));
        }
        let steps = match jail.steps() {
            Ok(steps) => steps,
            Err(error) => return Ok(Some(error)),
        };
        let mut command = tokio::process::Command::new(&program);
        command.arg("-version").env_clear().current_dir(dir).stdin(Stdio::null()).kill_on_drop(true);
        let said = dir.join("said");
        command.stdout(Stdio::null()).stderr(fs::File::create(&said)?);
        session::confine(command.as_std_mut(), steps);
        let ended = match command.spawn() {
            Ok(mut child) => tokio::time::timeout(TRIAL_TIMEOUT, child.wait()).await,
            Err(error) => Ok(Err(error)),
        };
        let said = || fs::read_to_string(&said).unwrap_or_default().trim().to_owned();
        Ok(match ended {
            Ok(Ok(status)) if status.success() => None,
            Ok(Ok(status)) => Some(format!("{} ended with {status}: {}", program.display(), said())),
            Ok(Err(error)) => Some(format!("{} ({error})", said().trim_start_matches(MARK))),
            Err(_) => Some(format!("{} did not end", program.display())),
        })
    }

    /// What an operator should know.
    pub(crate) fn warnings(&self) -> Vec<String> {
        if self.choice == ConfinementChoice::Off {
            return vec!["guests' QEMUs are not shut in: --confinement off".to_owned()];
        }
        let line = |(piece, why): (&Piece, &String)| {
            format!("guests' QEMUs run without {}: {why}; {}", piece.name(), piece.remedy())
        };
        self.missing.iter().map(line).collect()
    }

    /// Why no pod may start; `None`: they may.
    pub(crate) fn refusal(&self) -> Option<String> {
        let required = self.choice == ConfinementChoice::Required && !self.missing.is_empty();
        required.then(|| format!("--confinement required: {}", self.warnings().join("; ")))
    }

    fn jail_of(&self, pod: ObjectId, dir: &Path, pieces: BTreeSet<Piece>) -> Jail {
        Jail {
            pieces,
            user: self.user.of(pod),
            groups: Vec::new(),
            root: text(&self.root),
            dir: text(dir),
            system: self.system.clone(),
            files: BTreeMap::new(),
            devices: Vec::new(),
            locked_bytes: None,
            tap: None,
            memory_fd: None,
        }
    }

    /// Whether a pod's QEMU can be of this user: its own or, if it was started without one, the agent's.
    pub(crate) fn may_be_user_of(&self, pod: ObjectId, user: u32) -> bool {
        let own = self.user.of(pod).map(|(uid, _)| uid);
        own == Some(user) || user == rustix::process::geteuid().as_raw()
    }

    /// The jail of a guest.
    pub(crate) fn jail(&self, inmate: &Inmate<'_>) -> io::Result<Jail> {
        let mut jail = self.jail_of(inmate.pod, inmate.dir, self.pieces.clone());
        jail.groups = inmate.groups.iter().map(|file| text(file)).collect();
        let command = inmate.command;
        jail.files.insert(text(inmate.program), Rights::ReadExecute);
        for file in beside(inmate.program) {
            jail.system.push(SystemPath::Folder(text(&file)));
        }
        let mut disks = BTreeMap::new();
        for image in &inmate.images {
            match block_device(image, NodeKind::BlockToRead)? {
                Some(node) => _ = disks.insert(node.path.clone(), node),
                None => _ = jail.files.insert(text(image), Rights::Read),
            }
        }
        if !command.incoming {
            for file in [&command.kernel.kernel, &command.kernel.initrd] {
                jail.files.insert(file.clone(), Rights::Read);
            }
        }
        if let Ram::Template(memory) = &command.ram {
            jail.memory_fd = Some(memory.fd);
        }
        for disk in command.blockdevs.iter().filter(|disk| disk.filename.starts_with('/')) {
            let (rights, kind) = match disk.read_only {
                true => (Rights::Read, NodeKind::BlockToRead),
                false => (Rights::ReadWrite, NodeKind::Block),
            };
            match block_device(Path::new(&disk.filename), kind)? {
                Some(node) => _ = disks.insert(node.path.clone(), node),
                None => _ = jail.files.insert(disk.filename.clone(), rights),
            }
        }
        let mut devices = Vec::new();
        if command.accel == Accel::Kvm {
            devices.push("/dev/kvm".to_owned());
        }
        let vfio = command.devices.iter().filter_map(|device| match device {
            Device::VfioPci(device) => Some(device.host),
            _ => None,
        });
        for address in vfio {
            jail.locked_bytes = Some(locked_bytes(command.memory.size_bytes));
            // Who is not shut in finds them where they are.
            if jail.pieces.is_empty() {
                continue;
            }
            if devices.iter().all(|path| path != VFIO) {
                devices.push(VFIO.to_owned());
                jail.system.push(SystemPath::Folder("/sys".to_owned()));
            }
            let group = iommu_group_of(&MachineTree::new("/"), address)
                .map_err(|error| io::Error::other(format!("the IOMMU group of {address} {error}")))?;
            devices.push(format!("/dev/vfio/{group}"));
        }
        devices.dedup();
        jail.devices = devices.iter().map(|path| device(path)).collect::<io::Result<_>>()?;
        jail.devices.extend(disks.into_values());
        Ok(jail)
    }

    /// Gives a guest's files to its user: its folder, of which it can take nothing away that is not its own, and these.
    pub(crate) fn hand_over(&self, jail: &Jail, files: &[PathBuf]) -> io::Result<()> {
        let Some((uid, gid)) = jail.user.filter(|_| jail.pieces.contains(&Piece::User)) else {
            return Ok(());
        };
        // Sticky: what the agent made there can be neither removed nor replaced by a link.
        let shared = fs::Permissions::from_mode(0o1770);
        fs::set_permissions(&jail.dir, shared)?;
        rustix::fs::chown(jail.dir.as_str(), None, Some(Gid::from_raw(gid)))?;
        // Of a device it has a node of its own; the host's stays the host's.
        for file in files.iter().filter(|file| !is_block_device(file)) {
            rustix::fs::chown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
            fs::set_permissions(file, fs::Permissions::from_mode(0o600))?;
        }
        for (file, _) in jail.files.iter().filter(|(_, rights)| **rights == Rights::Read) {
            let mode = fs::metadata(file)?.permissions().mode();
            if mode & 0o004 == 0 {
                fs::set_permissions(file, fs::Permissions::from_mode(mode | 0o444))?;
            }
        }
        Ok(())
    }
}

const VFIO: &str = "/dev/vfio/vfio";

/// Paths of this agent are text: its command lines are.
fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The program as a path from the root, wherever on the search path it is; `None`: nowhere.
pub(crate) fn resolve(program: &Path) -> Option<PathBuf> {
    if program.components().count() > 1 {
        let path = std::path::absolute(program).ok()?;
        return path.is_file().then_some(path);
    }
    let search = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&search).map(|dir| dir.join(program)).find(|path| path.is_file())?;
    std::path::absolute(found).ok()
}

/// What a QEMU that is installed in a folder of its own has beside its `bin`.
fn beside(program: &Path) -> Vec<PathBuf> {
    let prefix = fs::canonicalize(program).ok();
    let prefix = prefix.as_deref().and_then(Path::parent).and_then(Path::parent);
    let Some(prefix) = prefix.filter(|prefix| prefix.join("share/qemu").is_dir()) else { return Vec::new() };
    if prefix.starts_with("/usr") || prefix == Path::new("/") {
        return Vec::new();
    }
    let folders = ["share/qemu", "lib", "lib64"].map(|name| prefix.join(name));
    folders.into_iter().filter(|path| path.is_dir()).collect()
}

/// What there is of the system's folders, links and files.
fn system() -> Vec<SystemPath> {
    let look = |path: &&str| {
        let meta = fs::symlink_metadata(path).ok()?;
        let path = (*path).to_owned();
        if meta.is_symlink() {
            let says = fs::read_link(&path).ok()?;
            Some(SystemPath::Link(path, text(&says)))
        } else if meta.is_dir() {
            Some(SystemPath::Folder(path))
        } else {
            Some(SystemPath::File(path))
        }
    };
    SYSTEM.iter().chain(&LOADER).filter_map(look).collect()
}

fn device(path: &str) -> io::Result<DeviceNode> {
    let meta =
        fs::metadata(path).map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))?;
    if !meta.file_type().is_char_device() {
        return Err(io::Error::other(format!("{path} is no device")));
    }
    let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    Ok(DeviceNode { path: path.to_owned(), major, minor, kind: NodeKind::Character })
}

fn is_block_device(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.file_type().is_block_device())
}

/// The node of a block device, at the path by which QEMU finds it; `None`: it is none.
fn block_device(path: &Path, kind: NodeKind) -> io::Result<Option<DeviceNode>> {
    if !is_block_device(path) {
        return Ok(None);
    }
    let device = fs::metadata(path)?.rdev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    Ok(Some(DeviceNode { path: text(path), major, minor, kind }))
}

/// What `--qemu-user` says: `agent`, a user's name, `UID`, `UID:GID` or `FIRST-LAST`.
///
/// # Errors
/// When it is none of these, when no such user is there, or when it would be root.
pub fn parse_qemu_user(text: &str) -> Result<QemuUser, String> {
    let number = |text: &str| text.parse::<u32>().ok();
    let parsed = match (text.split_once('-'), text.split_once(':')) {
        _ if text == "agent" => Some(QemuUser::Agent),
        (_, Some((uid, gid))) => number(uid).zip(number(gid)).map(|(uid, gid)| QemuUser::One { uid, gid }),
        (Some((first, last)), _) if number(first).is_some() => {
            let range = number(first).zip(number(last)).filter(|(first, last)| first <= last);
            range.map(|(first, last)| QemuUser::Range { first, last })
        }
        _ => match number(text) {
            Some(uid) => Some(QemuUser::One { uid, gid: uid }),
            None => Some(named(text)?),
        },
    };
    match parsed {
        Some(
            QemuUser::One { uid: 0, .. } | QemuUser::One { gid: 0, .. } | QemuUser::Range { first: 0, .. },
        ) => Err("guests' QEMUs must not be root; say agent to run them as the agent's user".to_owned()),
        Some(user) => Ok(user),
        None => Err("expected agent, a user's name, UID, UID:GID or FIRST-LAST".to_owned()),
    }
}

fn named(name: &str) -> Result<QemuUser, String> {
    match nix::unistd::User::from_name(name) {
        Ok(Some(user)) => Ok(QemuUser::One { uid: user.uid.as_raw(), gid: user.gid.as_raw() }),
        Ok(None) => Err(format!("there is no user {name}; run: useradd --system --no-create-home {name}")),
        Err(error) => Err(format!("user {name} cannot be looked up: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_named_or_numbered_and_never_root() {
        let check = |text: &str, expected: Option<QemuUser>| {
            assert_eq!(parse_qemu_user(text).ok(), expected, "{text}");
        };
        check("agent", Some(QemuUser::Agent));
        check("64055", Some(QemuUser::One { uid: 64_055, gid: 64_055 }));
        check("64055:108", Some(QemuUser::One { uid: 64_055, gid: 108 }));
        check("100000-165535", Some(QemuUser::Range { first: 100_000, last: 165_535 }));
        for wrong in ["root", "0", "0:5", "5:0", "0-9", "9-5", "9-", ":", "", "no-such-user-here"] {
            check(wrong, None);
        }
    }

    #[test]
    fn programs_are_found_on_the_search_path_and_by_their_path() {
        let shell = resolve(Path::new("sh")).expect("there is a shell");
        assert!(shell.is_absolute());
        assert_eq!(resolve(&shell), Some(shell));
        assert_eq!(resolve(Path::new("/nonexistent/qemu")), None);
        assert_eq!(resolve(Path::new("no-such-program-here")), None);
    }
}
