//! Whether a machine is ready for guests with devices: one answer for each thing that it needs, with what to do.
//!
//! Source: "VFIO" and "iommu" of Linux' documentation (`driver-api/vfio.rst`, `admin-guide/kernel-parameters.txt`).

use serde::{Deserialize, Serialize};

/// Who needs something of a machine.
pub use bulkhead_types::PreconditionNeed as Need;
/// Whether it is there.
pub use bulkhead_types::PreconditionOutcome as Outcome;
use bulkhead_types::{HugePageSize, HugePages, NamedDeviceClass, NodePrecondition};
use smol_str::SmolStr;

use super::devices::is_for_guests;
use super::network_preconditions::network_preconditions;
use super::{
    HUGE_PAGE_POOLS, Inventory, PciFunction, Sriov, Tree, TreeError, device_class_of, free_huge_pages,
    has_kvm_file, huge_page_pool, huge_pages, offers_virtual_functions,
};

/// One thing that a machine needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Precondition {
    /// Its name.
    pub name: &'static str,
    /// Who needs it.
    pub need: Need,
    /// Whether it is there.
    pub outcome: Outcome,
    /// What was found.
    pub found: String,
    /// What to do when it is missing or unknown; empty when nothing is.
    pub remedy: String,
}

/// Everything, in the order in which it is best mended.
#[must_use]
pub fn preconditions(
    tree: &dyn Tree,
    inventory: &Inventory,
    classes: &[NamedDeviceClass],
) -> Vec<Precondition> {
    Host { tree, inventory, classes, tells_moment: true }.all()
}

/// What a run of a guest with KVM told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum KvmTrial {
    /// The guest said its word.
    Runs,
    /// It did not, or could not be tried: why.
    Fails(String),
    /// Nobody tried: the agent's operator wants guests emulated.
    #[default]
    NotWanted,
}

/// The same as nodes tell of them: whether KVM runs guests is known then, and what changes from moment to moment, such as how many
/// huge pages are free, is left out.
#[must_use]
pub fn node_preconditions(
    tree: &dyn Tree,
    inventory: &Inventory,
    classes: &[NamedDeviceClass],
    kvm: &KvmTrial,
) -> Vec<NodePrecondition> {
    let host = Host { tree, inventory, classes, tells_moment: false };
    let tried = |one: Precondition| if one.name == KVM { kvm_tried(one, kvm) } else { one };
    let all = host.all().into_iter().map(tried).take(bulkhead_types::PRECONDITIONS_MAX);
    all.map(|Precondition { name, need, outcome, found, remedy }| {
        let (name, found, remedy) = (SmolStr::new_static(name), found.into(), remedy.into());
        NodePrecondition { name, need, outcome, found, remedy }.bounded()
    })
    .collect()
}

/// What looking told of KVM, with what trying did.
fn kvm_tried(looked: Precondition, trial: &KvmTrial) -> Precondition {
    let (outcome, found, remedy) = match trial {
        KvmTrial::NotWanted => {
            (Outcome::NotNeeded, "the agent emulates guests, as its operator says".to_owned(), "")
        }
        KvmTrial::Runs => (Outcome::Met, "a guest ran with KVM".to_owned(), ""),
        // No /dev/kvm: looking told more than trying.
        KvmTrial::Fails(_) if looked.outcome == Outcome::Missing => return looked,
        KvmTrial::Fails(reason) => (
            Outcome::Missing,
            format!("no guest runs with KVM: {reason}"),
            "dmesg tells what kvm_intel or kvm_amd says; in a virtual machine turn nested virtualisation on in its host \
             (nested=1); then: kill -USR1 the agent, which tries again",
        ),
    };
    answer(looked.name, looked.need, outcome, found, remedy)
}

/// What is missing for the attachment of any device at all, whatever pods could have of this machine; empty when nothing is.
#[must_use]
pub fn missing_for_devices(tree: &dyn Tree) -> Vec<Precondition> {
    let inventory = Inventory::default();
    let host = Host { tree, inventory: &inventory, classes: &[], tells_moment: false };
    let all = [host.iommu_units(), host.vfio_driver(), host.vfio_file()];
    all.into_iter().filter(|one| one.outcome != Outcome::Met).collect()
}

/// Whether a machine has anything that a class means, or could make virtual functions that one does.
#[must_use]
pub fn has_devices(tree: &dyn Tree, inventory: &Inventory, classes: &[NamedDeviceClass]) -> bool {
    Host { tree, inventory, classes, tells_moment: false }.wants_devices()
}

struct Host<'a> {
    tree: &'a dyn Tree,
    inventory: &'a Inventory,
    classes: &'a [NamedDeviceClass],
    /// What is so only just now is told, too.
    tells_moment: bool,
}

