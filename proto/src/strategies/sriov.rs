//! SR-IOV policies, networks, the states of nodes, and what pods are attached to.

use std::net::IpAddr;

use super::*;

fn address() -> impl Strategy<Value = IpAddr> + Clone {
    any::<IpAddr>()
}

fn cidr() -> impl Strategy<Value = IpCidr> + Clone {
    (address(), 0u8..=32).prop_map(|(address, prefix)| IpCidr::new(address, prefix).expect("it is short"))
}

pub(super) fn link_type() -> impl Strategy<Value = SriovLinkType> + Clone {
    select(vec![SriovLinkType::Eth, SriovLinkType::Ib])
}

fn link_state() -> impl Strategy<Value = VfLinkState> + Clone {
    select(vec![VfLinkState::Auto, VfLinkState::Enable, VfLinkState::Disable])
}

fn device_type() -> impl Strategy<Value = SriovDeviceType> + Clone {
    select(vec![SriovDeviceType::Netdevice, SriovDeviceType::VfioPci])
}

record!(/// Any selector of NICs.
sriov_nic_selector: SriovNicSelector {
    vendor: of(any::<u16>().prop_map(Hex16)), device_id: of(any::<u16>().prop_map(Hex16)),
    pf_names: vec(small(), 0..3), root_devices: vec(small(), 0..3),
});
record!(/// Any wish for NICs.
sriov_policy_spec: SriovNetworkNodePolicySpec {
    resource_name: small(), node_selector: labels(), priority: any::<u32>(), mtu: of(any::<u32>()),
    num_vfs: any::<u32>(), nic_selector: sriov_nic_selector(), device_type: device_type(),
    is_rdma: any::<bool>(), link_type: of(link_type()),
});
record!(/// Any policy.
sriov_policy: SriovNetworkNodePolicy { meta: meta(), spec: sriov_policy_spec() });
record!(/// Any route.
network_route: NetworkRoute { destination: cidr(), gateway: of(address()) });
record!(/// Any routes of a pod.
attachment_routes: AttachmentRoutes {
    default_gateways: vec(address(), 0..3), routes: vec(network_route(), 0..3),
});
record!(/// Any addresses.
ipam: Ipam {
    range: cidr(), range_start: of(address()), range_end: of(address()), exclude: vec(cidr(), 0..3),
    gateway: of(address()), routes: rare(vec(network_route(), 0..3)),
});
record!(/// Any capabilities.
network_capabilities: NetworkCapabilities { ips: any::<bool>(), mac: any::<bool>() });
record!(/// Any wish for an Ethernet network.
sriov_network_spec: SriovNetworkSpec {
    resource_name: small(), network_namespace: of(name()), ipam: of(ipam()), link_state: link_state(),
    capabilities: network_capabilities(), vlan: any::<u32>(), vlan_qos: any::<u32>(),
    spoof_chk: of(any::<bool>()), trust: of(any::<bool>()), min_tx_rate: of(any::<u32>()),
    max_tx_rate: of(any::<u32>()),
});
record!(/// Any Ethernet network.
sriov_network: SriovNetwork { meta: meta(), spec: sriov_network_spec() });
record!(/// Any wish for an InfiniBand network.
sriov_ib_network_spec: SriovIBNetworkSpec {
    resource_name: small(), network_namespace: of(name()), ipam: of(ipam()), link_state: link_state(),
    capabilities: network_capabilities(),
});
record!(/// Any InfiniBand network.
sriov_ib_network: SriovIBNetwork { meta: meta(), spec: sriov_ib_network_spec() });
record!(/// Any group of VFs.
sriov_vf_group: SriovVfGroup {
    resource_name: small(), policy_name: small(), first: any::<u32>(), last: any::<u32>(),
    device_type: device_type(), is_rdma: any::<bool>(), mtu: of(any::<u32>()),
});
record!(/// Any wish for a NIC.
sriov_interface: SriovInterface {
    pci_address: small(), name: small(), num_vfs: any::<u32>(), mtu: of(any::<u32>()),
    link_type: of(link_type()), vf_groups: vec(sriov_vf_group(), 0..3),
});
record!(/// Any wish for the NICs of a node.
sriov_state_spec: SriovNetworkNodeStateSpec {
    dp_config_version: small(), interfaces: vec(sriov_interface(), 0..3),
});
record!(/// Any NIC.
sriov_interface_status: SriovInterfaceStatus {
    vendor: any::<u16>(), device_id: any::<u16>(), driver: small(), link_type: of(link_type()), mac: small(),
    mtu: any::<u32>(), name: small(), pci_address: small(), total_vfs: any::<u32>(), num_vfs: any::<u32>(),
    link_speed_mbps: rare(any::<u32>()),
});
record!(/// Any NIC whose change waits.
sriov_block: SriovBlock { pci_address: small(), holders: vec(small(), 0..3) });
record!(/// Any status of the NICs of a node.
sriov_state_status: SriovNetworkNodeStateStatus {
    interfaces: vec(sriov_interface_status(), 0..3),
    sync_status: select(vec![
        SriovSyncStatus::Succeeded, SriovSyncStatus::InProgress, SriovSyncStatus::Blocked,
        SriovSyncStatus::Failed,
    ]),
    step: small(), last_sync_error: text(), blocked: vec(sriov_block(), 0..3),
});
record!(/// Any state of the NICs of a node.
sriov_state: SriovNetworkNodeState {
    meta: meta(), node: object_id(), spec: sriov_state_spec(), status: sriov_state_status(),
});
record!(/// Any facts of a NIC.
nic_facts: NicFacts {
    name: small(), mac: small(), mtu: any::<u32>(), link_type: of(link_type()), total_vfs: any::<u32>(),
    num_vfs: any::<u32>(), step: small(), sync_error: small(),
});
record!(/// Any network of a pod.
network_attachment: NetworkAttachment {
    network: small(), interface: small(), device: small(), address: of(address()), prefix: any::<u32>(),
    gateway: of(address()), mac: small(), vlan: any::<u32>(), vlan_qos: any::<u32>(),
    spoof_chk: of(any::<bool>()), trust: of(any::<bool>()), min_tx_rate: of(any::<u32>()),
    max_tx_rate: of(any::<u32>()), link_state: link_state(), link_type: link_type(), mtu: of(any::<u32>()),
    routes: rare(attachment_routes()),
});

/// Any command about the NICs of a node.
pub(super) fn sriov_command() -> impl Strategy<Value = Command> + Clone {
    (object_id(), sriov_state_spec(), sriov_state_status())
        .prop_map(|(node, spec, status)| Command::SetSriovNodeState { node, spec, status })
}
