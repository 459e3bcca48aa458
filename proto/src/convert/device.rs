//! Devices, their classes, and what pods have of them.

use std::collections::BTreeMap;

use bulkhead_types::{
    AllocatedDevice, DEVICE_LINKS_MAX, DEVICES_MAX, DEVICES_PER_POD_MAX, DEVICES_PER_REPORT_MAX, Device,
    DeviceCapacity, DeviceClass, DeviceClassSpec, DeviceHealth, DeviceIntent, DeviceLink, DeviceReport,
    DeviceRole, DeviceSelector, DeviceShare, DeviceSharing, ExtendedResources, Hex16, ResourceSlice,
    SELECTOR_ENTRIES_MAX, SchedulerPolicy,
};
use smol_str::SmolStr;

use super::{ConvertError, Field, at_most, read};
use super::{wire_enum, wire_field, wire_field_or_default, wire_oneof, wire_struct, wire_variant_message};
use crate::v1;
use crate::v1::device_health;

wire_enum! {
    DeviceRole { Whole, Virtual }
    SchedulerPolicy { Binpack, Spread }
}

wire_struct!(DeviceClass => v1::DeviceClass { meta, spec });
wire_struct!(DeviceClassSpec => v1::DeviceClassSpec { extended_resource_name, selector, sharing });
wire_struct!(DeviceSelector => v1::DeviceSelector {
    vendors (SELECTOR_ENTRIES_MAX), devices (SELECTOR_ENTRIES_MAX), classes (SELECTOR_ENTRIES_MAX),
    models (SELECTOR_ENTRIES_MAX), drivers (SELECTOR_ENTRIES_MAX), role,
});
wire_struct!(DeviceSharing => v1::DeviceSharing {
    extended_resource_name, memory_resource_name, cores_resource_name, split_count, memory_scaling_percent,
    core_scaling_percent, node_scheduler_policy, device_scheduler_policy,
});
wire_struct!(ResourceSlice => v1::ResourceSlice {
    meta, node, incarnation, sequence, devices (2 * DEVICES_MAX), cordoned (2 * DEVICES_MAX),
});
wire_struct!(Device => v1::Device {
    id, address, index, vendor, device, class_code, model, driver, numa_node, pcie_root, iommu_group, parent,
    links (DEVICE_LINKS_MAX), capacity, health, in_use_by, nic,
});
wire_struct!(DeviceLink => v1::DeviceLink { peer, link_type, count });
wire_struct!(DeviceCapacity => v1::DeviceCapacity { memory_bytes, cores });
wire_struct!(DeviceReport => v1::DeviceReport {
    sequence, snapshot, devices (DEVICES_PER_REPORT_MAX), removed (DEVICES_PER_REPORT_MAX),
});
wire_struct!(AllocatedDevice => v1::AllocatedDevice { container, resource, device, share });
wire_struct!(DeviceShare => v1::DeviceShare { memory_bytes, cores });
wire_struct!(DeviceIntent => v1::DeviceIntent { container, resource, device, address, share, lost });
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
