//! PodGroups and Queues: who waits for what, in which order pods get room, and what groups keep and lose.

use std::sync::Arc;

use bulkhead_controlplane_core::{decide, invariant};
use bulkhead_types::{
    ANNOTATION_POD_GROUP, ANNOTATION_QUEUE_NAME, ANNOTATION_TASK_SPEC, Command, Kind, Measure, Object,
    ObjectId, ObjectMeta, PodAffinity, PodGroup, PodGroupPhase, PodGroupSpec, PodOptions, PodPlacement,
    PodSpec, Queue, QueueSpec, QueueState, QuotaAmounts, QuotaResource, Rare, RestartPolicy,
    WhenUnsatisfiable,
};
use expect_test::{Expect, expect};
use proptest::prelude::*;

use crate::device_kit::{asking, cards};
use crate::kit::{Cluster, GIB, Say, facts, map, name, pod, pod_spec, reference};
use crate::placement::{constraint, required, term};
use crate::preemption::{class, find, of_class};

pub fn amounts(named: &[(&str, u64)]) -> QuotaAmounts {
    let read = |(name, amount): &(&str, u64)| (QuotaResource::parse(name).unwrap(), *amount);
    named.iter().map(read).collect()
}

pub fn group(named: &str, least: u32, change: impl FnOnce(&mut PodGroupSpec)) -> Object {
    let mut spec = PodGroupSpec {
        min_member: least,
        min_task_member: Default::default(),
        min_resources: QuotaAmounts::default(),
        queue: name("default"),
        priority_class_name: None,
        schedule_timeout_ms: None,
    };
    change(&mut spec);
    let meta = ObjectMeta::new(Some(name("default")), name(named));
    Object::PodGroup(Arc::new(PodGroup { meta, spec, status: Default::default() }))
}

pub fn queue(named: &str, weight: u32, capability: &[(&str, u64)], state: QueueState) -> Object {
    let spec = QueueSpec { weight, capability: amounts(capability), state };
    let meta = ObjectMeta::new(None, name(named));
    Object::Queue(Arc::new(Queue { meta, spec, status: Default::default() }))
}

/// A pod with annotations.
pub fn noted(named: &str, notes: &[(&str, &str)], spec: PodSpec) -> Command {
    let Object::Pod(mut object) = pod(named, spec) else { unreachable!() };
    Arc::make_mut(&mut object).meta.annotations = map(notes);
    Command::Create(Object::Pod(object))
}

fn member(named: &str, of: &str, spec: PodSpec) -> Command {
    noted(named, &[(ANNOTATION_POD_GROUP, of)], spec)
}

fn cpus(cpu_millis: u64) -> PodSpec {
    pod_spec("web:1", cpu_millis, 1 << 20)
}

/// One that ends.
fn task(cpu_millis: u64) -> PodSpec {
    PodSpec { restart_policy: RestartPolicy::Never, ..cpus(cpu_millis) }
}

/// Names of the pods that hold room.
fn placed(cluster: &Cluster) -> String {
    let holds = |pod: &&Arc<bulkhead_types::Pod>| pod.node.is_some() && !pod.status.phase.is_terminal();
    let pods = cluster.state().pods().iter().filter(holds);
    let mut names: Vec<_> = pods
        .map(|pod| format!("{}{}", pod.meta.name, if pod.meta.is_deleting() { "-" } else { "" }))
        .collect();
    names.sort();
    names.join(" ")
}

fn check_placed(cluster: &mut Cluster, expected: &str) {
    cluster.settle();
    assert_eq!(placed(cluster), expected);
    assert_eq!(invariant::check(cluster.state()), []);
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
}

fn check_message(cluster: &Cluster, named: &str, expected: Expect) {
    expected.assert_eq(&find(cluster, named).status.message);
}

fn found_group(cluster: &Cluster, named: &str) -> Arc<PodGroup> {
    match cluster.state().find_object(&reference(Kind::PodGroup, named)) {
        Some(Object::PodGroup(group)) => group,
        _ => panic!("no group {named}"),
    }
}

fn found_queue(cluster: &Cluster, named: &str) -> Arc<Queue> {
    let reference = bulkhead_types::ObjectRef { kind: Kind::Queue, namespace: None, name: name(named) };
    match cluster.state().find_object(&reference) {
        Some(Object::Queue(queue)) => queue,
        _ => panic!("no queue {named}"),
    }
}

