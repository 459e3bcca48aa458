//! In-place resizes: what is refused and how, what waits and for what, what is held meanwhile, and what agents say of them.

use std::sync::Arc;

use bulkhead_controlplane_core::intent::intent_of;
use bulkhead_controlplane_core::invariant;
use bulkhead_controlplane_core::reconcile::ReconcileConfig;
use bulkhead_types::{
    ActualSizes, Command, ContainerOptions, ContainerSize, HugePages, Kind, NodeFacts, Object, Pod, PodPhase,
    PodReport, PodSpec, PodStatus, Rare, Rejection, ResizeStage, ResourceRequirements, Resources,
};
use expect_test::{Expect, expect};
use proptest::prelude::*;

use crate::kit::{Cluster, GIB, Say, facts, pod, pod_spec, reference};
use crate::quota_kit::quota;

const MIB: u64 = 1 << 20;

fn amounts(cpu_millis: impl Into<Option<u64>>, memory_bytes: impl Into<Option<u64>>) -> ResourceRequirements {
    let (cpu_millis, memory_bytes) = (cpu_millis.into(), memory_bytes.into());
    ResourceRequirements { cpu_millis, memory_bytes, ephemeral_storage_bytes: None }
}

/// Other requests of the container `main`.
fn requests(cpu_millis: impl Into<Option<u64>>, memory_bytes: impl Into<Option<u64>>) -> ContainerSize {
    let requests = amounts(cpu_millis, memory_bytes);
    ContainerSize { name: "main".into(), requests, limits: ResourceRequirements::default() }
}

fn resize(change: ContainerSize) -> Command {
    Command::ResizePod { pod: reference(Kind::Pod, "a"), containers: vec![change] }
}

/// A pod `a` on a node with 4 CPUs and 4 GiB.
fn cluster_with(object: Object) -> Cluster {
    let mut cluster = Cluster::new();
    cluster.node("n", facts(4000, 4 * GIB, 10));
    cluster.ok(Command::Create(object));
    cluster.converge();
    cluster
}

fn cluster() -> Cluster {
    cluster_with(pod("a", pod_spec("web:1", 1000, GIB)))
}

fn the_pod(cluster: &Cluster, named: &str) -> Arc<Pod> {
    match cluster.state().find_object(&reference(Kind::Pod, named)) {
        Some(Object::Pod(pod)) => pod,
        _ => panic!("no pod {named}"),
    }
}

/// What the pod holds, wants, and is told to become; where its resize stands.
fn show(cluster: &Cluster) -> String {
    let pod = the_pod(cluster, "a");
    let size = |spec: &PodSpec| {
        let requests = spec.containers[0].requests;
        format!("{}m/{}Mi", requests.cpu_millis.unwrap(), requests.memory_bytes.unwrap() / MIB)
    };
    let intent = intent_of(cluster.state(), pod.node.unwrap()).unwrap();
    let wanted = intent.pods.iter().find(|one| one.id == pod.meta.id).unwrap();
    let conditions = pod.conditions();
    let condition = conditions.iter().find(|one| one.condition_type.starts_with("PodResize"));
    let condition =
        condition.map_or("done".to_owned(), |c| format!("{} {} {}", c.condition_type, c.reason, c.message));
    let told = if wanted.resizing { " (told)" } else { "" };
    let (held, desired) = (size(&pod.spec), size(&pod.desired_spec()));
    format!("holds {held}, wants {desired}, agent: {}{told}; {condition}", size(&wanted.spec))
        .trim_end()
        .to_owned()
}

/// The agent says what the containers have, and what it could not do.
fn say(cluster: &mut Cluster, has: Vec<ContainerSize>, failure: Option<(Vec<ContainerSize>, bool)>) {
    let pod = the_pod(cluster, "a");
    let node = cluster.state().nodes().get(pod.node.unwrap()).unwrap().clone();
    cluster.sequence += 1;
    let mut actual = ActualSizes { containers: has, ..ActualSizes::default() };
    if let Some((wanted, refused)) = failure {
        (actual.wanted, actual.refused) = (wanted, refused);
        (actual.reason, actual.message) = ("GuestCannotResize".into(), "it is too old".to_owned());
    }
    let actual = Rare::some(actual);
    let status = PodStatus { phase: PodPhase::Running, ready: true, actual, ..PodStatus::default() };
    let report = PodReport { pod: pod.meta.id, sequence: cluster.sequence, status, gone: false };
    let (node, incarnation) = (node.meta.id, node.status.incarnation);
    cluster.ok(Command::ReportPods { node, incarnation, reports: vec![report] });
}

