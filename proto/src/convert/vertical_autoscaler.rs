//! VerticalPodAutoscalers.

use bulkhead_types::{
    CONTAINERS_MAX, ContainerCheckpoint, ContainerRecommendation, ContainerResourcePolicy,
    ContainerScalingMode, ControlledValues, HISTOGRAM_BUCKETS_MAX, HistogramCheckpoint,
    RECOMMENDED_RESOURCES, ResourceEstimate, UpdateMode, VERTICAL_MIN_REPLICAS_DEFAULT,
    VerticalAutoscalerSpec, VerticalAutoscalerStatus, VerticalPodAutoscaler,
};

use super::defaults::default;
use super::{wire_enum, wire_field, wire_field_or_default, wire_struct};
use crate::v1;

wire_enum! {
    UpdateMode { Off, Initial, Auto }
    ContainerScalingMode { Auto, Off }
    ControlledValues { RequestsAndLimits, RequestsOnly }
}

wire_struct!(VerticalPodAutoscaler => v1::VerticalPodAutoscaler { meta, spec, status });
wire_struct!(VerticalAutoscalerSpec => v1::VerticalAutoscalerSpec {
    target, update_mode, min_replicas, policies (CONTAINERS_MAX + 1),
});
wire_struct!(ContainerResourcePolicy => v1::ContainerResourcePolicy {
    container, mode, min_allowed, max_allowed, controlled_resources (RECOMMENDED_RESOURCES.len() + 1),
    controlled_values,
});
wire_struct!(VerticalAutoscalerStatus => v1::VerticalAutoscalerStatus {
    observed_generation, decision, read_at_ms, last_eviction_ms, evictions, containers (CONTAINERS_MAX),
    checkpointed_at_ms, checkpoint (CONTAINERS_MAX), conditions,
});
wire_struct!(ContainerRecommendation => v1::ContainerRecommendation {
    container, cpu_millis, memory_bytes, samples,
});
wire_struct!(ResourceEstimate => v1::ResourceEstimate { lower, target, upper });
wire_struct!(ContainerCheckpoint => v1::ContainerCheckpoint {
    container, cpu, memory, samples, first_sample_ms, last_sample_ms,
});
wire_struct!(HistogramCheckpoint => v1::HistogramCheckpoint {
    reference_ms, total_weight, first_bucket, weights (HISTOGRAM_BUCKETS_MAX),
});

wire_field! {
    VerticalPodAutoscaler => v1::VerticalPodAutoscaler,
    VerticalAutoscalerSpec => v1::VerticalAutoscalerSpec,
    ContainerResourcePolicy => v1::ContainerResourcePolicy,
    ContainerRecommendation => v1::ContainerRecommendation,
    ContainerCheckpoint => v1::ContainerCheckpoint,
}
wire_field_or_default! {
    VerticalAutoscalerStatus => v1::VerticalAutoscalerStatus,
    HistogramCheckpoint => v1::HistogramCheckpoint,
}

impl super::Field<v1::ResourceEstimate> for ResourceEstimate {
    fn to_wire(&self) -> v1::ResourceEstimate {
        self.into()
    }
    fn from_wire(wire: v1::ResourceEstimate) -> Result<Self, super::ConvertError> {
        wire.try_into()
    }
}

/// Fills in what a client left out.
pub(super) fn default_spec(spec: &mut v1::VerticalAutoscalerSpec) {
    default(&mut spec.update_mode, v1::UpdateMode::Auto);
    spec.min_replicas.get_or_insert(VERTICAL_MIN_REPLICAS_DEFAULT);
    for policy in &mut spec.policies {
        default(&mut policy.mode, v1::ContainerScalingMode::Auto);
        default(&mut policy.controlled_values, v1::ControlledValues::RequestsAndLimits);
        if policy.controlled_resources.is_empty() {
            policy.controlled_resources =
                RECOMMENDED_RESOURCES.map(|one| v1::MeasuredResource::from(one).into()).to_vec();
        }
    }
}
