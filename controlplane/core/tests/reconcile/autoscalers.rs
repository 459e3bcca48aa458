//! HorizontalPodAutoscalers over a real machine: what pods use becomes the size of their workload.

use std::sync::Arc;

use bulkhead_controlplane_core::State;
use bulkhead_types::{
    ANNOTATION_WARM_UP, AUTOSCALER_PERIOD_MS, AutoscalerMetric, AutoscalerSpec, Command,
    HorizontalPodAutoscaler, Kind, MeasuredResource, MetricTarget, Object, ObjectMeta, Pod, PodPhase,
    PodReport, PodStatus, PodUsage, RejectionCode, ScaleTarget, ScalingRules,
};

use crate::kit::{Cluster, deployment, name, reference, rolling};

/// Looks of an autoscaler until everything that there is to decide was decided.
const LOOKS: u64 = 4;

pub fn autoscaler(
    named: &str,
    target: (Kind, &str),
    min_replicas: u32,
    max_replicas: u32,
) -> HorizontalPodAutoscaler {
    HorizontalPodAutoscaler {
        meta: ObjectMeta::new(Some(name("default")), name(named)),
        spec: AutoscalerSpec {
            target: ScaleTarget { kind: target.0, name: name(target.1) },
            min_replicas,
            max_replicas,
            metrics: vec![AutoscalerMetric::resource(MeasuredResource::Cpu, MetricTarget::Utilization(50))],
            scale_up: ScalingRules::scale_up_default(),
            scale_down: ScalingRules::scale_down_default(),
        },
        status: Default::default(),
    }
}

pub fn object(autoscaler: HorizontalPodAutoscaler) -> Object {
    Object::HorizontalPodAutoscaler(Arc::new(autoscaler))
}

fn found(state: &State, named: &str) -> Arc<HorizontalPodAutoscaler> {
    match state.find_object(&reference(Kind::HorizontalPodAutoscaler, named)) {
        Some(Object::HorizontalPodAutoscaler(autoscaler)) => autoscaler,
        other => panic!("no autoscaler {named}: {other:?}"),
    }
}

/// Agents that start guests and tell what these use.
pub trait Guests {
    fn tell_usage(&mut self, cpu_millis: impl Fn(&Pod) -> u64);
    fn start_guests(&mut self, ready: bool);
    fn look(&mut self, times: u64, cpu_millis: impl Fn(&Pod) -> u64 + Copy);
    fn size(&self, app: &str) -> u32;
}

impl Guests for Cluster {
    fn tell_usage(&mut self, cpu_millis: impl Fn(&Pod) -> u64) {
        let nodes: Vec<_> = self.state().nodes().iter().map(|node| node.meta.id).collect();
        for node in nodes {
            let usage = |pod: &Arc<Pod>| PodUsage {
                pod: pod.meta.id,
                cpu_millis: cpu_millis(pod),
                memory_bytes: 1 << 20,
                window_ms: 10_000,
                age_ms: 0,
                containers: vec![],
            };
            let runs = |pod: &&Arc<Pod>| pod.status.started_at_ms > 0;
            let usage = self.state().pods_on(node).filter(runs).map(usage).collect();
            self.soft.set_usage(node, self.now_ms, usage);
        }
    }

    /// Guests of bound pods begin; those that shall end are gone.
    fn start_guests(&mut self, ready: bool) {
        let pods: Vec<Arc<Pod>> = self.state().pods().iter().cloned().collect();
        for pod in pods {
            let Some(node) = pod.node.and_then(|node| self.state().nodes().get(node)).cloned() else {
                continue;
            };
            let runs = pod.status.ready == ready && pod.status.started_at_ms > 0;
            if (runs || pod.status.phase.is_terminal()) && !pod.meta.is_deleting() {
                continue;
            }
            self.sequence += 1;
            let started_at_ms =
                if pod.status.started_at_ms > 0 { pod.status.started_at_ms } else { self.now_ms };
            let status = PodStatus { phase: PodPhase::Running, ready, started_at_ms, ..PodStatus::default() };
            let (pod, sequence, gone) = (pod.meta.id, self.sequence, pod.meta.is_deleting());
            let reports = vec![PodReport { pod, sequence, status, gone }];
            let incarnation = node.status.incarnation;
            self.ok(Command::ReportPods { node: node.meta.id, incarnation, reports });
        }
        self.settle();
    }