/// `Running: 2 running, 0 pending; Scheduled=True (Placed)`.
fn status(cluster: &Cluster, named: &str) -> String {
    let group = found_group(cluster, named);
    let status = &group.status;
    let conditions: Vec<_> = status
        .conditions
        .iter()
        .map(|one| format!("{}={:?} ({}): {}", one.condition_type, one.status, one.reason, one.message))
        .collect();
    let phase = status.phase.as_str();
    format!("{phase}: {} running, {} pending; {}", status.running, status.pending, conditions.join("; "))
}

fn cluster(nodes: &[u64]) -> Cluster {
    let mut cluster = Cluster::new();
    for (number, cpu_millis) in nodes.iter().enumerate() {
        cluster.node(&format!("n{number}"), facts(*cpu_millis, 64 * GIB, 200));
    }
    cluster
}

fn end(cluster: &mut Cluster, named: &str) {
    let id = find(cluster, named).meta.id;
    cluster.say(id, Say::Failed);
}

#[test]
fn a_group_by_annotation_waits_for_its_object_and_its_pods() {
    let mut cluster = cluster(&[4000]);
    cluster.ok(member("a", "g", cpus(1000)));
    check_placed(&mut cluster, "");
    check_message(
        &cluster,
        "a",
        expect!["PodGroup g does not exist: create it, or let the pod name another one"],
    );
    cluster.ok(Command::Create(group("g", 2, |_| ())));
    check_placed(&mut cluster, "");
    check_message(&cluster, "a", expect!["pod group g: 1 of 2 pods that are placed together are there"]);
    cluster.advance(2000);
    expect!["Pending: 0 running, 1 pending; Scheduled=False (NotReady): pod group g: 1 of 2 pods that are placed together are there"]
        .assert_eq(&status(&cluster, "g"));
    cluster.ok(member("b", "g", cpus(1000)));
    check_placed(&mut cluster, "a b");
    cluster.advance(2000);
    expect![
        "Running: 2 running, 0 pending; Scheduled=True (Placed): as many of its pods as must have a node"
    ]
    .assert_eq(&status(&cluster, "g"));
    // Further ones come one by one.
    cluster.ok(member("c", "g", cpus(1000)));
    check_placed(&mut cluster, "a b c");
}

#[test]
fn a_queue_that_is_closed_or_not_there_lets_nobody_in() {
    let mut cluster = cluster(&[9000]);
    cluster.ok(Command::Create(group("g", 2, |spec| spec.queue = name("q"))));
    cluster.ok(member("a", "g", cpus(1000)));
    cluster.ok(member("b", "g", cpus(1000)));
    cluster.ok(noted("x", &[(ANNOTATION_QUEUE_NAME, "q")], cpus(1000)));
    check_placed(&mut cluster, "");
    check_message(
        &cluster,
        "a",
        expect!["pod group g: Queue q does not exist: create it, or name another one"],
    );
    check_message(&cluster, "x", expect!["Queue q does not exist: create it, or name another one"]);
    cluster.ok(Command::Create(queue("q", 1, &[], QueueState::Closed)));
    cluster.advance(31_000);
    check_placed(&mut cluster, "");
    check_message(
        &cluster,
        "x",
        expect!["Queue q is closed: nothing new of it gets room until it is opened"],
    );
    assert_eq!(found_group(&cluster, "g").status.phase, PodGroupPhase::Pending);
    cluster.ok(Command::Apply(queue("q", 1, &[], QueueState::Open)));
    check_placed(&mut cluster, "a b x");
    cluster.ok(Command::Apply(queue("q", 1, &[], QueueState::Closed)));
    cluster.ok(noted("y", &[(ANNOTATION_QUEUE_NAME, "q")], cpus(1000)));
    cluster.advance(6000);
    check_placed(&mut cluster, "a b x");
    let status = &found_queue(&cluster, "q").status;
    assert_eq!((status.state, status.running), (QueueState::Closing, 1));
    assert_eq!(status.allocated.of(&Measure::RequestsCpu), Some(3000));
}

