//! DeschedulerPolicies: what each strategy evicts, what is never evicted, and how often.

use std::sync::Arc;

use bulkhead_types::{
    Command, ContainerState, ContainerStatus, DeschedulerPolicy, DeschedulerPolicySpec,
    DeschedulerPolicyStatus, DeschedulerStrategy, DisruptionBound, EventKind, IntOrPercent, Kind, Node,
    Object, ObjectId, ObjectMeta, PodPhase, PodPlacement, PodReport, PodStatus, Rare, Taint, TaintEffect,
    UnhealthyPodEvictionPolicy, UtilizationThresholds, WhenUnsatisfiable,
};

use crate::budgets::budget;
use crate::kit::{Cluster, GIB, Say, deployment, facts, map, name, pod_spec, reference, template};
use crate::placement::{constraint, placed, required, term};
use crate::sets::daemon_set;

const MINUTE_MS: u64 = 60_000;

pub fn descheduler(
    text: &str,
    strategies: Vec<DeschedulerStrategy>,
    change: impl FnOnce(&mut DeschedulerPolicySpec),
) -> Object {
    let mut spec = DeschedulerPolicySpec {
        interval_ms: 2 * MINUTE_MS,
        cool_down_ms: 30 * MINUTE_MS,
        dry_run: false,
        max_per_node: None,
        max_per_namespace: None,
        max_total: None,
        include: Vec::new(),
        exclude: Vec::new(),
        label_selector: Rare::NONE,
        priority_threshold: None,
        evict_local_storage_pods: false,
        strategies,
    };
    change(&mut spec);
    let (meta, status) = (ObjectMeta::new(None, name(text)), DeschedulerPolicyStatus::default());
    Object::DeschedulerPolicy(Arc::new(DeschedulerPolicy { meta, spec, status }))
}

fn low(thresholds: u32, targets: u32, measured: bool) -> DeschedulerStrategy {
    let of = |percent| UtilizationThresholds { cpu: Some(percent), memory: None, pods: None };
    DeschedulerStrategy::LowNodeUtilization {
        thresholds: of(thresholds),
        target_thresholds: of(targets),
        measured,
        number_of_nodes: 0,
    }
}

impl Cluster {
    fn policy(
        &mut self,
        strategies: Vec<DeschedulerStrategy>,
        change: impl FnOnce(&mut DeschedulerPolicySpec),
    ) {
        self.ok(Command::Apply(descheduler("policy", strategies, change)));
    }

    fn said(&self) -> DeschedulerPolicyStatus {
        match self.state().find_object(&reference(Kind::DeschedulerPolicy, "policy")) {
            Some(Object::DeschedulerPolicy(policy)) => policy.status.clone(),
            _ => panic!("no policy"),
        }
    }

    /// What the last run evicted, or would have, as `strategy: reason`.
    fn reasons(&self) -> Vec<String> {
        self.said().last.iter().map(|one| format!("{}: {}", one.strategy, one.reason)).collect()
    }

    /// How many active pods each node has, in the order of names.
    fn per_node(&self) -> Vec<usize> {
        let mut nodes: Vec<_> = self.state().nodes().iter().cloned().collect();
        nodes.sort_by(|a, b| a.meta.name.cmp(&b.meta.name));
        let on =
            |node: &Arc<Node>| self.active_pods().iter().filter(|pod| pod.node == Some(node.meta.id)).count();
        nodes.iter().map(on).collect()
    }

    fn cordon_all_but(&mut self, node: &str) {
        for other in self.state().nodes().iter().map(|node| node.meta.name.clone()).collect::<Vec<_>>() {
            let unschedulable = other.as_str() != node && !node.is_empty();
            self.ok(Command::SetUnschedulable { node: other, unschedulable });
        }
    }

    fn edit(&mut self, node: &str, change: impl FnOnce(&mut Node)) {
        let Some(Object::Node(mut node)) = self.state().find_object(&reference(Kind::Node, node)) else {
            panic!("no node")
        };
        change(Arc::make_mut(&mut node));
        self.ok(Command::Apply(Object::Node(node)));
    }

