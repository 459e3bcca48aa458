//! NICs with virtual functions, policies, networks and pods that attach them, for tests.

use std::sync::Arc;

use bulkhead_types::{
    ANNOTATION_ENABLE_SRIOV, ANNOTATION_NETWORKS, Device, IpCidr, Ipam, LABEL_DEVICES, LABEL_FENCE_GUARD,
    LABEL_NETWORKS, NicFacts, NodeFacts, Object, ObjectId, ObjectMeta, PodSpec, Rare, SriovDeviceType,
    SriovNetwork, SriovNetworkNodePolicy, SriovNetworkNodePolicySpec, SriovNetworkNodeState,
    SriovNetworkSpec, SriovNicSelector, VENDOR_MELLANOX,
};

use crate::device_kit::asking;
use crate::kit::{Cluster, GIB, facts, map, name, pod};

/// The physical function of a NIC, by its number on the node: `eno0` and so on.
pub fn nic(number: u32, num_vfs: u32) -> Device {
    let facts =
        NicFacts { name: format!("eno{number}").into(), total_vfs: 16, num_vfs, ..NicFacts::default() };
    Device {
        class_code: 0x02_0000,
        driver: "mlx5_core".into(),
        in_use_by: "host driver mlx5_core".into(),
        nic: Rare::some(facts),
        ..function(number, 0)
    }
}

/// A virtual function of such a NIC, from 0.
pub fn vf(number: u32, index: u32) -> Device {
    let parent = Some(format!("0000:{:02x}:00.0", 0x60 + number).into());
    Device { class_code: 0x02_0000, driver: "vfio-pci".into(), parent, ..function(number, index + 1) }
}

fn function(number: u32, index: u32) -> Device {
    let address = format!("0000:{:02x}:{:02x}.{}", 0x60 + number, index / 8, index % 8);
    Device {
        id: address.as_str().into(),
        address: address.into(),
        index: 100 * number + index,
        vendor: VENDOR_MELLANOX,
        device: 0x1017,
        numa_node: Some(number),
        pcie_root: format!("pci0000:{number}").into(),
        ..Device::default()
    }
}

/// A NIC with its functions.
pub fn nic_with(number: u32, num_vfs: u32) -> Vec<Device> {
    std::iter::once(nic(number, num_vfs)).chain((0..num_vfs).map(|index| vf(number, index))).collect()
}

pub fn policy(text: &str, resource: &str, num_vfs: u32, pf_names: &[&str]) -> SriovNetworkNodePolicy {
    SriovNetworkNodePolicy {
        meta: ObjectMeta::new(Some(name("default")), name(text)),
        spec: SriovNetworkNodePolicySpec {
            resource_name: resource.into(),
            priority: 99,
            num_vfs,
            nic_selector: SriovNicSelector {
                pf_names: pf_names.iter().map(|text| (*text).into()).collect(),
                ..SriovNicSelector::default()
            },
            device_type: SriovDeviceType::VfioPci,
            ..SriovNetworkNodePolicySpec::default()
        },
    }
}

pub fn policy_object(text: &str, resource: &str, num_vfs: u32, pf_names: &[&str]) -> Object {
    Object::SriovNetworkNodePolicy(Arc::new(policy(text, resource, num_vfs, pf_names)))
}

/// A network of namespace `default` with addresses of a range.
pub fn network(text: &str, resource: &str, range: &str) -> SriovNetwork {
    let range = IpCidr::parse(range).expect("a network");
    let ipam = Ipam {
        range,
        range_start: None,
        range_end: None,
        exclude: vec![],
        gateway: None,
        routes: Default::default(),
    };
    let spec =
        SriovNetworkSpec { resource_name: resource.into(), ipam: Some(ipam), ..SriovNetworkSpec::default() };
    SriovNetwork { meta: ObjectMeta::new(Some(name("default")), name(text)), spec }
}

pub fn network_object(text: &str, resource: &str, range: &str) -> Object {
    Object::SriovNetwork(Arc::new(network(text, resource, range)))
}

/// A pod that asks for so many VFs and attaches these networks.
pub fn attaching(text: &str, resource: &str, count: u64, networks: &str) -> Object {
    with_networks(pod(text, asking(&[(resource, count)])), networks)
}

pub fn with_networks(object: Object, networks: &str) -> Object {
    let Object::Pod(mut pod) = object else { panic!("a pod") };
    let changed = Arc::make_mut(&mut pod);
    changed.meta.annotations = map(&[(ANNOTATION_NETWORKS, networks), (ANNOTATION_ENABLE_SRIOV, "true")]);
    Object::Pod(pod)
}

pub fn plain_spec() -> PodSpec {
    asking(&[])
}

impl Cluster {
    /// A node whose agent attaches devices and networks, and has these.
    pub fn nic_node(&mut self, node: &str, devices: Vec<Device>) -> ObjectId {
        let labels = map(&[(LABEL_DEVICES, "true"), (LABEL_NETWORKS, "true"), (LABEL_FENCE_GUARD, "true")]);
        let id = self.node(node, NodeFacts { labels, ..facts(64_000, 256 * GIB, 100) });
        self.tell_devices(id, devices);
        id
    }

    /// What a pod is attached to, as `default/net 10.0.0.1 by 0000:60:00.1`; its reason when it waits.
    pub fn attached(&self, text: &str) -> String {
        let pod = self.pod_named(text);
        if pod.node.is_none() {
            return format!("{} {}", pod.status.reason, pod.status.message).trim().to_owned();
        }
        let one = |one: &bulkhead_types::NetworkAttachment| {
            let address = one.address.map_or_else(|| "-".to_owned(), |address| address.to_string());
            format!("{} {address} by {}", one.network, one.device)
        };
        pod.networks().iter().map(one).collect::<Vec<_>>().join(", ")
    }

    pub fn nics(&self, node: ObjectId) -> SriovNetworkNodeState {
        (**self.state().sriov_state_of(node).expect("a node with NICs")).clone()
    }
}