/// TV-09: one master and three workers, with a minimum of each role.
#[test]
fn tv_09_minimums_of_roles_hold() {
    let spec = |spec: &mut PodGroupSpec| {
        spec.min_task_member = [("mpimaster".into(), 1), ("mpiworker".into(), 3)].into_iter().collect();
    };
    let role = |named: &str, task: &str, cpu_millis| {
        noted(named, &[(ANNOTATION_POD_GROUP, "mpi"), (ANNOTATION_TASK_SPEC, task)], cpus(cpu_millis))
    };
    let mut cluster = cluster(&[3400]);
    cluster.ok(Command::Create(group("mpi", 4, spec)));
    for worker in ["w0", "w1", "w2", "w3"] {
        cluster.ok(role(worker, "mpiworker", 1000));
    }
    check_placed(&mut cluster, "");
    check_message(
        &cluster,
        "w0",
        expect!["pod group mpi: 0 of 1 pods of role mpimaster that are placed together are there"],
    );
    cluster.ok(role("m", "mpimaster", 500));
    check_placed(&mut cluster, "");
    cluster.node("more", facts(100, 64 * GIB, 20));
    check_placed(&mut cluster, "");
    // The fourth worker has no room beside the master that must be there.
    cluster.node("last", facts(600, 64 * GIB, 20));
    check_placed(&mut cluster, "m w0 w1 w2");
    // Only a worker may be missing: a further one comes by itself, and one by one is refused while a role is short.
    cluster.node("roomy", facts(1000, 64 * GIB, 20));
    check_placed(&mut cluster, "m w0 w1 w2 w3");
}

#[test]
fn least_resources_must_be_free_in_cluster_and_queue() {
    let mut cluster = cluster(&[3000]);
    let least = amounts(&[("cpu", 4000)]);
    cluster.ok(Command::Create(group("g", 1, |spec| {
        (spec.min_resources, spec.queue) = (least, name("q"));
    })));
    cluster.ok(Command::Create(queue("q", 1, &[("cpu", 3500)], QueueState::Open)));
    cluster.ok(member("a", "g", cpus(1000)));
    check_placed(&mut cluster, "");
    check_message(
        &cluster,
        "a",
        expect!["pod group g: Queue q: 4 of cpu is asked for, its pods use 0 and may use 3500m together"],
    );
    cluster.ok(Command::Apply(queue("q", 1, &[("cpu", 5000)], QueueState::Open)));
    cluster.advance(31_000);
    check_placed(&mut cluster, "");
    check_message(&cluster, "a", expect!["pod group g: minResources: 4 of cpu is needed, 3 is free"]);
    cluster.node("more", facts(1000, 64 * GIB, 20));
    check_placed(&mut cluster, "a");
}

#[test]
fn a_group_that_waits_too_long_says_so_and_is_put_off() {
    let mut cluster = cluster(&[1000]);
    cluster.ok(Command::Create(group("g", 2, |spec| spec.schedule_timeout_ms = Some(20_000))));
    cluster.ok(member("a", "g", task(1000)));
    cluster.ok(member("b", "g", task(1000)));
    cluster.advance(3000);
    assert_eq!(found_group(&cluster, "g").status.phase, PodGroupPhase::Inqueue);
    cluster.advance(21_000);
    expect!["Pending: 0 running, 2 pending; ScheduleTimeout=True (NoNodesInTime): no nodes for it within 20 s; it is put off for 20 s and holds nothing; Scheduled=False (PutOff): it waited for longer than its time-out"]
        .assert_eq(&status(&cluster, "g"));
    // It holds nothing, and is not tried although there would be room.
    cluster.node("more", facts(1000, 64 * GIB, 20));
    cluster.ok(Command::Create(pod("x", cpus(1000))));
    check_placed(&mut cluster, "x");
    end(&mut cluster, "x");
    check_placed(&mut cluster, "");
    cluster.advance(24_000);
    check_placed(&mut cluster, "a b");
    cluster.advance(3000);
    expect![
        "Running: 2 running, 0 pending; Scheduled=True (Placed): as many of its pods as must have a node"
    ]
    .assert_eq(&status(&cluster, "g"));
}

