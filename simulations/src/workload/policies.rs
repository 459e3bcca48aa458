//! Deliveries by steps, sizes by the clock, overflow to units, budgets, recommended requests, profiles and priorities among
//! what clients ask for.

use std::sync::Arc;

use bulkhead_controlplane_core::State;
use bulkhead_types::{
    BatchPause, CanaryStep, Command, CronAutoscalerSpec, CronAutoscalerStatus, CronHorizontalPodAutoscaler,
    CronScaleJob, DELIVERY_LEVEL, Delivery, Deployment, DeploymentStrategy, DisruptionBound,
    DisruptionBudgetSpec, DisruptionBudgetStatus, ElasticBounds, ElasticSource, ElasticUnit, ElasticWorkload,
    ElasticWorkloadSpec, ElasticWorkloadStatus, FEATURE_LEVEL_MAX, IntOrPercent, Kind, LabelSelector, Object,
    ObjectMeta, ObjectRef, PodDisruptionBudget, PodSpec, PreemptionPolicy, PriorityClass, Profile,
    ProfileEffect, ProfileRule, ProfileSpec, Rare, ScaleTarget, UnhealthyPodEvictionPolicy, UpdateMode,
    VerticalAutoscalerSpec, VerticalAutoscalerStatus, VerticalPodAutoscaler,
};

use super::{labels, name};
use crate::rng::Rng;

/// The PriorityClasses that there may be.
const CLASSES: [(&str, i32, Option<PreemptionPolicy>); 4] = [
    ("high", 1000, None),
    ("higher", 2000, Some(PreemptionPolicy::PreemptLowerPriority)),
    ("polite", 1500, Some(PreemptionPolicy::Never)),
    ("low", -10, None),
];
/// Most replicas of a unit with a bound.
const UNIT_MAX: u64 = 3;

/// Something about a Deployment, which is `wanted` by somebody else's draw, or about what is around it.
pub(super) fn command(rng: &mut Rng, state: &State, wanted: Deployment) -> Command {
    if state.feature_level() < DELIVERY_LEVEL {
        return Command::RaiseFeatureLevel { level: FEATURE_LEVEL_MAX };
    }
    let object = Object::Deployment(Arc::new(wanted.clone()));
    let deployment = object.object_ref();
    let of = |kind| ObjectRef { kind, ..deployment.clone() };
    let delete = |object| Command::Delete { object, grace_ms: None, force: false };
    match rng.range(0, 99) {
        0..20 => Command::Apply(Object::Deployment(Arc::new(with_delivery(rng, wanted)))),
        20..30 => Command::PromoteRollout { deployment, full: rng.chance(200) },
        30..34 => Command::AbortRollout { deployment },
        34..38 => Command::RetryRollout { deployment },
        38..50 => Command::Apply(Object::ElasticWorkload(Arc::new(elastic(rng, &deployment)))),
        50..56 => {
            Command::Scale { object: of(Kind::ElasticWorkload), replicas: rng.range(0, 2 * UNIT_MAX) as u32 }
        }
        56..60 => delete(of(Kind::ElasticWorkload)),
        60..66 => Command::Apply(Object::CronHorizontalPodAutoscaler(Arc::new(clock(rng, &deployment)))),
        66..70 => delete(of(Kind::CronHorizontalPodAutoscaler)),
        70..76 => Command::Apply(Object::PodDisruptionBudget(Arc::new(budget(rng, &deployment)))),
        76..84 => evict(rng, state).unwrap_or_else(|| delete(of(Kind::PodDisruptionBudget))),
        84..90 => stop(rng, deployment),
        90..94 => class_or_profile(rng),
        94..97 => Command::Apply(Object::VerticalPodAutoscaler(Arc::new(vertical(rng, &deployment)))),
        _ => Command::Apply(object),
    }
}

