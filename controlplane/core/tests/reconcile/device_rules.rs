//! What DeviceClasses say beside what devices are: labels of nodes, models that pods choose, who sees what, and shares by place.

use std::sync::Arc;

use bulkhead_controlplane_core::intent::intent_of;
use bulkhead_controlplane_core::reconcile::ReconcileConfig;
use bulkhead_types::{
    AllocatedDevice, Binding, Command, Container, ContainerOptions, DEVICE_RULES_LEVEL, Device, DeviceClass,
    DevicePartition, DevicePartitioning, EnvVar, ExtendedResources, FEATURE_LEVEL_MAX, Kind, NodeAffinity,
    NodeFacts, NodeSelectorOperator, NodeSelectorRequirement, NodeSelectorTerm, Object, ObjectMeta,
    PartitionModel, PartitionProfile, PodOptions, PodPlacement, PodSpec, Rare, builtin_device_classes,
};

use crate::device_kit::{asking, card, gpu_pod};
use crate::kit::{Cluster, GIB, Say, facts, map, name, pod, pod_spec, reference};

const COUNT: &str = "aliyun.accelerator/nvidia_count";
const MEMORY: &str = "aliyun.accelerator/nvidia_mem";
const MODEL: &str = "aliyun.accelerator/nvidia_name";

fn model(index: u32, model: &str, mib: u64) -> Device {
    let mut one = card(index);
    one.model = model.into();
    one.capacity.memory_bytes = mib << 20;
    one
}

fn saying(object: Object, says: &[(&str, &str)]) -> Object {
    let mut object = object;
    object.meta_mut().annotations = map(says);
    object
}

impl Cluster {
    /// The labels of a node by its cards, as `count memory model`; `-` for each that is not there.
    fn card_labels(&self, node: &str) -> String {
        let id = self.state().find(Kind::Node, None, &name(node)).unwrap();
        let labels = &self.state().nodes().get(id).unwrap().meta.labels;
        [COUNT, MEMORY, MODEL].map(|key| labels.get(key).map_or("-", |value| value.as_str())).join(" ")
    }
}

/// Vector TV-3: pods without cards keep away from nodes that have some, by labels that nobody set by hand.
#[test]
fn nodes_are_labelled_by_their_cards_and_pods_go_by_that() {
    let mut cluster = Cluster::new();
    let m40 = || vec![model(0, "Tesla M40", 12209), model(1, "Tesla M40", 12209)];
    let node = cluster.device_node("cards", m40());
    cluster.node("plain", facts(64_000, 256 * GIB, 100));
    cluster.rest();
    assert_eq!(cluster.card_labels("cards"), "2 12209MiB Tesla-M40");
    assert_eq!(cluster.card_labels("plain"), "- - -");
    let term = NodeSelectorRequirement {
        key: MODEL.into(),
        operator: NodeSelectorOperator::DoesNotExist,
        values: Vec::new(),
    };
    let term = NodeSelectorTerm { match_expressions: vec![term], ..NodeSelectorTerm::default() };
    let affinity = NodeAffinity { required: vec![term], ..NodeAffinity::default() };
    let placement = PodPlacement { node_affinity: Rare::some(affinity), ..PodPlacement::default() };
    let options = PodOptions { placement: Rare::some(placement), ..PodOptions::default() };
    let away = PodSpec { options: Rare::some(options), ..pod_spec("web:1", 100, 64 << 20) };
    let near = PodSpec { node_selector: map(&[(MODEL, "Tesla-M40")]), ..asking(&[("nvidia.com/gpu", 1)]) };
    let other = PodSpec { node_selector: map(&[(MODEL, "Tesla-T4")]), ..asking(&[("nvidia.com/gpu", 1)]) };
    for n in 0..3 {
        cluster.ok(Command::Create(pod(&format!("away-{n}"), away.clone())));
    }
    cluster.ok(Command::Create(pod("near", near)));
    cluster.ok(Command::Create(pod("other", other)));
    cluster.rest();
    (0..3).for_each(|n| assert_eq!(cluster.holds(&format!("away-{n}")), "plain: "));
    assert_eq!(cluster.holds("near"), "cards: GPU-0");
    assert!(cluster.holds("other").contains("2 node(s) didn't match Pod's node affinity/selector"));
    // They follow what there is, over registrations and leaders.
    cluster.tell_changes(node, vec![], &["GPU-1"]);
    cluster.rest();
    assert_eq!(cluster.card_labels("cards"), "1 12209MiB Tesla-M40");
    let known = cluster.state().nodes().get(node).unwrap().status.facts.clone();
    cluster.node("cards", NodeFacts { kernel_version: "7".into(), ..known });
    cluster.new_leader();
    cluster.rest();
    assert_eq!(cluster.card_labels("cards"), "1 12209MiB Tesla-M40");
    cluster.tell_devices(node, vec![]);
    cluster.rest();
    assert_eq!(cluster.card_labels("cards"), "- - -");
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
}

