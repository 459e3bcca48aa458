//! What the control plane is told of a function for operators. What it would refuse is left out: one interface with a strange name
//! must not keep all devices of the machine untold.

use bulkhead_types::{
    AMOUNT_MAX, PCI_PORTS_MAX, PCI_REGIONS_MAX, PCI_RESET_METHODS_MAX, PCIE_LANE_MEGATRANSFERS_MAX,
    PCIE_LANES_MAX, PciAcs, PciFacts, PciInfiniband, PciInterface, PciLink, PciPorts, PciTraits, Rare,
    Shared, SriovLinkType, is_mac, is_reset_method, parse_guid,
};
use smol_str::SmolStr;

use super::{Acs, InfinibandDevice, LinkType, NetworkInterface, PciFunction, Sriov};

/// Drivers of the host have interfaces of virtual functions only between two pods: those are not told, or each pod would be news of
/// its device.
pub(super) fn pci_facts(function: &PciFunction) -> PciFacts {
    let is_virtual = matches!(function.sriov, Sriov::Virtual { .. });
    let ports = if is_virtual { PciPorts::default() } else { ports(function) };
    let link = function.link.as_ref();
    PciFacts {
        traits: Shared::new(traits(function)),
        serial_number: function.serial_number,
        link: link.and_then(|link| known_link(&link.speed, link.width)),
        ports: Rare::unless_default(ports),
    }
}

fn traits(function: &PciFunction) -> PciTraits {
    let methods = function.reset_methods.iter().filter(|method| is_reset_method(method));
    let regions = function.memory_bars_bytes.iter().copied().filter(|bytes| *bytes <= AMOUNT_MAX);
    PciTraits {
        subsystem_vendor: function.subsystem_vendor,
        subsystem_device: function.subsystem_device,
        acs: match function.acs {
            Acs::Unknown => PciAcs::Unknown,
            Acs::Absent => PciAcs::Absent,
            Acs::Off => PciAcs::Off,
            Acs::On => PciAcs::On,
        },
        reset_methods: methods.take(PCI_RESET_METHODS_MAX).map(SmolStr::new).collect(),
        link_max: function.link.as_ref().and_then(|link| known_link(&link.speed_max, link.width_max)),
        memory_bars_bytes: regions.take(PCI_REGIONS_MAX).collect(),
    }
}

fn ports(function: &PciFunction) -> PciPorts {
    let interfaces = function.interfaces.iter().map(interface).filter(|one| one.check("").is_ok());
    let infiniband = function.infiniband.iter().map(infiniband).filter(|one| one.check("").is_ok());
    PciPorts {
        interfaces: interfaces.take(PCI_PORTS_MAX).collect(),
        infiniband: infiniband.take(PCI_PORTS_MAX).collect(),
    }
}

fn interface(one: &NetworkInterface) -> PciInterface {
    PciInterface {
        name: SmolStr::new(&one.name),
        mac: if is_mac(&one.mac) { SmolStr::new(&one.mac) } else { SmolStr::default() },
        mtu: one.mtu,
        link_type: one.link_type.map(spoken),
        // The kernel writes ones for what it does not know.
        link_speed_mbps: one.speed_mbps.filter(|speed| one.is_up && *speed != u32::MAX),
        is_up: one.is_up,
    }
}

fn infiniband(one: &InfinibandDevice) -> PciInfiniband {
    PciInfiniband {
        name: SmolStr::new(&one.name),
        node_guid: parse_guid(&one.node_guid).unwrap_or_default(),
        system_guid: parse_guid(&one.system_guid).unwrap_or_default(),
    }
}

pub(super) fn spoken(link_type: LinkType) -> SriovLinkType {
    match link_type {
        LinkType::Ethernet => SriovLinkType::Eth,
        LinkType::Infiniband => SriovLinkType::Ib,
    }
}

/// A link as the kernel writes it: `16.0 GT/s PCIe`, before Linux 5.9 `8 GT/s`, or `Unknown`.
fn known_link(speed: &str, lanes: u32) -> Option<PciLink> {
    let lanes = if lanes <= PCIE_LANES_MAX { lanes } else { 0 };
    let link = PciLink { lane_megatransfers: megatransfers(speed).unwrap_or_default(), lanes };
    (link != PciLink::default()).then_some(link)
}

fn megatransfers(speed: &str) -> Option<u32> {
    let (whole, tenths) = match speed.split_once(" GT/s")?.0.split_once('.') {
        Some((whole, tenths)) => (whole, tenths),
        None => (speed.split_once(" GT/s")?.0, "0"),
    };
    let (whole, tenths): (u32, u32) = (whole.parse().ok()?, tenths.parse().ok()?);
    let all = whole.checked_mul(1000)?.checked_add(tenths.checked_mul(100)?)?;
    (tenths < 10 && all <= PCIE_LANE_MEGATRANSFERS_MAX).then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_read_as_the_kernel_writes_them() {
        let check = |speed: &str, lanes, expected: &str| {
            let link = known_link(speed, lanes).map(|link| link.to_string());
            assert_eq!(link.unwrap_or_default(), expected, "{speed:?}");
        };
        check("2.5 GT/s PCIe", 1, "2.5 GT/s x1");
        check("64.0 GT/s PCIe", 16, "64.0 GT/s x16");
        check("8 GT/s", 8, "8.0 GT/s x8");
        for strange in ["Unknown", "", " GT/s", "-1 GT/s", "1.55 GT/s", "4294967295 GT/s", "1001.0 GT/s"] {
            check(strange, 255, "");
            check(strange, 4, "x4");
        }
    }
}
