//! VerticalPodAutoscalers over a real machine: what containers use becomes what their next pods request.

use std::sync::Arc;

use bulkhead_controlplane_core::reconcile::ReconcileConfig;
use bulkhead_types::{
    AutoscalerMetric, AutoscalerSpec, Command, ContainerResourcePolicy, ContainerScalingMode, ContainerState,
    ContainerStatus, ContainerTermination, ContainerUsage, ControlledValues, DELIVERY_LEVEL, DisruptionBound,
    DisruptionBudgetSpec, EventKind, HorizontalPodAutoscaler, IntOrPercent, Kind, LabelSelector,
    MeasuredResource, MetricTarget, Object, ObjectMeta, Pod, PodDisruptionBudget, PodPhase, PodReport,
    PodStatus, PodUsage, Profile, ProfileEffect, ProfileRule, ProfileSpec, RECOMMENDED_RESOURCES, Rejection,
    RejectionCode, RequestFromLimit, ResourceRequirements, ScaleTarget, ScalingRules, UpdateMode,
    VERTICAL_EVICTION_MS, VerticalAutoscalerSpec, VerticalAutoscalerStatus, VerticalPodAutoscaler,
};

use crate::kit::{Cluster, deployment, map, name, pod, pod_spec, reference};
use crate::sets::{daemon_set, stateful_set};

const MIB: u64 = 1 << 20;

pub fn vertical(
    named: &str,
    target: (Kind, &str),
    change: impl FnOnce(&mut VerticalAutoscalerSpec),
) -> Object {
    let mut spec = VerticalAutoscalerSpec {
        target: ScaleTarget { kind: target.0, name: name(target.1) },
        update_mode: UpdateMode::Auto,
        min_replicas: 2,
        policies: vec![],
    };
    change(&mut spec);
    let meta = ObjectMeta::new(Some(name("default")), name(named));
    let status = VerticalAutoscalerStatus::default();
    Object::VerticalPodAutoscaler(Arc::new(VerticalPodAutoscaler { meta, spec, status }))
}

/// Of the Deployment `web`.
pub fn of_web(change: impl FnOnce(&mut VerticalAutoscalerSpec)) -> Object {
    vertical("web", (Kind::Deployment, "web"), change)
}

pub fn found(cluster: &Cluster, named: &str) -> Arc<VerticalPodAutoscaler> {
    match cluster.state().find_object(&reference(Kind::VerticalPodAutoscaler, named)) {
        Some(Object::VerticalPodAutoscaler(vertical)) => vertical,
        other => panic!("no VerticalPodAutoscaler {named}: {other:?}"),
    }
}

fn policy(container: &str, resources: &[MeasuredResource]) -> ContainerResourcePolicy {
    ContainerResourcePolicy {
        container: container.into(),
        mode: ContainerScalingMode::Auto,
        min_allowed: ResourceRequirements::default(),
        max_allowed: ResourceRequirements::default(),
        controlled_resources: resources.to_vec(),
        controlled_values: ControlledValues::RequestsAndLimits,
    }
}

/// Agents that tell what containers use.
pub trait Usage {
    fn tell(&mut self, cpu_millis: u64, memory_bytes: u64);
    fn minutes(&mut self, minutes: u64, cpu_millis: u64, memory_bytes: u64);
}

impl Usage for Cluster {
    fn tell(&mut self, cpu_millis: u64, memory_bytes: u64) {
        let nodes: Vec<_> = self.state().nodes().iter().map(|node| node.meta.id).collect();
        for node in nodes {
            let usage = |pod: &Arc<Pod>| PodUsage {
                pod: pod.meta.id,
                cpu_millis,
                memory_bytes,
                window_ms: 10_000,
                age_ms: 0,
                containers: vec![ContainerUsage { name: "main".into(), cpu_millis, memory_bytes }],
            };
            let usage = self.state().pods_on(node).map(usage).collect();
            self.soft.set_usage(node, self.now_ms, usage);
        }
    }

    /// Agents start and end what is wanted, and tell of it every 10 s.
    fn minutes(&mut self, minutes: u64, cpu_millis: u64, memory_bytes: u64) {
        for _ in 0..minutes * 6 {
            self.agents();
            self.tell(cpu_millis, memory_bytes);
            self.advance(10_000);
        }
    }
}

