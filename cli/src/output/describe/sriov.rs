//! SR-IOV policies, networks, the NICs of nodes, and what pods are attached to.

use bulkhead_types::{
    Ipam, Pod, SriovDeviceType, SriovLinkType, SriovNetworkNodePolicySpec, SriovNetworkNodeState,
    SriovNetworkSpec, SriovSyncStatus, VfLinkState,
};

use super::Page;

/// As manifests write it.
pub(in crate::output) fn device_type(device_type: SriovDeviceType) -> &'static str {
    match device_type {
        SriovDeviceType::Netdevice => "netdevice",
        SriovDeviceType::VfioPci => "vfio-pci",
    }
}

/// As manifests write it.
pub(in crate::output) fn sync_status(status: SriovSyncStatus) -> &'static str {
    match status {
        SriovSyncStatus::Succeeded => "Succeeded",
        SriovSyncStatus::InProgress => "InProgress",
        SriovSyncStatus::Blocked => "Blocked",
        SriovSyncStatus::Failed => "Failed",
    }
}

fn link_type(link_type: SriovLinkType) -> &'static str {
    match link_type {
        SriovLinkType::Eth => "ETH",
        SriovLinkType::Ib => "IB",
    }
}

pub(super) fn policy(page: &mut Page, spec: &SriovNetworkNodePolicySpec) {
    page.line("Resource", spec.resource_name.as_str());
    page.line("Priority", format!("{} (the smaller wins)", spec.priority));
    page.optional(
        "Node selector",
        super::pairs(spec.node_selector.iter().map(|(k, v)| (k.as_str(), v.as_str()))),
    );
    page.line("Virtual functions", spec.num_vfs.to_string());
    page.line("Device type", device_type(spec.device_type));
    page.optional("MTU", spec.mtu.map(|mtu| mtu.to_string()).unwrap_or_default());
    page.optional("Link type", spec.link_type.map(link_type).unwrap_or_default());
    page.line("RDMA", spec.is_rdma.to_string());
    let selector = &spec.nic_selector;
    page.section("NICs", |page| {
        page.optional("Vendor", selector.vendor.map(String::from).unwrap_or_default());
        page.optional("Device id", selector.device_id.map(String::from).unwrap_or_default());
        page.optional("Names", selector.pf_names.join(", "));
        page.optional("Addresses", selector.root_devices.join(", "));
    });
}

pub(super) fn network(page: &mut Page, spec: &SriovNetworkSpec, is_ethernet: bool) {
    page.line("Resource", spec.resource_name.as_str());
    page.optional(
        "Pods of namespace",
        spec.network_namespace.as_ref().map(ToString::to_string).unwrap_or_default(),
    );
    let link_state = match spec.link_state {
        VfLinkState::Auto => "auto",
        VfLinkState::Enable => "enable",
        VfLinkState::Disable => "disable",
    };
    page.line("Link state", link_state);
    if is_ethernet {
        page.line("VLAN", format!("{} (priority {})", spec.vlan, spec.vlan_qos));
        let switch = |on: Option<bool>| on.map_or("", |on| if on { "on" } else { "off" }).to_owned();
        page.optional("Spoof check", switch(spec.spoof_chk));
        page.optional("Trust", switch(spec.trust));
        let rate = |rate: Option<u32>| rate.map(|rate| format!("{rate} Mbit/s")).unwrap_or_default();
        page.optional("Least rate", rate(spec.min_tx_rate));
        page.optional("Highest rate", rate(spec.max_tx_rate));
    }
    match &spec.ipam {
        None => page.line("Addresses", "none are given out"),
        Some(given) => page.section("Addresses", |page| ipam(page, given)),
    }
}

fn ipam(page: &mut Page, ipam: &Ipam) {
    let text =
        |address: Option<std::net::IpAddr>| address.map(|address| address.to_string()).unwrap_or_default();
    page.line("Range", ipam.range.to_string());
    page.optional("From", text(ipam.range_start));
    page.optional("To", text(ipam.range_end));
    page.optional("Excluded", ipam.exclude.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
    page.optional("Gateway", text(ipam.gateway));
}

pub(super) fn state(page: &mut Page, state: &SriovNetworkNodeState) {
    page.line("Config version", state.spec.dp_config_version.as_str());
    page.line("Sync status", sync_status(state.status.sync_status));
    page.optional("Step", &state.status.step);
    page.optional("Last sync error", state.status.last_sync_error.clone());
    for block in &state.status.blocked {
        page.line("Waits for pods", format!("{}: {}", block.pci_address, block.holders.join(", ")));
    }
    let interface = |one: &bulkhead_types::SriovInterfaceStatus| {
        let wanted = state.spec.interfaces.iter().find(|spec| spec.pci_address == one.pci_address);
        let groups = wanted.map(|spec| {
            let group = |group: &bulkhead_types::SriovVfGroup| {
                format!(
                    "{}-{} {} ({})",
                    group.first,
                    group.last,
                    group.resource_name,
                    device_type(group.device_type)
                )
            };
            spec.vf_groups.iter().map(group).collect::<Vec<_>>().join(", ")
        });
        vec![
            one.name.to_string(),
            one.pci_address.to_string(),
            format!("{:04x}:{:04x}", one.vendor, one.device_id),
            one.link_type.map_or("-", link_type).to_owned(),
            format!("{}/{}", one.num_vfs, one.total_vfs),
            wanted.map_or_else(|| "-".to_owned(), |spec| spec.num_vfs.to_string()),
            groups.unwrap_or_else(|| "-".to_owned()),
        ]
    };
    let rows: Vec<Vec<String>> = state.status.interfaces.iter().map(interface).collect();
    if !rows.is_empty() {
        let header = ["NAME", "ADDRESS", "ID", "LINK", "VFS", "WANTED", "RESOURCES"];
        page.section("NICs", |page| page.table(&header, &rows));
    }
}

/// What a pod is attached to, a line each.
pub(super) fn attached(pod: &Pod) -> Vec<String> {
    let line = |one: &bulkhead_types::NetworkAttachment| {
        let address = one.address.map_or_else(String::new, |address| format!(" {address}/{}", one.prefix));
        let gateway = one.gateway.map_or_else(String::new, |gateway| format!(" via {gateway}"));
        format!("{} as {} by {}:{address}{gateway}, MAC {}", one.network, one.interface, one.device, one.mac)
    };
    pod.networks().iter().map(line).collect()
}