    fn go_on(&mut self, minutes: u64) {
        for _ in 0..minutes {
            self.advance(MINUTE_MS);
            self.converge();
        }
    }

    fn evictions(&self) -> usize {
        let events = self.transactions.iter().flat_map(|transaction| &transaction.events);
        let is_one = |kind: &EventKind| matches!(kind, EventKind::DeletionRequested { reason, .. } if reason == "Descheduled");
        events.filter(|event| is_one(&event.kind)).count()
    }
}

/// Pods on the first of several nodes, which are then open.
fn crowded(replicas: u32, nodes: usize) -> Cluster {
    let mut cluster = Cluster::new();
    cluster.nodes(nodes);
    cluster.cordon_all_but("node-0");
    cluster.ok(Command::Create(deployment("web", replicas, |_| ())));
    cluster.converge();
    cluster.cordon_all_but("");
    cluster.settle();
    cluster
}

/// The document's: three pods on two of three nodes.
#[test]
fn duplicates_go_to_nodes_without_any() {
    let mut cluster = Cluster::new();
    cluster.nodes(3);
    cluster.cordon_all_but("node-2");
    cluster.ok(Command::Create(deployment("web", 2, |_| ())));
    cluster.converge();
    cluster.cordon_all_but("node-1");
    cluster.change("web", |spec| spec.replicas = 3);
    cluster.converge();
    cluster.cordon_all_but("");
    assert_eq!(cluster.per_node(), [0, 1, 2]);
    cluster.policy(vec![DeschedulerStrategy::RemoveDuplicates], |_| ());
    cluster.settle();
    assert_eq!(cluster.reasons(), ["RemoveDuplicates: 2 of its owner's pods are on node-2: 1 would be even"]);
    cluster.converge();
    assert_eq!(cluster.per_node(), [1, 1, 1]);
    cluster.go_on(40);
    assert_eq!(cluster.evictions(), 1);
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
}

#[test]
fn a_dry_run_only_says_so() {
    let mut cluster = crowded(4, 2);
    cluster.policy(vec![DeschedulerStrategy::RemoveDuplicates], |spec| spec.dry_run = true);
    cluster.go_on(5);
    let said = cluster.said();
    assert_eq!((said.last.len(), said.last_was_dry_run, said.evicted), (2, true, 0));
    assert_eq!((cluster.per_node(), cluster.evictions()), (vec![4, 0], 0));
    assert!(said.cooling.is_empty());
}

#[test]
fn limits_hold_for_each_run() {
    let check = |change: &dyn Fn(&mut DeschedulerPolicySpec), expected: usize| {
        let mut cluster = crowded(12, 3);
        cluster.policy(vec![DeschedulerStrategy::RemoveDuplicates], change);
        cluster.settle();
        assert_eq!((cluster.said().last.len(), cluster.evictions()), (expected, expected));
    };
    check(&|_| (), 8);
    check(&|spec| spec.max_per_node = Some(2), 2);
    check(&|spec| spec.max_per_namespace = Some(3), 3);
    check(&|spec| spec.max_total = Some(4), 4);
    check(&|spec| spec.exclude = vec![name("default")], 0);
    check(&|spec| spec.include = vec![name("other")], 0);
    check(&|spec| spec.include = vec![name("default")], 8);
    check(&|spec| spec.priority_threshold = Some(0), 0);
    check(&|spec| spec.priority_threshold = Some(1), 8);
}

#[test]
fn budgets_are_kept() {
    let mut cluster = crowded(6, 3);
    let bound = DisruptionBound::MinAvailable(IntOrPercent::Int(5));
    cluster.ok(Command::Create(budget("web", bound, UnhealthyPodEvictionPolicy::IfHealthyBudget)));
    cluster.policy(vec![DeschedulerStrategy::RemoveDuplicates], |_| ());
    cluster.settle();
    assert_eq!(cluster.evictions(), 1);
}

