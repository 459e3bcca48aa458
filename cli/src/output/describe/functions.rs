//! What nodes' agents tell of PCI functions: for operators, who look for the card that is slow.

use bulkhead_types::{
    Device, PciFacts, PciInfiniband, PciInterface, ResourceSlice, SriovLinkType, format_bytes, format_guid,
    format_serial_number,
};

use super::Page;

/// The functions of a node's slice, and what drivers of the host made of them. Nothing of servers and agents that know nothing of it.
pub(super) fn tables(page: &mut Page, slice: &ResourceSlice) {
    let told: Vec<(&Device, &PciFacts)> =
        slice.devices.iter().filter_map(|device| Some((device, device.pci.get()?))).collect();
    let mut table = |title: &str, header: &[&str], rows: Vec<Vec<String>>| {
        if !rows.is_empty() {
            page.section(title, |page| page.table(header, &rows));
        }
    };
    let header =
        ["DEVICE", "CLASS", "DRIVER", "ROOT", "GROUP", "ACS", "RESET", "LINK", "REGIONS", "VFS", "SERIAL"];
    table("PCI functions", &header, told.iter().map(|(device, facts)| function(device, facts)).collect());
    let interfaces = told.iter().flat_map(|(device, facts)| {
        facts.interfaces().iter().map(|one| interface(device, one)).collect::<Vec<_>>()
    });
    let header = ["DEVICE", "NAME", "TYPE", "STATE", "SPEED", "MTU", "MAC"];
    table("Network interfaces", &header, interfaces.collect());
    let infiniband = told.iter().flat_map(|(device, facts)| {
        facts.infiniband().iter().map(|one| infiniband(device, one)).collect::<Vec<_>>()
    });
    table("InfiniBand devices", &["DEVICE", "NAME", "NODE GUID", "SYSTEM IMAGE GUID"], infiniband.collect());
}

fn cells<const COUNT: usize>(cells: [String; COUNT]) -> Vec<String> {
    cells.map(|cell| if cell.is_empty() { "-".to_owned() } else { cell }).to_vec()
}

fn function(device: &Device, facts: &PciFacts) -> Vec<String> {
    let traits = &*facts.traits;
    // What both ends could do is said where it is more.
    let link = match (facts.link, traits.link_max) {
        (Some(now), Some(most)) if now != most => format!("{now} of {most}"),
        (Some(link), _) => link.to_string(),
        (None, _) => String::new(),
    };
    let regions: Vec<String> = traits.memory_bars_bytes.iter().map(|bytes| format_bytes(*bytes)).collect();
    cells([
        device.id.to_string(),
        format!("{:04x}", device.class()),
        device.driver.to_string(),
        device.pcie_root.to_string(),
        device.iommu_group.map(|group| group.to_string()).unwrap_or_default(),
        traits.acs.as_str().to_owned(),
        traits.reset_methods.join(","),
        link,
        regions.join(","),
        device.nic.get().map(|nic| format!("{}/{}", nic.num_vfs, nic.total_vfs)).unwrap_or_default(),
        facts.serial_number.map(format_serial_number).unwrap_or_default(),
    ])
}

fn interface(device: &Device, one: &PciInterface) -> Vec<String> {
    let link_type = match one.link_type {
        Some(SriovLinkType::Eth) => "ETH",
        Some(SriovLinkType::Ib) => "IB",
        None => "",
    };
    cells([
        device.id.to_string(),
        one.name.to_string(),
        link_type.to_owned(),
        if one.is_up { "up" } else { "down" }.to_owned(),
        one.link_speed_mbps.map(|speed| format!("{speed} Mb/s")).unwrap_or_default(),
        if one.mtu > 0 { one.mtu.to_string() } else { String::new() },
        one.mac.to_string(),
    ])
}

fn infiniband(device: &Device, one: &PciInfiniband) -> Vec<String> {
    let guid = |guid: u64| if guid == 0 { String::new() } else { format_guid(guid) };
    cells([device.id.to_string(), one.name.to_string(), guid(one.node_guid), guid(one.system_guid)])
}