/// So many pods of the Deployment `web`, each of which requests 100 thousandths of a core and 64 MiB.
fn cluster(replicas: u32, vertical: Object) -> Cluster {
    let mut cluster = Cluster::new();
    cluster.nodes(4);
    cluster.ok(Command::Create(deployment("web", replicas, |_| {})));
    cluster.ok(Command::Create(vertical));
    cluster.converge();
    cluster
}

/// What the pods that live request, in thousandths of a core and MiB, sorted.
fn requests(cluster: &Cluster) -> Vec<(u64, u64)> {
    let of = |pod: Arc<Pod>| {
        let requests = pod.spec.containers[0].requests;
        (requests.cpu_millis.unwrap_or(0), requests.memory_bytes.unwrap_or(0) / MIB)
    };
    let mut all: Vec<_> = cluster.active_pods().into_iter().map(of).collect();
    all.sort_unstable();
    all
}

fn refused(result: Result<u64, Rejection>, wanted: &str) {
    let rejection = result.unwrap_err();
    assert_eq!(rejection.code, RejectionCode::NotAllowed, "{rejection}");
    assert!(rejection.to_string().contains(wanted), "{wanted} is not in {rejection}");
}

#[test]
fn from_figures_over_a_command_and_evictions_to_new_requests() {
    let mut cluster = cluster(3, of_web(|_| ()));
    cluster.minutes(12, 400, 200 * MIB);
    let status = found(&cluster, "web").status.clone();
    let recommended = &status.containers[0];
    let target = (recommended.cpu_millis.unwrap().target, recommended.memory_bytes.unwrap().target / MIB);
    // 400m are in the bucket that ends at 414m, 200 MiB in the one that ends at 216 MB; both with 15 %.
    assert_eq!(target, (477, 237), "{recommended:?}");
    assert!(recommended.samples >= 30, "{recommended:?}");
    assert_eq!(status.conditions[0].reason, "RecommendationProvided");
    assert_eq!(requests(&cluster), [target; 3]);
    // The template is as it was, and so its hash: no rollout.
    let Object::Deployment(wanted) = deployment("web", 3, |_| {}) else { unreachable!() };
    assert_eq!(cluster.get_deployment("web").spec, wanted.spec);
    assert!(cluster.sets("web").starts_with("1:3/3"), "{}", cluster.sets("web"));
    // One at a time, not faster than allowed, each once.
    let evicted = cluster.transactions.iter().filter(|transaction| {
        let of_it = |event: &bulkhead_types::Event| {
            matches!(&event.kind, EventKind::DeletionRequested { reason, .. } if reason == "EvictedByVPA")
        };
        transaction.events.iter().any(of_it)
    });
    let times: Vec<u64> = evicted.map(|transaction| transaction.at_ms).collect();
    assert_eq!((times.len(), status.evictions), (3, 3));
    assert!(times.windows(2).all(|two| two[1] - two[0] >= VERTICAL_EVICTION_MS), "{times:?}");
    assert_eq!(cluster.replayed().digest(), cluster.state().digest(), "the events alone say the same");
    // What the log holds of it is bounded: nothing changes any more but the bounds, and that ever more slowly.
    let before = cluster.proposals.len();
    cluster.minutes(60, 400, 200 * MIB);
    let more = cluster.proposals[before..].iter().filter(|p| matches!(p.command, Command::Recommend { .. }));
    assert!((1..15).contains(&more.count()));
    assert_eq!(requests(&cluster), [target; 3]);
}

#[test]
fn a_new_leader_goes_on_with_what_was_known() {
    let mut cluster = cluster(3, of_web(|spec| spec.update_mode = UpdateMode::Initial));
    cluster.minutes(70, 400, 200 * MIB);
    let before = found(&cluster, "web").status.clone();
    assert!(!before.checkpoint.is_empty() && before.checkpoint.len() == 1, "{before:?}");
    cluster.new_leader();
    cluster.minutes(20, 20, 20 * MIB);
    let after = found(&cluster, "web").status.clone();
    let (was, is) = (&before.containers[0], &after.containers[0]);
    assert!(is.samples >= before.checkpoint[0].samples + 3, "{is:?}");
    // A third of all measurements is another now: the target is still what the others say.
    assert_eq!(is.cpu_millis.unwrap().target, was.cpu_millis.unwrap().target);
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
}