#[test]
fn a_group_of_a_class_wants_pods_of_it() {
    let mut cluster = cluster(&[9000]);
    cluster.ok(Command::Create(class("high", 100, None)));
    cluster.ok(Command::Create(group("g", 2, |spec| spec.priority_class_name = Some(name("high")))));
    cluster.ok(member("a", "g", cpus(1000)));
    cluster.ok(member("b", "g", cpus(1000)));
    check_placed(&mut cluster, "");
    check_message(
        &cluster,
        "a",
        expect!["pod group g: its pods are not of the priority of its PriorityClass high"],
    );
    for named in ["a", "b"] {
        let object = Object::Pod(find(&cluster, named)).object_ref();
        cluster.ok(Command::Delete { object, grace_ms: None, force: false });
    }
    cluster.ok(member("c", "g", of_class("high", 1)));
    cluster.ok(member("d", "g", of_class("high", 1)));
    check_placed(&mut cluster, "c d");
}

#[test]
fn a_queue_has_no_more_than_its_capability() {
    let mut cluster = cluster(&[9000]);
    cluster.ok(Command::Create(queue("q", 1, &[("cpu", 2500), ("pods", 9)], QueueState::Open)));
    let of_q = |named: &str| noted(named, &[(ANNOTATION_QUEUE_NAME, "q")], cpus(1000));
    for named in ["a", "b", "c"] {
        cluster.ok(of_q(named));
    }
    cluster.ok(Command::Create(pod("x", cpus(1000))));
    check_placed(&mut cluster, "a b x");
    check_message(
        &cluster,
        "c",
        expect!["Queue q: 1 of cpu is asked for, its pods use 2 and may use 2500m together"],
    );
    // Nor by a scheduler that does not know.
    let (pod, node) = (find(&cluster, "c").meta.id, cluster.state().nodes().iter().next().unwrap().meta.id);
    let binding = bulkhead_types::Binding {
        pod,
        node,
        nodes_considered: 1,
        score: 0,
        devices: vec![],
        networks: vec![],
        cpus: Default::default(),
    };
    let command = Command::BindPods { bindings: vec![binding] };
    let stamped = cluster.stamped("system:scheduler", vec![command]);
    assert_eq!(decide(cluster.state(), &stamped), Ok(vec![]));
    cluster.converge();
    end(&mut cluster, "a");
    check_placed(&mut cluster, "b c x");
    // A group has what it must have within the queue, or nothing.
    cluster.ok(Command::Create(group("g", 2, |spec| spec.queue = name("q"))));
    cluster.ok(member("g0", "g", cpus(300)));
    cluster.ok(member("g1", "g", cpus(300)));
    check_placed(&mut cluster, "b c x");
    end(&mut cluster, "b");
    check_placed(&mut cluster, "c g0 g1 x");
}

/// TV-17: nine cores; A's tasks are of 1 core and 4 GB, B's of 3 cores and 1 GB: A gets three, B two.
#[test]
fn tv_17_dominant_shares_of_queues_are_even() {
    let mut cluster = Cluster::new();
    cluster.node("n0", facts(9000, 19 * GIB, 200));
    for named in ["a", "b"] {
        cluster.ok(Command::Create(queue(named, 1, &[], QueueState::Open)));
    }
    for number in 0..5 {
        let of = |queue: &str, cpu_millis, gib| {
            let spec = pod_spec("web:1", cpu_millis, gib * GIB);
            noted(&format!("{queue}{number}"), &[(ANNOTATION_QUEUE_NAME, queue)], spec)
        };
        cluster.ok(of("b", 3000, 1));
        cluster.ok(of("a", 1000, 4));
    }
    check_placed(&mut cluster, "a0 a1 a2 b0 b1");
}

#[test]
fn weights_count_and_the_default_queue_is_one_of_them() {
    let mut cluster = cluster(&[8000]);
    cluster.ok(Command::Create(queue("q", 3, &[], QueueState::Open)));
    for number in 0..8 {
        cluster.ok(Command::Create(pod(&format!("d{number}"), cpus(1000))));
    }
    for number in 0..8 {
        cluster.ok(noted(&format!("q{number}"), &[(ANNOTATION_QUEUE_NAME, "q")], cpus(1000)));
    }
    check_placed(&mut cluster, "d0 d1 q0 q1 q2 q3 q4 q5");
}

