//! Where in the guest devices of the host are: which root port each is behind, and on which bus that is.
//!
//! ```text
//!  pcie.0 ─┬─ 10.0 port0 ─ hostdev0        near to no NUMA node of the guest
//!          ├─ 18.0 pxb0 (bus 250, numa_node=0) ─┬─ 00.0 port1 ─ hostdev1
//!          │                                    └─ 00.1 port2 ─ hostdev2
//!          └─ 18.1 pxb1 (bus 253, numa_node=1) ─── 00.0 port3 ─ hostdev3
//! ```
//!
//! A guest knows that a device is near to a NUMA node by the host bridge that it is behind, so devices of a NUMA node that the guest has are
//! behind a host bridge of that node (`pxb-pcie`). Devices near to another one, or to none, are on the board's own bus.
//!
//! Numbers of buses are bounded: an expander needs one, each of its ports another, and they are the last of a PCI segment.
//! What is on the board's own bus counts from 0, and is fewer than a hundred.
//!
//! Source: QEMU's `docs/pci_expander_bridge.txt` and `docs/pcie.txt`.

use std::collections::BTreeSet;

use super::{Device, PxbPcie, QemuCommand, Ram};

/// The first device of the board that is root ports: those below are left for disks and the like.
pub(super) const FIRST_SLOT: u8 = 0x10;
/// The first device of the board that is expanders.
const FIRST_EXPANDER_SLOT: u8 = 0x18;
/// Functions of one device.
pub(super) const PORTS_PER_SLOT: usize = 8;
/// Most expanders of a guest. Devices of further NUMA nodes are on the board's own bus.
pub const EXPANDERS_MAX: usize = 16;
/// Buses that are given away: of the 256 of a PCI segment the last is not, because SeaBIOS looks for buses without end once that is used.
const BUSES: usize = 255;

/// Places on the board's own bus: of 32 the host bridge and the bridge to the chipset have one each.
pub const BOARD_PLACES: usize = 30;
/// Places that every guest with a network card needs beside its disks: for that, and for the channel to its agent.
const OTHER_PLACES: usize = 2;
const _: () = assert!(
    bulkhead_types::GUEST_DISKS_MAX == BOARD_PLACES - OTHER_PLACES,
    "the control plane refuses what no guest has places for, and nothing else"
);
/// Places that room to grow takes: memory that comes and goes, and the balloon.
const GROWTH_PLACES: usize = 2;

/// Where a root port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    /// Which expander; `None` for the board's own bus.
    expander: Option<usize>,
    slot: u8,
    function: u8,
}

/// The root ports of a guest's devices of the host. See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortPlan {
    expanders: Vec<PxbPcie>,
    places: Vec<Place>,
}

impl PortPlan {
    /// The ports for devices, of each of which this is the NUMA node of the host, in a guest with this memory.
    ///
    /// # Panics
    /// With more than [`bulkhead_types::DEVICES_PER_POD_MAX`].
    #[must_use]
    pub fn new(numa_nodes: &[Option<u32>], ram: &Ram) -> Self {
        assert!(numa_nodes.len() <= bulkhead_types::DEVICES_PER_POD_MAX, "{} devices", numa_nodes.len());
        let of_guest = |host_node: Option<u32>| ram.guest_node_of(host_node?);
        let mut nodes: Vec<u32> = numa_nodes.iter().filter_map(|node| of_guest(*node)).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes.truncate(EXPANDERS_MAX);
        let mut counts = vec![0; nodes.len()];
        let mut on_board = 0;
        let mut places = Vec::with_capacity(numa_nodes.len());
        for numa_node in numa_nodes {
            let expander = of_guest(*numa_node).and_then(|node| nodes.binary_search(&node).ok());
            let (count, first) = match expander {
                Some(expander) => (&mut counts[expander], 0),
                None => (&mut on_board, FIRST_SLOT),
            };
            let (slot, function) = place_of(first, *count);
            *count += 1;
            places.push(Place { expander, slot, function });
        }
        let mut bus_nr = BUSES - counts.iter().map(|ports| 1 + ports).sum::<usize>();
        let expander = |(number, (numa_node, ports)): (usize, (u32, usize))| {
            let addr = place_of(FIRST_EXPANDER_SLOT, number);
            let id = format!("pxb{numa_node}");
            let made = PxbPcie { id, bus_nr: narrow(bus_nr), numa_node, addr };
            bus_nr += 1 + ports;
            made
        };
        let expanders = nodes.into_iter().zip(counts).enumerate().map(expander).collect();
        Self { expanders, places }
    }

    /// Where in the guest the root port of a device is, by the device's place in the list: its PCI address. The guest finds a network's
    /// device by it.
    ///
    /// # Panics
    /// When the plan has no such device.
    #[must_use]
    pub fn guest_port(&self, number: usize) -> String {
        let Place { expander, slot, function } = self.places[number];
        let bus = expander.map_or(0, |expander| self.expanders[expander].bus_nr);
        format!("0000:{bus:02x}:{slot:02x}.{function}")
    }

    pub(super) fn expanders(&self) -> &[PxbPcie] {
        &self.expanders
    }

    /// The bus of a device's root port, unless it is the board's own, and its place there.
    pub(super) fn port(&self, number: usize) -> (Option<String>, (u8, u8)) {
        let Place { expander, slot, function } = self.places[number];
        (expander.map(|expander| self.expanders[expander].id.clone()), (slot, function))
    }
}

/// Device and function of the port of this number, where ports begin at this device.
pub(super) fn place_of(first_slot: u8, number: usize) -> (u8, u8) {
    (first_slot + narrow(number / PORTS_PER_SLOT), narrow(number % PORTS_PER_SLOT))
}

fn narrow(number: usize) -> u8 {
    u8::try_from(number).expect("a guest has few ports and buses")
}

impl QemuCommand {
    /// How many places of the board its devices take, of [`BOARD_PLACES`].
    #[must_use]
    pub fn places_needed(&self) -> usize {
        let (mut alone, mut shared) = (0, BTreeSet::new());
        for device in &self.devices {
            match device {
                Device::PcieRootPort(port) if port.bus.is_none() => _ = shared.insert(port.addr.0),
                Device::PxbPcie(expander) => _ = shared.insert(expander.addr.0),
                device => alone += usize::from(device.is_on_board()),
            }
        }
        alone + shared.len() + self.growth.map_or(0, |_| GROWTH_PLACES)
    }

    /// Whether the board has a place for every device.
    ///
    /// # Errors
    /// How many disks are too many, for people.
    pub fn check_places(&self) -> Result<(), String> {
        let too_many = self.places_needed().saturating_sub(BOARD_PLACES);
        if too_many == 0 {
            return Ok(());
        }
        let disks = self.devices.iter().filter(|device| matches!(device, Device::VirtioBlkPci(_))).count();
        Err(format!(
            "the pod needs {disks} disks, one for each container and each volume on disk, and its guest has places for {}",
            disks.saturating_sub(too_many)
        ))
    }
}
