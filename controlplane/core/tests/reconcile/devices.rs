//! Devices: classes, requests, the ledger, health, fences and quotas, over a real machine.

use bulkhead_controlplane_core::intent::intent_of;
use bulkhead_controlplane_core::reconcile::ReconcileConfig;
use bulkhead_controlplane_core::reconcile::fencing::fence_after_ms;
use bulkhead_types::{
    AllocatedDevice, Binding, Command, DEVICES_LEVEL, DeviceReport, Kind, Measure, NodeFacts, Object,
    ObjectId, PodPhase, PodReport, PodStatus, REASON_DEVICE_LOST, REASON_DEVICE_UNHEALTHY, RejectionCode,
};

use crate::device_kit::{asking, card, cards, cordon, gpu_pod, shared_pod, sick};
use crate::kit::{Cluster, GIB, Say, facts, map, name, pod, reference, replica_set};
use crate::quota_kit::{project, quota};

fn create(cluster: &mut Cluster, objects: impl IntoIterator<Item = Object>) {
    objects.into_iter().for_each(|object| cluster.ok(Command::Create(object)));
}

#[test]
fn classes_come_with_the_first_node_that_has_devices_and_an_administrators_wins() {
    let mut cluster = Cluster::new();
    cluster.nodes(1);
    cluster.rest();
    assert!(cluster.state().device_classes().is_empty(), "nobody has devices");
    let node = cluster.device_node("node-d", cards(2));
    create(&mut cluster, [gpu_pod("a", 1)]);
    cluster.rest();
    assert_eq!(cluster.counts(node, "nvidia.com/gpu"), "2/2/1");
    assert_eq!(cluster.holds("a"), "node-d: GPU-0");
    // A class that says more closely what it means has the devices: pods that hold one keep it.
    let own = "apiVersion: bulkhead.io/v1\nkind: DeviceClass\nmetadata: {name: lab}\n\
        spec: {extendedResourceName: example.com/v100, selector: {vendors: ['10de'], devices: ['1db1']}}\n";
    let source = bulkhead_manifest::Source { name: "-".to_owned(), text: own.to_owned() };
    let own = bulkhead_manifest::parse(&[source], None).expect("a class").remove(0).object;
    cluster.ok(Command::Apply(own));
    create(&mut cluster, [gpu_pod("b", 1), pod("c", asking(&[("example.com/v100", 1)]))]);
    cluster.rest();
    assert_eq!(cluster.holds("c"), "node-d: GPU-1");
    assert_eq!(cluster.holds("b"), "Unschedulable 0/2 nodes are available: 2 Insufficient nvidia.com/gpu.");
    // One that comes with the program comes back.
    let object = reference(Kind::DeviceClass, "nvidia-gpu");
    cluster.ok(Command::Delete { object: object.clone(), grace_ms: None, force: false });
    cluster.rest();
    assert!(cluster.state().find_object(&object).is_some());
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
}

#[test]
fn who_waits_is_told_why() {
    let mut cluster = Cluster::new();
    cluster.device_node("node-0", cards(1));
    let id = cluster.node("node-1", facts(64_000, 256 * GIB, 100));
    cluster.tell_devices(id, cards(4));
    create(&mut cluster, [gpu_pod("two", 2), pod("odd", asking(&[("example.com/x", 1)])), gpu_pod("one", 1)]);
    cluster.rest();
    assert_eq!(
        cluster.holds("two"),
        "Unschedulable 0/2 nodes are available: 1 Insufficient nvidia.com/gpu, 1 node(s) cannot attach devices."
    );
    assert_eq!(
        cluster.holds("odd"),
        "Unschedulable container main: example.com/x is a resource of no DeviceClass: apply a DeviceClass that has it, \
         or ask for another resource"
    );
    assert_eq!(cluster.holds("one"), "node-0: GPU-0");
    // A device that comes back helps who waits.
    cluster.tell_devices(cluster.state().find(Kind::Node, None, &name("node-0")).unwrap(), cards(3));
    cluster.rest();
    assert_eq!(cluster.holds("two"), "node-0: GPU-1+GPU-2");
}

