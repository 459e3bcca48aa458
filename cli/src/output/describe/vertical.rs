//! VerticalPodAutoscalers in full, with what they recommend and the figures that it was found by.

use bulkhead_types::{
    ContainerScalingMode, ControlledValues, MeasuredResource, RECOMMENDED_RESOURCES, ResourceRequirements,
    VerticalPodAutoscaler, resource_of,
};

use super::row::{allowed, amount, scaled};
use super::{Page, conditions};
use crate::time::age;

/// What is recommended, one row for each resource of each container: the columns of [`recommendations`].
pub(crate) const RECOMMENDATION_COLUMNS: [&str; 7] =
    ["CONTAINER", "RESOURCE", "LOWER", "TARGET", "UPPER", "UNCAPPED", "SAMPLES"];

/// See [`RECOMMENDATION_COLUMNS`]; what no policy lets follow is left out.
pub(crate) fn recommendations(vertical: &VerticalPodAutoscaler) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for one in &vertical.status.containers {
        for resource in RECOMMENDED_RESOURCES {
            let raw = one.estimate(resource);
            let estimate = allowed(&vertical.spec, &one.container, resource, raw);
            let (Some(estimate), Some(raw)) = (estimate, raw) else { continue };
            let amounts = [estimate.lower, estimate.target, estimate.upper, raw.target];
            let mut row = vec![one.container.to_string(), resource.as_str().to_owned()];
            row.extend(amounts.map(|value| amount(resource, value)));
            row.push(one.samples.to_string());
            rows.push(row);
        }
    }
    rows
}

pub(super) fn autoscaler(page: &mut Page, vertical: &VerticalPodAutoscaler) {
    let (spec, status) = (&vertical.spec, &vertical.status);
    page.line("Sizes pods of", scaled(&spec.target));
    page.line("Update mode", spec.update_mode.as_str());
    page.line("Evictions", format!("leave at least {} others", spec.min_replicas));
    let bounds = |amounts: ResourceRequirements, resource: MeasuredResource| {
        resource_of(amounts, resource).map_or_else(String::new, |value| amount(resource, value))
    };
    let policies = spec.policies.iter().map(|policy| {
        let follows: Vec<&str> = match policy.mode {
            ContainerScalingMode::Off => vec!["nothing"],
            ContainerScalingMode::Auto => {
                policy.controlled_resources.iter().map(|one| one.as_str()).collect()
            }
        };
        let values = match policy.controlled_values {
            ControlledValues::RequestsAndLimits => "requests and limits",
            ControlledValues::RequestsOnly => "requests",
        };
        let range = |resource| {
            format!("{}..{}", bounds(policy.min_allowed, resource), bounds(policy.max_allowed, resource))
        };
        vec![
            policy.container.to_string(),
            follows.join(", "),
            values.to_owned(),
            range(MeasuredResource::Cpu),
            range(MeasuredResource::Memory),
        ]
    });
    let policies: Vec<Vec<String>> = policies.collect();
    if !policies.is_empty() {
        let header = ["CONTAINER", "FOLLOWS", "CHANGES", "CPU", "MEMORY"];
        page.section("Policies", |page| page.table(&header, &policies));
    }
    page.section("Recommendation", |page| page.table(&RECOMMENDATION_COLUMNS, &recommendations(vertical)));
    if status.decision > 0 {
        page.line("Decision", format!("number {}, {} ago", status.decision, age(status.read_at_ms)));
    }
    if status.evictions > 0 {
        let ago = age(status.last_eviction_ms);
        page.line("Evicted", format!("{} pods, the last one {ago} ago", status.evictions));
    }
    conditions(page, &status.conditions);
}
