//! ElasticWorkloads over a real machine: how replicas spread over a source and its units, and who may set what.

use std::sync::Arc;

use bulkhead_types::{
    AutoscalerMetric, AutoscalerSpec, AutoscalerStatus, Command, ConditionStatus, DeploymentStrategy,
    ElasticBounds, ElasticSource, ElasticUnit, ElasticWorkload, ElasticWorkloadSpec, ElasticWorkloadStatus,
    HorizontalPodAutoscaler, Kind, LABEL_ELASTIC_UNIT, MeasuredResource, MetricTarget, Object, ObjectMeta,
    PodOptions, PodSpec, Rare, SYNCED, ScaleTarget, ScalingRules, Shared, UpdateMode, VerticalAutoscalerSpec,
    VerticalAutoscalerStatus, VerticalPodAutoscaler, Volume, VolumeSource,
};
use proptest::prelude::*;

use crate::kit::{Cluster, deployment, map, name, reference};

fn bounds(min: u32, max: Option<u32>) -> ElasticBounds {
    ElasticBounds { min, max }
}

fn unit(named: &str, bounds: ElasticBounds) -> ElasticUnit {
    ElasticUnit {
        name: named.into(),
        bounds,
        labels: map(&[("unit", named)]),
        node_selector: map(&[("pool", named)]),
        ..ElasticUnit::default()
    }
}

fn elastic(replicas: u32, source: ElasticBounds, units: Vec<ElasticUnit>) -> ElasticWorkload {
    ElasticWorkload {
        meta: ObjectMeta::new(Some(name("default")), name("web")),
        spec: ElasticWorkloadSpec {
            source: ElasticSource { name: name("web"), bounds: source },
            replicas,
            units,
        },
        status: ElasticWorkloadStatus::default(),
    }
}

pub fn object(workload: ElasticWorkload) -> Object {
    Object::ElasticWorkload(Arc::new(workload))
}

/// At most 4 pods of the source, then up to 3 on `spot`, and the rest on `far`.
pub fn usual(replicas: u32) -> ElasticWorkload {
    let units = vec![unit("spot", bounds(0, Some(3))), unit("far", bounds(0, None))];
    elastic(replicas, bounds(1, Some(4)), units)
}

/// A cluster with such a workload, at rest, with a node for everybody.
fn cluster(workload: ElasticWorkload) -> Cluster {
    let mut cluster = Cluster::new();
    for pool in ["spot", "far"] {
        let mut facts = crate::kit::facts(64_000, 64 << 30, 200);
        facts.labels = map(&[("pool", pool)]);
        cluster.node(pool, facts);
    }
    cluster.ok(Command::Create(deployment("web", 2, |_| {})));
    cluster.ok(Command::Create(object(workload)));
    cluster.converge();
    cluster
}

fn found(cluster: &Cluster) -> Arc<ElasticWorkload> {
    match cluster.state().find_object(&reference(Kind::ElasticWorkload, "web")) {
        Some(Object::ElasticWorkload(workload)) => workload,
        other => panic!("no workload: {other:?}"),
    }
}

/// `wanted/ready` of the source and of each unit, from the Deployments themselves.
fn sizes(cluster: &Cluster) -> String {
    let of = |named: &str| match cluster.state().find_object(&reference(Kind::Deployment, named)) {
        Some(Object::Deployment(found)) => format!("{}/{}", found.spec.replicas, found.status.ready_replicas),
        _ => "none".to_owned(),
    };
    ["web", "web-unit-spot", "web-unit-far"].map(of).join(" ")
}

fn scale(replicas: u32) -> Command {
    Command::Scale { object: reference(Kind::ElasticWorkload, "web"), replicas }
}

#[track_caller]
fn check_sizes(cluster: &mut Cluster, command: Command, expected: &str) {
    cluster.ok(command);
    cluster.converge();
    assert_eq!(sizes(cluster), expected);
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
}

#[track_caller]
fn check_refused(cluster: &mut Cluster, command: Command, expected: &str) {
    let refused = cluster.submit(vec![command]).expect_err("must be refused");
    assert!(refused.to_string().contains(expected), "{refused}");
}