#[test]
fn requests_that_no_node_could_meet_are_refused() {
    let mut cluster = Cluster::new();
    cluster.device_node("node-0", cards(1));
    cluster.rest();
    let mut check = |asks: &[(&str, u64)], expected: &str| {
        let refused = cluster.submit(vec![Command::Create(pod("a", asking(asks)))]).expect_err("refused");
        assert_eq!(refused.code, RejectionCode::Invalid);
        assert_eq!(
            refused.to_string().replace("Pod default/a: spec.containers[0].resources.limits", "limits"),
            expected
        );
    };
    let memory = "limits[nvidia.com/gpumem]: is asked for without nvidia.com/vgpu; it is of each card: say how many cards as well";
    check(&[("nvidia.com/gpumem", 200)], memory);
    let cores =
        "limits[nvidia.com/gpucores]: is 101; 0 is not isolated, 100 is the whole card, more there is not";
    check(&[("nvidia.com/vgpu", 1), ("nvidia.com/gpucores", 101)], cores);
    check(
        &[("nvidia.com/gpu", 65)],
        "limits[nvidia.com/gpu]: is 65; no node gives a pod more than 64 devices",
    );
}

#[test]
fn pain_01_and_03_no_device_is_given_twice_however_bindings_arrive() {
    let mut cluster = Cluster::new();
    let node = cluster.device_node("node-0", cards(2));
    cluster.rest();
    create(&mut cluster, [gpu_pod("a", 1), gpu_pod("b", 1), gpu_pod("c", 2), shared_pod("d", 1, 1024, 0)]);
    let given = |resource: &str, device: &str| AllocatedDevice {
        container: "main".into(),
        resource: resource.into(),
        device: device.into(),
        share: None,
    };
    let bind = |cluster: &Cluster, pod: &str, devices: &[(&str, &str)]| Binding {
        pod: cluster.pod_named(pod).meta.id,
        node,
        nodes_considered: 1,
        score: 0,
        devices: devices.iter().map(|(resource, device)| given(resource, device)).collect(),
        networks: vec![],
        cpus: Default::default(),
    };
    let gpu = "nvidia.com/gpu";
    // In one command, in two, with too few, too many, another one's, none at all, and what is not there.
    let wrong: [&[(&str, &str)]; 6] = [
        &[],
        &[(gpu, "GPU-9")],
        &[(gpu, "GPU-0"), (gpu, "GPU-1")],
        &[("nvidia.com/vgpu", "GPU-0")],
        &[("ecnf.io/sriov", "GPU-0")],
        &[(gpu, "GPU-0"), (gpu, "GPU-0")],
    ];
    for devices in wrong {
        let binding = bind(&cluster, "a", devices);
        cluster.ok(Command::BindPods { bindings: vec![binding] });
        assert_eq!(cluster.pod_named("a").node, None, "{devices:?}");
    }
    let twice = vec![bind(&cluster, "a", &[(gpu, "GPU-0")]), bind(&cluster, "b", &[(gpu, "GPU-0")])];
    cluster.ok(Command::BindPods { bindings: twice });
    assert_eq!((cluster.holds("a").as_str(), cluster.pod_named("b").node), ("node-0: GPU-0", None));
    let double = bind(&cluster, "c", &[(gpu, "GPU-1"), (gpu, "GPU-1")]);
    cluster.ok(Command::BindPods { bindings: vec![double] });
    let late = bind(&cluster, "b", &[(gpu, "GPU-0")]);
    cluster.ok(Command::BindPods { bindings: vec![late] });
    cluster.rest();
    assert_eq!(cluster.holds("b"), "node-0: GPU-1");
    assert_eq!(cluster.counts(node, gpu), "2/2/2");
    assert!(cluster.holds("d").contains("Insufficient nvidia.com/vgpu"), "{}", cluster.holds("d"));
}

#[test]
fn pain_04_pods_of_different_runs_get_different_cards() {
    let mut cluster = Cluster::new();
    cluster.device_node("node-0", cards(4));
    for (pod, expected) in [("a", "GPU-0"), ("b", "GPU-1"), ("c", "GPU-2"), ("d", "GPU-3")] {
        create(&mut cluster, [gpu_pod(pod, 1)]);
        cluster.rest();
        assert_eq!(cluster.holds(pod), format!("node-0: {expected}"));
    }
    // What ended gives its card back, and only that one.
    let id = cluster.pod_named("c").meta.id;
    cluster.say(id, Say::Failed);
    create(&mut cluster, [gpu_pod("e", 1), gpu_pod("f", 1)]);
    cluster.rest();
    assert_eq!(cluster.holds("e"), "node-0: GPU-2");
    assert!(cluster.holds("f").contains("Insufficient nvidia.com/gpu"));
}

