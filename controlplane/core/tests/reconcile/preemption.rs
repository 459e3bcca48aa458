//! Pods of higher priority that fit nowhere, and others that end for them.

use std::sync::Arc;

use bulkhead_controlplane_core::State;
use bulkhead_types::{
    Command, DisruptionBound, DisruptionBudgetSpec, DisruptionBudgetStatus, EventKind, IntOrPercent, Kind,
    LABEL_POD_GROUP, LABEL_POD_GROUP_MIN_AVAILABLE, LabelSelector, NodePhase, Object, ObjectId, ObjectMeta,
    Pod, PodDisruptionBudget, PodOptions, PodSpec, PreemptionPolicy, PriorityClass, Rare,
    UnhealthyPodEvictionPolicy,
};

use crate::kit::{Cluster, GIB, Say, facts, map, name, pod, pod_spec, reference, replica_set};
use crate::placement::{labelled, placed, required, term};

pub fn class(named: &str, value: i32, preemption_policy: Option<PreemptionPolicy>) -> Object {
    let (meta, description) = (ObjectMeta::new(None, name(named)), String::new());
    let class = PriorityClass { meta, value, global_default: false, preemption_policy, description };
    Object::PriorityClass(Arc::new(class))
}

/// A pod of a class, of so many tenths of a node.
pub fn of_class(class: &str, tenths: u64) -> PodSpec {
    let spec = pod_spec("web:1", tenths * 1000, 1 << 20);
    let class = Some(class.into()).filter(|_| !class.is_empty());
    let options = PodOptions { priority_class: class.into(), ..PodOptions::default() };
    PodSpec { options: Rare::unless_default(options), ..spec }
}

/// Classes `high` (100), `mid` (50), `low` (10) and `polite` (100, but never preempting); nodes of ten tenths each.
pub fn cluster(nodes: usize) -> Cluster {
    let mut cluster = Cluster::new();
    for (named, value) in [("high", 100), ("mid", 50), ("low", 10)] {
        cluster.ok(Command::Create(class(named, value, None)));
    }
    cluster.ok(Command::Create(class("polite", 100, Some(PreemptionPolicy::Never))));
    for n in 0..nodes {
        cluster.node(&format!("n{n}"), facts(10_000, 64 * GIB, 20));
    }
    cluster
}

pub fn find(cluster: &Cluster, named: &str) -> Arc<Pod> {
    match cluster.state().find_object(&reference(Kind::Pod, named)) {
        Some(Object::Pod(pod)) => pod,
        _ => panic!("no pod {named}"),
    }
}

fn node_name(state: &State, id: ObjectId) -> String {
    state.nodes().get(id).map_or_else(|| "?".to_owned(), |node| node.meta.name.to_string())
}

/// Every pod: `name@node`, `-` when it ends, `?node` where room is kept for it.
pub fn pods(cluster: &Cluster) -> String {
    let state = cluster.state();
    let show = |pod: &Arc<Pod>| {
        let at = pod.node.map_or_else(String::new, |id| format!("@{}", node_name(state, id)));
        let kept = pod.status.nominated_node.get().map(|id| format!("?{}", node_name(state, *id)));
        let ends = if pod.meta.is_deleting() { "-" } else { "" };
        format!("{}{at}{}{ends}", pod.meta.name, kept.unwrap_or_default())
    };
    let mut shown: Vec<_> = state.pods().iter().map(show).collect();
    shown.sort();
    shown.join(" ")
}

/// Pods are created, on the nodes that stand behind their names if any do, one after another, and run.
pub fn run(cluster: &mut Cluster, wanted: &[(&str, &str, u64)]) {
    for (named, class, tenths) in wanted {
        let (named, node) = named.split_once('@').map_or((*named, None), |(named, node)| (named, Some(node)));
        let spec = PodSpec { node_name: node.map(Into::into), ..of_class(class, *tenths) };
        cluster.ok(Command::Create(pod(named, spec)));
        cluster.converge();
        cluster.now_ms += 1000;
    }
}

