//! SR-IOV policies, networks, the states of nodes, and what pods are attached to.

use std::net::IpAddr;

use bulkhead_types::{
    AttachmentRoutes, IPAM_EXCLUDES_MAX, IPAM_ROUTES_MAX, IpCidr, Ipam, NETWORKS_PER_POD_MAX, NIC_NAMES_MAX,
    NetworkAttachment, NetworkCapabilities, NetworkRoute, NicFacts, SRIOV_HOLDERS_MAX, SRIOV_INTERFACES_MAX,
    SRIOV_PRIORITY_MAX, SriovBlock, SriovDeviceType, SriovIBNetwork, SriovIBNetworkSpec, SriovInterface,
    SriovInterfaceStatus, SriovLinkType, SriovNetwork, SriovNetworkNodePolicy, SriovNetworkNodePolicySpec,
    SriovNetworkNodeState, SriovNetworkNodeStateSpec, SriovNetworkNodeStateStatus, SriovNetworkSpec,
    SriovNicSelector, SriovSyncStatus, SriovVfGroup, VfLinkState,
};

use super::defaults::default;
use super::{ConvertError, Field, at_most, read};
use super::{wire_enum, wire_field, wire_field_or_default, wire_struct};
use crate::v1;

wire_enum! {
    SriovDeviceType { Netdevice, VfioPci }
    SriovLinkType { Eth, Ib }
    VfLinkState { Auto, Enable, Disable }
    SriovSyncStatus { Succeeded, InProgress, Blocked, Failed }
}

wire_struct!(SriovNetworkNodePolicy => v1::SriovNetworkNodePolicy { meta, spec });
wire_struct!(SriovNetworkNodePolicySpec => v1::SriovNetworkNodePolicySpec {
    resource_name, node_selector, priority, mtu, num_vfs, nic_selector, device_type, is_rdma, link_type,
});
wire_struct!(SriovNicSelector => v1::SriovNicSelector {
    vendor, device_id, pf_names (NIC_NAMES_MAX), root_devices (NIC_NAMES_MAX),
});
wire_struct!(Ipam => v1::Ipam { range, range_start, range_end, exclude (IPAM_EXCLUDES_MAX), gateway, routes });
wire_struct!(NetworkRoute => v1::NetworkRoute { destination, gateway });
wire_struct!(AttachmentRoutes => v1::AttachmentRoutes { default_gateways (2), routes (IPAM_ROUTES_MAX) });
wire_struct!(NetworkCapabilities => v1::NetworkCapabilities { ips, mac });
wire_struct!(SriovNetwork => v1::SriovNetwork { meta, spec });
wire_struct!(SriovNetworkSpec => v1::SriovNetworkSpec {
    resource_name, network_namespace, ipam, link_state, capabilities, vlan, vlan_qos, spoof_chk, trust,
    min_tx_rate, max_tx_rate,
});
wire_struct!(SriovIBNetwork => v1::SriovIbNetwork { meta, spec });
wire_struct!(SriovIBNetworkSpec => v1::SriovIbNetworkSpec {
    resource_name, network_namespace, ipam, link_state, capabilities,
});
wire_struct!(SriovNetworkNodeState => v1::SriovNetworkNodeState { meta, node, spec, status });
wire_struct!(SriovNetworkNodeStateSpec => v1::SriovNetworkNodeStateSpec {
    dp_config_version, interfaces (SRIOV_INTERFACES_MAX),
});
wire_struct!(SriovInterface => v1::SriovInterface {
    pci_address, name, num_vfs, mtu, link_type, vf_groups (SRIOV_INTERFACES_MAX),
});
wire_struct!(SriovVfGroup => v1::SriovVfGroup {
    resource_name, policy_name, first, last, device_type, is_rdma, mtu,
});
wire_struct!(SriovNetworkNodeStateStatus => v1::SriovNetworkNodeStateStatus {
    interfaces (SRIOV_INTERFACES_MAX), sync_status, step, last_sync_error, blocked (SRIOV_INTERFACES_MAX),
});
wire_struct!(SriovInterfaceStatus => v1::SriovInterfaceStatus {
    vendor, device_id, driver, link_type, mac, mtu, name, pci_address, total_vfs, num_vfs,
    link_speed_mbps,
});
wire_struct!(SriovBlock => v1::SriovBlock { pci_address, holders (SRIOV_HOLDERS_MAX) });
wire_struct!(NicFacts => v1::NicFacts {
    name, mac, mtu, link_type, total_vfs, num_vfs, step, sync_error,
});
wire_struct!(NetworkAttachment => v1::NetworkAttachment {
    network, interface, device, address, prefix, gateway, mac, vlan, vlan_qos, spoof_chk, trust, min_tx_rate,
    max_tx_rate, link_state, link_type, mtu, routes,
});

