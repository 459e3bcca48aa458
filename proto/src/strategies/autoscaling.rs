//! Autoscalers, sizes by the clock, budgets.

use super::*;

/// Any reference to what is scaled.
pub fn scale_target() -> impl Strategy<Value = ScaleTarget> + Clone {
    (kind(), name()).prop_map(|(kind, name)| ScaleTarget { kind, name })
}

fn metric_target() -> impl Strategy<Value = MetricTarget> + Clone {
    prop_oneof![
        any::<u32>().prop_map(MetricTarget::Utilization),
        any::<u64>().prop_map(MetricTarget::AverageValue),
        any::<u64>().prop_map(MetricTarget::Value),
    ]
}

record!(/// Any object that a metric describes.
metric_object: MetricObject { api_version: small(), kind: small(), name: small() });
record!(/// Any query.
metric_query: MetricQuery {
    source: select(vec![MetricSource::Pods, MetricSource::Object, MetricSource::External]),
    object: of(metric_object()), name: small(), selector: label_selector(),
});
record!(/// Any metric.
autoscaler_metric: AutoscalerMetric {
    resource: select(vec![MeasuredResource::Cpu, MeasuredResource::Memory, MeasuredResource::Queried]), container: of(small()),
    target: metric_target(), query: rare(metric_query()),
});
record!(/// Any policy.
scaling_policy: ScalingPolicy {
    unit: select(vec![PolicyUnit::Pods, PolicyUnit::Percent]), value: any::<u32>(), period_ms: any::<u64>(),
});
record!(/// Any rules.
scaling_rules: ScalingRules {
    stabilization_window_ms: any::<u64>(),
    select_policy: select(vec![PolicySelect::Max, PolicySelect::Min, PolicySelect::Disabled]),
    policies: vec(scaling_policy(), 0..3),
});
record!(/// Any autoscaler spec.
autoscaler_spec: AutoscalerSpec {
    target: scale_target(), min_replicas: any::<u32>(), max_replicas: any::<u32>(),
    metrics: vec(autoscaler_metric(), 0..3), scale_up: scaling_rules(), scale_down: scaling_rules(),
});
record!(/// Any reading.
metric_reading: MetricReading {
    average_utilization: of(any::<u32>()), average_value: of(any::<u64>()), proposal: of(any::<u32>()),
    pods_counted: any::<u32>(), pods_unready: any::<u32>(), pods_missing: any::<u32>(), message: text(),
    total: rare(any::<u64>()),
});
record!(/// Any recommendation.
recommendation: Recommendation { since_ms: any::<u64>(), replicas: any::<u32>() });
record!(/// Any change of a size.
replica_change: ReplicaChange { at_ms: any::<u64>(), from: any::<u32>(), to: any::<u32>() });
record!(/// Any autoscaler status.
autoscaler_status: AutoscalerStatus {
    observed_generation: any::<u64>(), decision: any::<u64>(), last_scale_ms: any::<u64>(),
    current_replicas: any::<u32>(), desired_replicas: any::<u32>(), read_at_ms: any::<u64>(),
    metrics: vec(metric_reading(), 0..3), recommendations: vec(recommendation(), 0..3),
    changes: vec(replica_change(), 0..3), conditions: vec(condition(), 0..3),
});
record!(/// Any autoscaler.
horizontal_pod_autoscaler: HorizontalPodAutoscaler {
    meta: meta(), spec: autoscaler_spec(), status: autoscaler_status(),
});

/// Any decision of an autoscaler.
pub(super) fn autoscale() -> impl Strategy<Value = Command> + Clone {
    let from = of(any::<u32>());
    (object_id(), any::<u64>(), from, any::<u32>(), autoscaler_status()).prop_map(
        |(autoscaler, generation, from, to, status)| Command::Autoscale {
            autoscaler,
            generation,
            from,
            to,
            status,
        },
    )
}