fn desired(cluster: &Cluster) -> Vec<ContainerSize> {
    the_pod(cluster, "a").desired_spec().sizes()
}

/// The agent has done what was wanted.
fn done(cluster: &mut Cluster) {
    let has = desired(cluster);
    say(cluster, has, None);
}

#[test]
fn what_grows_is_held_at_once_and_what_shrinks_until_the_agent_gave_it_back() {
    let mut cluster = cluster();
    let before = cluster.state().node_usage(the_pod(&cluster, "a").node.unwrap());
    cluster.ok(resize(requests(2000, GIB / 2)));
    expect!["holds 2000m/1024Mi, wants 2000m/512Mi, agent: 2000m/512Mi (told); PodResizeInProgress"]
        .assert_eq(&show(&cluster));
    assert_eq!(the_pod(&cluster, "a").meta.generation, 2);
    done(&mut cluster);
    expect!["holds 2000m/512Mi, wants 2000m/512Mi, agent: 2000m/512Mi; done"].assert_eq(&show(&cluster));
    cluster.ok(resize(requests(1000, GIB)));
    done(&mut cluster);
    assert_eq!(cluster.state().node_usage(the_pod(&cluster, "a").node.unwrap()), before);
    assert_eq!(the_pod(&cluster, "a").meta.generation, 3);
    assert_eq!(invariant::check(cluster.state()), []);
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
}

#[test]
fn who_has_no_room_waits_for_it_and_who_never_has_is_told() {
    let mut cluster = cluster();
    cluster.ok(Command::Create(pod("b", pod_spec("web:1", 2500, GIB))));
    cluster.converge();
    cluster.ok(resize(requests(2000, None)));
    expect!["holds 1000m/1024Mi, wants 2000m/1024Mi, agent: 1000m/1024Mi; PodResizePending Deferred Node n: Insufficient cpu"]
        .assert_eq(&show(&cluster));
    cluster.advance(120_000);
    assert!(show(&cluster).contains("Deferred"), "nothing came of it");
    let b = the_pod(&cluster, "b").meta.id;
    cluster.ok(Command::Delete { object: reference(Kind::Pod, "b"), grace_ms: None, force: false });
    cluster.settle();
    assert!(show(&cluster).contains("Deferred"), "it is still there");
    cluster.say(b, Say::Gone);
    cluster.settle();
    expect!["holds 2000m/1024Mi, wants 2000m/1024Mi, agent: 2000m/1024Mi (told); PodResizeInProgress"]
        .assert_eq(&show(&cluster));
    // Another wish takes the place of one that is under way.
    cluster.ok(resize(requests(5000, None)));
    expect!["holds 2000m/1024Mi, wants 5000m/1024Mi, agent: 2000m/1024Mi; PodResizePending Infeasible Node n has less than that altogether, whoever else is there"]
        .assert_eq(&show(&cluster));
    cluster.advance(120_000);
    assert!(show(&cluster).contains("Infeasible"), "it is not tried again");
    // And what it holds is no wish any more.
    cluster.ok(resize(requests(2000, None)));
    expect!["holds 2000m/1024Mi, wants 2000m/1024Mi, agent: 2000m/1024Mi; done"].assert_eq(&show(&cluster));
}

#[test]
fn a_new_leader_knows_who_waits() {
    let mut cluster = cluster();
    cluster.ok(Command::Create(pod("b", pod_spec("web:1", 2500, GIB))));
    cluster.converge();
    cluster.ok(resize(requests(2000, None)));
    let b = the_pod(&cluster, "b").meta.id;
    cluster.say(b, Say::Failed);
    cluster.new_leader();
    cluster.settle();
    assert!(show(&cluster).contains("PodResizeInProgress"), "{}", show(&cluster));
}

