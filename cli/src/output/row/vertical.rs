//! The columns of VerticalPodAutoscalers.

use bulkhead_types::{
    ConditionStatus, MeasuredResource, RECOMMENDATION_PROVIDED, ResourceEstimate, VerticalAutoscalerSpec,
    VerticalPodAutoscaler, format_bytes, format_millis,
};

use super::NONE;
use super::autoscaling::scaled;
use crate::time::age;

/// An amount as Kubernetes writes it.
pub(crate) fn amount(resource: MeasuredResource, amount: u64) -> String {
    match resource {
        MeasuredResource::Memory => format_bytes(amount),
        MeasuredResource::Cpu | MeasuredResource::Queried => format_millis(amount),
    }
}

/// What holds of an estimate for a container: within what its policy allows; `None` when that has no part in it.
pub(crate) fn allowed(
    spec: &VerticalAutoscalerSpec,
    container: &str,
    resource: MeasuredResource,
    estimate: Option<ResourceEstimate>,
) -> Option<ResourceEstimate> {
    let estimate = estimate.filter(|_| spec.controls(container, resource))?;
    Some(estimate.map(|amount| spec.bounded(container, resource, amount)))
}

/// `120m`, or `web: 120m, log: 25m` of several containers.
fn targets(vertical: &VerticalPodAutoscaler, resource: MeasuredResource) -> String {
    let target = |one: &bulkhead_types::ContainerRecommendation| {
        let estimate = allowed(&vertical.spec, &one.container, resource, one.estimate(resource))?;
        Some((one.container.clone(), amount(resource, estimate.target)))
    };
    let found: Vec<_> = vertical.status.containers.iter().filter_map(target).collect();
    match found.as_slice() {
        [] => NONE.to_owned(),
        [(_, only)] => only.clone(),
        several => {
            several.iter().map(|(name, text)| format!("{name}: {text}")).collect::<Vec<_>>().join(", ")
        }
    }
}

pub(super) fn autoscaler(vertical: &VerticalPodAutoscaler) -> (Vec<String>, Vec<String>) {
    let (spec, status) = (&vertical.spec, &vertical.status);
    let provided = status.conditions.iter().find(|one| one.condition_type == RECOMMENDATION_PROVIDED);
    let provided = provided.is_some_and(|one| one.status == ConditionStatus::True);
    let middle = vec![
        scaled(&spec.target),
        spec.update_mode.as_str().to_owned(),
        targets(vertical, MeasuredResource::Cpu),
        targets(vertical, MeasuredResource::Memory),
        if provided { "True" } else { "False" }.to_owned(),
        age(vertical.meta.created_at_ms),
    ];
    (middle, vec![])
}