#[test]
fn what_an_operator_says_of_a_node_stays() {
    let mut cluster = Cluster::new();
    let node = cluster.device_node("node-0", vec![model(0, "Tesla T4", 15079)]);
    cluster.rest();
    let relabel = |cluster: &mut Cluster, value: Option<&str>| {
        let mut node = Arc::clone(cluster.state().nodes().get(node).unwrap());
        let labels = &mut Arc::make_mut(&mut node).meta.labels;
        match value {
            Some(value) => _ = labels.insert(MODEL.into(), value.into()),
            None => _ = labels.remove(MODEL),
        }
        cluster.ok(Command::Apply(Object::Node(node)));
        cluster.rest();
        cluster.card_labels("node-0")
    };
    cluster.tell_devices(node, vec![]);
    cluster.rest();
    assert_eq!(relabel(&mut cluster, Some("mine")), "- - mine");
    cluster.tell_devices(node, vec![model(0, "Tesla T4", 15079)]);
    cluster.rest();
    assert_eq!(cluster.card_labels("node-0"), "1 15079MiB mine");
    assert_eq!(relabel(&mut cluster, None), "1 15079MiB Tesla-T4", "one that is gone is given again");
    // Who writes a whole node writes what he read of it before.
    assert_eq!(relabel(&mut cluster, Some("old")), "1 15079MiB Tesla-T4", "and is the devices' from then on");
    let refused = cluster.submit(vec![Command::SyncDeviceLabels { node }]).unwrap_err();
    assert!(refused.to_string().contains("has the labels that its devices mean"), "{refused}");
}

#[test]
fn pods_choose_among_models_and_cards_of_a_node() {
    let mut cluster = Cluster::new();
    let all =
        || vec![model(0, "Tesla T4", 15079), model(1, "NVIDIA A100", 40960), model(2, "Tesla T4", 15079)];
    cluster.device_node("node-0", all());
    let shared = || asking(&[("nvidia.com/vgpu", 1), ("nvidia.com/gpumem", 1000)]);
    let mut check = |named: &str, object: Object, says: &[(&str, &str)], expected: &str| {
        cluster.ok(Command::Create(saying(object, says)));
        cluster.rest();
        assert_eq!(cluster.holds(named), expected, "{says:?}");
    };
    check("a", gpu_pod("a", 1), &[("nvidia.com/use-gputype", "a100,h100")], "node-0: GPU-1");
    check("b", gpu_pod("b", 1), &[("nvidia.com/nouse-gpuuuid", "GPU-0")], "node-0: GPU-2");
    check("c", pod("c", shared()), &[("nvidia.com/nouse-gputype", "A100")], "node-0: GPU-0");
    check("d", pod("d", shared()), &[("nvidia.com/use-gpuuuid", "GPU-0")], "node-0: GPU-0");
    let why = "Unschedulable 0/1 nodes are available: 1 node(s) didn't have free devices of those that the pod's annotations \
               choose.";
    check("e", pod("e", shared()), &[("nvidia.com/use-gputype", "A100")], why);
    check(
        "f",
        gpu_pod("f", 1),
        &[("nvidia.com/use-gputype", "T4")],
        "Unschedulable 0/1 nodes are available: 1 Insufficient nvidia.com/gpu.",
    );
    // What is bound is judged by the same.
    let binding = |cluster: &Cluster, device: &str| Binding {
        pod: cluster.pod_named("f").meta.id,
        node: cluster.state().nodes().iter().next().unwrap().meta.id,
        nodes_considered: 1,
        score: 0,
        devices: vec![AllocatedDevice {
            container: "main".into(),
            resource: "nvidia.com/gpu".into(),
            device: device.into(),
            share: None,
        }],
        networks: vec![],
        cpus: Rare::NONE,
    };
    let of_a = cluster.pod_named("a").meta.id;
    cluster.say(of_a, Say::Failed);
    let bindings = vec![binding(&cluster, "GPU-1")];
    cluster.ok(Command::BindPods { bindings });
    assert_eq!(cluster.pod_named("f").node, None, "an A100 is none of those");
    cluster.rest();
    assert_eq!(cluster.holds("e"), "node-0: GPU-1");
}