#[test]
fn replicas_go_over_to_units_and_come_back_last_unit_first() {
    let mut cluster = cluster(usual(3));
    assert_eq!(sizes(&cluster), "3/3 0/0 0/0");
    check_sizes(&mut cluster, scale(6), "4/4 2/2 0/0");
    check_sizes(&mut cluster, scale(9), "4/4 3/3 2/2");
    check_sizes(&mut cluster, scale(5), "4/4 1/1 0/0");
    check_sizes(&mut cluster, scale(0), "0/0 0/0 0/0");
    check_sizes(&mut cluster, scale(8), "4/4 3/3 1/1");
    let status = found(&cluster).status.clone();
    let figures: Vec<_> =
        status.units.iter().map(|u| (u.name.as_str(), u.desired_replicas, u.ready_replicas)).collect();
    assert_eq!(figures, [("", 4, 4), ("spot", 3, 3), ("far", 1, 1)]);
    assert_eq!(status.conditions[0].condition_type, SYNCED);
    assert_eq!(status.conditions[0].status, ConditionStatus::True);
}

#[test]
fn units_are_the_source_with_other_placement_and_follow_it() {
    let mut cluster = cluster(usual(6));
    cluster.set_image("web", "web:2");
    cluster.change("web", |spec| spec.progress_deadline_ms = 777_000);
    cluster.converge();
    let (source, spot) = (cluster.get_deployment("web"), cluster.get_deployment("web-unit-spot"));
    assert_eq!(spot.spec.template.spec.containers, source.spec.template.spec.containers);
    assert_eq!(spot.spec.progress_deadline_ms, 777_000);
    assert_eq!(spot.spec.template.spec.node_selector, map(&[("pool", "spot")]));
    assert_eq!(spot.spec.selector.match_labels, map(&[("app", "web"), (LABEL_ELASTIC_UNIT, "spot")]));
    let labels = map(&[("app", "web"), ("unit", "spot"), (LABEL_ELASTIC_UNIT, "spot")]);
    assert_eq!(spot.spec.template.labels, labels);
    let pods = cluster.active_pods();
    assert!(pods.iter().all(|pod| pod.spec.containers[0].image == "web:2"), "all rolled");
    let on_spot = pods.iter().filter(|pod| pod.meta.labels.get("unit").is_some()).count();
    assert_eq!(on_spot, 2);
    // Stopped together, and back to the same sizes.
    let stop = |stopped| Command::SetStopped { object: reference(Kind::Deployment, "web"), stopped };
    check_sizes(&mut cluster, stop(true), "4/0 2/0 0/0");
    check_sizes(&mut cluster, stop(false), "4/4 2/2 0/0");
}

#[test]
fn units_come_and_go_with_the_workload() {
    let mut cluster = cluster(usual(8));
    let mut fewer = usual(6);
    fewer.spec.units.remove(0);
    check_sizes(&mut cluster, Command::Apply(object(fewer)), "4/4 none 2/2");
    check_sizes(&mut cluster, Command::Apply(object(usual(6))), "4/4 2/2 0/0");
    let workload =
        Command::Delete { object: reference(Kind::ElasticWorkload, "web"), grace_ms: None, force: false };
    check_sizes(&mut cluster, workload, "4/4 none none");
    assert_eq!(cluster.active_pods().len(), 4);
}

#[test]
fn what_is_in_the_way_is_told() {
    let mut cluster = Cluster::new();
    cluster.nodes(1);
    cluster.ok(Command::Create(object(usual(2))));
    let told = |cluster: &Cluster| {
        let conditions = found(cluster).status.conditions.clone();
        format!("{:?} {}: {}", conditions[0].status, conditions[0].reason, conditions[0].message)
    };
    cluster.converge();
    assert_eq!(told(&cluster), "False SourceMissing: Deployment default/web does not exist");
    cluster.ok(Command::Create(deployment("web-unit-spot", 1, |_| {})));
    cluster.ok(Command::Create(deployment("web", 1, |_| {})));
    cluster.converge();
    assert!(
        told(&cluster).starts_with("False NameTaken: Deployment default/web-unit-spot"),
        "{}",
        told(&cluster)
    );
    let foreign = reference(Kind::Deployment, "web-unit-spot");
    cluster.ok(Command::Delete { object: foreign, grace_ms: None, force: false });
    cluster.converge();
    assert_eq!(told(&cluster), "True UnitsFollow: ");
    let mut wrong = usual(2);
    wrong.spec.units[0].labels = map(&[("app", "other")]);
    check_refused(&mut cluster, Command::Apply(object(wrong)), "unit spot: spec.template.metadata.labels");
}

