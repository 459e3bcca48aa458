//! SR-IOV policies, networks, the states of nodes, and what pods are attached to.

use bulkhead_types::{
    Hex16, Ipam, Name, NetworkAttachment, NetworkCapabilities, NetworkRoute, SriovBlock, SriovDeviceType,
    SriovIBNetworkSpec, SriovInterface, SriovInterfaceStatus, SriovLinkType, SriovNetworkNodePolicySpec,
    SriovNetworkNodeStateSpec, SriovNetworkNodeStateStatus, SriovNetworkSpec, SriovSyncStatus, SriovVfGroup,
    VfLinkState,
};
use serde_json::{Value, json};
use smol_str::SmolStr;

use super::Fields;

fn device_type(device_type: SriovDeviceType) -> &'static str {
    match device_type {
        SriovDeviceType::Netdevice => "netdevice",
        SriovDeviceType::VfioPci => "vfio-pci",
    }
}

pub(super) fn link_type(link_type: SriovLinkType) -> &'static str {
    match link_type {
        SriovLinkType::Eth => "ETH",
        SriovLinkType::Ib => "IB",
    }
}

/// As SriovNetworkNodeState has it.
pub(super) fn link_speed(mbps: u32) -> String {
    format!("{mbps} Mb/s")
}

fn link_state(state: VfLinkState) -> &'static str {
    match state {
        VfLinkState::Auto => "auto",
        VfLinkState::Enable => "enable",
        VfLinkState::Disable => "disable",
    }
}

fn switch(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

fn texts(list: &[SmolStr]) -> impl Iterator<Item = Value> + '_ {
    list.iter().map(|text| Value::from(text.as_str()))
}

/// What is wanted of nodes' NICs.
pub(super) fn policy_spec(spec: &SriovNetworkNodePolicySpec) -> Value {
    let selector = &spec.nic_selector;
    let id = |id: Option<Hex16>| id.map(String::from);
    let nics = Fields::new()
        .optional("vendor", id(selector.vendor).as_deref())
        .optional("deviceID", id(selector.device_id).as_deref())
        .list("pfNames", texts(&selector.pf_names))
        .list("rootDevices", texts(&selector.root_devices));
    Fields::new()
        .text("resourceName", &spec.resource_name)
        .map("nodeSelector", &spec.node_selector)
        .set("priority", spec.priority.into())
        .number("mtu", spec.mtu.map(Into::into))
        .set("numVfs", spec.num_vfs.into())
        .set("nicSelector", nics.finish())
        .text("deviceType", device_type(spec.device_type))
        .set("isRdma", spec.is_rdma.into())
        .optional("linkType", spec.link_type.map(link_type))
        .finish()
}

/// What both kinds of networks have.
fn common(spec: &SriovIBNetworkSpec) -> Fields {
    let fields = Fields::new()
        .text("resourceName", &spec.resource_name)
        .optional("networkNamespace", spec.network_namespace.as_ref().map(Name::as_str))
        .optional("ipam", spec.ipam.as_ref().map(ipam).as_deref())
        .text("linkState", link_state(spec.link_state));
    match spec.capabilities {
        NetworkCapabilities { ips: false, mac: false } => fields,
        NetworkCapabilities { ips, mac } => {
            let json = Fields::new();
            let json = if ips { json.set("ips", true.into()) } else { json };
            let json = if mac { json.set("mac", true.into()) } else { json };
            fields.text("capabilities", &json.finish().to_string())
        }
    }
}

fn route(route: &NetworkRoute) -> Value {
    let gateway = route.gateway.map(|gateway| gateway.to_string());
    Fields::new().text("dst", &route.destination.to_string()).optional("gw", gateway.as_deref()).finish()
}

/// JSON, as it stands in a string.
fn ipam(ipam: &Ipam) -> String {
    let address = |address: Option<std::net::IpAddr>| address.map(|address| address.to_string());
    Fields::new()
        .text("type", "whereabouts")
        .text("range", &ipam.range.to_string())
        .optional("range_start", address(ipam.range_start).as_deref())
        .optional("range_end", address(ipam.range_end).as_deref())
        .list("exclude", ipam.exclude.iter().map(|cidr| cidr.to_string().into()))
        .optional("gateway", address(ipam.gateway).as_deref())
        .list("routes", ipam.routes.get().into_iter().flatten().map(route))
        .finish()
        .to_string()
}