    /// Lets so many looks pass; agents tell of usage in between, and start what is wanted.
    fn look(&mut self, times: u64, cpu_millis: impl Fn(&Pod) -> u64 + Copy) {
        for _ in 0..times {
            for _ in 0..3 {
                self.start_guests(true);
                self.tell_usage(cpu_millis);
                self.advance(AUTOSCALER_PERIOD_MS / 3);
            }
        }
    }

    fn size(&self, app: &str) -> u32 {
        self.get_deployment(app).spec.replicas
    }
}

/// A Deployment of pods that request 100 thousandths of a core, and an autoscaler that wants them to use half.
fn cluster(replicas: u32, min_replicas: u32, max_replicas: u32) -> Cluster {
    let mut cluster = Cluster::new();
    cluster.nodes(8);
    cluster.ok(Command::Create(deployment("web", replicas, |spec| spec.strategy = rolling(4, 0))));
    let wanted = autoscaler("web", (Kind::Deployment, "web"), min_replicas, max_replicas);
    cluster.ok(Command::Create(object(wanted)));
    cluster.settle();
    cluster
}

#[test]
fn the_size_follows_what_pods_use_and_the_log_says_why() {
    let mut cluster = cluster(2, 1, 10);
    // A first look needs a window in which all pods were ready.
    cluster.look(LOOKS, |_| 100);
    assert!(cluster.size("web") > 2);
    let decisions = cluster.proposals.iter().filter_map(|proposal| match &proposal.command {
        Command::Autoscale { from, to, status, .. } if *from != Some(*to) => {
            Some((*from, *to, status.clone()))
        }
        _ => None,
    });
    let (from, to, status) = decisions.into_iter().next().unwrap();
    assert_eq!((from, to), (Some(2), 4));
    let reading = &status.metrics[0];
    assert_eq!(
        (reading.average_utilization, reading.average_value, reading.proposal),
        (Some(100), Some(100), Some(4))
    );
    let kept = found(cluster.state(), "web").status.clone();
    assert!(kept.last_scale_ms > 0 && kept.decision > 1, "{kept:?}");
    assert_eq!(cluster.replayed().digest(), cluster.state().digest(), "the events alone say the same");
    // Of 8 pods 2 would do, and of those 1: each after its five minutes.
    cluster.look(60, |_| 10);
    assert_eq!(cluster.size("web"), 1);
}

#[test]
fn a_stopped_workload_keeps_its_number() {
    let mut cluster = cluster(2, 3, 10);
    let web = || reference(Kind::Deployment, "web");
    cluster.ok(Command::SetStopped { object: web(), stopped: true });
    let number = cluster.size("web");
    cluster.look(LOOKS, |_| 100);
    assert_eq!((cluster.size("web"), cluster.state().pods().len()), (number, 0));
    cluster.ok(Command::SetStopped { object: web(), stopped: false });
    cluster.look(LOOKS, |_| 100);
    assert!(cluster.size("web") >= 3, "its bounds count again");
}

#[test]
fn nothing_is_logged_while_nothing_changes() {
    let mut cluster = cluster(2, 1, 10);
    cluster.look(LOOKS, |_| 50);
    let before = cluster.proposals.len();
    cluster.look(20, |_| 50);
    assert_eq!(cluster.proposals.len(), before, "{:?}", &cluster.proposals[before..]);
}