#[test]
fn nobody_is_evicted_who_fits_nowhere_else() {
    // The other node is too small for two of them, and then for any.
    let mut cluster = Cluster::new();
    cluster.node("node-0", facts(16_000, 64 * GIB, 100));
    cluster.ok(Command::Create(deployment("web", 6, |spec| {
        spec.template = template("web", pod_spec("web:1", 1000, 64 << 20));
    })));
    cluster.converge();
    cluster.node("node-1", facts(1000, 64 * GIB, 100));
    let old = DeschedulerStrategy::PodLifeTime { max_pod_life_time_ms: 1000 };
    cluster.advance(3000);
    cluster.policy(vec![old], |spec| spec.dry_run = true);
    cluster.settle();
    assert_eq!(cluster.said().last.len(), 1, "one would fill the other node");
    cluster.ok(Command::SetUnschedulable { node: name("node-1"), unschedulable: true });
    cluster.go_on(3);
    assert_eq!(cluster.said().last.len(), 0);
}

#[test]
fn what_nodes_say_now_moves_pods() {
    let mut cluster = Cluster::new();
    cluster.nodes(2);
    cluster.edit("node-0", |node| _ = node.meta.labels.insert("tier".into(), "gold".into()));
    cluster.ok(Command::Create(deployment("web", 2, |spec| {
        let mut pods = pod_spec("web:1", 100, 64 << 20);
        pods.node_selector = map(&[("tier", "gold")]);
        spec.template = template("web", pods);
    })));
    cluster.converge();
    assert_eq!(cluster.per_node(), [2, 0]);
    cluster.policy(vec![DeschedulerStrategy::RemovePodsViolatingNodeAffinity], |_| ());
    cluster.settle();
    assert_eq!(cluster.reasons(), [""; 0]);
    cluster.edit("node-0", |node| _ = node.meta.labels.remove("tier"));
    cluster.go_on(3);
    assert_eq!(cluster.per_node(), [2, 0], "there is no node for them");
    cluster.edit("node-1", |node| _ = node.meta.labels.insert("tier".into(), "gold".into()));
    cluster.go_on(3);
    assert_eq!(cluster.per_node(), [0, 2]);
}

#[test]
fn taints_that_came_later_move_pods() {
    let check = |effect, include_prefer_no_schedule, expected: [usize; 2]| {
        let mut cluster = crowded(2, 2);
        let taint = Taint { key: "gpu".into(), value: "".into(), effect };
        cluster.edit("node-0", |node| node.spec.taints.push(taint));
        cluster.policy(
            vec![DeschedulerStrategy::RemovePodsViolatingNodeTaints { include_prefer_no_schedule }],
            |_| (),
        );
        cluster.go_on(1);
        assert_eq!(cluster.per_node(), expected, "{effect:?} {include_prefer_no_schedule}");
    };
    check(TaintEffect::NoSchedule, false, [0, 2]);
    check(TaintEffect::PreferNoSchedule, false, [2, 0]);
    check(TaintEffect::PreferNoSchedule, true, [0, 2]);
}