/// TV-16: of two jobs the one that needs less goes first, whichever came first.
#[test]
fn tv_16_the_smaller_job_goes_first() {
    let mut cluster = cluster(&[]);
    for (job, cpu_millis) in [("large", 2000), ("small", 1000)] {
        cluster.ok(Command::Create(group(job, 4, |_| ())));
        for number in 0..4 {
            cluster.ok(member(&format!("{job}-{number}"), job, cpus(cpu_millis)));
        }
    }
    cluster.node("n0", facts(8000, 64 * GIB, 200));
    check_placed(&mut cluster, "small-0 small-1 small-2 small-3");
}

/// Pain 25 (volcano#3426, #1096): a queue that has what it may have holds up nobody of another one.
#[test]
fn pain_25_a_full_queue_holds_up_no_other() {
    let mut cluster = Cluster::new();
    cluster.device_node("n0", cards(4));
    let gpu = [("requests.nvidia.com/gpu", 1)];
    cluster.ok(Command::Create(queue("full", 1, &gpu, QueueState::Open)));
    cluster.ok(Command::Create(queue("free", 1, &[], QueueState::Open)));
    for number in 0..3 {
        let one = |queue: &str| {
            noted(
                &format!("{queue}{number}"),
                &[(ANNOTATION_QUEUE_NAME, queue)],
                asking(&[("nvidia.com/gpu", 1)]),
            )
        };
        cluster.ok(one("full"));
        cluster.ok(one("free"));
    }
    check_placed(&mut cluster, "free0 free1 free2 full0");
    let message = find(&cluster, "full1").status.message.clone();
    assert!(message.contains("1 of nvidia.com/gpu is asked for, its pods use 1 and may use 1"), "{message}");
}

/// Two low groups of two on two nodes, and a pod that needs one of their places.
fn gangs() -> Cluster {
    let mut cluster = crate::preemption::cluster(2);
    cluster.ok(Command::Create(group("g", 2, |_| ())));
    let on = |named: &str, node: &str, tenths| {
        let spec = PodSpec { node_name: Some(node.into()), ..of_class("low", tenths) };
        member(named, "g", spec)
    };
    cluster.ok(on("g0", "n0", 8));
    cluster.ok(on("g1", "n1", 8));
    cluster.converge();
    cluster
}

#[test]
fn a_group_that_would_have_too_few_ends_whole() {
    let mut cluster = gangs();
    cluster.ok(Command::Create(pod("high", of_class("high", 5))));
    check_placed(&mut cluster, "g0- g1-");
    cluster.converge();
    check_placed(&mut cluster, "high");
}

#[test]
fn others_end_before_a_group_does() {
    let mut cluster = gangs();
    cluster.node("n2", facts(10_000, 64 * GIB, 20));
    cluster.ok(Command::Create(pod("single", of_class("low", 8))));
    cluster.converge();
    cluster.ok(Command::Create(pod("high", of_class("high", 5))));
    check_placed(&mut cluster, "g0 g1 single-");
}

#[test]
fn what_a_group_can_spare_ends_alone() {
    let mut cluster = gangs();
    cluster.ok(member("g2", "g", of_class("low", 2)));
    cluster.converge();
    cluster.ok(Command::Create(pod("high", of_class("high", 2))));
    check_placed(&mut cluster, "g0 g1 g2 high");
    cluster.converge();
    cluster.ok(Command::Create(pod("higher", of_class("high", 2))));
    check_placed(&mut cluster, "g0 g1 g2- high");
}

#[test]
fn a_part_of_a_group_is_refused_as_victims() {
    let mut cluster = gangs();
    cluster.ok(Command::Create(pod("high", of_class("high", 5))));
    let id = |named: &str| find(&cluster, named).meta.id;
    let node = |named: &str| find(&cluster, named).node.unwrap();
    let refused = |victims: Vec<ObjectId>| {
        let command = Command::Preempt { pod: id("high"), node: node("g0"), victims };
        let stamped = cluster.stamped("system:scheduler", vec![command]);
        decide(cluster.state(), &stamped).map(|_| ()).map_err(|rejection| rejection.reason)
    };
    let expected = "pod group g would be left with fewer pods than it must have".to_owned();
    assert_eq!(refused(vec![id("g0")]), Err(expected));
    assert_eq!(refused(vec![id("g1")]), Err(format!("pod {} does not stay there", id("g1"))));
    assert_eq!(refused(vec![id("g0"), id("g1")]), Ok(()));
}

