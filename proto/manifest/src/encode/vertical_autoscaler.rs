//! VerticalPodAutoscalers as values.

use bulkhead_types::{
    ContainerRecommendation, ContainerResourcePolicy, ContainerScalingMode, ControlledValues,
    MeasuredResource, RECOMMENDED_RESOURCES, ResourceEstimate, ResourceRequirements, VerticalAutoscalerSpec,
    VerticalAutoscalerStatus,
};
use serde_json::{Value, json};

use super::Fields;
use super::autoscaler::target_ref;
use super::pod::amounts;
use super::workload::conditions;

/// What is wanted of a VerticalPodAutoscaler.
pub(super) fn autoscaler_spec(spec: &VerticalAutoscalerSpec) -> Value {
    let policies = Fields::new().list("containerPolicies", spec.policies.iter().map(policy)).finish();
    Fields::new()
        .set("targetRef", target_ref(&spec.target))
        .set(
            "updatePolicy",
            json!({"updateMode": spec.update_mode.as_str(), "minReplicas": spec.min_replicas}),
        )
        .maybe("resourcePolicy", (!spec.policies.is_empty()).then_some(policies))
        .finish()
}

fn policy(policy: &ContainerResourcePolicy) -> Value {
    let mode = match policy.mode {
        ContainerScalingMode::Auto => "Auto",
        ContainerScalingMode::Off => "Off",
    };
    let values = match policy.controlled_values {
        ControlledValues::RequestsAndLimits => "RequestsAndLimits",
        ControlledValues::RequestsOnly => "RequestsOnly",
    };
    let given =
        |bounds: ResourceRequirements| (bounds != ResourceRequirements::default()).then(|| amounts(bounds));
    let resources: Vec<&str> = policy.controlled_resources.iter().map(|one| one.as_str()).collect();
    Fields::new()
        .text("containerName", &policy.container)
        .text("mode", mode)
        .maybe("minAllowed", given(policy.min_allowed))
        .maybe("maxAllowed", given(policy.max_allowed))
        .set("controlledResources", json!(resources))
        .text("controlledValues", values)
        .finish()
}

/// What is known of a VerticalPodAutoscaler: recommendations within what its policies allow.
pub(super) fn autoscaler_status(spec: &VerticalAutoscalerSpec, status: &VerticalAutoscalerStatus) -> Value {
    let of_containers = Fields::new().list(
        "containerRecommendations",
        status.containers.iter().filter_map(|one| recommendation(spec, one)),
    );
    let recommendation = (!of_containers.0.is_empty()).then(|| of_containers.finish());
    Fields::new()
        .set("observedGeneration", status.observed_generation.into())
        .maybe("recommendation", recommendation)
        .time("lastEvictionTime", status.last_eviction_ms)
        .list("conditions", conditions(&status.conditions))
        .finish()
}

fn recommendation(spec: &VerticalAutoscalerSpec, one: &ContainerRecommendation) -> Option<Value> {
    let name = &one.container;
    let column = |of: fn(ResourceEstimate) -> u64, bounded: bool| {
        let text = |resource: MeasuredResource| {
            let estimate = one.estimate(resource).filter(|_| spec.controls(name, resource))?;
            let value = of(estimate);
            let value = if bounded { spec.bounded(name, resource, value) } else { value };
            Some((resource.as_str().to_owned(), Value::from(resource.format(value))))
        };
        Value::Object(RECOMMENDED_RESOURCES.into_iter().filter_map(text).collect())
    };
    let is_any = RECOMMENDED_RESOURCES
        .into_iter()
        .any(|resource| one.estimate(resource).is_some() && spec.controls(name, resource));
    let fields = Fields::new()
        .text("containerName", name)
        .set("lowerBound", column(|e| e.lower, true))
        .set("target", column(|e| e.target, true))
        .set("upperBound", column(|e| e.upper, true))
        .set("uncappedTarget", column(|e| e.target, false));
    is_any.then(|| fields.finish())
}