#[test]
fn restarts_count_from_a_threshold_on() {
    let mut cluster = crowded(2, 2);
    let pod = cluster.active_pods()[0].clone();
    let node = cluster.state().nodes().get(pod.node.unwrap()).unwrap().clone();
    let tell = |cluster: &mut Cluster, restarts| {
        cluster.sequence += 1;
        let container = ContainerStatus {
            name: "main".into(),
            state: ContainerState::Running { started_at_ms: 1 },
            restart_count: restarts,
            ready: true,
            last_termination: None,
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
    };
    cluster.policy(
        vec![DeschedulerStrategy::RemovePodsHavingTooManyRestarts {
            pod_restart_threshold: 100,
            including_init_containers: false,
        }],
        |_| (),
    );
    tell(&mut cluster, 99);
    cluster.go_on(3);
    assert_eq!(cluster.evictions(), 0);
    tell(&mut cluster, 100);
    cluster.go_on(3);
    assert_eq!(cluster.evictions(), 1);
    assert!(cluster.state().pods().get(pod.meta.id).is_none());
}

#[test]
fn crowded_nodes_give_to_idle_ones_until_they_are_within_their_targets() {
    // 16 pods of a core each on 16 cores, beside two empty nodes.
    let mut cluster = Cluster::new();
    cluster.nodes(3);
    cluster.cordon_all_but("node-0");
    cluster.ok(Command::Create(deployment("web", 12, |spec| {
        spec.template = template("web", pod_spec("web:1", 1000, 64 << 20));
    })));
    cluster.converge();
    cluster.cordon_all_but("");
    cluster.policy(vec![low(20, 50, false)], |_| ());
    cluster.settle();
    assert_eq!(cluster.said().last.len(), 4, "{:?}", cluster.reasons());
    assert!(cluster.reasons()[0].starts_with("LowNodeUtilization: cpu is at 7"), "{:?}", cluster.reasons());
    cluster.converge();
    assert_eq!(cluster.per_node()[0], 8);
    cluster.go_on(40);
    assert_eq!(cluster.evictions(), 4);
}

#[test]
fn utilization_can_be_measured() {
    let mut cluster = crowded(4, 2);
    cluster.policy(vec![low(20, 50, true)], |spec| spec.interval_ms = 10_000);
    cluster.advance(12_000);
    assert_eq!(cluster.said().last.len(), 0, "nothing is known of what pods use");
    let nodes: Vec<ObjectId> = cluster.state().nodes().iter().map(|node| node.meta.id).collect();
    let pods = cluster.active_pods();
    let usage = pods.iter().map(|pod| bulkhead_types::PodUsage {
        pod: pod.meta.id,
        cpu_millis: 3000,
        memory_bytes: 1 << 20,
        window_ms: 10_000,
        age_ms: 0,
        containers: Vec::new(),
    });
    let usage = usage.collect();
    let now_ms = cluster.now_ms;
    cluster.soft.set_usage(nodes[0], now_ms, usage);
    cluster.advance(12_000);
    assert_eq!(cluster.evictions(), 2, "{:?}", cluster.reasons());
}

/// kubernetes-sigs/descheduler#1695: the scheduler puts the new pod where the old one was, and it is evicted again at every
/// run.
#[test]
fn a_pod_that_comes_back_to_its_node_is_not_evicted_at_every_run() {
    let run = |cool_down_ms| {
        let mut cluster = Cluster::new();
        cluster.node("node-0", facts(16_000, 64 * GIB, 100));
        cluster.ok(Command::Create(deployment("web", 1, |_| ())));
        cluster.converge();
        // The other node takes it by the rules, and is worse in the scheduler's eyes: a taint that only repels softly.
        cluster.node("node-1", facts(16_000, 64 * GIB, 100));
        let effect = TaintEffect::PreferNoSchedule;
        let taint = Taint { key: "spare".into(), value: "".into(), effect };
        cluster.edit("node-1", |node| node.spec.taints.push(taint));
        let old = DeschedulerStrategy::PodLifeTime { max_pod_life_time_ms: 1000 };
        cluster.policy(vec![old], |spec| {
            spec.interval_ms = 5 * MINUTE_MS;
            spec.cool_down_ms = cool_down_ms;
        });
        for minute in 0..60 {
            if minute == 20 {
                cluster.new_leader();
            }
            cluster.go_on(1);
        }
        assert_eq!(cluster.per_node(), [1, 0], "it comes back each time");
        cluster.evictions()
    };
    let without = run(0);
    assert!(without >= 10, "every five minutes: {without}");
    let with = run(30 * MINUTE_MS);
    assert!((1..=3).contains(&with), "once in half an hour, whoever leads: {with}");
}

#[test]
fn pods_of_nobody_and_of_daemons_stay() {
    let mut cluster = Cluster::new();
    cluster.nodes(2);
    cluster.ok(Command::Create(crate::kit::pod("alone", pod_spec("web:1", 100, 64 << 20))));
    cluster.ok(Command::Create(daemon_set("log", |_| ())));
    cluster.converge();
    cluster.advance(3000);
    let old = DeschedulerStrategy::PodLifeTime { max_pod_life_time_ms: 1000 };
    cluster.policy(vec![old], |_| ());
    cluster.go_on(3);
    assert_eq!(cluster.evictions(), 0);
}

#[test]
fn a_zone_that_came_later_gets_its_share() {
    let mut cluster = Cluster::new();
    let zone = |cluster: &mut Cluster, node: &str, zone: &'static str| {
        cluster.edit(node, |node| _ = node.meta.labels.insert("zone".into(), zone.into()));
    };
    cluster.nodes(1);
    zone(&mut cluster, "node-0", "a");
    cluster.ok(Command::Create(deployment("web", 4, |spec| {
        let constraint = constraint("web", "zone", WhenUnsatisfiable::DoNotSchedule);
        let placement =
            PodPlacement { topology_spread_constraints: vec![constraint], ..PodPlacement::default() };
        spec.template = template("web", placed(placement));
    })));
    cluster.converge();
    cluster.node("node-1", facts(16_000, 64 * GIB, 100));
    zone(&mut cluster, "node-1", "b");
    cluster.policy(vec![DeschedulerStrategy::RemovePodsViolatingTopologySpreadConstraint], |_| ());
    cluster.settle();
    // 3 and 1 are still apart by more than one; 2 and 2 are not.
    assert_eq!(cluster.said().last.len(), 2, "{:?}", cluster.reasons());
    cluster.converge();
    assert_eq!(cluster.per_node(), [2, 2]);
    cluster.go_on(40);
    assert_eq!(cluster.evictions(), 2);
}