#[test]
fn what_a_guest_cannot_is_infeasible_and_holds_nothing() {
    let mut cluster = cluster();
    let had = desired(&cluster);
    cluster.ok(resize(requests(2000, 2 * GIB)));
    let wanted = desired(&cluster);
    say(&mut cluster, had.clone(), Some((wanted.clone(), false)));
    expect!["holds 2000m/2048Mi, wants 2000m/2048Mi, agent: 2000m/2048Mi (told); PodResizeInProgress Error GuestCannotResize: it is too old"]
        .assert_eq(&show(&cluster));
    // Of another wish: it is passed over.
    say(&mut cluster, had.clone(), Some((had.clone(), true)));
    assert!(show(&cluster).contains("PodResizeInProgress"));
    // No agent makes a pod count for more than it was given.
    let mut more = had.clone();
    more[0].requests.cpu_millis = Some(9000);
    say(&mut cluster, more, Some((wanted.clone(), true)));
    assert!(show(&cluster).starts_with("holds 2000m/2048Mi"), "{}", show(&cluster));
    cluster.ok(resize(requests(2500, None)));
    let wanted = desired(&cluster);
    say(&mut cluster, had, Some((wanted, true)));
    expect!["holds 1000m/1024Mi, wants 2500m/2048Mi, agent: 1000m/1024Mi; PodResizePending Infeasible GuestCannotResize: it is too old"]
        .assert_eq(&show(&cluster));
    assert_eq!(invariant::check(cluster.state()), []);
}

#[test]
fn who_waits_for_a_node_gets_what_a_resize_gives_back() {
    let mut cluster = cluster_with(pod("a", pod_spec("web:1", 3000, GIB)));
    cluster.ok(Command::Create(pod("b", pod_spec("web:1", 2000, GIB))));
    cluster.converge();
    assert_eq!(the_pod(&cluster, "b").node, None);
    cluster.ok(resize(requests(1500, None)));
    cluster.converge();
    assert_eq!(the_pod(&cluster, "b").node, None, "the guest has it still");
    done(&mut cluster);
    cluster.converge();
    assert!(the_pod(&cluster, "b").node.is_some());
}

/// What is said of a resize of a pod `a`.
#[track_caller]
fn check(object: Object, command: Command, expected: Expect) {
    let mut cluster = cluster_with(object);
    let before = cluster.state().digest();
    let said = cluster
        .submit(vec![command])
        .map_or_else(|error: Rejection| error.to_string(), |_| "done".to_owned());
    assert!(said == "done" || cluster.state().digest() == before, "a refusal changes nothing");
    expected.assert_eq(&said);
}

#[test]
fn refusals_name_field_reason_and_remedy() {
    let plain = || pod("a", pod_spec("web:1", 1000, GIB));
    let named = |text: &str| ContainerSize { name: text.into(), ..requests(500, None) };
    check(
        plain(),
        resize(named("x")),
        expect![
            "Pod default/a: spec.containers[x].resources: is of no container of this pod; name one of those that `describe pod` lists"
        ],
    );
    let two =
        Command::ResizePod { pod: reference(Kind::Pod, "a"), containers: vec![named("main"), named("main")] };
    check(plain(), two, expect!["Pod default/a: spec.containers[main].resources: is said twice"]);
    let mut storage = requests(None, None);
    storage.requests.ephemeral_storage_bytes = Some(1);
    check(
        plain(),
        resize(storage),
        expect![
            "Pod default/a: spec.containers[main].resources: ephemeral-storage cannot change while a pod runs; resize cpu and memory only, or create the pod anew"
        ],
    );
    let limits = ContainerSize { limits: amounts(1000, GIB), ..requests(None, None) };
    check(
        plain(),
        resize(limits),
        expect![
            "Pod default/a: spec.containers: the pod's QoS class would change from Burstable to Guaranteed; keep limits and requests in the relation that they have, or create the pod anew"
        ],
    );
    let low = ContainerSize { limits: amounts(500, None), ..requests(None, None) };
    check(
        plain(),
        resize(low),
        expect!["Pod default/a: spec.containers[0].resources.requests.cpu: 1 is above the limit of 500m"],
    );
    let unknown = Command::ResizePod { pod: reference(Kind::Pod, "z"), containers: vec![named("main")] };
    check(plain(), unknown, expect!["Pod default/z: does not exist"]);
    let of_deployment =
        Command::ResizePod { pod: reference(Kind::Node, "n"), containers: vec![named("main")] };
    check(
        plain(),
        of_deployment,
        expect![
            "Node n: cannot be resized: only pods can; change its template, which replaces its pods, or resize a pod of it"
        ],
    );
    let huge = pod("a", pod_spec("web:1", 100_000, GIB));
    check(
        huge,
        resize(requests(500, None)),
        expect![
            "Pod default/a: waits for a node: nothing was allocated to it yet; resize it when it has one, or delete it and create it with other resources"
        ],
    );
    let mut spec = pod_spec("web:1", 1000, GIB);
    spec.init_containers.push(bulkhead_types::Container {
        name: "init".into(),
        image: "i:1".into(),
        ..Default::default()
    });
    check(
        pod("a", spec),
        resize(named("init")),
        expect![
            "Pod default/a: spec.containers[init].resources: is of an init container that ends before the others start; resize containers, and init containers with restartPolicy Always"
        ],
    );
}

