//! Rules for VerticalPodAutoscalers.

use std::collections::BTreeSet;

use super::autoscaler::scale_target;
use super::{AMOUNT_MAX, CONTAINERS_MAX, Path, Report};
use crate::{
    CONTAINER_ANY, ContainerResourcePolicy, ContainerScalingMode, Kind, MeasuredResource, Name,
    RECOMMENDED_RESOURCES, REPLICAS_MAX, VerticalAutoscalerSpec, resource_of,
};

/// Checks what is wanted of a VerticalPodAutoscaler.
pub(super) fn autoscaler(spec: &VerticalAutoscalerSpec, path: &Path<'_>, report: &mut Report) {
    let kinds = [Kind::Deployment, Kind::StatefulSet, Kind::DaemonSet];
    scale_target(&spec.target, &kinds, &path.field("targetRef"), report);
    if spec.min_replicas > REPLICAS_MAX {
        let reason = format!("must be at most {REPLICAS_MAX}");
        report.push(&path.field("updatePolicy").field("minReplicas"), reason);
    }
    let path = path.field("resourcePolicy");
    let path = path.field("containerPolicies");
    report.at_most(&path, "policies", spec.policies.len(), CONTAINERS_MAX + 1);
    let mut seen = BTreeSet::new();
    for (index, one) in spec.policies.iter().enumerate().take(CONTAINERS_MAX + 1) {
        let path = path.index(index);
        if one.container != CONTAINER_ANY {
            report.check(&path.field("containerName"), Name::new(&one.container).map(drop));
        }
        if !seen.insert(&one.container) {
            report.push(&path.field("containerName"), format!("repeats {:?}", one.container));
        }
        policy(one, &path, report);
    }
}

fn policy(policy: &ContainerResourcePolicy, path: &Path<'_>, report: &mut Report) {
    let (least, most) = (path.field("minAllowed"), path.field("maxAllowed"));
    for (path, amounts) in [(&least, policy.min_allowed), (&most, policy.max_allowed)] {
        if amounts.ephemeral_storage_bytes.is_some() {
            report.push(&path.field("ephemeral-storage"), "is not recommended: only cpu and memory are");
        }
        for resource in RECOMMENDED_RESOURCES {
            if resource_of(amounts, resource).is_some_and(|amount| amount == 0 || amount > AMOUNT_MAX) {
                let reason = format!("must be more than 0 and at most {AMOUNT_MAX}");
                report.push(&path.field(resource.as_str()), reason);
            }
        }
    }
    for resource in RECOMMENDED_RESOURCES {
        let bounds = (resource_of(policy.min_allowed, resource), resource_of(policy.max_allowed, resource));
        if let (Some(at_least), Some(at_most)) = bounds
            && at_least > at_most
        {
            report.push(&least.field(resource.as_str()), "must not be more than maxAllowed");
        }
    }
    let controlled = path.field("controlledResources");
    let mut seen = BTreeSet::new();
    for (index, resource) in policy.controlled_resources.iter().enumerate() {
        let path = controlled.index(index);
        if *resource == MeasuredResource::Queried {
            report.push(&path, "must be cpu or memory");
        } else if !seen.insert(resource.as_str()) {
            report.push(&path, format!("repeats {:?}", resource.as_str()));
        }
    }
    if policy.controlled_resources.is_empty() && policy.mode == ContainerScalingMode::Auto {
        report.push(&controlled, "must name cpu, memory or both; with mode Off nothing is controlled");
    }
}
