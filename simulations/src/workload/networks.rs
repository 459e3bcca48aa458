//! Pods that attach SR-IOV networks, and what those need, among what clients ask for.

use std::sync::Arc;

use bulkhead_controlplane_core::State;
use bulkhead_types::{
    ANNOTATION_ENABLE_SRIOV, ANNOTATION_NETWORKS, Command, ContainerOptions, ExtendedResources,
    FEATURE_LEVEL_MAX, IpCidr, Ipam, Kind, NETWORKS_LEVEL, Object, ObjectMeta, ObjectRef, Pod, PodStatus,
    Rare, RestartPolicy, Shared, SriovDeviceType, SriovNetwork, SriovNetworkNodePolicy,
    SriovNetworkNodePolicySpec, SriovNetworkSpec, SriovNicSelector,
};
use smol_str::SmolStr;

use super::{NAMESPACES, name, pod_spec};
use crate::devices::NIC_NAME;
use crate::rng::Rng;

/// Networks with ranges of which one lies in the other: more pods than the smaller one has addresses for.
const NETWORKS: [(&str, &str); 2] = [("wide", "10.7.0.0/27"), ("narrow", "10.7.0.0/29")];
/// The resource of their virtual functions.
const RESOURCE: &str = "fast";
/// Pods that attach networks, at most.
const PODS_MAX: u64 = 12;

/// How many virtual functions the NICs have: all nodes are alike.
fn functions(state: &State) -> u32 {
    let devices = state.resource_slices().iter().flat_map(|slice| &slice.devices);
    devices.filter_map(|device| Some(device.nic()?.total_vfs)).max().unwrap_or(1)
}

/// The command that a cluster needs first, if it does: its level, the policy, the networks.
fn first(state: &State) -> Option<Command> {
    if state.feature_level() < NETWORKS_LEVEL {
        return Some(Command::RaiseFeatureLevel { level: FEATURE_LEVEL_MAX });
    }
    let namespace = name(NAMESPACES[0]);
    let lacks = |kind, text: &str| state.find(kind, Some(&namespace), &name(text)).is_none();
    if lacks(Kind::SriovNetworkNodePolicy, "functions") {
        let spec = SriovNetworkNodePolicySpec {
            resource_name: SmolStr::new_static(RESOURCE),
            priority: 99,
            num_vfs: functions(state),
            nic_selector: SriovNicSelector {
                pf_names: vec![SmolStr::new_static(NIC_NAME)],
                ..SriovNicSelector::default()
            },
            device_type: SriovDeviceType::VfioPci,
            ..SriovNetworkNodePolicySpec::default()
        };
        let meta = ObjectMeta::new(Some(namespace.clone()), name("functions"));
        let policy = SriovNetworkNodePolicy { meta, spec };
        return Some(Command::Create(Object::SriovNetworkNodePolicy(Arc::new(policy))));
    }
    let (text, range) = NETWORKS.into_iter().find(|(text, _)| lacks(Kind::SriovNetwork, text))?;
    let range = IpCidr::parse(range).expect("a network");
    let (range_start, range_end, exclude, gateway) = Default::default();
    let ipam = Some(Ipam { range, range_start, range_end, exclude, gateway, routes: Default::default() });
    let spec = SriovNetworkSpec { resource_name: RESOURCE.into(), ipam, ..SriovNetworkSpec::default() };
    let meta = ObjectMeta::new(Some(namespace.clone()), name(text));
    Some(Command::Create(Object::SriovNetwork(Arc::new(SriovNetwork { meta, spec }))))
}

/// Something about pods that attach networks, or about the policy by which they do.
pub(super) fn command(rng: &mut Rng, state: &State) -> Command {
    if let Some(first) = first(state) {
        return first;
    }
    let namespace = Some(name(NAMESPACES[0]));
    let reference = |kind, text: &str| ObjectRef { kind, namespace: namespace.clone(), name: name(text) };
    let pod = reference(Kind::Pod, &format!("attached-{}", rng.range(1, PODS_MAX)));
    match rng.range(0, 99) {
        // It comes back with the next command.
        0..4 => {
            let object = reference(Kind::SriovNetworkNodePolicy, "functions");
            Command::Delete { object, grace_ms: None, force: false }
        }
        4..8 => {
            let object = reference(Kind::SriovNetwork, rng.pick(&NETWORKS).0);
            Command::Delete { object, grace_ms: None, force: false }
        }
        _ if state.find_object(&pod).is_some() => {
            Command::Delete { object: pod, grace_ms: None, force: rng.chance(200) }
        }
        _ => Command::Create(Object::Pod(Arc::new(attached(rng, &pod)))),
    }
}

fn attached(rng: &mut Rng, reference: &ObjectRef) -> Pod {
    let (networks, count) =
        *rng.pick(&[("narrow", 1u64), ("narrow", 1), ("default/wide", 1), ("wide,narrow", 2)]);
    let mut spec = pod_spec(rng, RestartPolicy::Always, "web:1");
    let limits = [(SmolStr::new(format!("ecnf.io/{RESOURCE}")), count)].into_iter().collect();
    let extended = ExtendedResources { requests: Default::default(), limits };
    if let Some(container) = spec.containers.first_mut() {
        let present = container.options.get().cloned().unwrap_or_default();
        container.options = Rare::some(ContainerOptions { extended: Rare::some(extended), ..present });
    }
    let mut meta = ObjectMeta::new(reference.namespace.clone(), reference.name.clone());
    meta.annotations.insert(ANNOTATION_NETWORKS.into(), networks.into());
    meta.annotations.insert(ANNOTATION_ENABLE_SRIOV.into(), "true".into());
    Pod { meta, spec: Shared::new(spec), node: None, status: PodStatus::default() }
}