#[test]
fn pain_05_the_pods_record_its_node_and_the_intent_are_one_decision() {
    let mut cluster = Cluster::new();
    let node = cluster.device_node("node-0", cards(2));
    create(&mut cluster, [gpu_pod("a", 2)]);
    cluster.rest();
    let intent = intent_of(cluster.state(), node).unwrap();
    let shown: Vec<_> =
        intent.pods[0].devices.iter().map(|one| (one.device.as_str(), one.address.as_str())).collect();
    assert_eq!(shown, [("GPU-0", "0000:10:00.0"), ("GPU-1", "0000:11:00.0")]);
    assert!(intent.pods[0].unique, "what has devices ends with its node's lease");
    // What an agent says changes nothing of it.
    let pod = cluster.pod_named("a");
    cluster.say(pod.meta.id, Say::Ready);
    assert_eq!(cluster.pod_named("a").devices(), pod.devices());
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
}

#[test]
fn pain_16_a_device_that_fails_touches_the_pod_that_has_it_and_nobody_else() {
    let mut cluster = Cluster::new();
    let node = cluster.device_node("node-0", cards(3));
    create(&mut cluster, [gpu_pod("a", 1), gpu_pod("b", 1)]);
    cluster.converge();
    let before = cluster.pod_named("b");
    cluster.tell_changes(node, vec![sick(0), sick(2)], &[]);
    let a = cluster.pod_named("a");
    assert_eq!(a.status.reason, REASON_DEVICE_UNHEALTHY);
    assert_eq!(a.status.message, "device GPU-0 of container main is unhealthy: Xid48");
    assert_eq!(cluster.counts(node, "nvidia.com/gpu"), "3/1/2");
    // It is still said after the agent's next word, which knows nothing of it.
    cluster.say(a.meta.id, Say::Ready);
    assert_eq!(cluster.pod_named("a").status.reason, REASON_DEVICE_UNHEALTHY);
    create(&mut cluster, [gpu_pod("c", 1)]);
    cluster.rest();
    assert!(cluster.holds("c").contains("Insufficient nvidia.com/gpu"), "{}", cluster.holds("c"));
    // One that is well again says so no more; one that is gone is told to the agent, and stays its pod's until that ended.
    cluster.tell_changes(node, vec![card(0)], &["GPU-2"]);
    assert_eq!(cluster.pod_named("a").status.reason, "");
    cluster.tell_changes(node, vec![], &["GPU-0"]);
    assert_eq!(cluster.pod_named("a").status.reason, REASON_DEVICE_LOST);
    let intent = intent_of(cluster.state(), node).unwrap();
    let lost: Vec<_> = intent.pods.iter().map(|pod| pod.devices[0].lost).collect();
    assert_eq!(lost, [true, false]);
    assert_eq!(cluster.pod_named("b"), before);
    cluster.say(a.meta.id, Say::Failed);
    assert_eq!(cluster.pod_named("a").status.phase, PodPhase::Failed);
    cluster.tell_devices(node, cards(3));
    cluster.rest();
    assert_eq!(cluster.holds("c"), "node-0: GPU-0");
}

#[test]
fn a_fenced_card_is_given_to_nobody_new() {
    let mut cluster = Cluster::new();
    let node = cluster.device_node("node-0", cards(2));
    create(&mut cluster, [gpu_pod("a", 1)]);
    cluster.rest();
    for device in ["GPU-0", "1"] {
        cluster.ok(cordon("node-0", device, true));
    }
    create(&mut cluster, [gpu_pod("b", 1)]);
    cluster.rest();
    assert_eq!(cluster.counts(node, "nvidia.com/gpu"), "2/0/1");
    assert!(cluster.holds("b").contains("Insufficient nvidia.com/gpu"));
    assert_eq!(cluster.holds("a"), "node-0: GPU-0", "whoever has it keeps it");
    cluster.ok(cordon("node-0", "0000:11:00.0", false));
    cluster.rest();
    assert_eq!(cluster.holds("b"), "node-0: GPU-1");
    let refused = cluster.submit(vec![cordon("node-0", "GPU-7", true)]).expect_err("no such device");
    assert_eq!(refused.code, RejectionCode::NotFound);
}