#[test]
fn a_workload_has_one_autoscaler_and_is_not_scaled_by_hand() {
    let mut cluster = cluster(2, 1, 10);
    let mut refused = |command: Command, wanted: &str| {
        let rejection = cluster.submit(vec![command]).unwrap_err();
        assert_eq!(rejection.code, RejectionCode::NotAllowed, "{rejection}");
        assert!(rejection.to_string().contains(wanted), "{rejection}");
    };
    let second = || autoscaler("other", (Kind::Deployment, "web"), 1, 3);
    let named = "HorizontalPodAutoscaler web";
    refused(Command::Create(object(second())), "HorizontalPodAutoscaler default/web");
    refused(Command::Apply(object(second())), "HorizontalPodAutoscaler default/web");
    refused(Command::Scale { object: reference(Kind::Deployment, "web"), replicas: 3 }, named);
    refused(Command::Apply(deployment("web", 3, |_| {})), named);
    // The same size with another template is a rollout like any other.
    cluster.set_image("web", "web:2");
    let elsewhere = autoscaler("other", (Kind::StatefulSet, "web"), 1, 3);
    cluster.ok(Command::Create(object(elsewhere)));
    let moved = cluster.submit(vec![Command::Apply(object(second()))]);
    assert!(moved.is_err(), "an apply may not move it there either");
    let own = reference(Kind::HorizontalPodAutoscaler, "web");
    cluster.ok(Command::Delete { object: own, grace_ms: None, force: false });
    cluster.ok(Command::Scale { object: reference(Kind::Deployment, "web"), replicas: 3 });
    cluster.ok(Command::Apply(object(second())));
}

#[test]
fn pain_23_a_rollout_does_not_make_the_autoscaler_grow() {
    let mut cluster = cluster(8, 1, 100);
    // The pods are a little above what they shall use, within the tolerance; new ones burn much when they begin.
    let burn = |pod: &Pod| if pod.status.ready { 54 } else { 900 };
    cluster.look(LOOKS, burn);
    assert_eq!(cluster.size("web"), 8);
    for image in ["web:2", "web:3", "web:4"] {
        cluster.set_image("web", image);
        cluster.settle();
        for ready in [false, false, true, true] {
            // Guests of new pods run, and are not ready for two looks.
            let old: Vec<_> =
                cluster.active_pods().iter().filter(|p| p.status.ready).map(|p| p.meta.id).collect();
            if ready {
                cluster.start_guests(true);
            } else {
                for pod in cluster.active_pods().iter().filter(|pod| !old.contains(&pod.meta.id)) {
                    cluster.say(pod.meta.id, crate::kit::Say::NotReady);
                }
            }
            cluster.tell_usage(burn);
            cluster.advance(AUTOSCALER_PERIOD_MS);
            assert_eq!(cluster.size("web"), 8, "{image}: {}", cluster.sets("web"));
        }
    }
}

#[test]
fn a_new_leader_waits_for_agents_and_keeps_to_what_was_decided() {
    let mut cluster = cluster(8, 1, 100);
    cluster.look(LOOKS, |_| 50);
    let before = found(cluster.state(), "web").status.clone();
    cluster.new_leader();
    cluster.settle();
    cluster.advance(AUTOSCALER_PERIOD_MS - 1);
    assert_eq!(found(cluster.state(), "web").status, before, "nobody has told it anything yet");
    // The load goes just now: the window of five minutes counts over leaders.
    cluster.look(10, |_| 5);
    cluster.new_leader();
    cluster.look(5, |_| 5);
    assert_eq!(cluster.size("web"), 8);
    cluster.look(10, |_| 5);
    assert!(cluster.size("web") < 8);
}

#[test]
fn young_pods_do_not_count_when_they_warm_up() {
    let mut cluster = cluster(2, 1, 10);
    let mut wanted = (*found(cluster.state(), "web")).clone();
    wanted.meta.annotations.insert(ANNOTATION_WARM_UP.into(), "600".into());
    cluster.ok(Command::Apply(object(wanted)));
    cluster.look(LOOKS, |_| 100);
    assert_eq!(cluster.size("web"), 2);
    let conditions = &found(cluster.state(), "web").status.conditions;
    assert!(conditions.iter().any(|c| c.reason == "FailedGetResourceMetric"), "{conditions:?}");
    cluster.look(40, |_| 100);
    assert!(cluster.size("web") > 2);
}