/// Pods that are there, one that comes, and all of them then, before anybody has ended.
fn check(nodes: usize, there: &[(&str, &str, u64)], comes: (&str, u64), expected: &str) -> Cluster {
    let mut cluster = cluster(nodes);
    run(&mut cluster, there);
    cluster.ok(Command::Create(pod("x", of_class(comes.0, comes.1))));
    cluster.settle();
    assert_eq!(pods(&cluster), expected, "{there:?} {comes:?}");
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
    cluster
}

#[test]
fn the_fewest_and_lowest_end() {
    check(1, &[("a", "low", 10)], ("high", 5), "a@n0- x?n0");
    check(1, &[("a", "low", 4), ("b", "mid", 4)], ("high", 5), "a@n0- b@n0 x?n0");
    // One that need not end stays, although it is lower.
    check(1, &[("a", "low", 1), ("b", "low", 8)], ("high", 8), "a@n0 b@n0- x?n0");
    check(1, &[("a", "low", 5), ("b", "low", 5)], ("high", 5), "a@n0 b@n0- x?n0");
    // The lowest highest victim first, then the fewest.
    check(2, &[("a@n0", "mid", 10), ("b@n1", "low", 10)], ("high", 5), "a@n0 b@n1- x?n1");
    check(
        2,
        &[("a@n0", "low", 10), ("b@n1", "low", 5), ("c@n1", "low", 5)],
        ("high", 10),
        "a@n0- b@n1 c@n1 x?n0",
    );
    // The one that came last, among equals.
    check(2, &[("a@n0", "low", 10), ("b@n1", "low", 10)], ("high", 10), "a@n0 b@n1- x?n1");
}

#[test]
fn equals_and_higher_ones_stay() {
    check(1, &[("a", "high", 10)], ("high", 5), "a@n0 x");
    check(1, &[("a", "high", 10)], ("mid", 5), "a@n0 x");
    check(1, &[("a", "", 10)], ("low", 5), "a@n0- x?n0");
    check(1, &[("a", "high", 6), ("b", "low", 4)], ("mid", 5), "a@n0 b@n0 x");
    check(1, &[("a", "low", 10)], ("polite", 5), "a@n0 x");
}

#[test]
fn who_waits_is_told_why_nobody_ends_for_it() {
    let message = |cluster: &Cluster| find(cluster, "x").status.message.clone();
    let one = check(1, &[("a", "high", 6), ("b", "low", 4)], ("mid", 5), "a@n0 b@n0 x");
    let expected = "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.";
    assert_eq!(message(&one), expected);
    let one = check(1, &[("a", "low", 10)], ("polite", 5), "a@n0 x");
    let expected = "0/1 nodes are available: 1 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never.";
    assert_eq!(message(&one), expected);
    let one = check(1, &[("a", "low", 10)], ("high", 5), "a@n0- x?n0");
    assert_eq!(
        message(&one),
        "room is kept for it on node n0, where 1 pods end; 1 of them are preempted for it"
    );
    let mut one = cluster(2);
    run(&mut one, &[("a@n0", "low", 10), ("b@n1", "low", 10)]);
    one.ok(Command::SetUnschedulable { node: name("n0"), unschedulable: true });
    one.ok(Command::Create(budget(1)));
    one.ok(Command::Create(pod("x", of_class("high", 5))));
    relabel(&mut one, "b");
    one.converge();
    let expected = "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) were unschedulable. preemption: 0/2 nodes are available: 1 Preemption is not helpful for scheduling, 1 Preemption would go below a PodDisruptionBudget.";
    assert_eq!(message(&one), expected);
}

pub fn relabel(cluster: &mut Cluster, named: &str) {
    let mut pod = find(cluster, named);
    Arc::make_mut(&mut pod).meta.labels = map(&[("app", "web")]);
    cluster.ok(Command::Apply(Object::Pod(pod)));
}

