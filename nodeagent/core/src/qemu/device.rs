//! Devices (`-device`) and block backends (`-blockdev`).

use super::VirtioNetPci;
use super::option::Opts;
use crate::hardware::Bdf;

/// Longest serial of a virtio-blk disk, in bytes (virtio specification, 5.2.6.1).
pub const VIRTIO_BLK_SERIAL_LENGTH_MAX: usize = 20;

/// A device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Device {
    /// `virtio-serial-pci`
    VirtioSerialPci(VirtioSerialPci),
    /// `virtserialport`
    VirtserialPort(VirtserialPort),
    /// `virtio-blk-pci`
    VirtioBlkPci(VirtioBlkPci),
    /// `virtio-net-pci`
    VirtioNetPci(VirtioNetPci),
    /// `virtio-rng-pci`
    VirtioRngPci(VirtioRngPci),
    /// `pxb-pcie`
    PxbPcie(PxbPcie),
    /// `pcie-root-port`
    PcieRootPort(PcieRootPort),
    /// `vfio-pci`
    VfioPci(VfioPci),
}

/// A controller for ports of a guest channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtioSerialPci {
    /// Its name; its bus is this and `.0`.
    pub id: String,
}

/// A port that the guest finds by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtserialPort {
    /// The controller's bus.
    pub bus: String,
    /// Which character device.
    pub chardev: String,
    /// The name in the guest.
    pub name: String,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtioBlkPci {
    /// Its name.
    pub id: String,
    /// Which block backend.
    pub drive: String,
    /// What the guest finds it by; at most [`VIRTIO_BLK_SERIAL_LENGTH_MAX`] bytes.
    pub serial: String,
}

/// A source of randomness, fed by the host's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtioRngPci {
    /// Its name.
    pub id: String,
}

/// A further host bridge of the board, which is near to a NUMA node of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PxbPcie {
    /// Its name; also its bus.
    pub id: String,
    /// The number of its bus; those below it have the next ones.
    pub bus_nr: u8,
    /// The guest's NUMA node.
    pub numa_node: u32,
    /// Its own place on the board: device and function. Several are functions of one device.
    pub addr: (u8, u8),
}

/// A PCI Express root port, for devices that need one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PcieRootPort {
    /// Its name; also its bus.
    pub id: String,
    /// The bus that it is on; `None` for the board's own.
    pub bus: Option<String>,
    /// Chassis and slot must be unique together.
    pub chassis: u8,
    /// The slot.
    pub slot: u16,
    /// Its own place on that bus: device and function. Several ports are functions of one device.
    pub addr: (u8, u8),
    /// I/O space for what is behind it, in bytes; QEMU's 4 KiB leave room for a dozen ports only.
    pub io_reserve_bytes: u64,
}

/// A device of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VfioPci {
    /// Its name.
    pub id: String,
    /// Its address on the host.
    pub host: Bdf,
    /// The root port that it is behind.
    pub bus: String,
}

impl Device {
    /// Whether it is on the board's own bus, and does not say so by itself.
    pub(super) fn is_on_board(&self) -> bool {
        match self {
            Self::VirtioSerialPci(_)
            | Self::VirtioBlkPci(_)
            | Self::VirtioNetPci(_)
            | Self::VirtioRngPci(_) => true,
            Self::PcieRootPort(port) => port.bus.is_none(),
            Self::VirtserialPort(_) | Self::PxbPcie(_) | Self::VfioPci(_) => false,
        }
    }

    /// The switch and its value; with the board's own bus by name where there are others.
    pub(super) fn args(&self, has_expanders: bool) -> [String; 2] {
        let [switch, mut value] = self.own_args();
        if has_expanders && self.is_on_board() {
            value.push_str(",bus=pcie.0");
        }
        [switch, value]
    }

    fn own_args(&self) -> [String; 2] {
        let value = match self {
            Self::VirtioSerialPci(d) => Opts::new("virtio-serial-pci").set("id", &d.id),
            Self::VirtserialPort(d) => {
                Opts::new("virtserialport").set("bus", &d.bus).set("chardev", &d.chardev).set("name", &d.name)
            }
            Self::VirtioBlkPci(d) => {
                assert!(d.serial.len() <= VIRTIO_BLK_SERIAL_LENGTH_MAX, "serial {:?} is too long", d.serial);
                Opts::new("virtio-blk-pci").set("id", &d.id).set("drive", &d.drive).set("serial", &d.serial)
            }
            Self::VirtioNetPci(d) => d.opts(),
            Self::VirtioRngPci(d) => Opts::new("virtio-rng-pci").set("id", &d.id),
            Self::PxbPcie(d) => {
                let (device, function) = d.addr;
                Opts::new("pxb-pcie")
                    .set("id", &d.id)
                    .set("bus", "pcie.0")
                    .set("bus_nr", d.bus_nr)
                    .set("numa_node", d.numa_node)
                    .set("addr", format!("{device:#x}.{function:#x}"))
                    .flag("multifunction", true)
            }
            Self::PcieRootPort(d) => {
                let (device, function) = d.addr;
                Opts::new("pcie-root-port")
                    .set("id", &d.id)
                    .set_if("bus", d.bus.as_deref())
                    .set("chassis", d.chassis)
                    .set("slot", d.slot)
                    .set("addr", format!("{device:#x}.{function:#x}"))
                    .flag("multifunction", true)
                    .set("io-reserve", d.io_reserve_bytes)
            }
            Self::VfioPci(d) => Opts::new("vfio-pci").set("id", &d.id).set("host", d.host).set("bus", &d.bus),
        };
        ["-device".to_owned(), value.finish()]
    }
}

/// A block backend: a format over a file (`-blockdev`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blockdev {
    /// Its name for devices.
    pub node_name: String,
    /// How the file is read.
    pub driver: BlockDriver,
    /// Where the file is.
    pub filename: String,
    /// Nothing is written.
    pub read_only: bool,
    /// What happens when the guest discards blocks.
    pub discard: Discard,
    /// How the host caches.
    pub cache: Cache,
}

/// Formats of disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockDriver {
    /// The file is the disk.
    Raw,
    /// A block device of the host is the disk.
    HostDevice,
    /// QEMU's own, with a backing file named in its header.
    Qcow2,
}

/// What happens to discarded blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discard {
    /// They stay.
    Ignore,
    /// They are given back to the host.
    Unmap,
}

/// How the host caches a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cache {
    /// Around the host's page cache.
    pub direct: bool,
    /// The guest's flushes are passed over: right for disks that do not outlive their guest.
    pub no_flush: bool,
}

impl Blockdev {
    pub(super) fn args(&self) -> [String; 2] {
        let driver = match self.driver {
            BlockDriver::Raw | BlockDriver::HostDevice => "raw",
            BlockDriver::Qcow2 => "qcow2",
        };
        let protocol = match self.driver {
            BlockDriver::Raw | BlockDriver::Qcow2 => "file",
            BlockDriver::HostDevice => "host_device",
        };
        let discard = match self.discard {
            Discard::Ignore => "ignore",
            Discard::Unmap => "unmap",
        };
        let value = Opts::keyed("driver", driver)
            .set("node-name", &self.node_name)
            .flag("read-only", self.read_only)
            .set("discard", discard)
            .flag("cache.direct", self.cache.direct)
            .flag("cache.no-flush", self.cache.no_flush)
            .set("file.driver", protocol)
            .set("file.filename", &self.filename)
            .set_if("file.locking", self.read_only.then_some("off"));
        ["-blockdev".to_owned(), value.finish()]
    }
}
