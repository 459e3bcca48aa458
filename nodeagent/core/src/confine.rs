//! How a guest's QEMU is shut in: the system calls that its process makes between fork and exec, as data.
//!
//! ```text
//!  what the process sees:   /usr /lib … /etc/ld.so.cache    read-only, of the host
//!                           <kernel> <initramfs> <images>    read-only, this pod's only
//!                           <instance's folder> <volumes>    writable, this pod's only
//!                           /dev/{null,zero,full,random,urandom,kvm,vfio/…}, and its volumes that are devices
//!                           /proc/sys/vm/overcommit_memory    read-only
//!  what it is:              a user of its own, no capabilities and no way to any, no network, its own IPC
//! ```
//!
//! Nothing here looks at the host or makes a call. Sources: namespaces(7), mount_namespaces(7), pivot_root(2), capabilities(7),
//! `userspace-api/no_new_privs.rst` of Linux' documentation.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;

use bulkhead_types::ObjectId;
use serde::{Deserialize, Serialize};

/// Limit on open files: sockets, disks, and the event descriptors of devices.
const OPEN_FILES_MAX: u64 = 8192;
/// Memory that QEMU may lock when it has no device of the host, in bytes (the kernel's default).
const LOCKED_BYTES_MAX: u64 = 8 << 20;
/// Where the namespace's root is; it holds nothing but mount points and nodes.
const ROOT_OPTIONS: &str = "mode=0755,size=1m,nr_inodes=4096";
/// Nodes that every program may expect: name, major and minor number (`admin-guide/devices.txt`).
const NODES: [(&str, u32, u32); 5] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
];

/// Where a process finds its own descriptors (proc(5)).
const OWN_FILES: &str = "/proc/self/fd";
/// How the kernel counts memory that nobody uses yet (proc_sys_vm(5)): QEMU wants to know before it leaves some unreserved, as that into
/// which a guest may grow.
const OVERCOMMIT: &str = "/proc/sys/vm/overcommit_memory";

/// The descriptor that a guest's QEMU finds its tap at. The agent keeps the number free of anything else of its own.
pub const TAP_FD: i32 = 1000;

/// One thing that keeps a QEMU in, and that not every host permits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Piece {
    /// A user without rights, another one for each pod.
    User,
    /// A mount namespace with what the guest needs, and nothing else.
    Mounts,
    /// A network namespace without a network.
    Network,
    /// IPC and UTS namespaces of its own.
    Ipc,
    /// An empty capability bounding set.
    Capabilities,
}

impl Piece {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::User, Self::Mounts, Self::Network, Self::Ipc, Self::Capabilities];

    /// Its name, for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "a user of its own",
            Self::Mounts => "a mount namespace",
            Self::Network => "a network namespace",
            Self::Ipc => "IPC and UTS namespaces",
            Self::Capabilities => "an empty capability bounding set",
        }
    }

    /// What an operator does about it.
    #[must_use]
    pub fn remedy(self) -> &'static str {
        match self {
            Self::User => {
                "run the agent as root, or with CAP_SETUID, CAP_SETGID and CAP_CHOWN, and without --qemu-user agent"
            }
            Self::Mounts => {
                "run the agent as root, or with CAP_SYS_ADMIN and CAP_MKNOD, and with a data directory outside of /usr"
            }
            Self::Network | Self::Ipc => "run the agent as root, or with CAP_SYS_ADMIN",
            Self::Capabilities => "run the agent as root, or with CAP_SETPCAP",
        }
    }
}

/// As whom guests' QEMUs run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QemuUser {
    /// As the agent does.
    Agent,
    /// All as this one: what one of them breaks into can signal and trace the others.
    One {
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// Each pod's as another one; the group has the same number.
    Range {
        /// The first.
        first: u32,
        /// The last.
        last: u32,
    },
}