#[test]
fn memory_that_a_guest_has_from_the_start_stays_as_large() {
    let of = |two_mib_bytes| HugePages { two_mib_bytes, one_gib_bytes: 0 };
    let plain = facts(4000, 4 * GIB, 10);
    let all = Resources { huge_pages: of(64 * MIB), ..plain.allocatable };
    let mut cluster = Cluster::new();
    cluster.node("n", NodeFacts { allocatable: all, capacity: all, ..plain });
    let mut spec = pod_spec("web:1", 1000, GIB);
    let options = ContainerOptions { huge_pages: of(32 * MIB), ..ContainerOptions::default() };
    spec.containers[0].options = Rare::some(options);
    cluster.ok(Command::Create(pod("a", spec)));
    cluster.converge();
    let refused = cluster.submit(vec![resize(requests(None, 2 * GIB))]).expect_err("it has huge pages");
    expect!["Pod default/a: has devices of its node or huge pages, so its guest's memory is had from the start and stays as large; resize cpu only, or create it anew"]
        .assert_eq(&refused.to_string());
    cluster.ok(resize(requests(2000, None)));
}

#[test]
fn a_quota_is_charged_the_difference() {
    let mut cluster = cluster();
    cluster.ok(Command::Apply(quota("default", "compute", &[("cpu", 1500)])));
    let refused = cluster.submit(vec![resize(requests(1600, None))]).unwrap_err();
    expect!["Pod default/a: does not fit in ResourceQuota default/compute: requests.cpu: 600m asked for, 500m of 1500m left; ask for less, end what is not needed, or raise that quota"]
        .assert_eq(&refused.to_string());
    cluster.ok(resize(requests(1500, None)));
    assert!(
        cluster.submit(vec![Command::Create(pod("b", pod_spec("web:1", 100, MIB)))]).is_err(),
        "nothing is left"
    );
    cluster.ok(resize(requests(1000, None)));
    assert!(
        cluster.submit(vec![Command::Create(pod("b", pod_spec("web:1", 100, MIB)))]).is_err(),
        "it is not back yet"
    );
    done(&mut cluster);
    cluster.ok(Command::Create(pod("b", pod_spec("web:1", 100, MIB))));
    assert_eq!(invariant::check(cluster.state()), []);
}

#[test]
fn an_applied_manifest_may_say_either_and_nothing_else() {
    let mut cluster = cluster();
    cluster.ok(resize(requests(2000, None)));
    let apply = |cpu| Command::Apply(pod("a", pod_spec("web:1", cpu, GIB)));
    cluster.ok(apply(2000));
    let refused = cluster.submit(vec![apply(500)]).unwrap_err();
    expect!["Pod default/a: spec: a pod's spec cannot change; cpu and memory of a pod that runs change with `bulkhead resize pod`"]
        .assert_eq(&refused.to_string());
    let other = Command::Apply(pod("a", pod_spec("web:2", 2000, GIB)));
    assert!(cluster.submit(vec![other]).unwrap_err().to_string().ends_with("create it anew"));
}

