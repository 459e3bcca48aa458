//! Autoscalers of Deployments among what clients ask for.

use std::sync::Arc;

use bulkhead_controlplane_core::State;
use bulkhead_types::{
    AutoscalerMetric, AutoscalerSpec, AutoscalerStatus, Command, FEATURE_LEVEL_MAX, HorizontalPodAutoscaler,
    Kind, MeasuredResource, MetricTarget, Object, ObjectMeta, ObjectRef, PolicySelect, PolicyUnit,
    ScaleTarget, ScalingPolicy, ScalingRules, WORKLOADS_LEVEL,
};

use crate::rng::Rng;

/// Most replicas that an autoscaler may ask for.
const REPLICAS_MAX: u64 = 5;

/// Something about the autoscaler of a Deployment.
pub(super) fn command(rng: &mut Rng, state: &State, deployment: &ObjectRef) -> Command {
    if state.feature_level() < WORKLOADS_LEVEL {
        return Command::RaiseFeatureLevel { level: FEATURE_LEVEL_MAX };
    }
    let reference = ObjectRef { kind: Kind::HorizontalPodAutoscaler, ..deployment.clone() };
    if rng.chance(150) {
        return Command::Delete { object: reference, grace_ms: None, force: false };
    }
    Command::Apply(Object::HorizontalPodAutoscaler(Arc::new(autoscaler(rng, &reference))))
}

fn autoscaler(rng: &mut Rng, reference: &ObjectRef) -> HorizontalPodAutoscaler {
    let min_replicas = rng.range(1, REPLICAS_MAX) as u32;
    let rules = |rng: &mut Rng, windows: &[u64]| ScalingRules {
        stabilization_window_ms: *rng.pick(windows),
        select_policy: *rng.pick(&[PolicySelect::Max, PolicySelect::Max, PolicySelect::Min]),
        policies: vec![
            ScalingPolicy { unit: PolicyUnit::Pods, value: rng.range(1, 3) as u32, period_ms: 15_000 },
            ScalingPolicy { unit: PolicyUnit::Percent, value: 100, period_ms: *rng.pick(&[15_000, 40_000]) },
        ],
    };
    let spec = AutoscalerSpec {
        target: ScaleTarget { kind: Kind::Deployment, name: reference.name.clone() },
        min_replicas,
        max_replicas: rng.range(u64::from(min_replicas), REPLICAS_MAX) as u32,
        // All guests use the same: see `usage`.
        metrics: vec![AutoscalerMetric::resource(MeasuredResource::Cpu, MetricTarget::AverageValue(50))],
        scale_up: rules(rng, &[0, 0, 20_000]),
        scale_down: rules(rng, &[0, 20_000]),
    };
    let meta = ObjectMeta::new(reference.namespace.clone(), reference.name.clone());
    HorizontalPodAutoscaler { meta, spec, status: AutoscalerStatus::default() }
}