#[test]
fn a_stale_decision_is_refused() {
    let mut cluster = cluster(4, 2, 10);
    cluster.look(LOOKS, |_| 50);
    let present = found(cluster.state(), "web");
    let decide = |from, to, decision, generation| {
        let mut status = present.status.clone();
        status.decision = decision;
        Command::Autoscale { autoscaler: present.meta.id, generation, from, to, status }
    };
    let (next, generation) = (present.status.decision + 1, present.meta.generation);
    let mut refused = |command: Command| {
        let rejection = cluster.submit(vec![command]).unwrap_err();
        assert_eq!(rejection.code, RejectionCode::Conflict, "{rejection}");
    };
    refused(decide(Some(4), 5, next - 1, generation));
    refused(decide(Some(4), 5, next + 1, generation));
    refused(decide(Some(4), 5, next, generation + 1));
    refused(decide(Some(3), 5, next, generation));
    refused(decide(None, 5, next, generation));
    refused(decide(Some(4), 1, next, generation));
    refused(decide(Some(4), 11, next, generation));
    refused(decide(Some(4), 9, next, generation));
    cluster.ok(decide(Some(4), 8, next, generation));
    assert_eq!(cluster.size("web"), 8);
    let rejection = cluster.submit(vec![decide(Some(8), 9, next + 1, generation)]).unwrap_err();
    assert_eq!(rejection.code, RejectionCode::Conflict, "four more than 15 s ago already: {rejection}");
}

#[test]
fn bounds_that_move_are_followed_at_once() {
    let mut cluster = cluster(4, 2, 10);
    cluster.look(LOOKS, |_| 50);
    let mut wanted = (*found(cluster.state(), "web")).clone();
    (wanted.spec.min_replicas, wanted.spec.max_replicas) = (6, 7);
    cluster.ok(Command::Apply(object(wanted)));
    cluster.settle();
    assert_eq!(cluster.size("web"), 6);
}

/// One look with what the metrics endpoint answers to the one query.
fn look_queried(cluster: &mut Cluster, answer: &bulkhead_controlplane_core::reconcile::MetricAnswer) {
    for _ in 0..3 {
        cluster.start_guests(true);
        let asked = bulkhead_controlplane_core::autoscale::queries(cluster.state());
        let answers = asked.into_iter().map(|query| (query, answer.clone())).collect();
        cluster.soft.set_metrics(cluster.now_ms, answers);
        cluster.advance(AUTOSCALER_PERIOD_MS / 3);
    }
}

#[test]
fn what_the_metrics_endpoint_says_sets_the_size_and_silence_changes_nothing() {
    use bulkhead_controlplane_core::reconcile::MetricSample;
    let mut cluster = Cluster::new();
    cluster.nodes(3);
    cluster.ok(Command::Apply(deployment("web", 2, |_| {})));
    let query = bulkhead_types::MetricQuery {
        source: bulkhead_types::MetricSource::External,
        object: None,
        name: "queue".into(),
        selector: bulkhead_types::LabelSelector::default(),
    };
    let mut wanted = autoscaler("web", (Kind::Deployment, "web"), 1, 9);
    wanted.spec.scale_down.stabilization_window_ms = 0;
    wanted.spec.metrics = vec![AutoscalerMetric {
        resource: MeasuredResource::Queried,
        container: None,
        target: MetricTarget::AverageValue(10_000),
        query: bulkhead_types::Rare::some(query),
    }];
    cluster.ok(Command::Create(object(wanted)));
    cluster.converge();
    let total = |value_millis| Ok(vec![MetricSample { pod: "".into(), value_millis }]);
    look_queried(&mut cluster, &total(41_000));
    look_queried(&mut cluster, &total(41_000));
    assert_eq!(cluster.size("web"), 5);
    let status = found(cluster.state(), "web").status.clone();
    assert_eq!(status.metrics[0].total.get(), Some(&41_000));
    for (answer, said) in [(Err("it is down".to_owned()), "it is down"), (Ok(Vec::new()), "has no result")] {
        // Another reason for the same silence is told within a minute.
        (0..5).for_each(|_| look_queried(&mut cluster, &answer));
        assert_eq!(cluster.size("web"), 5);
        let status = found(cluster.state(), "web").status.clone();
        let active = status.conditions.iter().find(|c| c.condition_type == "ScalingActive").unwrap();
        assert_eq!(active.reason, "FailedGetExternalMetric");
        assert!(active.message.contains(said), "{}", active.message);
    }
    look_queried(&mut cluster, &total(15_000));
    look_queried(&mut cluster, &total(15_000));
    assert_eq!(cluster.size("web"), 2);
    // An answer that is too old counts as none.
    cluster.advance(120_000);
    assert_eq!(cluster.size("web"), 2);
    let active = found(cluster.state(), "web").status.conditions.clone();
    assert!(active.iter().any(|c| c.message.contains("has not answered")), "{active:?}");
}
