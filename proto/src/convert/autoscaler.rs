//! HorizontalPodAutoscalers and CronHorizontalPodAutoscalers.

use bulkhead_types::{
    AUTOSCALER_CPU_PERCENT_DEFAULT, AUTOSCALER_HISTORY_MAX, AUTOSCALER_METRICS_MAX,
    AUTOSCALER_MIN_REPLICAS_DEFAULT, AutoscalerMetric, AutoscalerSpec, AutoscalerStatus,
    CRON_AUTOSCALER_JOBS_MAX, CronAutoscalerSpec, CronAutoscalerStatus, CronHorizontalPodAutoscaler,
    CronScaleJob, CronScaleOutcome, CronScaleRun, HorizontalPodAutoscaler, MeasuredResource, MetricObject,
    MetricQuery, MetricReading, MetricSource, MetricTarget, PolicySelect, PolicyUnit, Recommendation,
    ReplicaChange, SCALING_POLICIES_MAX, ScaleTarget, ScalingPolicy, ScalingRules,
};

use super::defaults::default;
use super::{wire_enum, wire_field, wire_field_or_default, wire_oneof, wire_struct, wire_variant_message};
use crate::v1;
use crate::v1::metric_target;

wire_enum! {
    MeasuredResource { Cpu, Memory, Queried }
    MetricSource { Pods, Object, External }
    PolicySelect { Max, Min, Disabled }
    PolicyUnit { Pods, Percent }
    CronScaleOutcome { Succeeded, Excluded, Failed }
}

wire_struct!(HorizontalPodAutoscaler => v1::HorizontalPodAutoscaler { meta, spec, status });
wire_struct!(ScaleTarget => v1::ScaleTarget { kind, name });
wire_struct!(AutoscalerSpec => v1::AutoscalerSpec {
    target, min_replicas, max_replicas, metrics (AUTOSCALER_METRICS_MAX), scale_up, scale_down,
});
wire_struct!(AutoscalerMetric => v1::AutoscalerMetric { resource, container, target, query });
wire_struct!(MetricQuery => v1::MetricQuery { source, object, name, selector });
wire_struct!(MetricObject => v1::MetricObject { api_version, kind, name });
wire_struct!(ScalingRules => v1::ScalingRules {
    stabilization_window_ms, select_policy, policies (SCALING_POLICIES_MAX),
});
wire_struct!(ScalingPolicy => v1::ScalingPolicy { unit, value, period_ms });
wire_struct!(AutoscalerStatus => v1::AutoscalerStatus {
    observed_generation, decision, last_scale_ms, current_replicas, desired_replicas, read_at_ms,
    metrics (AUTOSCALER_METRICS_MAX), recommendations (AUTOSCALER_HISTORY_MAX),
    changes (AUTOSCALER_HISTORY_MAX), conditions,
});
wire_struct!(MetricReading => v1::MetricReading {
    average_utilization, average_value, proposal, pods_counted, pods_unready, pods_missing, message, total,
});
wire_struct!(Recommendation => v1::Recommendation { since_ms, replicas });
wire_struct!(ReplicaChange => v1::ReplicaChange { at_ms, from, to });
wire_struct!(CronHorizontalPodAutoscaler => v1::CronHorizontalPodAutoscaler { meta, spec, status });
wire_struct!(CronAutoscalerSpec => v1::CronAutoscalerSpec {
    target, time_zone, exclude_dates (CRON_AUTOSCALER_JOBS_MAX), jobs (CRON_AUTOSCALER_JOBS_MAX),
});
wire_struct!(CronScaleJob => v1::CronScaleJob { name, schedule, target_size, run_once });
wire_struct!(CronAutoscalerStatus => v1::CronAutoscalerStatus { runs (CRON_AUTOSCALER_JOBS_MAX) });
wire_struct!(CronScaleRun => v1::CronScaleRun { job, scheduled_ms, ran_at_ms, outcome, message });

wire_oneof!(MetricTarget => metric_target {
    values { Utilization "utilization", AverageValue "average_value", Value "value" }
    messages {}
});
wire_variant_message!(MetricTarget => v1::MetricTarget);

wire_field! {
    HorizontalPodAutoscaler => v1::HorizontalPodAutoscaler,
    ScaleTarget => v1::ScaleTarget,
    AutoscalerSpec => v1::AutoscalerSpec,
    AutoscalerMetric => v1::AutoscalerMetric,
    MetricQuery => v1::MetricQuery,
    MetricObject => v1::MetricObject,
    ScalingRules => v1::ScalingRules,
    ScalingPolicy => v1::ScalingPolicy,
    MetricReading => v1::MetricReading,
    Recommendation => v1::Recommendation,
    ReplicaChange => v1::ReplicaChange,
    CronHorizontalPodAutoscaler => v1::CronHorizontalPodAutoscaler,
    CronAutoscalerSpec => v1::CronAutoscalerSpec,
    CronScaleJob => v1::CronScaleJob,
    CronScaleRun => v1::CronScaleRun,
}
wire_field_or_default! {
    AutoscalerStatus => v1::AutoscalerStatus,
    CronAutoscalerStatus => v1::CronAutoscalerStatus,
}

/// Fills in what a client left out.
pub(super) fn default_spec(spec: &mut v1::AutoscalerSpec) {
    spec.min_replicas.get_or_insert(AUTOSCALER_MIN_REPLICAS_DEFAULT);
    if spec.metrics.is_empty() {
        let target = MetricTarget::Utilization(AUTOSCALER_CPU_PERCENT_DEFAULT);
        spec.metrics.push((&AutoscalerMetric::resource(MeasuredResource::Cpu, target)).into());
    }
    default_rules(&mut spec.scale_up, ScalingRules::scale_up_default());
    default_rules(&mut spec.scale_down, ScalingRules::scale_down_default());
}

fn default_rules(rules: &mut Option<v1::ScalingRules>, defaults: ScalingRules) {
    let rules = rules.get_or_insert_default();
    rules.stabilization_window_ms.get_or_insert(defaults.stabilization_window_ms);
    default(&mut rules.select_policy, v1::PolicySelect::Max);
    if rules.policies.is_empty() {
        rules.policies = defaults.policies.iter().map(Into::into).collect();
    }
}
