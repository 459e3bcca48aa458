//! Devices, their classes, and what pods have of them.

use std::collections::BTreeMap;

use bulkhead_types::{
    AllocatedDevice, CardLayout, DEVICE_LINKS_MAX, DEVICES_MAX, DEVICES_PER_POD_MAX, DEVICES_PER_REPORT_MAX,
    Device, DeviceCapacity, DeviceClass, DeviceClassSpec, DeviceCount, DeviceFault, DeviceFaults,
    DeviceFence, DeviceHealth, DeviceIntent, DeviceLink, DeviceMemoryUnits, DeviceNodeLabels,
    DevicePartition, DevicePartitioning, DeviceReport, DeviceRole, DeviceSelection, DeviceSelector,
    DeviceShare, DeviceSharing, DeviceState, DeviceVisibility, ExtendedResources, FAULT_RULES_MAX,
    FAULTS_KEPT_MAX, FAULTS_PER_REPORT_MAX, FaultAction, FaultRule, GpuIntent, HandledFault, Hex16, NodeGpu,
    PARTITION_ENTRIES_MAX, PARTITIONS_PER_CARD_MAX, PCI_PORTS_MAX, PCI_REGIONS_MAX, PCI_RESET_METHODS_MAX,
    PartitionLayout, PartitionModel, PartitionProfile, PartitionStrategy, PciAcs, PciFacts, PciInfiniband,
    PciInterface, PciLink, PciPorts, PciTraits, ResourceSlice, SELECTOR_ENTRIES_MAX, SchedulerPolicy,
    VisibilityRule, VisibleBy,
};
use smol_str::SmolStr;

use super::{ConvertError, Field, at_most, read};
use super::{wire_enum, wire_field, wire_field_or_default, wire_oneof, wire_struct, wire_variant_message};
use crate::v1;
use crate::v1::device_health;

wire_enum! {
    DeviceRole { Whole, Virtual }
    SchedulerPolicy { Binpack, Spread }
    PartitionStrategy { Single, Mixed }
    FaultAction { Warn, KillPod, KillAll, Fence, Drain }
    VisibleBy { Id, Index }
    VisibilityRule { Own, Named }
    PciAcs { Unknown, Absent, Off, On }
}

wire_struct!(DeviceClass => v1::DeviceClass { meta, spec });
wire_struct!(DeviceClassSpec => v1::DeviceClassSpec {
    extended_resource_name, selector, sharing, partitioning, faults, visibility, memory_resource_name,
    node_labels, selection,
});
wire_struct!(DeviceNodeLabels => v1::DeviceNodeLabels { count, memory, model });
wire_struct!(DeviceSelection => v1::DeviceSelection { use_models, avoid_models, use_ids, avoid_ids });
wire_struct!(DeviceCount => v1::DeviceCount { extended_resource_name, counts });
wire_struct!(DevicePartitioning => v1::DevicePartitioning {
    models (PARTITION_ENTRIES_MAX), layouts (PARTITION_ENTRIES_MAX), counted,
});
wire_struct!(PartitionModel => v1::PartitionModel {
    name, devices (SELECTOR_ENTRIES_MAX), capacity, placed_by, profiles (PARTITION_ENTRIES_MAX),
});
wire_struct!(PartitionProfile => v1::PartitionProfile {
    name, extended_resource_name, uses, placements (PARTITION_ENTRIES_MAX), max_count,
});
wire_struct!(PartitionLayout => v1::PartitionLayout { name, partitions });
wire_struct!(DeviceFaults => v1::DeviceFaults { rules (FAULT_RULES_MAX) });
wire_struct!(FaultRule => v1::FaultRule { action, codes (FAULT_RULES_MAX) });
wire_struct!(DeviceVisibility => v1::DeviceVisibility { env, by, rule });
wire_struct!(DeviceMemoryUnits => v1::DeviceMemoryUnits { extended_resource_name, unit_mebibytes });
wire_struct!(NodeGpu => v1::NodeGpu { mode, strategy });
wire_struct!(DeviceState => v1::DeviceState {
    gpu_mode, fences (2 * DEVICES_MAX), faults (FAULTS_KEPT_MAX),
});
wire_struct!(DeviceFence => v1::DeviceFence { device, code, action, since_ms });
wire_struct!(DeviceFault => v1::DeviceFault { device, code, at_ms, pod });
wire_struct!(HandledFault => v1::HandledFault { fault, action });
wire_struct!(DevicePartition => v1::DevicePartition { profile, start });
wire_struct!(GpuIntent => v1::GpuIntent { mode, cards (DEVICES_MAX) });
wire_struct!(CardLayout => v1::CardLayout { device, partitions (PARTITIONS_PER_CARD_MAX) });
wire_struct!(DeviceSelector => v1::DeviceSelector {
    vendors (SELECTOR_ENTRIES_MAX), devices (SELECTOR_ENTRIES_MAX), classes (SELECTOR_ENTRIES_MAX),
    models (SELECTOR_ENTRIES_MAX), drivers (SELECTOR_ENTRIES_MAX), role,
});
wire_struct!(DeviceSharing => v1::DeviceSharing {
    extended_resource_name, memory_resource_name, cores_resource_name, split_count, memory_scaling_percent,
    core_scaling_percent, node_scheduler_policy, device_scheduler_policy, memory_units, slots_resource_name,
    default_count,
});
wire_struct!(ResourceSlice => v1::ResourceSlice {
    meta, node, incarnation, sequence, devices (2 * DEVICES_MAX), cordoned (2 * DEVICES_MAX), state,
});
wire_struct!(Device => v1::Device {
    id, address, index, vendor, device, class_code, model, driver, numa_node, pcie_root, iommu_group, parent,
    links (DEVICE_LINKS_MAX), capacity, health, in_use_by, nic, partition, pci,
});
wire_struct!(PciFacts => v1::PciFacts { traits, serial_number, link, ports });
wire_struct!(PciTraits => v1::PciTraits {
    subsystem_vendor, subsystem_device, acs, reset_methods (PCI_RESET_METHODS_MAX), link_max,
    memory_bars_bytes (PCI_REGIONS_MAX),
});
wire_struct!(PciLink => v1::PciLink { lane_megatransfers, lanes });
wire_struct!(PciPorts => v1::PciPorts { interfaces (PCI_PORTS_MAX), infiniband (PCI_PORTS_MAX) });
wire_struct!(PciInterface => v1::PciInterface { name, mac, mtu, link_type, link_speed_mbps, is_up });
wire_struct!(PciInfiniband => v1::PciInfiniband { name, node_guid, system_guid });
wire_struct!(DeviceLink => v1::DeviceLink { peer, link_type, count });
wire_struct!(DeviceCapacity => v1::DeviceCapacity { memory_bytes, cores });
wire_struct!(DeviceReport => v1::DeviceReport {
    sequence, snapshot, devices (DEVICES_PER_REPORT_MAX), removed (DEVICES_PER_REPORT_MAX), gpu_mode,
    faults (FAULTS_PER_REPORT_MAX), resets (DEVICES_PER_REPORT_MAX),
});
wire_struct!(AllocatedDevice => v1::AllocatedDevice { container, resource, device, share });
wire_struct!(DeviceShare => v1::DeviceShare { memory_bytes, cores });
wire_struct!(DeviceIntent => v1::DeviceIntent {
    container, resource, device, address, share, lost, visible_env, visible_as,
});
wire_struct!(ExtendedResources => v1::ExtendedResources { requests, limits });

