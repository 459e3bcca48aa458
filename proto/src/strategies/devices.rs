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

record!(/// Any partition.
device_partition: DevicePartition { profile: small(), start: any::<u32>() });
record!(/// Any fault.
device_fault: DeviceFault { device: small(), code: any::<u32>(), at_ms: any::<u64>(), pod: of(object_id()) });
record!(/// Any fence.
device_fence: DeviceFence {
    device: small(), code: any::<u32>(), action: fault_action(), since_ms: any::<u64>(),
});
record!(/// Any fault with what followed.
handled_fault: HandledFault { fault: device_fault(), action: fault_action() });
record!(/// Any state of a node's devices.
device_state: DeviceState {
    gpu_mode: of(small()), fences: vec(device_fence(), 0..2), faults: vec(handled_fault(), 0..2),
});
record!(/// Any mode.
node_gpu: NodeGpu { mode: small(), strategy: select(vec![PartitionStrategy::Single, PartitionStrategy::Mixed]) });
record!(/// Any layout of a card.
card_layout: CardLayout { device: small(), partitions: vec(device_partition(), 0..3) });
record!(/// Any mode for an agent.
gpu_intent: GpuIntent { mode: small(), cards: vec(card_layout(), 0..2) });
record!(/// Any units.
memory_units: DeviceMemoryUnits { extended_resource_name: small(), unit_mebibytes: any::<u32>() });
record!(/// Any profile.
partition_profile: PartitionProfile {
    name: small(), extended_resource_name: small(), uses: amounts(), placements: vec(any::<u32>(), 0..3),
    max_count: of(any::<u32>()),
});
record!(/// Any model.
partition_model: PartitionModel {
    name: small(), devices: vec(hex(), 0..3), capacity: amounts(), placed_by: of(small()),
    profiles: vec(partition_profile(), 0..2),
});
record!(/// Any layout.
partition_layout: PartitionLayout {
    name: small(), partitions: proptest::collection::btree_map(small(), any::<u32>(), 0..3),
});
record!(/// Any partitioning.
partitioning: DevicePartitioning {
    models: vec(partition_model(), 0..2), layouts: vec(partition_layout(), 0..2), counted: rare(device_count()),
});
record!(/// Any count.
    device_count: DeviceCount { extended_resource_name: small(), counts: small() });
record!(/// Any labels of nodes.
    device_node_labels: DeviceNodeLabels { count: of(small()), memory: of(small()), model: of(small()) });
record!(/// Any selection.
device_selection: DeviceSelection {
    use_models: of(small()), avoid_models: of(small()), use_ids: of(small()), avoid_ids: of(small()),
});
record!(/// Any labels by devices.
    device_labels: DeviceLabels { labels: labels() });
record!(/// Any rule.
fault_rule: FaultRule { action: fault_action(), codes: vec(any::<u32>(), 0..3) });
record!(/// Any rules.
device_faults: DeviceFaults { rules: vec(fault_rule(), 0..3) });
record!(/// Any visibility.
visibility: DeviceVisibility { env: small(), by: select(vec![VisibleBy::Id, VisibleBy::Index]),
    rule: rare(select(vec![VisibilityRule::Own, VisibilityRule::Named])),
});

fn fault_action() -> impl Strategy<Value = FaultAction> + Clone {
    use FaultAction::{Drain, Fence, KillAll, KillPod, Warn};
    select(vec![Warn, KillPod, KillAll, Fence, Drain])
}

record!(/// Any device.
device: Device {
    id: small(), address: small(), index: any::<u32>(), vendor: any::<u16>(), device: any::<u16>(),
    class_code: any::<u32>(), model: small(), driver: small(), numa_node: of(any::<u32>()), pcie_root: small(),
    iommu_group: of(any::<u32>()), parent: of(small()), links: vec(device_link(), 0..3),
    capacity: device_capacity(), health: device_health(), in_use_by: small(),
    nic: rare(nic_facts()), partition: of(device_partition()).prop_map(Rare::from),
    pci: rare(pci_facts()),
});
record!(/// Any facts of a PCI function.
pci_facts: PciFacts {
    traits: pci_traits().prop_map(Shared::new), serial_number: of(any::<u64>()), link: of(pci_link()),
    ports: rare(pci_ports()),
});
record!(/// Any traits.
pci_traits: PciTraits {
    subsystem_vendor: any::<u16>(), subsystem_device: any::<u16>(),
    acs: select(vec![PciAcs::Unknown, PciAcs::Absent, PciAcs::Off, PciAcs::On]),
    reset_methods: vec(small(), 0..3), link_max: of(pci_link()), memory_bars_bytes: vec(any::<u64>(), 0..3),
});
record!(/// Any link.
    pci_link: PciLink { lane_megatransfers: any::<u32>(), lanes: any::<u32>() });