impl QemuUser {
    /// The default of an agent that is root: numbers that systemd's list (`UIDS-GIDS.md`) leaves unused.
    pub const DEFAULT_RANGE: Self = Self::Range { first: 1_879_500_000, last: 1_879_500_000 + (1 << 24) - 1 };

    /// User and group of a pod's QEMU; `None`: the agent's. Two pods share one when their ids differ by a multiple of the range.
    #[must_use]
    pub fn of(self, pod: ObjectId) -> Option<(u32, u32)> {
        match self {
            Self::Agent => None,
            Self::One { uid, gid } => Some((uid, gid)),
            Self::Range { first, last } => {
                let length = u64::from(last.saturating_sub(first)) + 1;
                let uid = first + u32::try_from(pod.0 % length).expect("shorter than a range of u32");
                Some((uid, uid))
            }
        }
    }
}

/// A folder or file of the host's system that every guest's QEMU sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SystemPath {
    /// A folder, with everything below it.
    Folder(String),
    /// A file.
    File(String),
    /// A link, and what it says.
    Link(String, String),
}

impl SystemPath {
    fn path(&self) -> &str {
        match self {
            Self::Folder(path) | Self::File(path) | Self::Link(path, _) => path,
        }
    }
}

/// What kind of device it is, and what can be done with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeKind {
    /// A character device, to read and to write.
    #[default]
    Character,
    /// A block device, to read and to write.
    Block,
    /// A block device, to read only.
    BlockToRead,
}

/// A device of the host that the guest has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNode {
    /// Its path, the same on both sides.
    pub path: String,
    /// Its numbers.
    pub major: u32,
    /// The second of them.
    pub minor: u32,
    /// What it is.
    #[serde(default)]
    pub kind: NodeKind,
}

/// Where one guest's QEMU is shut in, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jail {
    /// What this host permits.
    pub pieces: BTreeSet<Piece>,
    /// User and group.
    pub user: Option<(u32, u32)>,
    /// Files that a process writes 0 to, to join the guest's control groups.
    pub groups: Vec<String>,
    /// An empty folder of the host, over which the new root is mounted.
    pub root: String,
    /// The instance's folder: the working directory, and the only one that can be written to.
    pub dir: String,
    /// What everybody sees.
    pub system: Vec<SystemPath>,
    /// Further files, and what can be done with each.
    pub files: BTreeMap<String, Rights>,
    /// Further devices.
    pub devices: Vec<DeviceNode>,
    /// Memory that it may lock, in bytes, where devices of the host need all of the guest's.
    pub locked_bytes: Option<u64>,
    /// The host's tap that it has open as [`TAP_FD`]; in its own namespace there is no network.
    #[serde(default)]
    pub tap: Option<String>,
    /// The agent's descriptor of a file without a name that the guest's memory is in: QEMU has it, and finds it by its number.
    #[serde(default)]
    pub memory_fd: Option<i32>,
}

/// One system call. Paths are the host's before [`Step::Pivot`], the namespace's after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Joins a control group: 0 is written to this file.
    Join(CString),
    /// Opens a tap of the host as this descriptor.
    Tap(CString, i32),
    /// Leaves the host's namespaces of these pieces.
    Unshare(BTreeSet<Piece>),
    /// What is mounted from here on stays in the namespace.
    MakePrivate,
    /// Sets the mask of new files' modes.
    Mask(u32),
    /// A new file system in memory.
    Memory(CString, CString),
    /// A folder; one that is there is fine.
    Folder(CString),
    /// An empty file.
    File(CString),
    /// A link with this content.
    Link(CString, CString),
    /// A character device with its numbers.
    Node(CString, u32, u32),
    /// A block device with its numbers and mode.
    BlockNode(CString, u32, u32, u32),
    /// Makes user and group the owners of a path.
    Own(CString, u32, u32),
    /// Gives a path to user and group, for them alone.
    Give(CString, u32, u32),
    /// Shows the host's path at another one.
    Bind(CString, CString),
    /// Takes rights from what is mounted there.
    Restrict(CString, Rights),
    /// Makes a folder the root, and lets go of the old one.
    Pivot(CString),
    /// Enters a folder.
    Enter(CString),
    /// Soft and hard limit.
    Limit(Limit, u64),
    /// Empties the capability bounding set.
    DropCapabilities,
    /// Becomes this user and group, without any other group.
    Become(u32, u32),
    /// Gives up what capabilities are left, and every way to new ones.
    NoNewPrivileges,
    /// Nothing but standard input, output and error is left open when the program begins.
    CloseFiles,
    /// This descriptor is left open, too.
    KeepFile(i32),
}

