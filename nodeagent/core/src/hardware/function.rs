//! One PCI function as the kernel shows it.

use serde::{Deserialize, Serialize};

use super::{Acs, Bdf};

/// A PCI function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PciFunction {
    /// Where it is.
    pub address: Bdf,
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Vendor id of the card that it is on.
    pub subsystem_vendor: u16,
    /// That card's own id.
    pub subsystem_device: u16,
    /// Base class, sub-class and programming interface, as `0x030200`.
    pub class: u32,
    /// The driver that it is bound to.
    pub driver: Option<String>,
    /// The driver that alone may be bound to it.
    pub driver_override: Option<String>,
    /// The NUMA node that it is near to; `None` when the machine does not say.
    pub numa_node: Option<u32>,
    /// The root complex, as `pci0000:3a`.
    pub root: String,
    /// The bridges between the root complex and it, the root port first.
    pub bridges: Vec<Bdf>,
    /// Its group in the IOMMU; functions of one group can only be given away together. `None` without an IOMMU.
    pub iommu_group: Option<u32>,
    /// Whether what comes from it must pass the IOMMU.
    pub acs: Acs,
    /// `Device Serial Number` of its configuration space; `None` when it has none, or only root may read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial_number: Option<u64>,
    /// Whether anything answers at its address: what has fallen off the bus reads as ones.
    #[serde(default = "is_answering")]
    pub is_answering: bool,
    /// How it can be reset, the kernel's first choice first (`flr`, `bus`, `pm`, …).
    pub reset_methods: Vec<String>,
    /// Its link towards the root.
    pub link: Option<PcieLink>,
    /// What it maps into memory, in bytes; each a power of two.
    pub memory_bars_bytes: Vec<u64>,
    /// Its part in SR-IOV.
    pub sriov: Sriov,
    /// Its network interfaces while a driver of the host has it.
    pub interfaces: Vec<NetworkInterface>,
    /// Its InfiniBand (or RoCE) devices.
    pub infiniband: Vec<InfinibandDevice>,
}

/// Functions of which older programs told did answer.
fn is_answering() -> bool {
    true
}

/// A link of PCI Express.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PcieLink {
    /// As the kernel writes it, such as `16.0 GT/s PCIe`.
    pub speed: String,
    /// Lanes.
    pub width: u32,
    /// The best that both ends can do.
    pub speed_max: String,
    /// The most lanes that both ends have.
    pub width_max: u32,
}

/// A function's part in SR-IOV.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sriov {
    /// None.
    None,
    /// It has virtual functions, or can have some.
    Physical {
        /// The most that it can have.
        vfs_max: u32,
        /// Those that it has, by their number.
        vfs: Vec<Bdf>,
        /// New ones are bound to a driver of the host at once.
        drivers_autoprobe: bool,
    },
    /// It is one.
    Virtual {
        /// Of this function.
        physical: Bdf,
        /// Its number there, from 0.
        index: Option<u32>,
    },
}

/// What a network interface speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkType {
    /// Ethernet.
    #[serde(rename = "ETH")]
    Ethernet,
    /// InfiniBand.
    #[serde(rename = "IB")]
    Infiniband,
}

impl std::fmt::Display for LinkType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ethernet => "ETH",
            Self::Infiniband => "IB",
        })
    }
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkInterface {
    /// Its name.
    pub name: String,
    /// Its hardware address, as the kernel writes it.
    pub mac: String,
    /// Largest packet, in bytes.
    pub mtu: u32,
    /// What it speaks; `None` for anything but Ethernet and InfiniBand.
    pub link_type: Option<LinkType>,
    /// In Mbit/s, while the link is up.
    pub speed_mbps: Option<u32>,
    /// Whether packets can pass.
    pub is_up: bool,
}

/// An InfiniBand (or RoCE) device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InfinibandDevice {
    /// Its name, such as `mlx5_0`.
    pub name: String,
    /// GUID of the device.
    pub node_guid: String,
    /// GUID of what the device is a part of.
    pub system_guid: String,
}

impl PciFunction {
    /// Base class and sub-class, as `0x0302`.
    #[must_use]
    pub fn class_of(&self) -> u16 {
        (self.class >> 8) as u16
    }

    /// The function that leads to the root complex: devices of one root port share its link.
    #[must_use]
    pub fn root_port(&self) -> Option<Bdf> {
        self.bridges.first().copied()
    }

    /// Whether it is a bridge: those are never given away.
    #[must_use]
    pub fn is_bridge(&self) -> bool {
        self.class >> 16 == CLASS_BRIDGE
    }

    /// Whether it is a network controller of the machine itself, not a virtual function.
    #[must_use]
    pub fn is_physical_network(&self) -> bool {
        matches!(self.class_of(), CLASS_ETHERNET | CLASS_INFINIBAND)
            && !matches!(self.sriov, Sriov::Virtual { .. })
    }
}

/// Base class of bridges.
const CLASS_BRIDGE: u32 = 0x06;
/// Ethernet controllers.
const CLASS_ETHERNET: u16 = 0x0200;
/// InfiniBand controllers.
const CLASS_INFINIBAND: u16 = 0x0207;
