//! The machine: board, processor, memory, kernel, identity, confinement.

use uuid::Uuid;

use super::option::Opts;

/// What runs the guest's instructions (`-accel`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accel {
    /// The processor itself.
    Kvm,
    /// Emulation; `multi` gives every virtual processor its own thread.
    Tcg {
        /// `thread=multi` instead of `single`.
        multi: bool,
    },
}

impl Accel {
    pub(super) fn args(self) -> [String; 2] {
        let value = match self {
            Self::Kvm => Opts::new("kvm"),
            Self::Tcg { multi } => Opts::new("tcg").set("thread", if multi { "multi" } else { "single" }),
        };
        ["-accel".to_owned(), value.finish()]
    }
}

/// The board (`-machine`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Its type.
    pub machine_type: MachineType,
    /// Whether a USB controller is there.
    pub usb: bool,
    /// Whether guest memory is part of a core dump of QEMU.
    pub dump_guest_core: bool,
    /// Whether the host's kernel may give pages of several guests that are alike one place (KSM).
    pub mem_merge: bool,
}

/// Types of boards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineType {
    /// PCI Express with root ports: VFIO needs it.
    Q35,
}

impl Machine {
    pub(super) fn args(self) -> [String; 2] {
        let name = match self.machine_type {
            MachineType::Q35 => "q35",
        };
        let value = Opts::new(name)
            .flag("usb", self.usb)
            .flag("dump-guest-core", self.dump_guest_core)
            .flag("mem-merge", self.mem_merge);
        ["-machine".to_owned(), value.finish()]
    }
}

/// The processor model (`-cpu`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cpu {
    /// Everything the accelerator offers.
    Max,
    /// The host's processor; only with KVM.
    Host,
}

impl Cpu {
    pub(super) fn args(self) -> [String; 2] {
        let name = match self {
            Self::Max => "max",
            Self::Host => "host",
        };
        ["-cpu".to_owned(), name.to_owned()]
    }
}

/// Virtual processors (`-smp`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Smp {
    /// How many.
    pub cpus: u32,
}

impl Smp {
    pub(super) fn args(self) -> [String; 2] {
        let value = Opts::keyed("cpus", self.cpus).set("maxcpus", self.cpus);
        ["-smp".to_owned(), value.finish()]
    }
}

/// Memory (`-m`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// How much, in bytes; rounded up to whole MiB.
    pub size_bytes: u64,
}

impl Memory {
    pub(super) fn args(self) -> [String; 2] {
        let mib = self.size_bytes.div_ceil(1 << 20);
        ["-m".to_owned(), Opts::keyed("size", format!("{mib}M")).finish()]
    }
}

/// Direct boot (`-kernel`, `-initrd`, `-append`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Path of the kernel image.
    pub kernel: String,
    /// Path of the initial RAM file system.
    pub initrd: String,
    /// Words of the kernel's command line.
    pub append: Vec<String>,
}

impl Kernel {
    pub(super) fn args(&self) -> Vec<String> {
        let pairs = [("-kernel", self.kernel.clone()), ("-initrd", self.initrd.clone())];
        let mut args: Vec<String> = pairs.into_iter().flat_map(|(k, v)| [k.to_owned(), v]).collect();
        args.extend(["-append".to_owned(), self.append.join(" ")]);
        args
    }
}

/// What the process is called (`-name`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// The guest's name.
    pub guest: String,
    /// Whether threads are named after what they do.
    pub debug_threads: bool,
}

impl Name {
    pub(super) fn args(&self) -> [String; 2] {
        let value = Opts::keyed("guest", &self.guest).flag("debug-threads", self.debug_threads);
        ["-name".to_owned(), value.finish()]
    }
}

/// The guest's identity (`-uuid`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MachineUuid(pub Uuid);

impl MachineUuid {
    pub(super) fn args(self) -> [String; 2] {
        ["-uuid".to_owned(), self.0.to_string()]
    }
}

/// QEMU's own system call filter (`-sandbox`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// Old system calls stay allowed.
    pub obsolete: bool,
    /// Changing user or group stays allowed.
    pub elevateprivileges: bool,
    /// Starting processes stays allowed.
    pub spawn: bool,
    /// Changing scheduling and affinity stays allowed.
    pub resourcecontrol: bool,
}

impl Sandbox {
    /// Everything denied that can be denied.
    pub const STRICT: Self =
        Self { obsolete: false, elevateprivileges: false, spawn: false, resourcecontrol: false };

    /// The switch and its value.
    #[must_use]
    pub fn to_args(self) -> [String; 2] {
        let word = |allowed: bool| if allowed { "allow" } else { "deny" };
        let value = Opts::new("on")
            .set("obsolete", word(self.obsolete))
            .set("elevateprivileges", word(self.elevateprivileges))
            .set("spawn", word(self.spawn))
            .set("resourcecontrol", word(self.resourcecontrol));
        ["-sandbox".to_owned(), value.finish()]
    }
}
