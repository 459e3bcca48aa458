//! SR-IOV: which policies, networks and pods may be, and what nodes' NICs shall be.

use std::sync::Arc;

use bulkhead_types::{
    ANNOTATION_NETWORKS, CONFIG_MAP_SUPPORTED_NICS, EventKind, Hex16, NETWORKS_LEVEL, NETWORKS_MAX, Object,
    ObjectId, ObjectMeta, ObjectStatus, PodSpec, Rejection, RejectionCode, SRIOV_POLICIES_MAX,
    SriovNetworkNodePolicy, SriovNetworkNodeState, SriovNetworkNodeStateSpec, SriovNetworkNodeStateStatus,
    StringMap,
};

use super::{Emit, not_allowed, not_found};
use crate::State;
use crate::networks::{Problem, called_object, holders_of, label, needs_of, supported};

/// What can be known when an object is created or changed, beside the rules of its own fields.
pub(super) fn check(state: &State, present: Option<&Object>, object: &Object) -> Result<(), Rejection> {
    if state.feature_level() < NETWORKS_LEVEL {
        return Ok(());
    }
    match object {
        Object::SriovNetworkNodePolicy(policy) => {
            check_room(object, present, state.sriov_network_node_policies.len(), SRIOV_POLICIES_MAX)?;
            check_supported(state, policy)
        }
        Object::SriovNetwork(_) | Object::SriovIBNetwork(_) => {
            let networks = state.sriov_networks.len() + state.sriov_ib_networks.len();
            check_room(object, present, networks, NETWORKS_MAX)?;
            check_name(state, object)?;
            match present {
                Some(present) if super::specs::differ(present, object) => {
                    check_unused(state, present, "cannot change now")
                }
                _ => Ok(()),
            }
        }
        _ => {
            match pods_of(object).filter(|(_, annotations, _)| annotations.contains_key(ANNOTATION_NETWORKS))
            {
                None => Ok(()),
                Some((path, annotations, spec)) => check_pods(state, object, path, annotations, spec),
            }
        }
    }
}

fn check_room(object: &Object, present: Option<&Object>, count: usize, most: usize) -> Result<(), Rejection> {
    if present.is_some() || count < most {
        return Ok(());
    }
    Err(not_allowed(object.object_ref(), format!("there are {most} already"))
        .with_remedy("delete those that are not needed"))
}

/// A policy names only NICs that are supported: those of the ConfigMap of its namespace, else the product's.
fn check_supported(state: &State, policy: &SriovNetworkNodePolicy) -> Result<(), Rejection> {
    let supported = supported(state, policy.meta.namespace.as_ref());
    let selector = &policy.spec.nic_selector;
    let (vendor, id) = (selector.vendor.map(|id| id.0), selector.device_id.map(|id| id.0));
    let is_vendor = |pair: &&(u16, u16)| vendor.is_none_or(|vendor| vendor == pair.0);
    let field = if !supported.iter().any(|pair| is_vendor(&pair)) {
        "vendor"
    } else if !supported.iter().filter(is_vendor).any(|pair| id.is_none_or(|id| id == pair.1)) {
        "deviceID"
    } else {
        return Ok(());
    };
    let listed = supported
        .iter()
        .map(|(vendor, id)| format!("{}:{}", String::from(Hex16(*vendor)), String::from(Hex16(*id))));
    let reason = format!("is not supported: there are {}", listed.collect::<Vec<_>>().join(", "));
    let object = Object::SriovNetworkNodePolicy(Arc::new(policy.clone()));
    let field = format!("{}: spec.nicSelector.{field}", object.object_ref());
    Err(Rejection::new(RejectionCode::Invalid, field, reason).with_remedy(format!(
        "name one of these, or add it to ConfigMap {CONFIG_MAP_SUPPORTED_NICS} of the policy's namespace"
    )))
}

/// Pods call a network by the namespace whose pods may attach and its name: no two are called the same.
fn check_name(state: &State, object: &Object) -> Result<(), Rejection> {
    let Some((namespace, name)) = called_object(object) else { return Ok(()) };
    let Some((kind, id)) = state.networks.find(&namespace, &name) else { return Ok(()) };
    let own = state.find(object.kind(), object.meta().namespace.as_ref(), &object.meta().name);
    if own == Some(id) && kind == object.kind() {
        return Ok(());
    }
    let other =
        state.object(kind, id).map_or_else(|| kind.to_string(), |other| other.object_ref().to_string());
    let reason = format!("pods of namespace {namespace} call {other} by this name already");
    Err(not_allowed(object.object_ref(), reason)
        .with_remedy("give it another name, or another networkNamespace"))
}

