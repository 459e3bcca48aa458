//! VerticalPodAutoscalers.

use super::*;

record!(/// Any policy of a container.
container_resource_policy: ContainerResourcePolicy {
    container: small(), mode: select(vec![ContainerScalingMode::Auto, ContainerScalingMode::Off]),
    min_allowed: resource_requirements(), max_allowed: resource_requirements(),
    controlled_resources: vec(select(RECOMMENDED_RESOURCES.to_vec()), 0..3),
    controlled_values: select(vec![ControlledValues::RequestsAndLimits, ControlledValues::RequestsOnly]),
});
record!(/// Any spec of a VerticalPodAutoscaler.
vertical_autoscaler_spec: VerticalAutoscalerSpec {
    target: scale_target(),
    update_mode: select(vec![UpdateMode::Off, UpdateMode::Initial, UpdateMode::Auto]),
    min_replicas: any::<u32>(), policies: vec(container_resource_policy(), 0..3),
});
record!(/// Any estimate.
resource_estimate: ResourceEstimate { lower: any::<u64>(), target: any::<u64>(), upper: any::<u64>() });
record!(/// Any recommendation for a container.
container_recommendation: ContainerRecommendation {
    container: small(), cpu_millis: of(resource_estimate()), memory_bytes: of(resource_estimate()),
    samples: any::<u64>(),
});
record!(/// Any histogram's checkpoint.
histogram_checkpoint: HistogramCheckpoint {
    reference_ms: any::<u64>(), total_weight: any::<u64>(), first_bucket: any::<u32>(),
    weights: vec(any::<u32>(), 0..4),
});
record!(/// Any container's checkpoint.
container_checkpoint: ContainerCheckpoint {
    container: small(), cpu: histogram_checkpoint(), memory: histogram_checkpoint(), samples: any::<u64>(),
    first_sample_ms: any::<u64>(), last_sample_ms: any::<u64>(),
});
record!(/// Any status of a VerticalPodAutoscaler.
vertical_autoscaler_status: VerticalAutoscalerStatus {
    observed_generation: any::<u64>(), decision: any::<u64>(), read_at_ms: any::<u64>(),
    last_eviction_ms: any::<u64>(), evictions: any::<u64>(),
    containers: vec(container_recommendation(), 0..3), checkpointed_at_ms: any::<u64>(),
    checkpoint: vec(container_checkpoint(), 0..3), conditions: vec(condition(), 0..3),
});
record!(/// Any VerticalPodAutoscaler.
vertical_pod_autoscaler: VerticalPodAutoscaler {
    meta: meta(), spec: vertical_autoscaler_spec(), status: vertical_autoscaler_status(),
});

/// Any recommendation as a command.
pub(super) fn recommend() -> impl Strategy<Value = Command> + Clone {
    (object_id(), any::<u64>(), vertical_autoscaler_status())
        .prop_map(|(autoscaler, generation, status)| Command::Recommend { autoscaler, generation, status })
}