/// Small pods that end one after another and keep coming: without kept room the group would never have both nodes.
#[test]
fn a_large_group_is_not_starved_by_small_pods() {
    let mut cluster = cluster(&[2000, 2000]);
    for number in 0..4 {
        cluster.ok(Command::Create(pod(&format!("s{number}"), task(1000))));
    }
    cluster.converge();
    cluster.ok(Command::Create(group("g", 2, |_| ())));
    cluster.ok(member("g0", "g", task(2000)));
    cluster.ok(member("g1", "g", task(2000)));
    cluster.settle();
    for number in 0..4 {
        cluster.ok(Command::Create(pod(&format!("t{number}"), task(1000))));
        end(&mut cluster, &format!("s{number}"));
        cluster.converge();
    }
    check_placed(&mut cluster, "g0 g1");
}

#[test]
fn small_pods_have_what_a_group_cannot_use() {
    // A node that is held by what never ends is of no use to the group; nor are 500m beside it.
    let mut cluster = cluster(&[2500, 2500, 2000]);
    cluster.ok(Command::Create(pod("service", PodSpec { node_name: Some("n2".into()), ..cpus(500) })));
    cluster.ok(Command::Create(pod("s0", PodSpec { node_name: Some("n0".into()), ..task(1000) })));
    cluster.converge();
    cluster.ok(Command::Create(group("g", 2, |_| ())));
    cluster.ok(member("g0", "g", task(2000)));
    cluster.ok(member("g1", "g", task(2000)));
    cluster.settle();
    cluster.ok(Command::Create(pod("big", task(1500))));
    cluster.ok(Command::Create(pod("tiny", task(500))));
    cluster.ok(Command::Create(pod("late", task(1000))));
    // Beside the service; beside the group's seat; and not in the group's seat.
    check_placed(&mut cluster, "big s0 service tiny");
    end(&mut cluster, "s0");
    check_placed(&mut cluster, "big g0 g1 service tiny");
}

#[test]
fn nobody_waits_for_a_group_that_never_fits() {
    let mut cluster = cluster(&[2000, 2000]);
    for node in ["n0", "n1"] {
        let spec = PodSpec { node_name: Some(node.into()), ..cpus(500) };
        cluster.ok(Command::Create(pod(&format!("service-{node}"), spec)));
    }
    cluster.ok(Command::Create(group("g", 2, |_| ())));
    cluster.ok(member("g0", "g", task(2000)));
    cluster.ok(member("g1", "g", task(2000)));
    cluster.settle();
    cluster.ok(Command::Create(pod("x", task(1500))));
    cluster.ok(Command::Create(pod("y", task(1500))));
    check_placed(&mut cluster, "service-n0 service-n1 x y");
}

#[test]
fn kept_room_is_of_devices_too() {
    let mut cluster = Cluster::new();
    cluster.device_node("n0", cards(4));
    let gpus =
        |count| PodSpec { restart_policy: RestartPolicy::Never, ..asking(&[("nvidia.com/gpu", count)]) };
    cluster.ok(Command::Create(pod("s0", gpus(2))));
    cluster.converge();
    cluster.ok(Command::Create(group("g", 3, |_| ())));
    for named in ["g0", "g1", "g2"] {
        cluster.ok(member(named, "g", gpus(1)));
    }
    cluster.settle();
    // Three of four cards are kept: one is left, but two are not.
    cluster.ok(Command::Create(pod("two", gpus(2))));
    cluster.ok(Command::Create(pod("one", gpus(1))));
    check_placed(&mut cluster, "s0");
    end(&mut cluster, "s0");
    check_placed(&mut cluster, "g0 g1 g2 one");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever small pods of the same priority come, once those that were there have ended the group is placed; and as
    /// long as nothing else waits, a small pod that the group leaves room for is placed at once.
    #[test]
    fn a_group_is_placed_when_what_was_there_has_ended(
        nodes in proptest::collection::vec(2u64..5, 2..5),
        there in proptest::collection::vec(1u64..4, 2..12),
        come in proptest::collection::vec(1u64..4, 4..16),
        each in 1u64..3,
    ) {
        let sizes: Vec<u64> = nodes.iter().map(|cores| cores * 1000).collect();
        let mut cluster = cluster(&sizes);
        for (number, cores) in there.iter().enumerate() {
            cluster.ok(Command::Create(pod(&format!("s{number}"), task(cores * 500))));
        }
        cluster.converge();
        let fit: u64 = nodes.iter().map(|cores| cores / each).sum();
        let count = u32::try_from(fit).unwrap().min(6);
        cluster.ok(Command::Create(group("g", count, |_| ())));
        for number in 0..count {
            cluster.ok(member(&format!("g{number}"), "g", task(each * 1000)));
        }
        cluster.settle();
        let mut coming = come.iter().enumerate();
        for number in 0..there.len() {
            for (number, cores) in coming.by_ref().take(2) {
                cluster.ok(Command::Create(pod(&format!("t{number}"), task(cores * 500))));
            }
            if find(&cluster, &format!("s{number}")).node.is_some() {
                end(&mut cluster, &format!("s{number}"));
            }
            cluster.converge();
        }
        // Those that did not fit before the group came were before it; they end as well.
        for number in 0..there.len() {
            end(&mut cluster, &format!("s{number}"));
            cluster.converge();
        }
        for number in 0..count {
            prop_assert!(find(&cluster, &format!("g{number}")).node.is_some(), "{}", placed(&cluster));
        }
        prop_assert_eq!(invariant::check(cluster.state()), vec![]);
    }
}