record!(/// Any ports.
    pci_ports: PciPorts { interfaces: vec(pci_interface(), 0..3), infiniband: vec(pci_infiniband(), 0..3) });
record!(/// Any interface.
pci_interface: PciInterface {
    name: small(), mac: small(), mtu: any::<u32>(), link_type: of(link_type()), link_speed_mbps: of(any::<u32>()),
    is_up: any::<bool>(),
});
record!(/// Any InfiniBand device.
    pci_infiniband: PciInfiniband { name: small(), node_guid: any::<u64>(), system_guid: any::<u64>() });
record!(/// Any report.
device_report: DeviceReport {
    sequence: any::<u64>(), snapshot: any::<bool>(), devices: vec(device(), 0..3), removed: vec(small(), 0..3),
    gpu_mode: of(small()), faults: vec(device_fault(), 0..2), resets: vec(small(), 0..2),
});
record!(/// Any devices of a node.
resource_slice: ResourceSlice {
    meta: meta(), node: object_id(), incarnation: any::<u64>(), sequence: any::<u64>(),
    devices: vec(device(), 0..3), cordoned: vec(small(), 0..3), state: of(device_state()).prop_map(Rare::from),
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
    lost: any::<bool>(), visible_env: small(), visible_as: small(),
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
    memory_units: of(memory_units()).prop_map(Rare::from), slots_resource_name: rare(small()),
    default_count: rare(any::<u32>()),
});

fn scheduler_policy() -> impl Strategy<Value = SchedulerPolicy> + Clone {
    select(vec![SchedulerPolicy::Binpack, SchedulerPolicy::Spread])
}

record!(/// Any wish for a class.
device_class_spec: DeviceClassSpec {
    extended_resource_name: small(), selector: device_selector(), sharing: of(device_sharing()),
    partitioning: of(partitioning()).prop_map(Rare::from), faults: of(device_faults()).prop_map(Rare::from),
    visibility: of(visibility()).prop_map(Rare::from), memory_resource_name: of(small()).prop_map(Rare::from),
    node_labels: rare(device_node_labels()), selection: rare(device_selection()),
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
        (object_id(), any::<u64>(), node_images())
            .prop_map(|(node, incarnation, images)| Command::ReportImages { node, incarnation, images }),
        object_id().prop_map(|node| Command::SyncDeviceLabels { node }),
        (name(), small(), any::<bool>()).prop_map(|(node, device, cordoned)| Command::SetDeviceCordoned {
            node,
            device,
            cordoned
        }),
        (name(), of(node_gpu())).prop_map(|(node, gpu)| Command::SetGpuMode { node, gpu }),
    ]
}

/// Any event about devices.
pub(super) fn device_event() -> impl Strategy<Value = EventKind> + Clone {
    prop_oneof![
        (object_id(), any::<u64>(), device_report())
            .prop_map(|(id, incarnation, report)| EventKind::DevicesReported { id, incarnation, report }),
        (object_id(), node_images()).prop_map(|(id, images)| EventKind::ImagesReported { id, images }),
        (object_id(), labels(), rare(device_labels()))
            .prop_map(|(id, labels, record)| EventKind::DeviceLabelsSynced { id, labels, record }),
        (object_id(), small(), any::<bool>()).prop_map(|(id, device, cordoned)| EventKind::DeviceCordoned {
            id,
            device,
            cordoned
        }),
        (object_id(), handled_fault()).prop_map(|(id, handled)| EventKind::DeviceFaulted { id, handled }),
    ]
}