/// Of pods of the app `web` so many must stay.
pub fn budget(least: u32) -> Object {
    let spec = DisruptionBudgetSpec {
        bound: DisruptionBound::MinAvailable(IntOrPercent::Int(least)),
        selector: LabelSelector::from_labels(map(&[("app", "web")])),
        unhealthy_pod_eviction_policy: UnhealthyPodEvictionPolicy::IfHealthyBudget,
    };
    let meta = ObjectMeta::new(Some(name("default")), name("web"));
    let status = DisruptionBudgetStatus::default();
    Object::PodDisruptionBudget(Arc::new(PodDisruptionBudget { meta, spec, status }))
}

#[test]
fn a_budget_is_never_gone_below() {
    let mut cluster = cluster(1);
    run(&mut cluster, &[("a", "low", 5), ("b", "low", 5)]);
    cluster.ok(Command::Create(budget(2)));
    relabel(&mut cluster, "a");
    relabel(&mut cluster, "b");
    cluster.ok(Command::Create(pod("x", of_class("high", 5))));
    cluster.converge();
    assert_eq!(pods(&cluster), "a@n0 b@n0 x");
    cluster.ok(Command::Apply(budget(1)));
    cluster.settle();
    assert_eq!(pods(&cluster), "a@n0 b@n0- x?n0", "one may end");
    cluster.ok(Command::Create(pod("y", of_class("high", 5))));
    cluster.converge();
    assert_eq!(pods(&cluster), "a@n0 x@n0 y", "and no other");
}

#[test]
fn the_room_is_kept_until_it_is_used() {
    let mut cluster = check(1, &[("a", "low", 10)], ("high", 5), "a@n0- x?n0");
    let condition = find(&cluster, "a").conditions().pop().unwrap();
    assert_eq!((condition.condition_type, condition.reason), ("DisruptionTarget", "PreemptionByScheduler"));
    let x = find(&cluster, "x").meta.id;
    assert_eq!(find(&cluster, "a").meta.deletion.as_ref().unwrap().preemptor, Some(x));
    // Neither a lower nor an equal one gets it, and what is left may be had.
    for (named, class, tenths) in [("l", "mid", 6), ("e", "polite", 6), ("s", "low", 5)] {
        cluster.ok(Command::Create(pod(named, of_class(class, tenths))));
    }
    cluster.settle();
    assert_eq!(pods(&cluster), "a@n0- e l s x?n0", "nobody ends for more than is needed");
    cluster.say(find(&cluster, "a").meta.id, Say::Gone);
    cluster.settle();
    assert_eq!(pods(&cluster), "e l s@n0 x@n0");
    assert_eq!(find(&cluster, "x").status.message, "");
}

#[test]
fn what_ends_already_is_waited_for() {
    let mut cluster = cluster(2);
    run(&mut cluster, &[("a@n0", "low", 10), ("b@n1", "low", 10)]);
    let object = reference(Kind::Pod, "a");
    cluster.ok(Command::Delete { object, grace_ms: None, force: false });
    cluster.ok(Command::Create(pod("x", of_class("high", 5))));
    cluster.settle();
    assert_eq!(pods(&cluster), "a@n0- b@n1 x?n0");
    cluster.ok(Command::Create(pod("y", of_class("high", 6))));
    cluster.settle();
    assert_eq!(pods(&cluster), "a@n0- b@n1- x?n0 y?n1", "that room is x's");
}

#[test]
fn a_higher_one_takes_the_room_and_the_other_begins_anew() {
    let mut cluster = cluster(2);
    run(&mut cluster, &[("a@n0", "low", 10), ("b@n1", "low", 10)]);
    cluster.ok(Command::Create(pod("x", of_class("mid", 10))));
    cluster.settle();
    assert_eq!(pods(&cluster), "a@n0 b@n1- x?n1");
    cluster.say(find(&cluster, "b").meta.id, Say::Gone);
    cluster.ok(Command::Create(pod("y", of_class("high", 10))));
    cluster.settle();
    assert_eq!(pods(&cluster), "a@n0- x?n0 y@n1");
    cluster.converge();
    assert_eq!(pods(&cluster), "x@n0 y@n1");
}