#[test]
fn pain_02_a_device_that_somebody_else_uses_is_not_offered() {
    let mut cluster = Cluster::new();
    let mut devices = cards(2);
    devices[0].in_use_by = "host driver nvidia".into();
    let node = cluster.device_node("node-0", devices);
    create(&mut cluster, [gpu_pod("a", 1), gpu_pod("b", 1)]);
    cluster.rest();
    assert_eq!(
        (cluster.holds("a").as_str(), cluster.counts(node, "nvidia.com/gpu").as_str()),
        ("node-0: GPU-1", "2/1/1")
    );
    assert!(cluster.holds("b").contains("Insufficient nvidia.com/gpu"));
}

/// A set of pods that ask for a card each.
fn gpu_set(text: &str, replicas: u32) -> Object {
    replica_set(text, replicas, asking(&[("nvidia.com/gpu", 1)]))
}

#[test]
fn what_has_devices_is_over_on_a_lost_node_only_when_that_is_fenced() {
    let mut cluster = Cluster::new();
    let node = cluster.device_node("node-0", cards(1));
    create(&mut cluster, [gpu_set("train", 1)]);
    cluster.converge();
    let first = cluster.active_pods()[0].clone();
    cluster.silent.push(node);
    cluster.advance(60_000);
    let force = Command::Delete {
        object: bulkhead_types::ObjectRef {
            kind: Kind::Pod,
            namespace: first.meta.namespace.clone(),
            name: first.meta.name.clone(),
        },
        grace_ms: None,
        force: true,
    };
    let config = ReconcileConfig::default();
    if fence_after_ms(config.lease_ms, config.fence_kill_ms) > 60_000 {
        cluster.ok(force);
        assert!(cluster.state().pods().get(first.meta.id).is_some(), "its guest may live");
        assert_eq!(cluster.counts(node, "nvidia.com/gpu"), "1/1/1");
    }
    cluster.advance(fence_after_ms(config.lease_ms, config.fence_kill_ms));
    assert_eq!(cluster.counts(node, "nvidia.com/gpu"), "1/1/0", "its guest is dead");
    assert!(cluster.active_pods().iter().all(|pod| pod.devices().is_empty()), "a fenced node takes nobody");
}

#[test]
fn a_session_tells_everything_and_then_what_changed() {
    let mut cluster = Cluster::new();
    let labels = map(&[(bulkhead_types::LABEL_DEVICES, "true")]);
    let node = cluster.node("node-0", NodeFacts { labels, ..facts(64_000, 256 * GIB, 100) });
    let report = |cluster: &mut Cluster, incarnation, sequence, snapshot, indexes: &[u32]| {
        let devices = indexes.iter().map(|index| card(*index)).collect();
        let report = DeviceReport { sequence, snapshot, devices, removed: vec![], ..DeviceReport::default() };
        cluster.submit(vec![Command::ReportDevices { node, incarnation, report }]).map(drop)
    };
    let ids = |cluster: &Cluster| {
        let slice = cluster.state().resource_slice_of(node);
        slice.map(|slice| slice.devices.iter().map(|device| device.index).collect::<Vec<_>>())
    };
    report(&mut cluster, 1, 1, false, &[0]).unwrap();
    assert_eq!(ids(&cluster), None, "changes of nothing");
    report(&mut cluster, 1, 2, true, &[0, 1]).unwrap();
    report(&mut cluster, 1, 4, false, &[2]).unwrap();
    report(&mut cluster, 1, 3, true, &[0]).unwrap();
    assert_eq!(ids(&cluster), Some(vec![0, 1, 2]), "an older report comes late");
    let labels = map(&[(bulkhead_types::LABEL_DEVICES, "true")]);
    cluster.node("node-0", NodeFacts { labels, ..facts(64_000, 256 * GIB, 100) });
    assert_eq!(report(&mut cluster, 1, 5, true, &[]).unwrap_err().code, RejectionCode::StaleIncarnation);
    report(&mut cluster, 2, 1, false, &[7]).unwrap();
    assert_eq!(ids(&cluster), Some(vec![0, 1, 2]), "changes without this session's beginning");
    report(&mut cluster, 2, 2, true, &[1]).unwrap();
    assert_eq!(ids(&cluster), Some(vec![1]));
    assert_eq!(report(&mut cluster, 2, 3, true, &[1, 1]).unwrap_err().code, RejectionCode::Invalid);
    // With its node it is gone.
    cluster.ok(Command::Delete { object: reference(Kind::Node, "node-0"), grace_ms: None, force: false });
    assert!(cluster.state().resource_slices().is_empty());
}