wire_field! {
    SriovNetworkNodePolicy => v1::SriovNetworkNodePolicy,
    SriovNetworkNodePolicySpec => v1::SriovNetworkNodePolicySpec,
    Ipam => v1::Ipam,
    NetworkRoute => v1::NetworkRoute,
    AttachmentRoutes => v1::AttachmentRoutes,
    SriovNetwork => v1::SriovNetwork,
    SriovNetworkSpec => v1::SriovNetworkSpec,
    SriovIBNetwork => v1::SriovIbNetwork,
    SriovIBNetworkSpec => v1::SriovIbNetworkSpec,
    SriovNetworkNodeState => v1::SriovNetworkNodeState,
    SriovNetworkNodeStateSpec => v1::SriovNetworkNodeStateSpec,
    SriovInterface => v1::SriovInterface,
    SriovVfGroup => v1::SriovVfGroup,
    SriovNetworkNodeStateStatus => v1::SriovNetworkNodeStateStatus,
    SriovInterfaceStatus => v1::SriovInterfaceStatus,
    SriovBlock => v1::SriovBlock,
    NicFacts => v1::NicFacts,
    NetworkAttachment => v1::NetworkAttachment,
}
wire_field_or_default! {
    NetworkCapabilities => v1::NetworkCapabilities,
    SriovNicSelector => v1::SriovNicSelector,
}

impl Field<String> for IpAddr {
    fn to_wire(&self) -> String {
        self.to_string()
    }
    fn from_wire(wire: String) -> Result<Self, ConvertError> {
        wire.parse().map_err(|_| ConvertError::new(format!("{wire:?} is no IP address")))
    }
}

impl Field<String> for IpCidr {
    fn to_wire(&self) -> String {
        self.to_string()
    }
    fn from_wire(wire: String) -> Result<Self, ConvertError> {
        Self::parse(&wire).map_err(ConvertError::new)
    }
}

impl Field<v1::NetworkRoutes> for Vec<NetworkRoute> {
    fn to_wire(&self) -> v1::NetworkRoutes {
        v1::NetworkRoutes { routes: Field::to_wire(self) }
    }
    fn from_wire(wire: v1::NetworkRoutes) -> Result<Self, ConvertError> {
        at_most(&wire.routes, IPAM_ROUTES_MAX, "routes")?;
        read(wire.routes, "routes")
    }
}

impl Field<v1::NetworkAttachments> for Vec<NetworkAttachment> {
    fn to_wire(&self) -> v1::NetworkAttachments {
        v1::NetworkAttachments { networks: Field::to_wire(self) }
    }
    fn from_wire(wire: v1::NetworkAttachments) -> Result<Self, ConvertError> {
        at_most(&wire.networks, NETWORKS_PER_POD_MAX, "networks")?;
        read(wire.networks, "networks")
    }
}

/// What a submitted policy says that names no priority, or no type.
pub(super) fn default_policy_spec(spec: &mut v1::SriovNetworkNodePolicySpec) {
    spec.priority.get_or_insert(SRIOV_PRIORITY_MAX);
    default(&mut spec.device_type, v1::SriovDeviceType::Netdevice);
}