fn with_delivery(rng: &mut Rng, mut wanted: Deployment) -> Deployment {
    let pause_ms = |rng: &mut Rng| *rng.pick(&[None, Some(0), Some(1000), Some(4000)]);
    let share = *rng.pick(&[IntOrPercent::Int(1), IntOrPercent::Percent(25), IntOrPercent::Percent(60)]);
    let delivery = match rng.range(0, 2) {
        0 => Delivery::Canary {
            steps: vec![
                CanaryStep::SetReplicas { replicas: share },
                CanaryStep::Pause { duration_ms: pause_ms(rng) },
                CanaryStep::SetReplicas { replicas: IntOrPercent::Percent(50) },
            ],
            failure_limit: rng.range(0, 2) as u32,
        },
        1 => Delivery::Batches {
            partition: *rng.pick(&[IntOrPercent::Int(0), IntOrPercent::Int(1), share]),
            size: Some(share),
            pause: rng.chance(500).then(|| BatchPause { duration_ms: pause_ms(rng) }),
        },
        _ => Delivery::BlueGreen {
            auto_promotion_ms: pause_ms(rng),
            scale_down_delay_ms: *rng.pick(&[0, 3000]),
            preview_replicas: rng.chance(300).then_some(1),
        },
    };
    let (all, none, one) = (IntOrPercent::Percent(100), IntOrPercent::Int(0), IntOrPercent::Int(1));
    wanted.spec.strategy = match (&delivery, wanted.spec.strategy) {
        (Delivery::BlueGreen { .. }, _) => {
            DeploymentStrategy::RollingUpdate { max_surge: all, max_unavailable: none }
        }
        (_, DeploymentStrategy::Recreate) => {
            DeploymentStrategy::RollingUpdate { max_surge: one, max_unavailable: one }
        }
        (_, bounds) => bounds,
    };
    wanted.spec.delivery = Rare::some(delivery);
    wanted
}

fn elastic(rng: &mut Rng, deployment: &ObjectRef) -> ElasticWorkload {
    let bounds = |rng: &mut Rng| ElasticBounds {
        min: rng.range(0, 1) as u32,
        max: rng.chance(500).then(|| rng.range(1, UNIT_MAX) as u32),
    };
    let unit = |rng: &mut Rng, named: &str| ElasticUnit {
        name: named.into(),
        bounds: bounds(rng),
        labels: labels("unit", named),
        ..ElasticUnit::default()
    };
    let mut units = vec![unit(rng, "near")];
    if rng.chance(500) {
        units.push(ElasticUnit { bounds: ElasticBounds::default(), ..unit(rng, "far") });
    }
    let source = ElasticSource { name: deployment.name.clone(), bounds: bounds(rng) };
    let mut spec = ElasticWorkloadSpec { source, replicas: rng.range(0, 2 * UNIT_MAX) as u32, units };
    spec.replicas = spec.replicas.min(spec.capacity().unwrap_or(u32::MAX));
    let meta = ObjectMeta::new(deployment.namespace.clone(), deployment.name.clone());
    ElasticWorkload { meta, spec, status: ElasticWorkloadStatus::default() }
}

fn vertical(rng: &mut Rng, deployment: &ObjectRef) -> VerticalPodAutoscaler {
    let spec = VerticalAutoscalerSpec {
        target: ScaleTarget { kind: Kind::Deployment, name: deployment.name.clone() },
        update_mode: *rng.pick(&[UpdateMode::Off, UpdateMode::Initial, UpdateMode::Auto]),
        min_replicas: *rng.pick(&[1, 2]),
        policies: Vec::new(),
    };
    let meta = ObjectMeta::new(deployment.namespace.clone(), deployment.name.clone());
    VerticalPodAutoscaler { meta, spec, status: VerticalAutoscalerStatus::default() }
}