#[test]
fn below_their_level_there_are_no_devices() {
    let mut cluster = Cluster::at_level(ReconcileConfig::default(), DEVICES_LEVEL - 1);
    let node = cluster.node("node-0", facts(64_000, 256 * GIB, 100));
    let report = DeviceReport {
        sequence: 1,
        snapshot: true,
        devices: cards(1),
        removed: vec![],
        ..DeviceReport::default()
    };
    for command in [
        Command::ReportDevices { node, incarnation: 1, report },
        Command::Create(gpu_pod("a", 1)),
        Command::Create(quota("default", "q", &[("requests.nvidia.com/gpu", 1)])),
    ] {
        let refused = cluster.submit(vec![command]).expect_err("below the level");
        assert!(refused.to_string().contains("needs level 8"), "{refused}");
    }
}

#[test]
fn pain_25_quotas_of_devices_bind_and_release_and_nothing_deadlocks() {
    let mut cluster = Cluster::new();
    cluster.device_node("node-0", cards(8));
    cluster.rest();
    cluster.ok(Command::Create(quota(
        "default",
        "gpus",
        &[
            ("requests.nvidia.com/gpu", 3),
            ("requests.nvidia.com/gpumem", 6000),
            ("requests.nvidia.com/vgpu", 4),
        ],
    )));
    // A pod over the quota is refused; of a set as many come as fit, and they run.
    let refused = cluster.submit(vec![Command::Create(gpu_pod("big", 4))]).expect_err("over the quota");
    assert_eq!(
        refused.to_string(),
        "Pod default/big: does not fit in ResourceQuota default/gpus: requests.nvidia.com/gpu: 4 asked for, 3 of 3 left; \
         ask for less, end what is not needed, or raise that quota"
    );
    create(&mut cluster, [gpu_set("one", 2), gpu_set("two", 2)]);
    cluster.converge();
    let running =
        |cluster: &Cluster| cluster.active_pods().iter().filter(|pod| !pod.devices().is_empty()).count();
    assert_eq!(
        running(&cluster),
        3,
        "the quota is used up, and nobody holds a part of it and waits for the rest"
    );
    // What ends makes room for who waits.
    let one = reference(Kind::ReplicaSet, "one");
    cluster.ok(Command::Scale { object: one, replicas: 1 });
    cluster.converge();
    cluster.advance(1000);
    cluster.converge();
    assert_eq!(running(&cluster), 3);
    // Shared memory counts for each card.
    cluster.ok(Command::Create(shared_pod("s", 2, 2000, 10)));
    let level = bulkhead_controlplane_core::QuotaLevel::Namespace(name("default"));
    let used = |cluster: &Cluster, resource: &str| {
        cluster.state().quota_use(&level).of(&Measure::Extended(resource.into()))
    };
    assert_eq!(used(&cluster, "nvidia.com/gpumem"), 4000);
    assert_eq!((used(&cluster, "nvidia.com/vgpu"), used(&cluster, "nvidia.com/gpucores")), (2, 20));
    let refused =
        cluster.submit(vec![Command::Create(shared_pod("t", 2, 2000, 10))]).expect_err("over the quota");
    assert!(
        refused.to_string().contains("requests.nvidia.com/gpumem: 4000 asked for, 2000 of 6000 left"),
        "{refused}"
    );
    // The classes say what is counted how: what is there counts anew when they change.
    for class in cluster.state().device_classes().iter().cloned().collect::<Vec<_>>() {
        let object = Object::DeviceClass(class).object_ref();
        cluster.ok(Command::Delete { object, grace_ms: None, force: false });
    }
    assert_eq!(used(&cluster, "nvidia.com/gpumem"), 2000);
    cluster.rest();
    assert_eq!(used(&cluster, "nvidia.com/gpumem"), 4000);
    cluster.ok(Command::Create(project("lab", None, &[("requests.nvidia.com/gpu", 4)])));
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
}

