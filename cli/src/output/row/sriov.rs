//! SR-IOV policies, networks, and the NICs of nodes.

use bulkhead_types::{ObjectMeta, SriovNetworkNodePolicy, SriovNetworkNodeState, SriovNetworkSpec};

use super::or_none;
use crate::output::describe::{device_type, sync_status};
use crate::time::age;

/// A policy's cells after its name.
pub(super) fn policy(policy: &SriovNetworkNodePolicy) -> Vec<String> {
    let spec = &policy.spec;
    vec![
        spec.resource_name.to_string(),
        spec.priority.to_string(),
        spec.num_vfs.to_string(),
        device_type(spec.device_type).to_owned(),
        age(policy.meta.created_at_ms),
    ]
}

/// A network's cells after its name.
pub(super) fn network(meta: &ObjectMeta, spec: &SriovNetworkSpec) -> Vec<String> {
    let namespace = spec.network_namespace.as_ref().or(meta.namespace.as_ref());
    vec![
        spec.resource_name.to_string(),
        namespace.map(ToString::to_string).unwrap_or_default(),
        or_none(spec.ipam.as_ref().map(|ipam| ipam.range.to_string()).unwrap_or_default()),
        spec.vlan.to_string(),
        age(meta.created_at_ms),
    ]
}

/// A state's cells after its name.
pub(super) fn state(state: &SriovNetworkNodeState) -> Vec<String> {
    vec![
        state.status.interfaces.len().to_string(),
        sync_status(state.status.sync_status).to_owned(),
        or_none(state.status.step.as_str()),
        age(state.meta.created_at_ms),
    ]
}