wire_oneof!(DeviceHealth => device_health {
    values {}
    messages {
        Healthy "healthy" {}
        Unhealthy "unhealthy" { code, since_ms }
        Lost "lost" { since_ms }
    }
});
wire_variant_message!(DeviceHealth => v1::DeviceHealth);

wire_field! {
    DeviceClass => v1::DeviceClass,
    DeviceClassSpec => v1::DeviceClassSpec,
    DeviceSelector => v1::DeviceSelector,
    DeviceSharing => v1::DeviceSharing,
    ResourceSlice => v1::ResourceSlice,
    Device => v1::Device,
    DeviceLink => v1::DeviceLink,
    DeviceReport => v1::DeviceReport,
    AllocatedDevice => v1::AllocatedDevice,
    DeviceShare => v1::DeviceShare,
    DeviceIntent => v1::DeviceIntent,
    ExtendedResources => v1::ExtendedResources,
    DevicePartitioning => v1::DevicePartitioning,
    PartitionModel => v1::PartitionModel,
    PartitionProfile => v1::PartitionProfile,
    PartitionLayout => v1::PartitionLayout,
    DeviceFaults => v1::DeviceFaults,
    FaultRule => v1::FaultRule,
    DeviceVisibility => v1::DeviceVisibility,
    DeviceMemoryUnits => v1::DeviceMemoryUnits,
    NodeGpu => v1::NodeGpu,
    DeviceState => v1::DeviceState,
    DeviceFence => v1::DeviceFence,
    DeviceFault => v1::DeviceFault,
    HandledFault => v1::HandledFault,
    DevicePartition => v1::DevicePartition,
    GpuIntent => v1::GpuIntent,
    CardLayout => v1::CardLayout,
    DeviceNodeLabels => v1::DeviceNodeLabels,
    DeviceSelection => v1::DeviceSelection,
    DeviceCount => v1::DeviceCount,
    PciFacts => v1::PciFacts,
    PciTraits => v1::PciTraits,
    PciLink => v1::PciLink,
    PciPorts => v1::PciPorts,
    PciInterface => v1::PciInterface,
    PciInfiniband => v1::PciInfiniband,
}
wire_field_or_default! {
    DeviceCapacity => v1::DeviceCapacity,
}

impl Field<u32> for Hex16 {
    fn to_wire(&self) -> u32 {
        self.0.into()
    }
    fn from_wire(wire: u32) -> Result<Self, ConvertError> {
        u16::from_wire(wire).map(Self)
    }
}

impl Field<v1::AllocatedDevices> for Vec<AllocatedDevice> {
    fn to_wire(&self) -> v1::AllocatedDevices {
        v1::AllocatedDevices { devices: Field::to_wire(self) }
    }
    fn from_wire(wire: v1::AllocatedDevices) -> Result<Self, ConvertError> {
        at_most(&wire.devices, DEVICES_PER_POD_MAX, "devices")?;
        read(wire.devices, "devices")
    }
}

impl Field<BTreeMap<String, u64>> for BTreeMap<SmolStr, u64> {
    fn to_wire(&self) -> BTreeMap<String, u64> {
        self.iter().map(|(name, amount)| (name.to_string(), *amount)).collect()
    }
    fn from_wire(wire: BTreeMap<String, u64>) -> Result<Self, ConvertError> {
        Ok(wire.into_iter().map(|(name, amount)| (name.into(), amount)).collect())
    }
}

impl Field<BTreeMap<String, u32>> for BTreeMap<SmolStr, u32> {
    fn to_wire(&self) -> BTreeMap<String, u32> {
        self.iter().map(|(name, amount)| (name.to_string(), *amount)).collect()
    }
    fn from_wire(wire: BTreeMap<String, u32>) -> Result<Self, ConvertError> {
        Ok(wire.into_iter().map(|(name, amount)| (name.into(), amount)).collect())
    }
}