#[test]
fn room_is_given_up_when_the_node_is_none_any_more() {
    let mut one = check(1, &[("a", "low", 10)], ("high", 5), "a@n0- x?n0");
    one.ok(Command::SetUnschedulable { node: name("n0"), unschedulable: true });
    one.settle();
    assert_eq!(pods(&one), "a@n0- x");
    one.ok(Command::SetUnschedulable { node: name("n0"), unschedulable: false });
    one.settle();
    assert_eq!(pods(&one), "a@n0- x?n0");
    let node = find(&one, "a").node.unwrap();
    let incarnation = one.state().nodes().get(node).unwrap().status.incarnation;
    one.ok(Command::SetNodePhase { node, incarnation, phase: NodePhase::Unreachable });
    one.ok(Command::Delete { object: reference(Kind::Node, "n0"), grace_ms: None, force: true });
    one.settle();
    assert_eq!(pods(&one), "x");
}

#[test]
fn pods_that_keep_it_off_end_for_it() {
    let mut one = cluster(1);
    one.ok(Command::Create(labelled("a", "db", "default", of_class("low", 1))));
    one.converge();
    let mut spec = placed(bulkhead_types::PodPlacement {
        pod_anti_affinity: required(term("db", "kubernetes.io/hostname")),
        ..Default::default()
    });
    let mut options = spec.options.get().cloned().unwrap();
    options.priority_class = Rare::some("high".into());
    spec.options = Rare::some(options);
    one.ok(Command::Create(pod("x", spec)));
    one.settle();
    assert_eq!(pods(&one), "a@n0- x?n0");
    one.converge();
    assert_eq!(pods(&one), "x@n0");
}

#[test]
fn a_preemption_is_asked_again_when_it_is_applied() {
    let mut cluster = cluster(2);
    run(&mut cluster, &[("a", "low", 10), ("b", "mid", 10), ("h", "high", 0)]);
    cluster.ok(Command::Create(pod("p", of_class("polite", 5))));
    cluster.settle();
    // A pod that waits, although it might preempt, until the scheduler looks.
    cluster.ok(Command::Create(pod("x", of_class("mid", 5))));
    let id = |named: &str| find(&cluster, named).meta.id;
    let node = |named: &str| find(&cluster, named).node.unwrap();
    let refused = |pod: &str, node: ObjectId, victims: &[&str]| {
        let victims: Vec<ObjectId> = victims.iter().map(|victim| id(victim)).collect();
        let command = Command::Preempt { pod: id(pod), node, victims };
        let stamped = cluster.stamped("system:scheduler", vec![command]);
        bulkhead_controlplane_core::decide(cluster.state(), &stamped).unwrap_err().reason
    };
    assert_eq!(refused("a", node("a"), &[]), "it does not wait for a node any more");
    assert_eq!(refused("p", node("a"), &["a"]), "its PriorityClass does not let it preempt");
    assert_eq!(refused("x", node("b"), &["b"]), "pod b is not of lower priority");
    assert_eq!(refused("x", node("a"), &["a", "a"]), format!("pod {} does not stay there", id("a")));
    assert_eq!(refused("x", node("b"), &["a"]), format!("pod {} does not stay there", id("a")));
    assert_eq!(refused("x", node("a"), &[]), "Insufficient cpu");
    assert_eq!(refused("x", ObjectId(1), &[]), "does not exist");
}