#[test]
fn a_cluster_of_an_earlier_level_refuses() {
    let mut cluster = Cluster::at_level(ReconcileConfig::default(), 12);
    cluster.node("n", facts(4000, 4 * GIB, 10));
    cluster.ok(Command::Create(pod("a", pod_spec("web:1", 1000, GIB))));
    cluster.converge();
    let refused = cluster.submit(vec![resize(requests(2000, None))]).unwrap_err();
    expect!["featureLevel: needs level 13, the cluster runs at level 12; upgrade every server, then run `bulkhead cluster feature-level set 13`"]
        .assert_eq(&refused.to_string());
}

#[derive(Clone, Debug)]
enum Op {
    Resize(usize, u64, u64),
    Done(usize),
    Refused(usize),
    Create(usize, u64),
    Gone(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..4usize, 1..50u64, 1..40u64).prop_map(|(pod, cpu, memory)| Op::Resize(pod, cpu * 100, memory * 64 * MIB)),
        3 => (0..4usize).prop_map(Op::Done),
        1 => (0..4usize).prop_map(Op::Refused),
        3 => (0..4usize, 1..30u64).prop_map(|(pod, cpu)| Op::Create(pod, cpu * 100)),
        1 => (0..4usize).prop_map(Op::Gone),
    ]
}

/// What an agent says of a pod, whichever node it is on.
fn tell(cluster: &mut Cluster, named: &str, refused: bool) {
    let Some(Object::Pod(pod)) = cluster.state().find_object(&reference(Kind::Pod, named)) else { return };
    let Some(node) = pod.node.and_then(|node| cluster.state().nodes().get(node)).cloned() else { return };
    cluster.sequence += 1;
    let wanted = pod.desired_spec().sizes();
    let actual = match refused {
        true => {
            let containers =
                pod.status.actual.get().map_or_else(|| pod.spec.sizes(), |actual| actual.containers.clone());
            ActualSizes { containers, wanted, refused, reason: "Cannot".into(), ..ActualSizes::default() }
        }
        false => ActualSizes { containers: wanted, ..ActualSizes::default() },
    };
    let actual = Rare::some(actual);
    let status = PodStatus { phase: PodPhase::Running, ready: true, actual, ..PodStatus::default() };
    let report = PodReport { pod: pod.meta.id, sequence: cluster.sequence, status, gone: false };
    cluster.ok(Command::ReportPods {
        node: node.meta.id,
        incarnation: node.status.incarnation,
        reports: vec![report],
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever is resized, done, refused, created and gone: no node holds too much, every index is what its objects say (also that
    /// of quotas), and the events alone make the same State.
    #[test]
    fn ledgers_follow_resizes(ops in proptest::collection::vec(op(), 1..30)) {
        let mut cluster = Cluster::new();
        cluster.node("n", facts(4000, 4 * GIB, 10));
        cluster.ok(Command::Apply(quota("default", "compute", &[("cpu", 6000), ("memory", 5 * GIB)])));
        for op in ops {
            let named = |number: usize| ["a", "b", "c", "d"][number];
            match op {
                Op::Resize(pod, cpu, memory) => {
                    let containers = vec![requests(cpu, memory)];
                    let _ = cluster.submit(vec![Command::ResizePod { pod: reference(Kind::Pod, named(pod)), containers }]);
                }
                Op::Done(pod) => tell(&mut cluster, named(pod), false),
                Op::Refused(pod) => tell(&mut cluster, named(pod), true),
                Op::Create(number, cpu) => {
                    let _ = cluster.submit(vec![Command::Create(pod(named(number), pod_spec("web:1", cpu, 64 * MIB)))]);
                }
                Op::Gone(number) => {
                    let object = reference(Kind::Pod, named(number));
                    if cluster.submit(vec![Command::Delete { object: object.clone(), grace_ms: None, force: false }]).is_ok() {
                        let id = cluster.state().find_object(&object).map(|found| found.meta().id);
                        id.into_iter().for_each(|id| cluster.say(id, Say::Gone));
                    }
                }
            }
            cluster.settle();
            prop_assert_eq!(invariant::check(cluster.state()), []);
        }
        prop_assert_eq!(cluster.replayed().digest(), cluster.state().digest());
        for one in cluster.state().pods().iter().filter(|pod| pod.status.phase == PodPhase::Running) {
            let stage = one.resize().map(|resize| resize.stage);
            prop_assert!(stage != Some(ResizeStage::Deferred) || one.node.is_some());
        }
    }
}