/// What can be done with what is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rights {
    /// Read and execute.
    ReadExecute,
    /// Read; nodes of devices work.
    ReadDevices,
    /// Read only.
    Read,
    /// Read and write.
    ReadWrite,
}

/// Resources that setrlimit(2) bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Size of a core dump: a guest's memory is nobody's business.
    Core,
    /// Open files.
    OpenFiles,
    /// Locked memory.
    LockedMemory,
}

impl Jail {
    /// The calls, in order.
    ///
    /// # Errors
    /// When a path cannot be shown: it holds a NUL, or what is to be written to lies within the system's folders.
    pub fn steps(&self) -> Result<Vec<Step>, String> {
        let mut steps = Vec::new();
        for file in &self.groups {
            steps.push(Step::Join(c(file)?));
        }
        // While it is in the host's network.
        if let Some(tap) = &self.tap {
            steps.push(Step::Tap(c(tap)?, TAP_FD));
        }
        let apart = [Piece::Mounts, Piece::Network, Piece::Ipc];
        let apart: BTreeSet<_> = apart.into_iter().filter(|piece| self.pieces.contains(piece)).collect();
        if !apart.is_empty() {
            steps.push(Step::Unshare(apart));
        }
        if self.pieces.contains(&Piece::Mounts) {
            Builder { jail: self, made: BTreeSet::new(), steps: &mut steps }.build()?;
        }
        let locked = self.locked_bytes.unwrap_or(LOCKED_BYTES_MAX);
        steps.extend([
            Step::Mask(0o077),
            Step::Limit(Limit::Core, 0),
            Step::Limit(Limit::OpenFiles, OPEN_FILES_MAX),
            Step::Limit(Limit::LockedMemory, locked),
        ]);
        if self.pieces.contains(&Piece::Capabilities) {
            steps.push(Step::DropCapabilities);
        }
        if let Some((uid, gid)) = self.user.filter(|_| self.pieces.contains(&Piece::User)) {
            steps.push(Step::Become(uid, gid));
        }
        steps.extend([Step::NoNewPrivileges, Step::CloseFiles]);
        steps.extend(self.tap.iter().map(|_| Step::KeepFile(TAP_FD)));
        steps.extend(self.memory_fd.map(Step::KeepFile));
        Ok(steps)
    }
}

struct Builder<'a> {
    jail: &'a Jail,
    made: BTreeSet<String>,
    steps: &'a mut Vec<Step>,
}