/// A pod of three containers, of which the first asks for XPUs; each with what it names.
fn xpu_pod(text: &str, count: u64, named: [Option<&str>; 3]) -> Object {
    let mut spec = pod_spec("train:1", 100, 64 << 20);
    let limits = [("baidu.com/XPU".into(), count)].into();
    let extended = Rare::some(ExtendedResources { requests: Default::default(), limits });
    let options = Rare::some(ContainerOptions { extended, ..ContainerOptions::default() });
    let one = |(at, named): (usize, Option<&str>)| {
        let env = named.map(|value| EnvVar {
            name: "CXPU_VISIBLE_DEVICES".to_owned(),
            value: value.to_owned(),
            ..EnvVar::default()
        });
        let name = ["a", "b", "c"][at];
        let options = if at == 0 { options.clone() } else { Rare::NONE };
        Container { name: name.into(), env: env.into_iter().collect(), options, ..spec.containers[0].clone() }
    };
    spec.containers = named.into_iter().enumerate().map(one).collect();
    pod(text, spec)
}

/// EasyStack's rule: a card that a container names is its own, those that nobody names are shared by the others, and when every
/// card is named the others have none.
#[test]
fn containers_name_the_cards_that_are_theirs() {
    let check = |named: [Option<&str>; 3], expected: &str| {
        let xpu = |index| Device { vendor: 0x1d22, class_code: 0x12_0000, ..card(index) };
        let mut cluster = Cluster::new();
        let node = cluster.device_node("node-0", (0..4).map(xpu).collect());
        cluster.rest();
        cluster.ok(Command::Create(xpu_pod("p", 4, named)));
        cluster.rest();
        let devices = intent_of(cluster.state(), node).unwrap().pods[0].devices.clone();
        let seen = |container: &str| {
            let own: Vec<_> = devices.iter().filter(|one| one.container == container).collect();
            assert!(
                own.iter().all(|one| one.visible_env == "CXPU_VISIBLE_DEVICES" && !one.address.is_empty())
            );
            own.iter().map(|one| one.visible_as.as_str()).collect::<Vec<_>>().join(",")
        };
        assert_eq!(["a", "b", "c"].map(seen).join(" | "), expected, "{named:?}");
        assert_eq!(cluster.pod_named("p").devices().len(), 4, "who holds them is who asked");
    };
    check([None, None, None], "0,1,2,3 | 0,1,2,3 | 0,1,2,3");
    check([Some("all"), Some("1"), None], "0,2,3 | 1 | 0,2,3");
    check([Some("0, 2"), Some("1"), Some("all")], "0,2 | 1 | 3");
    check([Some("0,1,2,3"), None, Some("all")], "0,1,2,3 |  | ");
    check([Some("0"), Some("1,3"), Some("2")], "0 | 1,3 | 2");
}

#[test]
fn names_of_cards_that_cannot_be_are_refused() {
    let mut cluster = Cluster::new();
    let xpu = Device { vendor: 0x1d22, class_code: 0x12_0000, ..card(0) };
    cluster.device_node("node-0", vec![xpu]);
    cluster.rest();
    let mut check = |count, named: [Option<&str>; 3], expected: &str| {
        let refused = cluster.submit(vec![Command::Create(xpu_pod("p", count, named))]).unwrap_err();
        assert!(refused.to_string().contains(expected), "{refused}");
    };
    check(2, [Some("2"), None, None], "CXPU_VISIBLE_DEVICES names card 2, and the pod has 2");
    check(2, [Some("0"), Some("0"), None], "containers[1].resources.limits[baidu.com/XPU]");
    check(2, [Some("0"), Some("0"), None], "names card 0, which is that of container a");
    check(2, [Some("first"), None, None], "is neither all nor numbers with commas between them");
    check(22, [None, None, None], "and what containers share of it is 66 devices together");
    cluster.ok(Command::Create(xpu_pod("p", 21, [None, None, None])));
}