/// Jobs run once: a clock that never stops would never let the cluster come to rest.
fn clock(rng: &mut Rng, deployment: &ObjectRef) -> CronHorizontalPodAutoscaler {
    let job = |named: &str, schedule: &str, size: u64| CronScaleJob {
        name: named.into(),
        schedule: schedule.into(),
        target_size: size as u32,
        run_once: true,
    };
    let jobs = vec![job("a", "*/7 * * * * *", rng.range(0, 4)), job("b", "*/20 * * * * *", rng.range(1, 4))];
    let kind = *rng.pick(&[Kind::Deployment, Kind::ElasticWorkload, Kind::HorizontalPodAutoscaler]);
    // A size of none is nothing that an autoscaler can have.
    let jobs = jobs.into_iter().map(|job| CronScaleJob {
        target_size: job.target_size.max(u32::from(kind == Kind::HorizontalPodAutoscaler)),
        ..job
    });
    let spec = CronAutoscalerSpec {
        target: ScaleTarget { kind, name: deployment.name.clone() },
        time_zone: None,
        exclude_dates: Vec::new(),
        jobs: jobs.collect(),
    };
    let meta = ObjectMeta::new(deployment.namespace.clone(), deployment.name.clone());
    CronHorizontalPodAutoscaler { meta, spec, status: CronAutoscalerStatus::default() }
}

fn budget(rng: &mut Rng, deployment: &ObjectRef) -> PodDisruptionBudget {
    let bound = *rng.pick(&[
        DisruptionBound::MinAvailable(IntOrPercent::Int(1)),
        DisruptionBound::MinAvailable(IntOrPercent::Percent(50)),
        DisruptionBound::MaxUnavailable(IntOrPercent::Int(1)),
    ]);
    let spec = DisruptionBudgetSpec {
        bound,
        selector: LabelSelector::from_labels(labels("app", deployment.name.as_str())),
        unhealthy_pod_eviction_policy: *rng
            .pick(&[UnhealthyPodEvictionPolicy::IfHealthyBudget, UnhealthyPodEvictionPolicy::AlwaysAllow]),
    };
    let meta = ObjectMeta::new(deployment.namespace.clone(), deployment.name.clone());
    PodDisruptionBudget { meta, spec, status: DisruptionBudgetStatus::default() }
}

fn evict(rng: &mut Rng, state: &State) -> Option<Command> {
    let pods = state.pods();
    let place = if pods.is_empty() { return None } else { rng.below(pods.len()) };
    let pod = pods.iter().nth(place).expect("the place is below the length");
    let grace_ms = *rng.pick(&[None, Some(500)]);
    Some(Command::Evict { pod: Object::Pod(Arc::clone(pod)).object_ref(), grace_ms, autoscaler: None })
}

fn stop(rng: &mut Rng, deployment: ObjectRef) -> Command {
    let sets = ObjectRef {
        kind: Kind::StatefulSet,
        namespace: Some(name("default")),
        name: name(&format!("db-{}", rng.range(1, 2))),
    };
    Command::SetStopped { object: if rng.chance(300) { sets } else { deployment }, stopped: rng.chance(400) }
}

/// Gives some pods a class, which is not always there yet.
pub(super) fn rank(rng: &mut Rng, spec: &mut PodSpec) {
    let class = match rng.range(0, 9) {
        0 => "system-cluster-critical",
        1..5 => rng.pick(&CLASSES).0,
        _ => return,
    };
    let mut options = spec.options.get().cloned().unwrap_or_default();
    options.priority_class = Rare::some(class.into());
    spec.options = Rare::some(options);
}

fn class_or_profile(rng: &mut Rng) -> Command {
    let (class, value, preemption_policy) = *rng.pick(&CLASSES);
    if rng.chance(500) {
        let meta = ObjectMeta::new(None, name(class));
        let class = PriorityClass {
            meta,
            value,
            global_default: false,
            preemption_policy,
            description: String::new(),
        };
        return Command::Create(Object::PriorityClass(Arc::new(class)));
    }
    let effect = ProfileEffect {
        labels: labels("profile", class),
        priority_class_name: Some(class.into()),
        ..ProfileEffect::default()
    };
    let rule = ProfileRule {
        name: "some".into(),
        namespace_selector: None,
        object_selector: Some(LabelSelector::from_labels(labels("app", "web-1"))),
        effect,
    };
    let (meta, spec) = (ObjectMeta::new(None, name(class)), ProfileSpec { rules: vec![rule] });
    let profile = Object::Profile(Arc::new(Profile { meta, spec }));
    match rng.chance(300) {
        true => Command::Delete { object: profile.object_ref(), grace_ms: None, force: false },
        false => Command::Apply(profile),
    }
}
