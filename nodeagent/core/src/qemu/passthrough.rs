//! Devices of the host in a guest: a root port for each, and room for what they map.

use super::ports::{FIRST_SLOT, PortPlan, place_of};
use super::{Device, PcieRootPort, QemuCommand, VfioPci};
use crate::hardware::{Bdf, PciFunction, meminfo_bytes};

/// What a q35 board keeps above memory for what devices map unless it is told otherwise, in bytes.
const HOLE_BYTES_DEFAULT: u64 = 32 << 30;
/// Locked memory beside the guest's own that QEMU may need, in bytes: libvirt's allowance for a machine with VFIO.
const LOCKED_BEYOND_BYTES: u64 = 1 << 30;

/// A device of the host for a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostDevice {
    /// Where it is on the host.
    pub address: Bdf,
    /// The NUMA node of the host that it is near to; `None` when the machine does not say.
    pub numa_node: Option<u32>,
    /// What it maps, in bytes; each a power of two.
    pub memory_bars_bytes: Vec<u64>,
}

impl From<&PciFunction> for HostDevice {
    fn from(function: &PciFunction) -> Self {
        Self {
            address: function.address,
            numa_node: function.numa_node,
            memory_bars_bytes: function.memory_bars_bytes.clone(),
        }
    }
}

/// The room above memory that devices need for what they map, in bytes; `None` when the board's own is enough.
///
/// Regions are powers of two and begin at multiples of their size, so twice their sum is always enough.
#[must_use]
pub fn hole_bytes(devices: &[HostDevice]) -> Option<u64> {
    let bars = devices.iter().flat_map(|device| &device.memory_bars_bytes);
    let sum = bars.fold(0u64, |sum, bar| sum.saturating_add(*bar));
    let room = sum.saturating_mul(2).checked_next_power_of_two()?;
    (room > HOLE_BYTES_DEFAULT).then_some(room)
}

/// Memory that QEMU may lock for a guest with devices, in bytes: VFIO pins all memory of the guest at its start, because a
/// device may write anywhere in it.
#[must_use]
pub fn locked_bytes(guest_memory_bytes: u64) -> u64 {
    guest_memory_bytes.saturating_add(LOCKED_BEYOND_BYTES)
}

/// Whether a machine, of which this is `/proc/meminfo`, has the memory that a guest with devices takes at its start: its own, and
/// tables of a 256th for processor and IOMMU (8 bytes for each page of 4 KiB in both).
///
/// # Errors
/// What is missing, for people.
pub fn check_pinned(meminfo: &str, guest_memory_bytes: u64) -> Result<(), String> {
    let Some(left) = meminfo_bytes(meminfo, "MemAvailable") else { return Ok(()) };
    let needed = guest_memory_bytes.saturating_add(guest_memory_bytes / 256);
    if needed <= left {
        return Ok(());
    }
    Err(format!(
        "a guest with devices has all of its memory pinned: {} MiB are needed, and the machine has {} MiB left",
        needed.div_ceil(1 << 20),
        left >> 20
    ))
}

/// What the spare root port of this number is called; also its bus.
#[must_use]
pub fn spare_port(number: usize) -> String {
    format!("spare{number}")
}

impl QemuCommand {
    /// Adds root ports behind which nothing is yet: disks can be added there while the guest runs.
    pub fn add_spare_ports(&mut self, ports: usize) {
        let port = |number: usize| {
            let narrow = |number: usize| u8::try_from(number).expect("a board has few ports");
            let number16 = u16::try_from(number + 1).expect("a board has few ports");
            Device::PcieRootPort(PcieRootPort {
                id: spare_port(number),
                bus: None,
                chassis: narrow(number + 1),
                slot: number16,
                addr: place_of(FIRST_SLOT, number),
                io_reserve_bytes: 0,
            })
        };
        self.devices.extend((0..ports).map(port));
    }

    /// Adds devices of the host, each behind a root port of its own and with the NUMA node of the guest that stands for its own, as
    /// [`PortPlan`] says of the memory that is set; before all others, which take the places that are left.
    ///
    /// # Panics
    /// With more than [`bulkhead_types::DEVICES_PER_POD_MAX`].
    pub fn pass_through(&mut self, devices: &[HostDevice]) {
        let numa_nodes: Vec<_> = devices.iter().map(|device| device.numa_node).collect();
        let plan = PortPlan::new(&numa_nodes, &self.ram);
        let expanders = plan.expanders().iter().cloned().map(Device::PxbPcie);
        let both = devices.iter().enumerate().flat_map(|(n, device)| {
            let number = |n: usize| u8::try_from(n).expect("at most 64 devices");
            let (bus, addr) = plan.port(n);
            let port = PcieRootPort {
                id: format!("port{n}"),
                bus,
                chassis: number(n + 1),
                slot: number(n).into(),
                addr,
                io_reserve_bytes: 0,
            };
            let vfio = VfioPci { id: format!("hostdev{n}"), host: device.address, bus: port.id.clone() };
            [Device::PcieRootPort(port), Device::VfioPci(vfio)]
        });
        self.devices.splice(0..0, expanders.chain(both).collect::<Vec<_>>());
        self.pci_hole64_bytes = hole_bytes(devices);
    }
}