/// How the pods of a group want to be.
#[derive(Clone, Copy, Debug)]
enum Wish {
    /// Each on a node where no other of the apps `g` and `s` is.
    Apart,
    /// Evenly over zones.
    Spread,
    /// In one zone.
    Near,
}

impl Wish {
    fn placement(self) -> PodPlacement {
        let when = WhenUnsatisfiable::DoNotSchedule;
        let apart = |app| term(app, "kubernetes.io/hostname");
        match self {
            Self::Apart => PodPlacement {
                pod_anti_affinity: Rare::some(PodAffinity {
                    required: vec![apart("g"), apart("s")],
                    preferred: vec![],
                }),
                ..PodPlacement::default()
            },
            Self::Spread => PodPlacement {
                topology_spread_constraints: vec![constraint("g", "zone", when)],
                ..PodPlacement::default()
            },
            Self::Near => {
                PodPlacement { pod_affinity: required(term("g", "zone")), ..PodPlacement::default() }
            }
        }
    }

    fn spec(self, cpu_millis: u64) -> PodSpec {
        let options = PodOptions { placement: Rare::some(self.placement()), ..PodOptions::default() };
        PodSpec { options: Rare::some(options), ..task(cpu_millis) }
    }
}

/// A pod of an app, and of the group `g` if it is of that app.
fn of_app(named: &str, app: &str, spec: PodSpec) -> Command {
    let mut object = pod(named, spec);
    object.meta_mut().labels = map(&[("app", app)]);
    if app == "g" {
        object.meta_mut().annotations = map(&[(ANNOTATION_POD_GROUP, "g")]);
    }
    Command::Create(object)
}

/// Nodes in two zones in turn.
fn zoned(nodes: &[u64]) -> Cluster {
    let mut cluster = Cluster::new();
    for (number, cpu_millis) in nodes.iter().enumerate() {
        let zone = if number % 2 == 0 { "a" } else { "b" };
        let labels = map(&[("zone", zone)]);
        let facts = bulkhead_types::NodeFacts { labels, ..facts(*cpu_millis, 64 * GIB, 200) };
        cluster.node(&format!("n{number}"), facts);
    }
    cluster
}

