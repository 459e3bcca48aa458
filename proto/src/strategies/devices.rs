//! Devices and their classes.

use super::*;

fn hex() -> impl Strategy<Value = Hex16> + Clone {
    any::<u16>().prop_map(Hex16)
}

record!(/// Any capacity.
device_capacity: DeviceCapacity { memory_bytes: any::<u64>(), cores: any::<u64>() });
record!(/// Any link.
device_link: DeviceLink { peer: small(), link_type: small(), count: any::<u32>() });

/// Any health.
pub fn device_health() -> impl Strategy<Value = DeviceHealth> + Clone {
    prop_oneof![
        Just(DeviceHealth::Healthy),
        (small(), any::<u64>()).prop_map(|(code, since_ms)| DeviceHealth::Unhealthy { code, since_ms }),
        any::<u64>().prop_map(|since_ms| DeviceHealth::Lost { since_ms }),
    ]
}

record!(/// Any device.
device: Device {
    id: small(), address: small(), index: any::<u32>(), vendor: any::<u16>(), device: any::<u16>(),
    class_code: any::<u32>(), model: small(), driver: small(), numa_node: of(any::<u32>()), pcie_root: small(),
    iommu_group: of(any::<u32>()), parent: of(small()), links: vec(device_link(), 0..3),
    capacity: device_capacity(), health: device_health(), in_use_by: small(),
    nic: rare(nic_facts()),
});
record!(/// Any report.
device_report: DeviceReport {
    sequence: any::<u64>(), snapshot: any::<bool>(), devices: vec(device(), 0..3), removed: vec(small(), 0..3),
});
record!(/// Any devices of a node.
resource_slice: ResourceSlice {
    meta: meta(), node: object_id(), incarnation: any::<u64>(), sequence: any::<u64>(),
    devices: vec(device(), 0..3), cordoned: vec(small(), 0..3),
});
record!(/// Any share.
device_share: DeviceShare { memory_bytes: any::<u64>(), cores: any::<u64>() });
record!(/// Any device of a container.
allocated_device: AllocatedDevice {
    container: small(), resource: small(), device: small(), share: of(device_share()),
});
record!(/// Any device for an agent.
device_intent: DeviceIntent {
    container: small(), resource: small(), device: small(), address: small(), share: of(device_share()),
    lost: any::<bool>(),
});

record!(/// Any selector.
device_selector: DeviceSelector {
    vendors: vec(hex(), 0..3), devices: vec(hex(), 0..3), classes: vec(hex(), 0..3), models: vec(small(), 0..3),
    drivers: vec(small(), 0..3), role: select(vec![DeviceRole::Whole, DeviceRole::Virtual]),
});
record!(/// Any sharing.
device_sharing: DeviceSharing {
    extended_resource_name: small(), memory_resource_name: small(), cores_resource_name: small(),
    split_count: any::<u32>(), memory_scaling_percent: any::<u32>(), core_scaling_percent: any::<u32>(),
    node_scheduler_policy: scheduler_policy(), device_scheduler_policy: scheduler_policy(),
});

fn scheduler_policy() -> impl Strategy<Value = SchedulerPolicy> + Clone {
    select(vec![SchedulerPolicy::Binpack, SchedulerPolicy::Spread])
}

record!(/// Any wish for a class.
device_class_spec: DeviceClassSpec {
    extended_resource_name: small(), selector: device_selector(), sharing: of(device_sharing()),
});
record!(/// Any class.
device_class: DeviceClass { meta: meta(), spec: device_class_spec() });

fn amounts() -> impl Strategy<Value = std::collections::BTreeMap<SmolStr, u64>> + Clone {
    proptest::collection::btree_map(small(), any::<u64>(), 0..3)
}

record!(/// Any extended resources.
extended_resources: ExtendedResources { requests: amounts(), limits: amounts() });

/// Any command about devices.
pub(super) fn device_command() -> impl Strategy<Value = Command> + Clone {
    prop_oneof![
        (object_id(), any::<u64>(), device_report())
            .prop_map(|(node, incarnation, report)| Command::ReportDevices { node, incarnation, report }),
        (name(), small(), any::<bool>()).prop_map(|(node, device, cordoned)| Command::SetDeviceCordoned {
            node,
            device,
            cordoned
        }),
    ]
}

/// Any event about devices.
pub(super) fn device_event() -> impl Strategy<Value = EventKind> + Clone {
    prop_oneof![
        (object_id(), any::<u64>(), device_report())
            .prop_map(|(id, incarnation, report)| EventKind::DevicesReported { id, incarnation, report }),
        (object_id(), small(), any::<bool>()).prop_map(|(id, device, cordoned)| EventKind::DeviceCordoned {
            id,
            device,
            cordoned
        }),
    ]
}