#[test]
fn a_pod_that_has_devices_is_applied_again_as_it_is() {
    let mut cluster = Cluster::new();
    cluster.device_node("node-0", cards(1));
    create(&mut cluster, [gpu_pod("a", 1)]);
    cluster.rest();
    let revision = cluster.state().revision();
    cluster.ok(Command::Apply(gpu_pod("a", 1)));
    assert_eq!(cluster.state().revision(), revision);
}

#[test]
fn shares_go_to_the_fullest_card_unless_a_pod_wants_them_spread() {
    let mut cluster = Cluster::new();
    cluster.device_node("node-0", cards(2));
    cluster.device_node("node-1", cards(2));
    let spread = |text: &str, node: &str, device: &str| {
        let mut object = shared_pod(text, 1, 1024, 10);
        object.meta_mut().annotations =
            map(&[("hami.io/node-scheduler-policy", node), ("hami.io/gpu-scheduler-policy", device)]);
        object
    };
    for object in [shared_pod("a", 1, 1024, 10), shared_pod("b", 1, 1024, 10)] {
        create(&mut cluster, [object]);
        cluster.rest();
    }
    assert_eq!(cluster.holds("a"), cluster.holds("b"), "one card is filled before the next");
    let of = |cluster: &Cluster, pod: &str| {
        cluster.holds(pod).split(": ").map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    create(&mut cluster, [spread("c", "binpack", "spread")]);
    cluster.rest();
    assert_eq!(of(&cluster, "c")[0], of(&cluster, "a")[0], "the same node");
    assert_ne!(of(&cluster, "c")[1], of(&cluster, "a")[1], "another card");
    create(&mut cluster, [spread("d", "spread", "spread")]);
    cluster.rest();
    assert_ne!(of(&cluster, "d")[0], of(&cluster, "a")[0], "another node");
}

#[test]
fn an_agent_that_reports_a_terminal_pod_gives_its_devices_back_at_once() {
    let mut cluster = Cluster::new();
    let node = cluster.device_node("node-0", cards(1));
    create(&mut cluster, [gpu_pod("a", 1)]);
    cluster.rest();
    let (id, incarnation) = (cluster.pod_named("a").meta.id, 1);
    let status = PodStatus { phase: PodPhase::Succeeded, ..PodStatus::default() };
    let report = PodReport { pod: id, sequence: 1, status, gone: false };
    cluster.ok(Command::ReportPods { node, incarnation, reports: vec![report] });
    assert_eq!(cluster.counts(node, "nvidia.com/gpu"), "1/1/0");
    assert!(!cluster.pod_named("a").devices().is_empty(), "what it had is still told");
    let _: ObjectId = id;
}

/// Pain 6: what a run gives is counted once, whether its bindings arrive, are lost on the way, or come beside others.
#[test]
fn pain_06_what_a_run_gave_is_counted_once() {
    let mut cluster = Cluster::new();
    let node = cluster.device_node("node-0", cards(2));
    // Four quarters of each card.
    let quarter = |n: usize| Command::Create(shared_pod(&format!("quarter-{n}"), 1, 4096, 25));
    for n in 0..5 {
        cluster.ok(quarter(n));
    }
    cluster.lose();
    // More come while those are taken for placed.
    for n in 5..8 {
        cluster.ok(quarter(n));
    }
    cluster.advance(60_000);
    let waiting = cluster.state().pending_pods().len();
    assert_eq!(waiting, 0, "{}", cluster.holds("quarter-0"));
    let full: u64 = cluster.state().node_devices(node).unwrap().counts()["nvidia.com/vgpu"].allocated;
    assert_eq!(full, 8);
    cluster.ok(quarter(8));
    cluster.advance(3000);
    assert!(
        cluster.holds("quarter-8").contains("Insufficient nvidia.com/vgpu"),
        "{}",
        cluster.holds("quarter-8")
    );
    // One goes, one comes.
    cluster.ok(Command::Delete { object: reference(Kind::Pod, "quarter-3"), grace_ms: None, force: false });
    cluster.converge();
    assert!(cluster.holds("quarter-8").starts_with("node-0: GPU-"), "{}", cluster.holds("quarter-8"));
}
