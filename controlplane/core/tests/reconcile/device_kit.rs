//! Nodes with devices, and pods that ask for some, for tests.

use bulkhead_types::{
    Command, ContainerOptions, DEVICE_MEMORY_UNIT_BYTES, Device, DeviceCapacity, DeviceHealth, DeviceReport,
    ExtendedResources, Kind, LABEL_DEVICES, LABEL_FENCE_GUARD, Name, NodeFacts, Object, ObjectId, Pod,
    PodSpec, Rare,
};

use crate::kit::{Cluster, GIB, facts, map, name, pod, pod_spec, reference};

/// A healthy card of 16 GiB.
pub fn card(index: u32) -> Device {
    Device {
        id: format!("GPU-{index}").into(),
        address: format!("0000:{:02x}:00.0", 0x10 + index).into(),
        index,
        vendor: 0x10de,
        device: 0x1db1,
        class_code: 0x03_0200,
        numa_node: Some(index / 4),
        pcie_root: format!("pci0000:{index}").into(),
        capacity: DeviceCapacity { memory_bytes: 16_384 * DEVICE_MEMORY_UNIT_BYTES, cores: 100 },
        ..Device::default()
    }
}

pub fn cards(count: u32) -> Vec<Device> {
    (0..count).map(card).collect()
}

/// The same with one that is not healthy.
pub fn sick(index: u32) -> Device {
    let health = DeviceHealth::Unhealthy { code: "Xid48".into(), since_ms: 5 };
    Device { health, ..card(index) }
}

impl Cluster {
    /// A node whose agent attaches devices, and has these.
    pub fn device_node(&mut self, node: &str, devices: Vec<Device>) -> ObjectId {
        let labels = map(&[(LABEL_DEVICES, "true"), (LABEL_FENCE_GUARD, "true")]);
        let id = self.node(node, NodeFacts { labels, ..facts(64_000, 256 * GIB, 100) });
        self.tell_devices(id, devices);
        id
    }

    /// An agent says which devices there are.
    pub fn tell_devices(&mut self, node: ObjectId, devices: Vec<Device>) {
        self.sequence += 1;
        let incarnation = self.state().nodes().get(node).unwrap().status.incarnation;
        let report = DeviceReport {
            sequence: self.sequence,
            snapshot: true,
            devices,
            removed: vec![],
            ..DeviceReport::default()
        };
        self.ok(Command::ReportDevices { node, incarnation, report });
    }

    /// An agent says what changed.
    pub fn tell_changes(&mut self, node: ObjectId, devices: Vec<Device>, removed: &[&str]) {
        self.sequence += 1;
        let incarnation = self.state().nodes().get(node).unwrap().status.incarnation;
        let removed = removed.iter().map(|id| (*id).into()).collect();
        let report = DeviceReport {
            sequence: self.sequence,
            snapshot: false,
            devices,
            removed,
            ..DeviceReport::default()
        };
        self.ok(Command::ReportDevices { node, incarnation, report });
    }

    pub fn pod_named(&self, text: &str) -> Pod {
        match self.state().find_object(&reference(Kind::Pod, text)) {
            Some(Object::Pod(pod)) => (*pod).clone(),
            _ => panic!("no pod {text}"),
        }
    }

    /// What a pod has, as `node-0: GPU-0+GPU-1`; its reason when it waits.
    pub fn holds(&self, text: &str) -> String {
        let pod = self.pod_named(text);
        let Some(node) = pod.node.and_then(|id| self.state().nodes().get(id)) else {
            return format!("{} {}", pod.status.reason, pod.status.message).trim().to_owned();
        };
        let devices: Vec<&str> = pod.devices().iter().map(|given| given.device.as_str()).collect();
        format!("{}: {}", node.meta.name, devices.join("+"))
    }

    /// `capacity/allocatable/allocated` of a resource on a node.
    pub fn counts(&self, node: ObjectId, resource: &str) -> String {
        let counts = self.state().node_devices(node).unwrap().counts();
        let count = counts.get(resource).copied().unwrap_or_default();
        format!("{}/{}/{}", count.capacity, count.allocatable, count.allocated)
    }

    /// Until nothing more follows.
    pub fn rest(&mut self) {
        self.settle();
    }
}

/// What a container asks for.
pub fn asking(asks: &[(&str, u64)]) -> PodSpec {
    let limits = asks.iter().map(|(name, amount)| ((*name).into(), *amount)).collect();
    let extended = ExtendedResources { requests: Default::default(), limits };
    let mut spec = pod_spec("train:1", 100, 64 << 20);
    let options = ContainerOptions { extended: Rare::some(extended), ..ContainerOptions::default() };
    spec.containers[0].options = Rare::some(options);
    spec
}

pub fn gpu_pod(text: &str, count: u64) -> Object {
    pod(text, asking(&[("nvidia.com/gpu", count)]))
}

pub fn shared_pod(text: &str, cards: u64, memory_mib: u64, cores: u64) -> Object {
    pod(
        text,
        asking(&[
            ("nvidia.com/vgpu", cards),
            ("nvidia.com/gpumem", memory_mib),
            ("nvidia.com/gpucores", cores),
        ]),
    )
}

pub fn cordon(node: &str, device: &str, cordoned: bool) -> Command {
    Command::SetDeviceCordoned { node: node_name(node), device: device.into(), cordoned }
}

fn node_name(text: &str) -> Name {
    name(text)
}