#[test]
fn of_two_that_may_not_be_near_each_other_one_goes() {
    let mut cluster = Cluster::new();
    cluster.nodes(3);
    let zone = |cluster: &mut Cluster, node: &str, zone: &'static str| {
        cluster.edit(node, |node| _ = node.meta.labels.insert("zone".into(), zone.into()));
    };
    for (node, text) in [("node-0", "a"), ("node-1", "b"), ("node-2", "c")] {
        zone(&mut cluster, node, text);
    }
    cluster.ok(Command::SetUnschedulable { node: name("node-2"), unschedulable: true });
    cluster.ok(Command::Create(deployment("web", 2, |spec| {
        let placement =
            PodPlacement { pod_anti_affinity: required(term("web", "zone")), ..PodPlacement::default() };
        spec.template = template("web", placed(placement));
    })));
    cluster.converge();
    assert_eq!(cluster.per_node(), [1, 1, 0]);
    cluster.policy(vec![DeschedulerStrategy::RemovePodsViolatingInterPodAntiAffinity], |_| ());
    cluster.go_on(3);
    assert_eq!(cluster.evictions(), 0);
    zone(&mut cluster, "node-1", "a");
    cluster.go_on(3);
    assert_eq!(cluster.evictions(), 0, "there is no other node");
    cluster.ok(Command::SetUnschedulable { node: name("node-2"), unschedulable: false });
    cluster.go_on(3);
    assert_eq!((cluster.evictions(), cluster.per_node()[2]), (1, 1));
    cluster.go_on(40);
    assert_eq!(cluster.evictions(), 1);
}

#[test]
fn a_stale_run_is_refused() {
    let mut cluster = crowded(4, 2);
    cluster.policy(vec![DeschedulerStrategy::RemoveDuplicates], |_| ());
    let id = cluster.state().find(Kind::DeschedulerPolicy, None, &name("policy")).unwrap();
    cluster.settle();
    let again = Command::Deschedule { policy: id, generation: 1, pods: cluster.said().last };
    assert!(cluster.submit(vec![again]).is_err(), "its next run is not due");
    let gone = cluster.said().last[0].pod;
    cluster.say(gone, Say::Gone);
    assert_eq!(cluster.said().evicted, 2);
}
