//! Devices of nodes: what an agent finds that pods may have, and what pods hold of it.
//!
//! ```text
//!  agent: raw devices ─► ResourceSlice (one per node) ──┐
//!                        DeviceClass (data) ────────────┼─► which resource a device is, who holds it
//!                        PodStatus.devices ─────────────┘
//! ```
//!
//! Terms are those of Kubernetes' dynamic resource allocation (`ResourceSlice`, `DeviceClass`) and of PCI.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::{
    DeviceFault, DeviceFence, DevicePartition, FAULTS_PER_REPORT_MAX, HandledFault, NicFacts, ObjectId,
    ObjectMeta, PciFacts, Rare,
};

/// The label of a node whose agent can attach devices to guests (`true`): see [`crate::NodeFacts::attaches_devices`].
pub const LABEL_DEVICES: &str = "node.bulkhead.io/devices";
/// Most devices of one node.
pub const DEVICES_MAX: usize = 1024;
/// Most devices in one report; a longer list takes several.
pub const DEVICES_PER_REPORT_MAX: usize = DEVICES_MAX;
/// Most links of one device to others.
pub const DEVICE_LINKS_MAX: usize = 64;
/// Longest text of a device, in bytes.
pub const DEVICE_TEXT_BYTES_MAX: usize = 128;
/// Most devices of one container, and of one pod.
pub const DEVICES_PER_POD_MAX: usize = 64;
/// The annotation of a pod that says whether its node is to be as full or as empty of shared cards as can be (HAMi's name).
pub const ANNOTATION_NODE_SCHEDULER_POLICY: &str = "hami.io/node-scheduler-policy";
/// The same for the cards of a node.
pub const ANNOTATION_DEVICE_SCHEDULER_POLICY: &str = "hami.io/gpu-scheduler-policy";
/// The reason of a pod one of whose devices is gone.
pub const REASON_DEVICE_LOST: &str = "DeviceLost";
/// The reason of a pod one of whose devices is not healthy.
pub const REASON_DEVICE_UNHEALTHY: &str = "DeviceUnhealthy";

/// How much a device has of what can be shared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DeviceCapacity {
    /// Memory of its own, in bytes; 0 when unknown, or none.
    pub memory_bytes: u64,
    /// Compute, 100 for a whole card.
    pub cores: u64,
}

/// A link between two devices of a node that does not go through PCIe.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DeviceLink {
    /// The other device's id.
    pub peer: SmolStr,
    /// What it is, such as `NVLink`.
    pub link_type: SmolStr,
    /// How many of them there are in parallel.
    pub count: u32,
}

/// Whether a device works.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DeviceHealth {
    /// As far as is known.
    #[default]
    Healthy,
    /// It does not work as it should: nobody new gets it, whoever has it keeps it.
    Unhealthy {
        /// Why, such as `Xid48`.
        code: SmolStr,
        /// Since when, by the agent's clock, milliseconds since the epoch.
        since_ms: u64,
    },
    /// It is not there any more.
    Lost {
        /// Since when, milliseconds since the epoch.
        since_ms: u64,
    },
}

/// A device as an agent reports it. Which resource it is, is decided by the DeviceClasses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Device {
    /// What it is known by for good: the card's own UUID where it has one, else its PCI address. Unique on the node.
    pub id: SmolStr,
    /// Its PCI address, `dddd:bb:dd.f`.
    pub address: SmolStr,
    /// Its number on the node, for people: counts from 0 in the order of addresses.
    pub index: u32,
    /// PCI vendor id.
    pub vendor: u16,
    /// PCI device id.
    pub device: u16,
    /// PCI class code: base class, sub-class, programming interface, as `0x030200`.
    pub class_code: u32,
    /// The model's name; empty when unknown.
    pub model: SmolStr,
    /// The driver that it is bound to; empty for none.
    pub driver: SmolStr,
    /// The NUMA node that it is near to.
    pub numa_node: Option<u32>,
    /// The PCIe root complex, as `pci0000:3a`.
    pub pcie_root: SmolStr,
    /// Its IOMMU group; functions of one group can only be given away together.
    pub iommu_group: Option<u32>,
    /// The id of the physical function whose virtual function (SR-IOV) it is, or of the card whose partition it is.
    pub parent: Option<SmolStr>,
    /// Links to others.
    pub links: Vec<DeviceLink>,
    /// What it has.
    pub capacity: DeviceCapacity,
    /// Whether it works.
    pub health: DeviceHealth,
    /// Who uses it that is none of the control plane's pods, such as the host itself; empty for nobody.
    pub in_use_by: SmolStr,
    /// Of a physical function that is a NIC: what it is as such. Since level 9.
    #[serde(default)]
    pub nic: Rare<NicFacts>,
    /// Which partition of its parent it is, if it is one. Needs [`crate::PARTITIONS_LEVEL`].
    pub partition: Rare<DevicePartition>,
    /// What is told of it as a PCI function, for operators. Needs [`crate::PCI_FACTS_LEVEL`].
    #[serde(default)]
    pub pci: Rare<PciFacts>,
}