/// Tiny pods that keep coming would always be in the way of a group that wants its nodes for itself.
#[test]
fn pods_that_keep_a_group_off_do_not_starve_it() {
    let mut cluster = zoned(&[2000, 2000]);
    for number in 0..4 {
        cluster.ok(of_app(&format!("s{number}"), "s", task(100)));
    }
    cluster.converge();
    cluster.ok(Command::Create(group("g", 2, |_| ())));
    cluster.ok(of_app("g0", "g", Wish::Apart.spec(1000)));
    cluster.ok(of_app("g1", "g", Wish::Apart.spec(1000)));
    cluster.settle();
    for number in 0..4 {
        cluster.ok(of_app(&format!("t{number}"), "s", task(100)));
        end(&mut cluster, &format!("s{number}"));
        cluster.converge();
    }
    check_placed(&mut cluster, "g0 g1");
    // Beside services that never end it has no seats, and nobody waits for it.
    let mut cluster = zoned(&[2000, 2000]);
    cluster.ok(of_app("service", "s", PodSpec { node_name: Some("n0".into()), ..cpus(100) }));
    cluster.converge();
    cluster.ok(Command::Create(group("g", 2, |_| ())));
    cluster.ok(of_app("g0", "g", Wish::Apart.spec(1000)));
    cluster.ok(of_app("g1", "g", Wish::Apart.spec(1000)));
    cluster.settle();
    cluster.ok(of_app("x", "s", task(1900)));
    cluster.ok(of_app("y", "s", task(1900)));
    check_placed(&mut cluster, "service x y");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever comes, and whatever the group's pods want of each other and of others, the group is placed at the latest when
    /// those that were there have ended.
    #[test]
    fn a_group_that_looks_at_others_is_placed_when_what_was_there_has_ended(
        nodes in proptest::collection::vec(2u64..5, 2..6),
        there in proptest::collection::vec((1u64..4, any::<bool>()), 2..12),
        come in proptest::collection::vec((1u64..4, any::<bool>()), 4..20),
        wish in proptest::sample::select(vec![Wish::Apart, Wish::Spread, Wish::Near]),
    ) {
        let sizes: Vec<u64> = nodes.iter().map(|cores| cores * 1000).collect();
        let mut cluster = zoned(&sizes);
        let app = |is_small: &bool| if *is_small { "s" } else { "other" };
        for (number, (cores, of)) in there.iter().enumerate() {
            cluster.ok(of_app(&format!("s{number}"), app(of), task(cores * 500)));
        }
        cluster.converge();
        // As many as have room on empty nodes, however they want to be.
        let zone_a: u64 = nodes.iter().step_by(2).sum();
        let zone_b: u64 = nodes.iter().skip(1).step_by(2).sum();
        let count = match wish {
            Wish::Apart => nodes.len() as u64,
            Wish::Spread => 2 * zone_a.min(zone_b),
            Wish::Near => zone_a.max(zone_b),
        };
        cluster.ok(Command::Create(group("g", u32::try_from(count).unwrap(), |_| ())));
        for number in 0..count {
            cluster.ok(of_app(&format!("g{number}"), "g", wish.spec(1000)));
        }
        cluster.settle();
        let mut coming = come.iter().enumerate();
        for number in 0..there.len() {
            for (number, (cores, of)) in coming.by_ref().take(2) {
                cluster.ok(of_app(&format!("t{number}"), app(of), task(cores * 100)));
            }
            if find(&cluster, &format!("s{number}")).node.is_some() {
                end(&mut cluster, &format!("s{number}"));
            }
            cluster.converge();
        }
        for number in 0..there.len() {
            end(&mut cluster, &format!("s{number}"));
            cluster.converge();
        }
        for number in 0..count {
            prop_assert!(find(&cluster, &format!("g{number}")).node.is_some(), "{:?}: {}", wish, placed(&cluster));
        }
        prop_assert_eq!(invariant::check(cluster.state()), vec![]);
    }
}

#[test]
fn below_its_level_names_are_annotations() {
    let mut cluster = Cluster::at_level(Default::default(), 8);
    cluster.node("n0", facts(9000, 64 * GIB, 20));
    cluster.ok(noted("a", &[(ANNOTATION_POD_GROUP, "Not a name"), (ANNOTATION_QUEUE_NAME, "q")], cpus(1000)));
    cluster.ok(member("b", "g", cpus(1000)));
    check_placed(&mut cluster, "a b");
    let refused = cluster.submit(vec![Command::Create(queue("q", 1, &[], QueueState::Open))]);
    assert!(refused.is_err(), "{refused:?}");
    cluster.ok(Command::RaiseFeatureLevel { level: 9 });
    let bad = noted("c", &[(ANNOTATION_POD_GROUP, "Not a name")], cpus(1000));
    let reason = cluster.submit(vec![bad]).unwrap_err().to_string();
    assert!(reason.contains("metadata.annotations[scheduling.k8s.io/group-name]"), "{reason}");
}