#[test]
fn modes_budgets_and_least_numbers_hold() {
    let check = |replicas: u32, change: fn(&mut VerticalAutoscalerSpec), evictions: u64| {
        let mut cluster = cluster(replicas, of_web(change));
        cluster.minutes(8, 400, 200 * MIB);
        assert_eq!(found(&cluster, "web").status.evictions, evictions);
        assert!(!found(&cluster, "web").status.containers.is_empty());
        // Who comes later gets it all the same, unless nobody shall.
        cluster.ok(Command::Scale { object: reference(Kind::Deployment, "web"), replicas: replicas + 1 });
        cluster.converge();
        requests(&cluster).into_iter().filter(|(cpu, _)| *cpu != 100).count()
    };
    assert_eq!(check(3, |spec| spec.update_mode = UpdateMode::Off, 0), 0);
    assert_eq!(check(3, |spec| spec.update_mode = UpdateMode::Initial, 0), 1);
    // Of two the other one would be alone.
    assert_eq!(check(2, |_| (), 0), 1);
    assert_eq!(check(2, |spec| spec.min_replicas = 1, 2), 3);
    assert_eq!(check(1, |spec| spec.min_replicas = 0, 1), 2);
}

#[test]
fn budgets_are_asked() {
    let mut cluster = cluster(3, of_web(|_| ()));
    let selector = LabelSelector::from_labels(map(&[("app", "web")]));
    let bound = DisruptionBound::MinAvailable(IntOrPercent::Int(3));
    let spec = DisruptionBudgetSpec { bound, selector, unhealthy_pod_eviction_policy: Default::default() };
    let meta = ObjectMeta::new(Some(name("default")), name("web"));
    let budget = PodDisruptionBudget { meta, spec, status: Default::default() };
    cluster.ok(Command::Create(Object::PodDisruptionBudget(Arc::new(budget))));
    cluster.minutes(6, 400, 200 * MIB);
    assert_eq!((found(&cluster, "web").status.evictions, requests(&cluster)), (0, vec![(100, 64); 3]));
    let budget = reference(Kind::PodDisruptionBudget, "web");
    cluster.ok(Command::Delete { object: budget, grace_ms: None, force: false });
    cluster.minutes(6, 400, 200 * MIB);
    assert_eq!(found(&cluster, "web").status.evictions, 3);
}

#[test]
fn every_kind_of_workload_gets_it_and_lone_pods_do_not() {
    let mut cluster = Cluster::new();
    cluster.nodes(3);
    cluster.ok(Command::Create(stateful_set("db", 3, |_| {})));
    cluster.ok(Command::Create(daemon_set("log", |_| {})));
    cluster.ok(Command::Create(pod("lone", pod_spec("web:1", 100, 64 << 20))));
    cluster.ok(Command::Create(vertical("db", (Kind::StatefulSet, "db"), |_| ())));
    cluster.ok(Command::Create(vertical("log", (Kind::DaemonSet, "log"), |_| ())));
    cluster.converge();
    cluster.minutes(10, 400, 200 * MIB);
    assert_eq!(requests(&cluster), [vec![(100, 64)], vec![(477, 237); 6]].concat());
    // Somebody else's pod is not theirs to end.
    let autoscaler = Some(found(&cluster, "db").meta.id);
    let lone = Command::Evict { pod: reference(Kind::Pod, "lone"), grace_ms: None, autoscaler };
    refused(cluster.submit(vec![lone]), "does not belong to its autoscaler's workload");
    let suits = Command::Evict { pod: reference(Kind::Pod, "db-0"), grace_ms: None, autoscaler };
    refused(cluster.submit(vec![suits]), "its requests suit");
}