/// Refuses what would change a network under pods that are attached to it.
pub(super) fn check_unused(state: &State, present: &Object, what: &str) -> Result<(), Rejection> {
    let Some((namespace, name)) = called_object(present) else { return Ok(()) };
    let label = label(&namespace, &name);
    match state.networks.attached(&label) {
        0 => Ok(()),
        count => Err(not_allowed(
            present.object_ref(),
            format!("{what}: {count} attachments of pods of namespace {namespace} are to it"),
        )
        .with_remedy("end those pods first, or make another network")),
    }
}

/// The annotations and specs of pods that an object makes, with the path to the pod.
fn pods_of(object: &Object) -> Option<(&'static str, &StringMap, &PodSpec)> {
    const TEMPLATE: &str = "spec.template.";
    let template = match object {
        Object::Pod(pod) => return Some(("", &pod.meta.annotations, &pod.spec)),
        Object::ReplicaSet(one) => (TEMPLATE, &one.spec.template),
        Object::Deployment(one) => (TEMPLATE, &one.spec.template),
        Object::StatefulSet(one) => (TEMPLATE, &one.spec.template),
        Object::DaemonSet(one) => (TEMPLATE, &one.spec.template),
        Object::Job(one) => (TEMPLATE, &one.spec.template),
        Object::CronJob(one) => ("spec.jobTemplate.spec.template.", &one.spec.job_template.spec.template),
        _ => return None,
    };
    Some((template.0, &template.1.annotations, &template.1.spec))
}

/// Pods that break a rule are refused; those that lack something wait for it.
fn check_pods(
    state: &State,
    object: &Object,
    path: &str,
    annotations: &StringMap,
    spec: &PodSpec,
) -> Result<(), Rejection> {
    let Some(namespace) = &object.meta().namespace else { return Ok(()) };
    match needs_of(state, namespace, annotations, spec) {
        Ok(_) | Err(Problem::Waits(_)) => Ok(()),
        Err(Problem::Broken { field, reason, remedy }) => {
            let field = format!("{}: {path}{field}", object.object_ref());
            Err(Rejection::new(RejectionCode::Invalid, field, reason).with_remedy(remedy))
        }
    }
}

/// Sets what a node's NICs shall be and are. A NIC whose VFs a pod has does not change.
pub(super) fn set_node_state(
    state: &State,
    node: ObjectId,
    spec: &SriovNetworkNodeStateSpec,
    status: &SriovNetworkNodeStateStatus,
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    let node = state.nodes.get(node).ok_or_else(|| not_found(format!("Node {node}")))?;
    let id = node.meta.id;
    let present = state.sriov_state_of(id);
    let former = present.map(|present| present.spec.interfaces.as_slice()).unwrap_or_default();
    let changed = |address: &str| {
        let of = |list: &[bulkhead_types::SriovInterface]| {
            list.iter().find(|one| one.pci_address == address).cloned()
        };
        of(former) != of(&spec.interfaces)
    };
    let addresses = former.iter().chain(&spec.interfaces).map(|one| &one.pci_address);
    for address in addresses.filter(|address| changed(address)) {
        if let Some(pod) = holders_of(state, id, address).first() {
            let reason = format!("NIC {address} cannot change: pod {pod} has a virtual function of it");
            return Err(not_allowed(format!("SriovNetworkNodeState {}", node.meta.name), reason));
        }
    }
    let Some(present) = present else {
        let meta = ObjectMeta::new(None, node.meta.name.clone());
        let (spec, status) = (spec.clone(), status.clone());
        let object = SriovNetworkNodeState { meta, node: id, spec, status };
        emit.create(Object::SriovNetworkNodeState(Arc::new(object)));
        return Ok(());
    };
    if present.spec != *spec {
        let object = SriovNetworkNodeState { spec: spec.clone(), ..SriovNetworkNodeState::clone(present) };
        emit.push(EventKind::SpecChanged(Object::SriovNetworkNodeState(Arc::new(object))));
    }
    if present.status != *status {
        let status = ObjectStatus::SriovNetworkNodeState(status.clone());
        emit.push(EventKind::StatusChanged { id: present.meta.id, status });
    }
    Ok(())
}