#[test]
fn only_the_workload_sets_sizes() {
    let mut cluster = cluster(usual(6));
    let size = |named: &str| Command::Scale { object: reference(Kind::Deployment, named), replicas: 9 };
    check_refused(&mut cluster, size("web"), "is set by ElasticWorkload web");
    check_refused(&mut cluster, size("web-unit-spot"), "belongs to ElasticWorkload default/web");
    let pause = Command::SetPaused { deployment: reference(Kind::Deployment, "web-unit-spot"), paused: true };
    check_refused(&mut cluster, pause, "belongs to ElasticWorkload default/web");
    let mut second = usual(1);
    second.meta.name = name("second");
    check_refused(&mut cluster, Command::Create(object(second)), "is scaled by ElasticWorkload default/web");
    let other = deployment("web", 9, |_| {});
    check_refused(&mut cluster, Command::Apply(other), "is set by ElasticWorkload web");
    let on_source = autoscaler(Kind::Deployment, "web", 6);
    check_refused(&mut cluster, Command::Create(on_source), "make that the target");
    let on_unit = autoscaler(Kind::Deployment, "web-unit-spot", 6);
    check_refused(&mut cluster, Command::Create(on_unit), "belongs to ElasticWorkload");
    let closed = elastic(4, bounds(0, Some(4)), vec![unit("spot", bounds(0, Some(3)))]);
    check_sizes(&mut cluster, Command::Apply(object(closed)), "4/4 0/0 none");
    check_refused(&mut cluster, scale(8), "must be at most 7");
    let more = autoscaler(Kind::ElasticWorkload, "web", 8);
    check_refused(&mut cluster, Command::Create(more), "hold 7 together");
    cluster.ok(Command::Create(autoscaler(Kind::ElasticWorkload, "web", 7)));
    check_refused(&mut cluster, scale(3), "is set by HorizontalPodAutoscaler web");
    let less = elastic(4, bounds(0, Some(3)), vec![unit("spot", bounds(0, Some(3)))]);
    check_refused(&mut cluster, Command::Apply(object(less)), "hold 6 together");
}

fn vertical() -> Object {
    let spec = VerticalAutoscalerSpec {
        target: ScaleTarget { kind: Kind::Deployment, name: name("web") },
        update_mode: UpdateMode::Auto,
        min_replicas: 2,
        policies: Vec::new(),
    };
    let meta = ObjectMeta::new(Some(name("default")), name("web"));
    let status = VerticalAutoscalerStatus::default();
    Object::VerticalPodAutoscaler(Arc::new(VerticalPodAutoscaler { meta, spec, status }))
}

#[test]
fn requests_and_sizes_by_the_same_resource_are_refused_through_the_workload_too() {
    let mut first = cluster(usual(2));
    first.ok(Command::Create(autoscaler(Kind::ElasticWorkload, "web", 9)));
    check_refused(&mut first, Command::Create(vertical()), "works by cpu of the same containers");
    let mut second = cluster(usual(2));
    second.ok(Command::Create(vertical()));
    let sized = autoscaler(Kind::ElasticWorkload, "web", 9);
    check_refused(&mut second, Command::Create(sized), "works by cpu of the same containers");
}

#[test]
fn a_claim_is_not_shared_by_units() {
    let mut cluster = Cluster::new();
    let source = deployment("web", 1, |spec| {
        let claim_name = "data".into();
        let source = VolumeSource::PersistentVolumeClaim { claim_name, read_only: false };
        let mut pod = PodSpec::clone(&spec.template.spec);
        let volumes = vec![Volume { name: "data".into(), source }];
        pod.options = Rare::some(PodOptions { volumes, ..PodOptions::default() });
        spec.template.spec = Shared::new(pod);
        spec.strategy = DeploymentStrategy::Recreate;
    });
    cluster.ok(Command::Create(source));
    check_refused(
        &mut cluster,
        Command::Create(object(usual(1))),
        "unit spot: PersistentVolumeClaim data would be used by pods of all units",
    );
}