/// One container of a pod was killed for its memory and runs again.
fn kill_for_memory(cluster: &mut Cluster, pod: &Pod) {
    let Some(node) = pod.node.and_then(|node| cluster.state().nodes().get(node)).cloned() else { return };
    cluster.sequence += 1;
    let end = ContainerTermination {
        exit_code: 137,
        signal: 9,
        reason: "OOMKilled".into(),
        message: String::new(),
        started_at_ms: cluster.now_ms - 2,
        finished_at_ms: cluster.now_ms - 1,
    };
    let container = ContainerStatus {
        name: "main".into(),
        state: ContainerState::Running { started_at_ms: cluster.now_ms },
        last_termination: Some(Box::new(end)),
        restart_count: 1,
        ready: true,
        image_digest: "".into(),
    };
    let status = PodStatus {
        phase: PodPhase::Running,
        ready: true,
        containers: vec![container],
        ..PodStatus::default()
    };
    let report = PodReport { pod: pod.meta.id, sequence: cluster.sequence, status, gone: false };
    let (node, incarnation) = (node.meta.id, node.status.incarnation);
    cluster.ok(Command::ReportPods { node, incarnation, reports: vec![report] });
}

#[test]
fn who_is_killed_for_memory_is_replaced_by_one_with_more() {
    let mut cluster = cluster(3, of_web(|_| ()));
    // 60 MiB of 64 requested: with the margin a little more, within the wide bounds of the beginning.
    cluster.minutes(3, 80, 40 * MIB);
    assert_eq!(found(&cluster, "web").status.evictions, 0, "{:?}", found(&cluster, "web").status);
    for pod in cluster.active_pods() {
        kill_for_memory(&mut cluster, &pod);
    }
    cluster.minutes(8, 80, 40 * MIB);
    // 64 requested and 100 more, the end of its bucket, and 15 %.
    assert!(requests(&cluster).iter().all(|(_, memory)| *memory == 195), "{:?}", requests(&cluster));
}

fn horizontal(metric: AutoscalerMetric) -> Object {
    let spec = AutoscalerSpec {
        target: ScaleTarget { kind: Kind::Deployment, name: name("web") },
        min_replicas: 1,
        max_replicas: 5,
        metrics: vec![metric],
        scale_up: ScalingRules::scale_up_default(),
        scale_down: ScalingRules::scale_down_default(),
    };
    let meta = ObjectMeta::new(Some(name("default")), name("web"));
    let status = Default::default();
    Object::HorizontalPodAutoscaler(Arc::new(HorizontalPodAutoscaler { meta, spec, status }))
}

#[test]
fn two_that_work_by_the_same_resource_are_refused_both_ways() {
    use MeasuredResource::{Cpu, Memory};
    let metric = |resource, container: Option<&str>| AutoscalerMetric {
        container: container.map(Into::into),
        ..AutoscalerMetric::resource(resource, MetricTarget::Utilization(50))
    };
    let check = |horizontal: Object, vertical: Object, conflict: bool| {
        for (first, second) in [(&horizontal, &vertical), (&vertical, &horizontal)] {
            let mut cluster = Cluster::new();
            cluster.ok(Command::Create(first.clone()));
            let result = cluster.submit(vec![Command::Create(second.clone())]);
            if conflict {
                refused(result, &first.object_ref().to_string());
            } else {
                result.unwrap();
            }
        }
    };
    let only = |resource| of_web(move |spec| spec.policies = vec![policy("*", &[resource])]);
    check(horizontal(metric(Cpu, None)), of_web(|_| ()), true);
    check(horizontal(metric(Memory, None)), of_web(|_| ()), true);
    check(horizontal(metric(Cpu, None)), only(Cpu), true);
    check(horizontal(metric(Cpu, None)), only(Memory), false);
    check(horizontal(metric(Cpu, None)), of_web(|spec| spec.update_mode = UpdateMode::Off), false);
    check(horizontal(metric(Cpu, None)), vertical("web", (Kind::StatefulSet, "web"), |_| ()), false);
    // Of one container only.
    let aside = |spec: &mut VerticalAutoscalerSpec| {
        let off = ContainerResourcePolicy {
            mode: ContainerScalingMode::Off,
            ..policy("side", &RECOMMENDED_RESOURCES)
        };
        spec.policies = vec![off];
    };
    check(horizontal(metric(Cpu, Some("side"))), of_web(aside), false);
    check(horizontal(metric(Cpu, Some("main"))), of_web(aside), true);
    check(horizontal(metric(Cpu, None)), of_web(aside), true);
    // What was allowed may not become what is not.
    let mut cluster = Cluster::new();
    cluster.ok(Command::Create(horizontal(metric(Cpu, None))));
    cluster.ok(Command::Create(of_web(|spec| spec.update_mode = UpdateMode::Off)));
    refused(cluster.submit(vec![Command::Apply(of_web(|_| ()))]), "HorizontalPodAutoscaler default/web");
    cluster.ok(Command::Apply(horizontal(metric(Memory, None))));
    cluster.ok(Command::Apply(only(Cpu)));
    refused(cluster.submit(vec![Command::Apply(horizontal(metric(Cpu, None)))]), "VerticalPodAutoscaler");
}

