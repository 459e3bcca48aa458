//! What travels between the control plane and an agent. Reports come from machines that may be hostile:
//! their lists are bounded here, and their labels in [`super::Registration`].

use bulkhead_types::{
    AgentAck, AgentReport, CONTAINERS_MAX, ContainerUsage, DEVICE_USAGES_MAX, DEVICES_PER_POD_MAX,
    DeviceUsage, ITEMS_MAX, Intent, Joined, NETWORKS_PER_POD_MAX, PodBandwidth, PodIntent, PodUsage,
    SRIOV_INTERFACES_MAX, VOLUMES_MAX,
};

use super::{ConvertError, read, wire_field, wire_struct};
use crate::v1;

wire_struct!(Intent => v1::Intent { node, incarnation, generation, pods (ITEMS_MAX), deleted_volumes (ITEMS_MAX), gpu, cpu_pools, nics (SRIOV_INTERFACES_MAX), volume_orders (ITEMS_MAX) });
wire_struct!(PodIntent => v1::PodIntent {
    id, uid, namespace, name, spec, deletion, ended, unique, trace_context, resolved, claims (VOLUMES_MAX),
    devices (DEVICES_PER_POD_MAX), networks (NETWORKS_PER_POD_MAX), cpus, batch, bandwidth, resizing,
    pull_credentials,
});
wire_struct!(PodBandwidth => v1::PodBandwidth { ingress_bits_per_second, egress_bits_per_second });
wire_struct!(AgentReport => v1::AgentReport {
    node, incarnation, sent_at_ms, observed_generation, pods (ITEMS_MAX), usage (ITEMS_MAX),
    deleted_volumes (ITEMS_MAX), devices, images, volume_results (ITEMS_MAX), device_usage (DEVICE_USAGES_MAX),
    has_pci_facts,
});
wire_struct!(DeviceUsage => v1::DeviceUsage {
    device, address, index, model, pod, in_guest, utilization_percent, memory_used_bytes, memory_bytes,
    temperature_celsius, power_milliwatts, last_reset, last_reset_at_ms, age_ms,
});
wire_struct!(PodUsage => v1::PodUsage {
    pod, cpu_millis, memory_bytes, window_ms, age_ms, containers (2 * CONTAINERS_MAX),
});
wire_struct!(ContainerUsage => v1::ContainerUsage { name, cpu_millis, memory_bytes });
wire_struct!(AgentAck => v1::AgentAck { sent_at_ms, lease_ms, devices_unknown });

impl From<&Joined> for v1::JoinResponse {
    fn from(value: &Joined) -> Self {
        let Joined { node, incarnation, lease_ms, heartbeat_ms } = *value;
        // Which cluster it is, is the edge's to say: no decision of an agent depends on it.
        Self { node: node.0, incarnation, lease_ms, heartbeat_ms, cluster_id: String::new() }
    }
}

impl TryFrom<v1::JoinResponse> for Joined {
    type Error = ConvertError;
    fn try_from(wire: v1::JoinResponse) -> Result<Self, ConvertError> {
        let v1::JoinResponse { node, incarnation, lease_ms, heartbeat_ms, cluster_id: _ } = wire;
        Ok(Self { node: read(node, "node")?, incarnation, lease_ms, heartbeat_ms })
    }
}

wire_field! {
    PodIntent => v1::PodIntent,
    PodBandwidth => v1::PodBandwidth,
    PodUsage => v1::PodUsage,
    ContainerUsage => v1::ContainerUsage,
    DeviceUsage => v1::DeviceUsage,
}