const KVM: &str = "kvm";
const CGROUP: &str = "/sys/fs/cgroup";
/// What limits of pods need of the host.
const CONTROLLERS: [&str; 4] = ["cpu", "memory", "pids", "io"];
/// What it takes to shut a guest in (capabilities(7)): number and name.
const CAPABILITIES: [(u32, &str); 8] = [
    (0, "CAP_CHOWN"),
    (1, "CAP_DAC_OVERRIDE"),
    (5, "CAP_KILL"),
    (6, "CAP_SETGID"),
    (7, "CAP_SETUID"),
    (8, "CAP_SETPCAP"),
    (21, "CAP_SYS_ADMIN"),
    (27, "CAP_MKNOD"),
];

pub(super) fn answer(
    name: &'static str,
    need: Need,
    outcome: Outcome,
    found: impl Into<String>,
    remedy: &str,
) -> Precondition {
    let remedy = if outcome.wants_remedy() { remedy.to_owned() } else { String::new() };
    Precondition { name, need, outcome, found: found.into(), remedy }
}

/// The first of a list of names, and how many more there are.
fn some_of<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<_> = items.into_iter().map(|item| item.to_string()).collect();
    let shown = items[..items.len().min(4)].join(", ");
    if items.len() > 4 { format!("{shown} and {} more", items.len() - 4) } else { shown }
}