impl Device {
    /// Checks what an agent says of a device: the lengths of its texts and lists, and its ids.
    ///
    /// # Errors
    /// What is wrong, with the device's name.
    pub fn check(&self) -> Result<(), String> {
        let parent = self.parent.iter();
        let peers = self.links.iter().flat_map(|link| [&link.peer, &link.link_type]);
        let code = match &self.health {
            DeviceHealth::Unhealthy { code, .. } => Some(code),
            _ => None,
        };
        let nic = self.nic.get().into_iter();
        let of_nic = nic.flat_map(|nic| [&nic.name, &nic.mac, &nic.step, &nic.sync_error]);
        let partition = self.partition.get();
        if partition.is_some() && self.parent.is_none() {
            return Err(format!("device {} is a partition of no card", self.id));
        }
        let profile = partition.map(|partition| &partition.profile);
        let own = [&self.id, &self.address, &self.model, &self.driver, &self.pcie_root, &self.in_use_by];
        let bad = |text: &&SmolStr| text.len() > DEVICE_TEXT_BYTES_MAX || text.chars().any(char::is_control);
        let texts = own.into_iter().chain(parent).chain(peers).chain(code).chain(of_nic).chain(profile);
        if texts.into_iter().any(|text| bad(&text)) {
            return Err(format!(
                "a device has a text above {DEVICE_TEXT_BYTES_MAX} bytes, or one with control characters"
            ));
        }
        if self.id.is_empty() {
            return Err("a device has no id".to_owned());
        }
        if self.class_code > 0xff_ffff {
            return Err(format!(
                "device {} has class code {:#x}, more than 24 bits",
                self.id, self.class_code
            ));
        }
        if self.links.len() > DEVICE_LINKS_MAX {
            return Err(format!(
                "device {} has {} links: at most {DEVICE_LINKS_MAX} are kept",
                self.id,
                self.links.len()
            ));
        }
        let amounts = [self.capacity.memory_bytes, self.capacity.cores];
        if amounts.iter().any(|amount| *amount > crate::AMOUNT_MAX) {
            return Err(format!("device {} has more than 2^53 of something", self.id));
        }
        Ok(())
    }

    /// Base class and sub-class, as `0x0302`.
    #[must_use]
    pub fn class(&self) -> u16 {
        (self.class_code >> 8) as u16
    }

    /// Whether it may be given to somebody new, by what the agent says of it.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.health == DeviceHealth::Healthy && self.in_use_by.is_empty()
    }

    /// Whether it is gone.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        matches!(self.health, DeviceHealth::Lost { .. })
    }
}

/// The devices of one node, by the node's own name. Written by the control plane only, from what the node's agent reports.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ResourceSlice {
    /// Standard metadata.
    pub meta: ObjectMeta,
    /// Whose devices they are.
    pub node: ObjectId,
    /// The session of the agent that reported them last.
    pub incarnation: u64,
    /// The last report's number within that session.
    pub sequence: u64,
    /// The devices, in the order of their ids.
    pub devices: Vec<Device>,
    /// The ids of devices that an operator keeps from pods, in order.
    pub cordoned: Vec<SmolStr>,
    /// Modes, fences and faults, once there are any. Needs [`crate::PARTITIONS_LEVEL`].
    pub state: Rare<DeviceState>,
}

/// What is known of a node's devices as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DeviceState {
    /// The mode that the cards are in, as the agent says; unset before it says any.
    pub gpu_mode: Option<SmolStr>,
    /// Devices that are kept from pods because of a fault, in the order of their ids.
    pub fences: Vec<DeviceFence>,
    /// The last faults, oldest first; at most [`crate::FAULTS_KEPT_MAX`].
    pub faults: Vec<HandledFault>,
}

impl ResourceSlice {
    /// A device by id.
    #[must_use]
    pub fn device(&self, id: &str) -> Option<&Device> {
        let at = self.devices.binary_search_by(|device| device.id.as_str().cmp(id)).ok()?;
        self.devices.get(at)
    }

    /// A device as an operator names it: by id, PCI address or index.
    #[must_use]
    pub fn find(&self, text: &str) -> Option<&Device> {
        let by_index = || {
            let index: u32 = text.parse().ok()?;
            self.devices.iter().find(|device| device.index == index)
        };
        self.device(text).or_else(|| self.devices.iter().find(|d| d.address == text)).or_else(by_index)
    }

    /// The mode that the cards are in, as the agent says.
    #[must_use]
    pub fn gpu_mode(&self) -> Option<&SmolStr> {
        self.state.get().and_then(|state| state.gpu_mode.as_ref())
    }