/// A choice may be older than the State that it is applied to: who need not end any more does not.
#[test]
fn nobody_ends_who_need_not_any_more() {
    let refused = |level: u32, victims: &[&str]| {
        let mut cluster = Cluster::at_level(Default::default(), level);
        cluster.ok(Command::Create(class("high", 100, None)));
        cluster.node("n0", facts(10_000, 64 * GIB, 20));
        run(&mut cluster, &[("a", "", 5), ("b", "", 4), ("c", "", 1)]);
        cluster.ok(Command::Create(pod("x", of_class("high", 5))));
        let id = |named: &str| find(&cluster, named).meta.id;
        let victims: Vec<ObjectId> = victims.iter().map(|victim| id(victim)).collect();
        let command = Command::Preempt { pod: id("x"), node: find(&cluster, "a").node.unwrap(), victims };
        let stamped = cluster.stamped("system:scheduler", vec![command]);
        let decided = bulkhead_controlplane_core::decide(cluster.state(), &stamped);
        decided.err().map(|refusal| refusal.reason).unwrap_or_default()
    };
    assert_eq!(refused(11, &["a"]), "");
    assert_eq!(refused(11, &["b", "c"]), "");
    assert_eq!(refused(11, &["a", "c"]), "c need not end: there is room without that");
    assert_eq!(refused(11, &["a", "b", "c"]), "a need not end: there is room without that");
    assert_eq!(refused(10, &["a", "b", "c"]), "");
}

#[test]
fn below_its_level_nobody_ends() {
    let mut cluster = Cluster::at_level(Default::default(), 7);
    cluster.ok(Command::Create(class("high", 100, None)));
    cluster.node("n0", facts(10_000, 64 * GIB, 20));
    run(&mut cluster, &[("a", "", 10)]);
    cluster.ok(Command::Create(pod("x", of_class("high", 5))));
    cluster.converge();
    assert_eq!(pods(&cluster), "a@n0 x");
    let (pod, node) = (find(&cluster, "x").meta.id, find(&cluster, "a").node.unwrap());
    let refusal = cluster.submit(vec![Command::Preempt { pod, node, victims: vec![] }]).unwrap_err();
    assert_eq!(refusal.reason, "needs level 8, the cluster runs at level 7");
    let explicit = class("other", 1, Some(PreemptionPolicy::PreemptLowerPriority));
    assert!(cluster.submit(vec![Command::Create(explicit)]).is_err());
}

/// Pain 8: after a preemption the large job is never placed, because what its victims held is still seen as held.
#[test]
fn pain_08_the_room_of_victims_is_seen_when_they_have_gone() {
    let mut cluster = cluster(2);
    cluster.ok(Command::Apply(replica_set("web", 20, of_class("low", 1))));
    cluster.converge();
    cluster.ok(Command::Create(pod("big", of_class("high", 10))));
    cluster.settle();
    assert!(find(&cluster, "big").status.nominated_node.get().is_some());
    // Replacements of its victims are there before its victims have gone, and wait.
    cluster.converge();
    let big = find(&cluster, "big");
    assert!(big.node.is_some() && big.status.ready, "{}", pods(&cluster));
    assert_eq!(cluster.state().pending_pods().len(), 10);
    let events = cluster.transactions.iter().flat_map(|transaction| &transaction.events);
    let ended = events
        .filter(|e| matches!(&e.kind, EventKind::DeletionRequested { reason, .. } if reason == "Preempted"));
    assert_eq!(ended.count(), 10, "each of them once, and no more than that");
}

/// Pain 9: plans are refused again and again although there is room.
#[test]
fn pain_09_a_refused_plan_is_not_made_again_at_once() {
    let mut cluster = cluster(1);
    run(&mut cluster, &[("a", "low", 10)]);
    cluster.ok(Command::Create(pod("x", of_class("high", 5))));
    for _ in 0..5 {
        // Nothing of what is proposed arrives.
        cluster.lose();
    }
    let before = cluster.proposals.len();
    cluster.settle();
    assert!(cluster.proposals.len() - before <= 2, "it waits before it proposes the same again");
    assert_eq!(pods(&cluster), "a@n0 x");
    cluster.advance(60_000);
    assert_eq!(pods(&cluster), "a@n0- x?n0", "it did not forget");
    let proposed = |cluster: &Cluster| {
        let of_scheduler = cluster.proposals.iter().filter(|one| one.reconciler == "scheduler");
        of_scheduler.count()
    };
    let before = proposed(&cluster);
    cluster.advance(600_000);
    assert!(proposed(&cluster) - before <= 1, "nothing is proposed while its victim ends");
}