impl Builder<'_> {
    fn build(&mut self) -> Result<(), String> {
        let jail = self.jail;
        self.steps.extend([Step::MakePrivate, Step::Mask(0)]);
        self.steps.push(Step::Memory(c(&jail.root)?, c(ROOT_OPTIONS)?));
        for path in &jail.system {
            match path {
                SystemPath::Folder(path) => self.show(path, true, Rights::ReadExecute)?,
                SystemPath::File(path) => self.show(path, false, Rights::ReadExecute)?,
                SystemPath::Link(path, says) => {
                    let at = c(&self.inside(path))?;
                    self.steps.push(Step::Link(c(says)?, at));
                }
            }
        }
        for (path, major, minor) in NODES {
            self.node(path, major, minor)?;
        }
        for device in &jail.devices {
            self.device(device)?;
        }
        for (path, rights) in &jail.files {
            match (self.is_shown(path), rights) {
                (true, Rights::ReadWrite) => return Err(within(path)),
                (true, _) => {}
                (false, rights) => self.show(path, false, *rights)?,
            }
        }
        self.show(OVERCOMMIT, false, Rights::Read)?;
        if jail.memory_fd.is_some() {
            // Its own descriptors and nothing else of processes: the link is of the process that follows it now, and stays so.
            self.make_parents(OWN_FILES)?;
            let at = c(&self.inside(OWN_FILES))?;
            self.steps.extend([Step::Folder(at.clone()), Step::Bind(c(OWN_FILES)?, at.clone())]);
            self.steps.push(Step::Restrict(at, Rights::Read));
        }
        if self.is_shown(&jail.dir) {
            return Err(within(&jail.dir));
        }
        self.show(&jail.dir, true, Rights::ReadWrite)?;
        self.steps.push(Step::Pivot(c(&jail.root)?));
        self.steps.push(Step::Restrict(c("/")?, Rights::ReadDevices));
        self.steps.push(Step::Enter(c(&jail.dir)?));
        Ok(())
    }

    /// Whether something of the system has the path already.
    fn is_shown(&self, path: &str) -> bool {
        self.jail.system.iter().any(|one| is_below(path, one.path()))
    }

    fn inside(&self, path: &str) -> String {
        format!("{}{path}", self.jail.root)
    }

    fn make_parents(&mut self, path: &str) -> Result<(), String> {
        for (end, _) in path.match_indices('/').filter(|(end, _)| *end > 0) {
            if self.made.insert(path[..end].to_owned()) {
                let at = c(&self.inside(&path[..end]))?;
                self.steps.push(Step::Folder(at));
            }
        }
        Ok(())
    }

    fn show(&mut self, path: &str, folder: bool, rights: Rights) -> Result<(), String> {
        self.make_parents(path)?;
        let at = c(&self.inside(path))?;
        self.steps.push(if folder { Step::Folder(at.clone()) } else { Step::File(at.clone()) });
        self.made.insert(path.to_owned());
        self.steps.push(Step::Bind(c(path)?, at.clone()));
        self.steps.push(Step::Restrict(at, rights));
        Ok(())
    }

    fn device(&mut self, device: &DeviceNode) -> Result<(), String> {
        let user = self.jail.user.filter(|_| self.jail.pieces.contains(&Piece::User));
        let mode = match (device.kind, user) {
            (NodeKind::Character, user) => {
                let at = self.node(&device.path, device.major, device.minor)?;
                self.steps.extend(user.map(|(uid, gid)| Step::Give(at, uid, gid)));
                return Ok(());
            }
            (NodeKind::Block, Some(_)) => 0o600,
            (NodeKind::Block, None) => 0o666,
            (NodeKind::BlockToRead, Some(_)) => 0o400,
            (NodeKind::BlockToRead, None) => 0o444,
        };
        self.make_parents(&device.path)?;
        let at = c(&self.inside(&device.path))?;
        self.steps.push(Step::BlockNode(at.clone(), device.major, device.minor, mode));
        self.steps.extend(user.map(|(uid, gid)| Step::Own(at, uid, gid)));
        Ok(())
    }

    fn node(&mut self, path: &str, major: u32, minor: u32) -> Result<CString, String> {
        self.make_parents(path)?;
        let at = c(&self.inside(path))?;
        self.steps.push(Step::Node(at.clone(), major, minor));
        Ok(at)
    }
}

fn is_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn within(path: &str) -> String {
    format!("{path} lies within the folders of the system that every guest's QEMU sees")
}

fn c(text: &str) -> Result<CString, String> {
    CString::new(text).map_err(|_| format!("{text:?} holds a NUL"))
}