record!(/// Any job of a size by the clock.
cron_scale_job: CronScaleJob {
    name: small(), schedule: small(), target_size: any::<u32>(), run_once: any::<bool>(),
});
record!(/// Any spec of a size by the clock.
cron_autoscaler_spec: CronAutoscalerSpec {
    target: scale_target(), time_zone: of(small()), exclude_dates: vec(small(), 0..3),
    jobs: vec(cron_scale_job(), 0..3),
});
record!(/// Any run of a job.
cron_scale_run: CronScaleRun {
    job: small(), scheduled_ms: any::<u64>(), ran_at_ms: any::<u64>(),
    outcome: select(vec![CronScaleOutcome::Succeeded, CronScaleOutcome::Excluded, CronScaleOutcome::Failed]),
    message: text(),
});
record!(/// Any status of a size by the clock.
cron_autoscaler_status: CronAutoscalerStatus { runs: vec(cron_scale_run(), 0..3) });
record!(/// Any size by the clock.
cron_horizontal_pod_autoscaler: CronHorizontalPodAutoscaler {
    meta: meta(), spec: cron_autoscaler_spec(), status: cron_autoscaler_status(),
});

fn disruption_bound() -> impl Strategy<Value = DisruptionBound> + Clone {
    prop_oneof![
        int_or_percent().prop_map(DisruptionBound::MinAvailable),
        int_or_percent().prop_map(DisruptionBound::MaxUnavailable),
    ]
}

record!(/// Any budget's spec.
disruption_budget_spec: DisruptionBudgetSpec {
    bound: disruption_bound(), selector: label_selector(),
    unhealthy_pod_eviction_policy: select(vec![
        UnhealthyPodEvictionPolicy::IfHealthyBudget, UnhealthyPodEvictionPolicy::AlwaysAllow,
    ]),
});
record!(/// Any budget's status.
disruption_budget_status: DisruptionBudgetStatus {
    observed_generation: any::<u64>(), disruptions_allowed: any::<u32>(), current_healthy: any::<u32>(),
    desired_healthy: any::<u32>(), expected_pods: any::<u32>(), conditions: vec(condition(), 0..2),
});
record!(/// Any budget.
pod_disruption_budget: PodDisruptionBudget {
    meta: meta(), spec: disruption_budget_spec(), status: disruption_budget_status(),
});

/// Any run by the clock, and any eviction.
pub(super) fn scheduled_or_evicted() -> impl Strategy<Value = Command> + Clone {
    prop_oneof![
        (object_id(), any::<u64>(), small(), any::<u64>()).prop_map(
            |(scaler, generation, job, scheduled_ms)| {
                Command::ScaleBySchedule { scaler, generation, job, scheduled_ms }
            }
        ),
        (object_ref(), of(any::<u64>()), of(object_id()))
            .prop_map(|(pod, grace_ms, autoscaler)| Command::Evict { pod, grace_ms, autoscaler }),
        (object_id(), any::<u64>())
            .prop_map(|(workload, generation)| Command::SpreadReplicas { workload, generation }),
    ]
}

fn elastic_bounds() -> impl Strategy<Value = ElasticBounds> + Clone {
    (any::<u32>(), of(any::<u32>())).prop_map(|(min, max)| ElasticBounds { min, max })
}

record!(/// Any source of an ElasticWorkload.
elastic_source: ElasticSource { name: name(), bounds: elastic_bounds() });
record!(/// Any unit of an ElasticWorkload.
elastic_unit: ElasticUnit {
    name: small(), bounds: elastic_bounds(), labels: labels(), annotations: labels(),
    node_selector: labels(), tolerations: vec(toleration(), 0..2),
});
record!(/// Any spec of an ElasticWorkload.
elastic_workload_spec: ElasticWorkloadSpec {
    source: elastic_source(), replicas: any::<u32>(), units: vec(elastic_unit(), 0..3),
});
record!(/// Any status of a unit.
elastic_unit_status: ElasticUnitStatus {
    name: small(), desired_replicas: any::<u32>(), ready_replicas: any::<u32>(),
});
record!(/// Any status of an ElasticWorkload.
elastic_workload_status: ElasticWorkloadStatus {
    observed_generation: any::<u64>(), units: vec(elastic_unit_status(), 0..3),
    conditions: vec(condition(), 0..2),
});
record!(/// Any ElasticWorkload.
elastic_workload: ElasticWorkload {
    meta: meta(), spec: elastic_workload_spec(), status: elastic_workload_status(),
});