fn autoscaler(kind: Kind, named: &str, max_replicas: u32) -> Object {
    let spec = AutoscalerSpec {
        target: ScaleTarget { kind, name: name(named) },
        min_replicas: 5,
        max_replicas,
        metrics: vec![AutoscalerMetric::resource(MeasuredResource::Cpu, MetricTarget::Utilization(50))],
        scale_up: ScalingRules::scale_up_default(),
        scale_down: ScalingRules::scale_down_default(),
    };
    let meta = ObjectMeta::new(Some(name("default")), name("web"));
    let status = AutoscalerStatus::default();
    Object::HorizontalPodAutoscaler(Arc::new(HorizontalPodAutoscaler { meta, spec, status }))
}

#[test]
fn an_autoscaler_scales_the_workload() {
    let mut cluster = cluster(usual(2));
    cluster.ok(Command::Create(autoscaler(Kind::ElasticWorkload, "web", 9)));
    // Its bounds come first, whatever is known of usage.
    cluster.advance(20_000);
    cluster.converge();
    assert_eq!(sizes(&cluster), "4/4 1/1 0/0");
    assert_eq!(found(&cluster).spec.replicas, 5);
}

/// Pod by pod, as one would by hand: to the first that has less than its minimum, else to the first with room.
fn model(replicas: u32, all: &[ElasticBounds]) -> Vec<u32> {
    let mut sizes = vec![0u32; all.len()];
    for _ in 0..replicas {
        let below = (0..all.len()).find(|at| sizes[*at] < all[*at].min);
        let room = || (0..all.len()).find(|at| all[*at].max.is_none_or(|max| sizes[*at] < max));
        let Some(at) = below.or_else(room) else { break };
        sizes[at] += 1;
    }
    sizes
}

fn any_bounds() -> impl Strategy<Value = ElasticBounds> {
    (0u32..4, prop::option::of(0u32..5)).prop_map(|(min, more)| bounds(min, more.map(|more| min + more)))
}

/// What users do.
#[derive(Clone, Debug)]
enum Step {
    Scale(u32),
    Change(ElasticBounds, Vec<ElasticBounds>),
    Image(u8),
    NewLeader,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u32..14).prop_map(Step::Scale),
        2 => (any_bounds(), prop::collection::vec(any_bounds(), 1..3)).prop_map(|(s, u)| Step::Change(s, u)),
        1 => (0u8..3).prop_map(Step::Image),
        1 => Just(Step::NewLeader),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn sizes_are_those_of_the_model_and_one_pod_more_or_less_moves_one_size(
        replicas in 0u32..40, all in prop::collection::vec(any_bounds(), 2..6),
    ) {
        let sizes = |replicas| {
            let units = all[1..].iter().enumerate().map(|(n, one)| unit(&format!("u{n}"), *one)).collect();
            elastic(replicas, all[0], units).spec.sizes()
        };
        prop_assert_eq!(sizes(replicas), model(replicas, &all));
        let moved = sizes(replicas).iter().zip(sizes(replicas + 1)).map(|(a, b)| b - a).sum::<u32>();
        prop_assert!(moved <= 1);
    }

    #[test]
    fn whatever_users_do_the_units_are_of_the_models_sizes(steps in prop::collection::vec(step(), 1..10)) {
        let mut cluster = cluster(usual(3));
        for step in steps {
            let present = found(&cluster);
            match step {
                Step::Scale(replicas) => _ = cluster.submit(vec![scale(replicas)]),
                Step::Change(source, units) => {
                    let names = ["spot", "far"];
                    let units = names.iter().zip(units).map(|(named, bounds)| unit(named, bounds)).collect();
                    let mut wanted = elastic(present.spec.replicas, source, units);
                    wanted.spec.replicas = wanted.spec.replicas.min(wanted.spec.capacity().unwrap_or(u32::MAX));
                    cluster.ok(Command::Apply(object(wanted)));
                }
                Step::Image(version) => cluster.set_image("web", &format!("web:{version}")),
                Step::NewLeader => cluster.new_leader(),
            }
            cluster.converge();
            let spec = found(&cluster).spec.clone();
            let mut all = vec![spec.source.bounds];
            all.extend(spec.units.iter().map(|unit| unit.bounds));
            let expected = model(spec.replicas, &all);
            let known: Vec<u32> = found(&cluster).status.units.iter().map(|u| u.ready_replicas).collect();
            prop_assert_eq!(&known, &expected);
            prop_assert_eq!(cluster.active_pods().len() as u32, expected.iter().sum::<u32>());
        }
        prop_assert_eq!(cluster.replayed().digest(), cluster.state().digest());
    }
}