    /// Devices that are kept from pods because of a fault.
    #[must_use]
    pub fn fences(&self) -> &[DeviceFence] {
        self.state.get().map_or(&[], |state| &state.fences)
    }

    /// The fault because of which a device is kept from pods.
    #[must_use]
    pub fn fence(&self, id: &str) -> Option<&DeviceFence> {
        self.fences().iter().find(|fence| fence.device == id)
    }

    /// Whether an operator keeps a device from pods.
    #[must_use]
    pub fn is_cordoned(&self, id: &str) -> bool {
        self.cordoned.binary_search_by(|one| one.as_str().cmp(id)).is_ok()
    }
}

/// What an agent says of its devices: everything, or what changed since its last report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DeviceReport {
    /// Counts the reports of a session from 1. One that was seen before is passed over; one that does not follow the last
    /// must be a snapshot.
    pub sequence: u64,
    /// Whether these are all devices there are.
    pub snapshot: bool,
    /// Devices that are there; at most [`DEVICES_PER_REPORT_MAX`].
    pub devices: Vec<Device>,
    /// Ids of devices that are there no more; empty in a snapshot.
    pub removed: Vec<SmolStr>,
    /// The mode that the cards are in now; unset when the agent knows of none. This and what follows need
    /// [`crate::PARTITIONS_LEVEL`].
    pub gpu_mode: Option<SmolStr>,
    /// Faults since the last report, oldest first; at most [`FAULTS_PER_REPORT_MAX`].
    pub faults: Vec<DeviceFault>,
    /// Ids of devices that were reset since the last report.
    pub resets: Vec<SmolStr>,
}

impl DeviceReport {
    /// Whether it says what servers below [`crate::PARTITIONS_LEVEL`] do not know.
    #[must_use]
    pub fn says_partitions(&self) -> bool {
        self.gpu_mode.is_some()
            || !self.faults.is_empty()
            || !self.resets.is_empty()
            || self.devices.iter().any(|device| device.partition.get().is_some())
    }

    /// The same without that, and without what NICs are as such: such servers are told of the devices alone.
    #[must_use]
    pub fn below_partitions(&self) -> Self {
        let devices = self.devices.iter().filter(|device| device.partition.get().is_none());
        let without_nic = |device: &Device| Device { nic: Rare::NONE, ..device.clone() };
        Self {
            devices: devices.map(without_nic).collect(),
            removed: self.removed.clone(),
            gpu_mode: None,
            faults: Vec::new(),
            resets: Vec::new(),
            ..*self
        }
    }

    /// Checks the lengths of its lists of faults and resets.
    ///
    /// # Errors
    /// What is too long.
    pub fn check_lists(&self) -> Result<(), String> {
        let texts = self.gpu_mode.iter().chain(&self.resets).chain(self.faults.iter().map(|one| &one.device));
        if self.faults.len() > FAULTS_PER_REPORT_MAX || self.resets.len() > DEVICES_MAX {
            return Err(format!("at most {FAULTS_PER_REPORT_MAX} faults and {DEVICES_MAX} resets are taken"));
        }
        if texts.into_iter().any(|text| text.len() > DEVICE_TEXT_BYTES_MAX) {
            return Err(format!("a text has more than {DEVICE_TEXT_BYTES_MAX} bytes"));
        }
        Ok(())
    }
}

/// What a pod has of a shared device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DeviceShare {
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Compute, in per cent of a card; 0 is not isolated, 100 has the card for itself.
    pub cores: u64,
}

impl DeviceShare {
    /// Whether nobody else may be on the card.
    #[must_use]
    pub fn is_exclusive(&self) -> bool {
        self.cores == crate::CORES_PER_CARD
    }
}

/// One device that a container of a pod has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AllocatedDevice {
    /// The container.
    pub container: SmolStr,
    /// The resource that the container asked for, as `nvidia.com/gpu`.
    pub resource: SmolStr,
    /// The device's id on the pod's node.
    pub device: SmolStr,
    /// How much of it; unset is the whole device.
    pub share: Option<DeviceShare>,
}

/// One device that an agent shall give to a container.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DeviceIntent {
    /// The container.
    pub container: SmolStr,
    /// The resource that the container asked for.
    pub resource: SmolStr,
    /// The device's id.
    pub device: SmolStr,
    /// Its PCI address.
    pub address: SmolStr,
    /// How much of it; unset is the whole device.
    pub share: Option<DeviceShare>,
    /// It is not there any more: the pod cannot go on and fails.
    pub lost: bool,
    /// The variable of the container in which it stands; empty: in none.
    pub visible_env: SmolStr,
    /// What stands there for it; of several devices of a container with commas between them.
    pub visible_as: SmolStr,
}