/// Cambricon's modes: whole, a place on a card (share), and so much memory and compute of one (smlu); and slices by data (mim).
#[test]
fn shares_may_be_places_and_cards_may_go_without_saying() {
    let mlu = |index| Device { vendor: 0xcabc, class_code: 0x12_0000, ..card(index) };
    let mut cluster = Cluster::new();
    let node = cluster.device_node("node-0", vec![mlu(0), mlu(1)]);
    cluster.rest();
    for n in 0..21 {
        cluster.ok(Command::Create(pod(&format!("share-{n}"), asking(&[("cambricon.com/mlu.share", 1)]))));
    }
    cluster.rest();
    let on = |cluster: &Cluster, device: &str| {
        let pods = cluster.state().pods().iter();
        pods.filter(|pod| pod.devices().iter().any(|one| one.device == device)).count()
    };
    assert_eq!((on(&cluster, "GPU-0"), on(&cluster, "GPU-1")), (10, 10), "virtualization-num of each");
    assert_eq!(cluster.state().pending_pods().len(), 1);
    for pod in cluster.state().pods().iter().map(|pod| pod.meta.id).collect::<Vec<_>>() {
        cluster.say(pod, Say::Failed);
    }
    let smlu = |memory, cores| {
        asking(&[("cambricon.com/mlu.smlu.vmemory", memory), ("cambricon.com/mlu.smlu.vcore", cores)])
    };
    cluster.ok(Command::Create(pod("half", smlu(8192, 50))));
    cluster.ok(Command::Create(pod("more", smlu(8192, 60))));
    cluster.ok(Command::Create(pod("whole", asking(&[("cambricon.com/mlu", 1)]))));
    cluster.rest();
    let given = cluster.pod_named("half").devices()[0].clone();
    let share = given.share.expect("a share");
    assert_eq!(
        (given.resource.as_str(), share.memory_bytes, share.cores),
        ("cambricon.com/mlu.smlu", 8192 << 20, 50)
    );
    assert_ne!(cluster.holds("half"), cluster.holds("more"));
    assert!(cluster.holds("whole").contains("Insufficient cambricon.com/mlu"), "{}", cluster.holds("whole"));
    assert_eq!(cluster.counts(node, "cambricon.com/mlu.smlu.vcore"), "200/200/110");
    // Slices of fixed size are a table of the class.
    let mut class = builtin_device_classes()
        .into_iter()
        .find(|one| one.name == "cambricon-mlu")
        .expect("it is there")
        .spec;
    let profile = PartitionProfile {
        name: "2m.8gb".into(),
        extended_resource_name: "cambricon.com/mlu.mim-2m.8gb".into(),
        uses: [("memory".into(), 8), ("units".into(), 2)].into(),
        ..PartitionProfile::default()
    };
    let model = PartitionModel {
        name: "MLU".into(),
        capacity: [("memory".into(), 16), ("units".into(), 4)].into(),
        profiles: vec![profile],
        ..PartitionModel::default()
    };
    let models = vec![model];
    class.partitioning = Rare::some(DevicePartitioning { models, ..DevicePartitioning::default() });
    let meta = match cluster.state().find_object(&reference(Kind::DeviceClass, "cambricon-mlu")) {
        Some(Object::DeviceClass(present)) => present.meta.clone(),
        _ => ObjectMeta::new(None, name("cambricon-mlu")),
    };
    cluster.ok(Command::Apply(Object::DeviceClass(Arc::new(DeviceClass { meta, spec: class }))));
    let part = |at: u32| Device {
        id: format!("MIM-{at}").into(),
        parent: Some("GPU-2".into()),
        partition: Rare::some(DevicePartition { profile: "2m.8gb".into(), start: 0 }),
        ..mlu(2)
    };
    cluster.tell_changes(node, vec![mlu(2), part(0), part(1)], &[]);
    cluster.ok(Command::Create(pod("slice", asking(&[("cambricon.com/mlu.mim-2m.8gb", 1)]))));
    cluster.rest();
    assert_eq!(cluster.holds("slice"), "node-0: MIM-0");
}

#[test]
fn before_their_level_classes_say_nothing_of_it_and_then_they_do() {
    let mut cluster = Cluster::at_level(ReconcileConfig::default(), DEVICE_RULES_LEVEL - 1);
    cluster.device_node("node-0", vec![model(0, "Tesla T4", 15079)]);
    cluster.rest();
    cluster.ok(Command::Create(saying(gpu_pod("a", 1), &[("nvidia.com/use-gputype", "A100")])));
    cluster.rest();
    assert_eq!(
        (cluster.holds("a").as_str(), cluster.card_labels("node-0").as_str()),
        ("node-0: GPU-0", "- - -")
    );
    cluster.ok(Command::RaiseFeatureLevel { level: FEATURE_LEVEL_MAX });
    let node = cluster.state().nodes().iter().next().unwrap().meta.id;
    cluster.tell_changes(node, vec![model(1, "Tesla T4", 15079)], &[]);
    cluster.rest();
    assert_eq!(cluster.card_labels("node-0"), "2 15079MiB Tesla-T4");
    cluster.ok(Command::Create(saying(gpu_pod("b", 1), &[("nvidia.com/use-gputype", "A100")])));
    cluster.rest();
    assert_eq!(cluster.holds("a"), "node-0: GPU-0", "who has one keeps it");
    assert!(cluster.holds("b").starts_with("Unschedulable"));
    let class = |name: &str| {
        let spec =
            builtin_device_classes().into_iter().find(|one| one.name == name).expect("it is there").spec;
        let meta = ObjectMeta::new(None, crate::kit::name(name));
        Command::Create(Object::DeviceClass(Arc::new(DeviceClass { meta, spec }))).feature_level()
    };
    assert_eq!(["nvidia-gpu", "kunlun-xpu", "cambricon-mlu"].map(class), [DEVICE_RULES_LEVEL; 3]);
    assert!(class("metax-gpu") < DEVICE_RULES_LEVEL);
}