/// Pain 10: what waits is not looked at again when a node joins.
#[test]
fn pain_10_a_node_that_joins_wakes_who_waits() {
    let mut cluster = cluster(1);
    run(&mut cluster, &[("a", "high", 10)]);
    for (named, class) in [("x", "low"), ("y", "high"), ("z", "polite")] {
        cluster.ok(Command::Create(pod(named, of_class(class, 3))));
    }
    cluster.advance(3_600_000);
    assert_eq!(pods(&cluster), "a@n0 x y z");
    cluster.node("n1", facts(10_000, 64 * GIB, 20));
    cluster.settle();
    assert_eq!(pods(&cluster), "a@n0 x@n1 y@n1 z@n1");
}

/// Pain 11: evaluation stops until the leader restarts; and a new leader floods the log.
#[test]
fn pain_11_a_new_leader_goes_on_and_says_little() {
    let mut cluster = cluster(2);
    cluster.ok(Command::Apply(replica_set("web", 20, of_class("low", 1))));
    cluster.ok(Command::Create(pod("stuck", of_class("low", 9))));
    cluster.converge();
    cluster.ok(Command::Create(pod("big", of_class("high", 10))));
    cluster.settle();
    assert!(find(&cluster, "big").status.nominated_node.get().is_some());
    cluster.advance(1000);
    let before = cluster.proposals.len();
    cluster.new_leader();
    cluster.settle();
    assert_eq!(cluster.proposals.len(), before, "what was decided and told is not decided and told again");
    cluster.converge();
    assert!(find(&cluster, "big").node.is_some(), "{}", pods(&cluster));
    // Whatever was on its way is lost with the leader, and the next one does it.
    cluster.ok(Command::Create(pod("big2", of_class("high", 10))));
    cluster.lose();
    cluster.new_leader();
    cluster.converge();
    assert!(find(&cluster, "big2").node.is_some(), "{}", pods(&cluster));
    let again = cluster.proposals.len();
    for _ in 0..5 {
        cluster.new_leader();
        cluster.settle();
    }
    assert_eq!(cluster.proposals.len(), again, "leaders that find all in order say nothing");
}

/// Room that is kept for a pod is given up when the pod is not placed by itself any more: its group lacks another one.
#[test]
fn room_is_given_up_when_the_group_waits_again() {
    let mut cluster = cluster(2);
    let member = |named: &str, class: &str, node: Option<&str>| {
        let spec = PodSpec { node_name: node.map(Into::into), ..of_class(class, 5) };
        let mut pod = pod(named, spec);
        let labels = &mut pod.meta_mut().labels;
        labels.insert(LABEL_POD_GROUP.into(), "g".into());
        labels.insert(LABEL_POD_GROUP_MIN_AVAILABLE.into(), "2".into());
        Command::Create(pod)
    };
    run(&mut cluster, &[("l@n1", "low", 10)]);
    cluster.ok(member("a", "mid", Some("n0")));
    cluster.ok(member("b", "mid", Some("n0")));
    cluster.converge();
    // The group has all that it must have: one more is placed like any pod.
    cluster.ok(member("c", "high", None));
    cluster.settle();
    assert_eq!(pods(&cluster), "a@n0 b@n0 c?n1 l@n1-");
    // It lacks one, and waits for others of one priority: who is left has no use for room of its own.
    let object = reference(Kind::Pod, "a");
    cluster.ok(Command::Delete { object, grace_ms: None, force: false });
    cluster.converge();
    assert_eq!(pods(&cluster), "b@n0 c");
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
}