#[test]
fn a_workload_has_one_and_it_stays_with_it() {
    let mut cluster = cluster(1, of_web(|_| ()));
    let second = || vertical("other", (Kind::Deployment, "web"), |_| ());
    refused(cluster.submit(vec![Command::Create(second())]), "VerticalPodAutoscaler default/web");
    let moved = vertical("web", (Kind::Deployment, "other"), |_| ());
    let rejection = cluster.submit(vec![Command::Apply(moved)]).unwrap_err();
    assert!(rejection.to_string().contains("spec.targetRef"), "{rejection}");
    let own = reference(Kind::VerticalPodAutoscaler, "web");
    cluster.ok(Command::Delete { object: own, grace_ms: None, force: false });
    cluster.ok(Command::Create(second()));
    let mut older = Cluster::at_level(ReconcileConfig::default(), DELIVERY_LEVEL - 1);
    refused(older.submit(vec![Command::Create(second())]), "needs level 6");
}

#[test]
fn stale_and_impossible_recommendations_are_refused() {
    let mut cluster = cluster(3, of_web(|_| ()));
    cluster.minutes(2, 400, 200 * MIB);
    let present = found(&cluster, "web");
    let check = |cluster: &mut Cluster, change: &dyn Fn(&mut u64, &mut VerticalAutoscalerStatus), code| {
        let (mut generation, mut status) = (present.meta.generation, present.status.clone());
        status.decision += 1;
        change(&mut generation, &mut status);
        let command = Command::Recommend { autoscaler: present.meta.id, generation, status };
        assert_eq!(cluster.submit(vec![command]).unwrap_err().code, code);
    };
    check(&mut cluster, &|generation, _| *generation += 1, RejectionCode::Conflict);
    check(&mut cluster, &|_, status| status.decision -= 1, RejectionCode::Conflict);
    check(
        &mut cluster,
        &|_, status| status.containers[0].cpu_millis.as_mut().unwrap().lower = u64::MAX,
        RejectionCode::Invalid,
    );
    check(
        &mut cluster,
        &|_, status| status.containers.push(status.containers[0].clone()),
        RejectionCode::Invalid,
    );
    check(
        &mut cluster,
        &|_, status| status.checkpoint.iter_mut().for_each(|one| one.cpu.first_bucket = 176),
        RejectionCode::Invalid,
    );
}

#[test]
fn profiles_come_first_and_their_overcommit_is_kept() {
    let mut cluster = Cluster::new();
    cluster.nodes(4);
    let request_from_limit = RequestFromLimit { cpu_percent: Some(25), memory_percent: None };
    let effect = ProfileEffect { request_from_limit, ..ProfileEffect::default() };
    let object_selector = Some(LabelSelector::from_labels(map(&[("app", "web")])));
    let rule = ProfileRule { name: "over".into(), namespace_selector: None, object_selector, effect };
    let (meta, spec) = (ObjectMeta::new(None, name("over")), ProfileSpec { rules: vec![rule] });
    cluster.ok(Command::Create(Object::Profile(Arc::new(Profile { meta, spec }))));
    let mut spec = pod_spec("web:1", 300, 64 << 20);
    spec.containers[0].limits.cpu_millis = Some(400);
    let template = crate::kit::template("web", spec);
    cluster.ok(Command::Create(deployment("web", 3, |spec| spec.template = template)));
    cluster.ok(Command::Create(of_web(|_| ())));
    cluster.converge();
    cluster.minutes(10, 400, 200 * MIB);
    for pod in cluster.active_pods() {
        let container = &pod.spec.containers[0];
        assert_eq!((container.requests.cpu_millis, container.limits.cpu_millis), (Some(477), Some(1908)));
    }
}