impl Host<'_> {
    /// Everything, in the order in which it is best mended.
    fn all(&self) -> Vec<Precondition> {
        let mut all = vec![
            self.kvm(),
            self.cgroups(),
            self.confinement(),
            self.huge_pages(),
            self.iommu(),
            self.pass_through(),
            self.vfio(),
            self.for_devices(self.vfio_file()),
            self.drivers(),
            self.firmware(),
            self.virtual_functions(),
        ];
        all.extend(network_preconditions(self.tree));
        all
    }

    fn has(&self, path: &str) -> bool {
        self.tree.list(path).is_ok() || self.tree.read(path).is_ok()
    }

    fn text(&self, path: &str) -> String {
        self.tree
            .read(path)
            .map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned())
            .unwrap_or_default()
    }

    /// Functions that can be attached to pods: those that a class means, and whatever somebody bound for guests, as that is of a class
    /// that is not known here.
    fn devices(&self) -> impl Iterator<Item = &PciFunction> {
        self.inventory.functions.values().filter(|function| {
            device_class_of(self.classes, function).is_some()
                || is_for_guests(function) && !function.is_bridge()
        })
    }

    /// Cards whose virtual functions can be attached.
    fn parents(&self) -> impl Iterator<Item = &PciFunction> {
        self.inventory.functions.values().filter(|function| {
            function.is_physical_network() && offers_virtual_functions(self.classes, function)
        })
    }

    fn wants_devices(&self) -> bool {
        self.devices().chain(self.parents()).next().is_some()
    }

    /// An answer about devices, where there is any.
    fn for_devices(&self, answer: Precondition) -> Precondition {
        if self.wants_devices() || answer.outcome == Outcome::Met {
            return answer;
        }
        let found = format!("{}; no device that pods could have", answer.found);
        Precondition { outcome: Outcome::NotNeeded, found, remedy: String::new(), ..answer }
    }

    fn kvm(&self) -> Precondition {
        let there = has_kvm_file(self.tree);
        let (outcome, found) = if there {
            // It may open and run no guest: the agent runs one to find out.
            (Outcome::Unknown, "/dev/kvm is there; the agent tries a guest when it starts")
        } else {
            (Outcome::Missing, "there is no /dev/kvm: guests are emulated, which is slow")
        };
        answer(
            KVM,
            Need::Speed,
            outcome,
            found,
            if there {
                "see the node's warnings once its agent has joined"
            } else {
                "turn virtualisation on in the firmware (VT-x, AMD-V), then: modprobe kvm_intel or kvm_amd"
            },
        )
    }

    fn cgroups(&self) -> Precondition {
        let version_2 = self.text(&format!("{CGROUP}/cgroup.controllers"));
        let missing: Vec<_> = if version_2.is_empty() {
            // In version 1 the controller of disks has another name.
            let folder = |name: &str| if name == "io" { "blkio".to_owned() } else { name.to_owned() };
            CONTROLLERS.into_iter().filter(|name| !self.has(&format!("{CGROUP}/{}", folder(name)))).collect()
        } else {
            let has = |name: &&str| version_2.split_whitespace().any(|one| one == *name);
            CONTROLLERS.into_iter().filter(|name| !has(name)).collect()
        };
        let version = if version_2.is_empty() { 1 } else { 2 };
        let (outcome, found) = match missing.len() {
            0 => (Outcome::Met, format!("cgroup version {version} with {}", CONTROLLERS.join(", "))),
            4 => (Outcome::Missing, format!("no controllers below {CGROUP}")),
            _ => (Outcome::Missing, format!("cgroup version {version} without {}", missing.join(", "))),
        };
        let remedy =
            "boot without cgroup_disable=, with systemd or by hand: mount -t cgroup2 none /sys/fs/cgroup";
        answer("cgroup-controllers", Need::Limits, outcome, found, remedy)
    }

    /// What the agent's user may do, as far as this process is it. The agent itself tries.
    fn confinement(&self) -> Precondition {
        let status = self.text("/proc/self/status");
        let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let effective = effective.and_then(|word| u64::from_str_radix(word.trim(), 16).ok());
        let lacks = |held: u64| CAPABILITIES.iter().filter(move |(bit, _)| held & (1 << bit) == 0);
        let (outcome, found) = match effective {
            None => (Outcome::Unknown, "what this user may do is not told".to_owned()),
            Some(held) if lacks(held).next().is_none() => {
                (Outcome::Met, "this user may make users, namespaces and nodes for guests".to_owned())
            }
            Some(held) => {
                (Outcome::Missing, format!("this user lacks {}", some_of(lacks(held).map(|(_, name)| name))))
            }
        };
        let remedy = "run the agent as root, or with the capabilities that are missing; see the node's warnings once it has joined";
        answer("confinement", Need::Confinement, outcome, found, remedy)
    }

    fn huge_pages(&self) -> Precondition {
        let pools = self.tree.list(HUGE_PAGE_POOLS).unwrap_or_default();
        let (all, free) =
            (huge_pages(self.tree, HUGE_PAGE_POOLS), free_huge_pages(self.tree, HUGE_PAGE_POOLS));
        // Each pool that the kernel has is told of, the empty ones too: pods of the other size wait for those.
        let is_there = |size: &HugePageSize| {
            let folder = huge_page_pool(HUGE_PAGE_POOLS, *size);
            pools.iter().any(|pool| folder.ends_with(pool.as_str()))
        };
        let there: Vec<HugePageSize> = HugePageSize::ALL.into_iter().filter(is_there).collect();
        let told = |size: &HugePageSize| {
            let pages = |of: HugePages| of.of(*size) / size.bytes();
            let told = format!("{}: {} pages", size.resource(), pages(all));
            if self.tells_moment { format!("{told}, {} free", pages(free)) } else { told }
        };
        let found = there.iter().map(told).collect::<Vec<_>>().join("; ");
        let (outcome, found) = match (there.is_empty(), all.is_none()) {
            (true, _) => (Outcome::Missing, "the kernel has no huge pages".to_owned()),
            (_, true) => (Outcome::Missing, format!("no huge page is set aside ({found})")),
            _ => (Outcome::Met, found),
        };
        let remedy = "for hugepages-2Mi: echo N > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages (vm.nr_hugepages in \
                      /etc/sysctl.d keeps it); for hugepages-1Gi: boot with hugepagesz=1G hugepages=N";
        answer("huge-pages", Need::Speed, outcome, found, remedy)
    }

    fn iommu(&self) -> Precondition {
        self.for_devices(self.iommu_units())
    }

    fn iommu_units(&self) -> Precondition {
        let units = self.tree.list("/sys/class/iommu").unwrap_or_default();
        let (outcome, found) = if units.is_empty() {
            (Outcome::Missing, "no IOMMU is on".to_owned())
        } else {
            (Outcome::Met, some_of(&units))
        };
        let remedy =
            "turn VT-d or AMD-Vi on in the firmware, and boot with intel_iommu=on (AMD: on by itself)";
        answer("iommu", Need::Devices, outcome, found, remedy)
    }

    fn pass_through(&self) -> Precondition {
        let line = self.text("/proc/cmdline");
        let groups = self.tree.list("/sys/kernel/iommu_groups").unwrap_or_default();
        let types = groups.iter().map(|group| self.text(&format!("/sys/kernel/iommu_groups/{group}/type")));
        let translated = types.filter(|kind| kind.starts_with("DMA")).count();
        let asked = line.split_whitespace().any(|word| matches!(word, "iommu=pt" | "iommu.passthrough=1"));
        let (outcome, found) = match (groups.len(), translated) {
            (0, _) => (Outcome::Missing, "there are no IOMMU groups".to_owned()),
            (_, 0) => (Outcome::Met, "devices of the host are not translated".to_owned()),
            (all, some) if asked => {
                (Outcome::Met, format!("iommu=pt; {some} of {all} groups are translated"))
            }
            (all, some) => (
                Outcome::Missing,
                format!("{some} of {all} groups are translated: the host's own devices pay for it"),
            ),
        };
        let remedy = "boot with iommu=pt";
        self.for_devices(answer("iommu-pass-through", Need::Devices, outcome, found, remedy))
    }

    fn vfio(&self) -> Precondition {
        self.for_devices(self.vfio_driver())
    }

    /// The file through which groups are given to a process.
    fn vfio_file(&self) -> Precondition {
        let there = self.tree.list("/dev/vfio").is_ok_and(|names| names.iter().any(|name| name == "vfio"));
        let (outcome, found) = match there {
            true => (Outcome::Met, "/dev/vfio/vfio is there"),
            false => (Outcome::Missing, "there is no /dev/vfio/vfio"),
        };
        answer(
            "vfio-file",
            Need::Devices,
            outcome,
            found,
            "modprobe vfio_iommu_type1, and see that /dev is a devtmpfs",
        )
    }

    fn vfio_driver(&self) -> Precondition {
        let there = self.has("/sys/bus/pci/drivers/vfio-pci");
        let (outcome, found) = if there {
            (Outcome::Met, "vfio-pci is loaded")
        } else {
            (Outcome::Missing, "the driver vfio-pci is not loaded")
        };
        let remedy =
            "modprobe vfio-pci, and for the next boot: echo vfio-pci > /etc/modules-load.d/vfio-pci.conf";
        answer("vfio", Need::Devices, outcome, found, remedy)
    }

    fn drivers(&self) -> Precondition {
        let without: Vec<_> =
            self.parents().filter(|one| one.driver.is_none()).map(|one| one.address).collect();
        let count = self.parents().count();
        let (outcome, found) = match (count, without.is_empty()) {
            (0, _) => {
                (Outcome::NotNeeded, "no network card with virtual functions that pods could have".to_owned())
            }
            (_, true) => (Outcome::Met, some_of(self.parents().filter_map(|one| one.driver.as_deref()))),
            _ => (Outcome::Missing, format!("no driver has {}", some_of(without))),
        };
        let remedy = "install the vendor's driver (mlx5_core, i40e, ice, …) and load it: virtual functions are made by it";
        answer("network-drivers", Need::VirtualFunctions, outcome, found, remedy)
    }

    fn firmware(&self) -> Precondition {
        let can = |one: &&PciFunction| matches!(one.sriov, Sriov::Physical { vfs_max, .. } if vfs_max > 0);
        let cannot: Vec<_> = self.parents().filter(|one| !can(one)).map(|one| one.address).collect();
        let (outcome, found) = match (self.parents().count(), cannot.is_empty()) {
            (0, _) => {
                (Outcome::NotNeeded, "no network card with virtual functions that pods could have".to_owned())
            }
            (_, true) => (
                Outcome::Met,
                format!("{} can have virtual functions", some_of(self.parents().map(|one| one.address))),
            ),
            _ => (Outcome::Missing, format!("no virtual functions of {}", some_of(cannot))),
        };
        let remedy = "turn SR-IOV on in the machine's firmware, and in the card's: mlxconfig -d ADDRESS set SRIOV_EN=1 NUM_OF_VFS=N";
        answer("sriov-firmware", Need::VirtualFunctions, outcome, found, remedy)
    }

    fn virtual_functions(&self) -> Precondition {
        let made: usize = self
            .parents()
            .map(|one| match &one.sriov {
                Sriov::Physical { vfs, .. } => vfs.len(),
                _ => 0,
            })
            .sum();
        let able =
            self.parents().filter(|one| matches!(one.sriov, Sriov::Physical { vfs_max, .. } if vfs_max > 0));
        let writable =
            able.map(|one| self.tree.read(&format!("/sys/bus/pci/devices/{}/sriov_numvfs", one.address)));
        let refused = writable.filter(|read| matches!(read, Err(TreeError::Denied))).count();
        let (outcome, found) = match (self.parents().count(), made, refused) {
            (0, ..) => {
                (Outcome::NotNeeded, "no network card with virtual functions that pods could have".to_owned())
            }
            (_, 0, 0) => (Outcome::Unknown, "none was made yet: only making one tells".to_owned()),
            (_, 0, _) => (Outcome::Unknown, "this user may not look".to_owned()),
            (_, made, _) => (Outcome::Met, format!("{made} are there")),
        };
        let remedy = "try: echo 1 > /sys/bus/pci/devices/ADDRESS/sriov_numvfs, and 0 to take it away again";
        answer("virtual-functions", Need::VirtualFunctions, outcome, found, remedy)
    }
}