/// What is wanted of an Ethernet network.
pub(super) fn network_spec(spec: &SriovNetworkSpec) -> Value {
    let of_both = SriovIBNetworkSpec {
        resource_name: spec.resource_name.clone(),
        network_namespace: spec.network_namespace.clone(),
        ipam: spec.ipam.clone(),
        link_state: spec.link_state,
        capabilities: spec.capabilities,
    };
    common(&of_both)
        .set("vlan", spec.vlan.into())
        .set("vlanQoS", spec.vlan_qos.into())
        .optional("spoofChk", spec.spoof_chk.map(switch))
        .optional("trust", spec.trust.map(switch))
        .number("minTxRate", spec.min_tx_rate.map(Into::into))
        .number("maxTxRate", spec.max_tx_rate.map(Into::into))
        .finish()
}

/// What is wanted of an InfiniBand network.
pub(super) fn ib_network_spec(spec: &SriovIBNetworkSpec) -> Value {
    common(spec).finish()
}

/// What a node's NICs shall be.
pub(super) fn state_spec(spec: &SriovNetworkNodeStateSpec) -> Value {
    let group = |group: &SriovVfGroup| {
        Fields::new()
            .text("resourceName", &group.resource_name)
            .text("policyName", &group.policy_name)
            .text("vfRange", &format!("{}-{}", group.first, group.last))
            .text("deviceType", device_type(group.device_type))
            .set("isRdma", group.is_rdma.into())
            .number("mtu", group.mtu.map(Into::into))
            .finish()
    };
    let interface = |interface: &SriovInterface| {
        Fields::new()
            .text("pciAddress", &interface.pci_address)
            .nonempty("name", &interface.name)
            .set("numVfs", interface.num_vfs.into())
            .number("mtu", interface.mtu.map(Into::into))
            .optional("linkType", interface.link_type.map(link_type))
            .list("vfGroups", interface.vf_groups.iter().map(group))
            .finish()
    };
    Fields::new()
        .text("dpConfigVersion", &spec.dp_config_version)
        .list("interfaces", spec.interfaces.iter().map(interface))
        .finish()
}

/// What a node's NICs are.
pub(super) fn state_status(status: &SriovNetworkNodeStateStatus) -> Value {
    let interface = |one: &SriovInterfaceStatus| {
        Fields::new()
            .text("vendor", &format!("{:04x}", one.vendor))
            .text("deviceID", &format!("{:04x}", one.device_id))
            .nonempty("driver", &one.driver)
            .optional("linkType", one.link_type.map(link_type))
            .optional("linkSpeed", one.link_speed_mbps.get().copied().map(link_speed).as_deref())
            .nonempty("mac", &one.mac)
            .number("mtu", Some(one.mtu.into()).filter(|mtu| *mtu > 0))
            .nonempty("name", &one.name)
            .text("pciAddress", &one.pci_address)
            .set("totalvfs", one.total_vfs.into())
            .set("numVfs", one.num_vfs.into())
            .finish()
    };
    let block = |block: &SriovBlock| {
        let fields = Fields::new().text("pciAddress", &block.pci_address);
        fields.list("holders", texts(&block.holders)).finish()
    };
    let sync = match status.sync_status {
        SriovSyncStatus::Succeeded => "Succeeded",
        SriovSyncStatus::InProgress => "InProgress",
        SriovSyncStatus::Blocked => "Blocked",
        SriovSyncStatus::Failed => "Failed",
    };
    Fields::new()
        .list("interfaces", status.interfaces.iter().map(interface))
        .text("syncStatus", sync)
        .nonempty("step", &status.step)
        .nonempty("lastSyncError", &status.last_sync_error)
        .list("blocked", status.blocked.iter().map(block))
        .finish()
}

/// A network that a pod is attached to, in the form of Multus' network status.
pub(super) fn attachment(one: &NetworkAttachment) -> Value {
    let address = one.address.map(|address| format!("{address}/{}", one.prefix));
    let gateway = one.gateway.map(|gateway| gateway.to_string());
    Fields::new()
        .text("name", &one.network)
        .text("interface", &one.interface)
        .text("device", &one.device)
        .list("ips", address.iter().map(|address| json!(address)))
        .optional("gateway", gateway.as_deref())
        .text("mac", &one.mac)
        .list("default-route", one.default_gateways().iter().map(|ip| ip.to_string().into()))
        .number("vlan", Some(one.vlan.into()).filter(|vlan| *vlan > 0))
        .number("mtu", one.mtu.map(Into::into))
        .finish()
}
