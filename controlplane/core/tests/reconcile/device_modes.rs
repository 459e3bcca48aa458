//! Memory units, partitions, modes of nodes and faults of cards.

use bulkhead_controlplane_core::intent::intent_of;
use bulkhead_controlplane_core::reconcile::ReconcileConfig;
use bulkhead_types::{
    Command, DEVICES_LEVEL, Device, DeviceFault, DevicePartition, DeviceReport, Kind, NodeGpu, Object,
    ObjectId, PARTITIONS_LEVEL, PartitionStrategy, Rare, RejectionCode,
};

use crate::device_kit::{asking, card, cards, cordon, gpu_pod, shared_pod};
use crate::kit::{Cluster, Say, map, name, pod, reference, replica_set};
use crate::quota_kit::quota;

fn create(cluster: &mut Cluster, objects: impl IntoIterator<Item = Object>) {
    objects.into_iter().for_each(|object| cluster.ok(Command::Create(object)));
}

/// Cards of V100 with 16130 MiB: 15 units of a GiB.
fn v100s(count: u32) -> Vec<Device> {
    let small = |mut one: Device| {
        one.capacity.memory_bytes = 16_130 << 20;
        one
    };
    cards(count).into_iter().map(small).collect()
}

fn units_pod(text: &str, units: u64, cards: Option<&str>) -> Object {
    let mut object = pod(text, asking(&[("aliyun.com/gpu-mem", units)]));
    if let Some(cards) = cards {
        object.meta_mut().labels = map(&[("aliyun.com/gpu-count", cards)]);
    }
    object
}

fn mig_pod(text: &str, profile: &str, count: u64) -> Object {
    pod(text, asking(&[(&format!("nvidia.com/mig-{profile}"), count)]))
}

/// An A100 of 80 GB.
fn a100(index: u32) -> Device {
    Device { device: 0x20b5, ..card(index) }
}

/// A card and its partitions.
fn carved(index: u32, partitions: &[(&str, u32)]) -> Vec<Device> {
    let part = |(profile, start): &(&str, u32)| Device {
        id: format!("MIG-{index}-{start}").into(),
        parent: Some(a100(index).id),
        partition: Rare::some(DevicePartition { profile: (*profile).into(), start: *start }),
        ..a100(index)
    };
    std::iter::once(a100(index)).chain(partitions.iter().map(part)).collect()
}

impl Cluster {
    /// An agent says which devices there are, and in which mode.
    fn tell_mode(&mut self, node: ObjectId, devices: Vec<Device>, mode: &str) {
        let report =
            DeviceReport { snapshot: true, devices, gpu_mode: Some(mode.into()), ..DeviceReport::default() };
        self.tell(node, report);
    }

    fn tell_fault(&mut self, node: ObjectId, device: &str, code: u32, pod: Option<ObjectId>) {
        let fault = DeviceFault { device: device.into(), code, at_ms: 7, pod };
        self.tell(node, DeviceReport { faults: vec![fault], ..DeviceReport::default() });
    }

    fn tell(&mut self, node: ObjectId, report: DeviceReport) {
        self.sequence += 1;
        let incarnation = self.state().nodes().get(node).unwrap().status.incarnation;
        let report = DeviceReport { sequence: self.sequence, ..report };
        self.ok(Command::ReportDevices { node, incarnation, report });
    }

    fn set_mode(&mut self, mode: &str, strategy: PartitionStrategy) -> Result<(), String> {
        let gpu = (!mode.is_empty()).then(|| NodeGpu { mode: mode.into(), strategy });
        let command = Command::SetGpuMode { node: name("node-0"), gpu };
        self.submit(vec![command]).map(drop).map_err(|refused| refused.to_string())
    }

    fn is_deleting(&self, text: &str) -> bool {
        self.pod_named(text).meta.is_deleting()
    }
}

const MIXED: PartitionStrategy = PartitionStrategy::Mixed;

#[test]
fn units_are_divided_over_cards_of_one_node() {
    let mut cluster = Cluster::new();
    let node = cluster.device_node("node-0", v100s(2));
    cluster.device_node("node-1", v100s(2));
    cluster.rest();
    create(
        &mut cluster,
        [units_pod("a", 3, None), units_pod("b", 8, Some("2")), units_pod("c", 40, Some("4"))],
    );
    cluster.rest();
    let of = |cluster: &Cluster, pod: &str| -> Vec<u64> {
        let pod = cluster.pod_named(pod);
        pod.devices().iter().map(|one| one.share.unwrap().memory_bytes >> 20).collect()
    };
    assert_eq!((of(&cluster, "a"), of(&cluster, "b")), (vec![3226], vec![4301, 4301]));
    assert_eq!(
        cluster.holds("c"),
        "Unschedulable 0/2 nodes are available: 2 Insufficient aliyun.com/gpu-mem."
    );
    let on_node = |cluster: &Cluster, pod: &str| cluster.holds(pod).starts_with("node-0");
    let used = 3 * u64::from(on_node(&cluster, "a")) + 8 * u64::from(on_node(&cluster, "b"));
    assert_eq!(cluster.counts(node, "aliyun.com/gpu-mem"), format!("30/30/{used}"));
    // What can never be divided is refused; a label that nobody uses is nothing.
    let field = "Pod default/d: spec.containers[0].resources.limits[aliyun.com/gpu-mem]";
    for (units, cards, expected) in [
        (3, "2", "is 3, which 2 cards cannot share alike; ask for a multiple of the number of cards"),
        (
            4,
            "two",
            "is divided by the label aliyun.com/gpu-count, which is no number from 1 to 64; say there over how many cards",
        ),
    ] {
        let refused =
            cluster.submit(vec![Command::Create(units_pod("d", units, Some(cards)))]).expect_err("refused");
        assert_eq!(refused.to_string(), format!("{field}: {expected}"));
    }
    let mut plain = gpu_pod("e", 1);
    plain.meta_mut().labels = map(&[("aliyun.com/gpu-count", "two")]);
    cluster.ok(Command::Create(plain));
    // A quota counts units as they are asked for.
    cluster.ok(Command::Create(quota("default", "q", &[("requests.aliyun.com/gpu-mem", 55)])));
    let refused =
        cluster.submit(vec![Command::Create(units_pod("f", 8, Some("2")))]).expect_err("over the quota");
    assert!(refused.to_string().contains("8 asked for, 4 of 55 left"), "{refused}");
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
}

#[test]
fn a_mode_is_wanted_and_then_observed_and_nothing_is_given_meanwhile() {
    let mut cluster = Cluster::new();
    let node = cluster.device_node("node-0", vec![a100(0), a100(1)]);
    cluster.rest();
    let both = || {
        [carved(0, &[("3g.40gb", 0), ("3g.40gb", 4)]), carved(1, &[("3g.40gb", 0), ("3g.40gb", 4)])].concat()
    };
    create(&mut cluster, [mig_pod("a", "3g.40gb", 1)]);
    cluster.rest();
    assert!(cluster.holds("a").contains("Insufficient nvidia.com/mig-3g.40gb"), "{}", cluster.holds("a"));
    cluster.set_mode("all-3g.40gb", MIXED).expect("free cards");
    create(&mut cluster, [gpu_pod("b", 1)]);
    cluster.rest();
    assert!(cluster.state().node_devices(node).unwrap().is_reconfiguring());
    assert!(cluster.holds("b").contains("Insufficient nvidia.com/gpu"), "the cards are being cut");
    let gpu = intent_of(cluster.state(), node).unwrap().gpu.expect("a mode");
    let shown: Vec<_> = gpu.cards.iter().map(|one| (one.device.as_str(), one.partitions.len())).collect();
    assert_eq!((gpu.mode.as_str(), shown), ("all-3g.40gb", vec![("GPU-0", 2), ("GPU-1", 2)]));
    cluster.tell_mode(node, both(), "all-3g.40gb");
    cluster.rest();
    assert_eq!(cluster.holds("a"), "node-0: MIG-0-0");
    assert_eq!(cluster.counts(node, "nvidia.com/mig-3g.40gb"), "4/4/1");
    assert_eq!(cluster.counts(node, "nvidia.com/gpu"), "2/0/0");
    // It stays as long as somebody has a part of it, and says who.
    assert_eq!(
        cluster.set_mode("whole", MIXED).expect_err("in use"),
        "Node node-0: spec.gpuMode: cannot become whole while in use: MIG-0-0 (nvidia.com/mig-3g.40gb) of Pod default/a; \
         end these pods first, or wait until they have ended"
    );
    assert!(
        cluster.set_mode("all-3g.40gb", PartitionStrategy::Single).is_err(),
        "it would have another name"
    );
    let id = cluster.pod_named("a").meta.id;
    cluster.say(id, Say::Failed);
    cluster.set_mode("whole", MIXED).expect("nobody has any");
    cluster.rest();
    assert_eq!(cluster.counts(node, "nvidia.com/mig-3g.40gb"), "4/0/0");
    cluster.tell_mode(node, vec![a100(0), a100(1)], "whole");
    cluster.rest();
    assert_eq!(cluster.holds("b"), "node-0: GPU-0");
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
}

#[test]
fn a_shared_node_gives_no_whole_cards_and_the_other_way_round() {
    let mut cluster = Cluster::new();
    let node = cluster.device_node("node-0", cards(2));
    cluster.rest();
    create(&mut cluster, [shared_pod("s", 1, 1024, 0)]);
    cluster.rest();
    // Who holds a share keeps it in that mode, and would lose it in the other.
    let refused = cluster.set_mode("whole", MIXED).expect_err("in use");
    assert!(refused.contains("GPU-0 (nvidia.com/vgpu) of Pod default/s"), "{refused}");
    cluster.set_mode("shared", MIXED).expect("shares stay");
    cluster.tell_mode(node, cards(2), "shared");
    create(&mut cluster, [gpu_pod("g", 1), shared_pod("t", 1, 1024, 0)]);
    cluster.rest();
    assert!(cluster.holds("g").contains("Insufficient nvidia.com/gpu"), "{}", cluster.holds("g"));
    assert_eq!(
        (cluster.holds("t").as_str(), cluster.counts(node, "nvidia.com/gpu").as_str()),
        ("node-0: GPU-0", "2/0/0")
    );
    for pod in ["s", "t"] {
        let id = cluster.pod_named(pod).meta.id;
        cluster.say(id, Say::Failed);
    }
    cluster.set_mode("", MIXED).expect("none in particular");
    cluster.rest();
    assert_eq!(cluster.holds("g"), "node-0: GPU-0");
}

#[test]
fn what_the_cards_cannot_be_is_refused() {
    let mut cluster = Cluster::new();
    cluster.device_node("node-0", vec![a100(0), card(1)]);
    cluster.rest();
    let mut check = |mode: &str, strategy, expected: &str| {
        let refused = cluster.set_mode(mode, strategy).expect_err("refused");
        assert!(refused.contains(expected), "{mode}: {refused}");
    };
    check(
        "all-1g-5gb",
        MIXED,
        "all-1g-5gb is a mode that no card of the node has; it may be one of whole, shared, all-1g.10gb",
    );
    check(
        "4g.40gb-4g.40gb",
        MIXED,
        "4g.40gb-4g.40gb does not fit: more compute is used than the 7 that a A100-80GB has",
    );
    check("all-balanced", PartitionStrategy::Single, "all-balanced gives partitions that are not alike");
    // The same in a manifest.
    let node = cluster.state().find_object(&reference(Kind::Node, "node-0")).unwrap();
    let Object::Node(node) = &node else { panic!("a node") };
    let mut wanted = (**node).clone();
    wanted.spec.gpu = Rare::some(NodeGpu { mode: "nonsense".into(), strategy: MIXED });
    let refused =
        cluster.submit(vec![Command::Apply(Object::Node(wanted.clone().into()))]).expect_err("refused");
    assert_eq!(refused.code, RejectionCode::Invalid);
    wanted.spec.gpu = Rare::some(NodeGpu { mode: "all-balanced".into(), strategy: MIXED });
    cluster.ok(Command::Apply(Object::Node(wanted.into())));
    let node = cluster.state().find(Kind::Node, None, &name("node-0")).unwrap();
    assert!(cluster.state().node_devices(node).unwrap().is_reconfiguring());
}

#[test]
fn partitions_that_are_alike_may_have_the_name_of_cards() {
    let mut cluster = Cluster::new();
    let node = cluster.device_node("node-0", vec![a100(0)]);
    cluster.rest();
    cluster.set_mode("all-1g.20gb", PartitionStrategy::Single).expect("free cards");
    let parts = [("1g.20gb", 0), ("1g.20gb", 2), ("1g.20gb", 4), ("1g.20gb", 6)];
    cluster.tell_mode(node, carved(0, &parts), "all-1g.20gb");
    create(&mut cluster, [gpu_pod("a", 2)]);
    cluster.rest();
    assert_eq!(cluster.holds("a"), "node-0: MIG-0-0+MIG-0-2");
    assert_eq!(cluster.counts(node, "nvidia.com/gpu"), "4/4/2");
    let devices = intent_of(cluster.state(), node).unwrap().pods[0].devices.clone();
    let shown: Vec<_> =
        devices.iter().map(|one| (one.visible_env.as_str(), one.visible_as.as_str())).collect();
    assert_eq!(shown, [("NVIDIA_VISIBLE_DEVICES", "MIG-0-0"), ("NVIDIA_VISIBLE_DEVICES", "MIG-0-2")]);
}

#[test]
fn vendor_partitions_take_their_card_with_them_and_give_it_back() {
    let mut cluster = Cluster::new();
    let npu =
        |id: &str| Device { id: id.into(), vendor: 0x19e5, device: 0xd500, class_code: 0x12_0000, ..card(0) };
    let part = |at: u32| Device {
        parent: Some("NPU-0".into()),
        partition: Rare::some(DevicePartition { profile: "vir02".into(), start: 0 }),
        ..npu(&format!("NPU-0-{}", 100 + at))
    };
    let node = cluster.device_node("node-0", vec![npu("NPU-0")]);
    cluster.rest();
    assert_eq!(cluster.counts(node, "huawei.com/Ascend310P"), "1/1/0");
    assert_eq!(cluster.counts(node, "huawei.com/npu-core"), "8/8/0");
    // Three vir02 on one card (DCE §4.2): the card's own resource is 1, 0 of it allocatable.
    cluster.tell_devices(node, vec![npu("NPU-0"), part(0), part(1), part(2)]);
    create(
        &mut cluster,
        [
            pod("a", asking(&[("huawei.com/Ascend310P-2c", 1)])),
            pod("b", asking(&[("huawei.com/Ascend310P", 1)])),
        ],
    );
    cluster.rest();
    assert_eq!(cluster.counts(node, "huawei.com/Ascend310P"), "1/0/0");
    assert_eq!(cluster.counts(node, "huawei.com/Ascend310P-2c"), "3/3/1");
    // Vector TV-24: of the AI cores there are 8 still, and 0 of them allocatable.
    assert_eq!(cluster.counts(node, "huawei.com/npu-core"), "8/0/0");
    assert!(cluster.holds("b").contains("Insufficient huawei.com/Ascend310P"), "{}", cluster.holds("b"));
    // A fourth cannot be there: of such a card nothing is given away.
    cluster.tell_devices(node, vec![npu("NPU-0"), part(0), part(1), part(2), part(3)]);
    assert_eq!(cluster.counts(node, "huawei.com/Ascend310P-2c"), "4/0/1");
    cluster.tell_devices(node, vec![npu("NPU-0")]);
    cluster.rest();
    assert!(cluster.holds("b").contains("Insufficient"), "a part of it is held, there or not");
    let id = cluster.pod_named("a").meta.id;
    cluster.say(id, Say::Failed);
    cluster.rest();
    assert_eq!(cluster.holds("b"), "node-0: NPU-0");
}

#[test]
fn pain_16_and_21_a_fault_ends_who_had_it_and_nobody_else() {
    let mut cluster = Cluster::new();
    let node = cluster.device_node("node-0", cards(4));
    cluster.rest();
    for pod in ["s", "t"] {
        create(&mut cluster, [shared_pod(pod, 1, 1024, 0)]);
        cluster.rest();
    }
    create(
        &mut cluster,
        [gpu_pod("a", 1), gpu_pod("b", 1), pod("plain", crate::kit::pod_spec("web:1", 100, 64 << 20))],
    );
    cluster.converge();
    assert_eq!(cluster.holds("s"), cluster.holds("t"));
    let id = |cluster: &Cluster, pod: &str| cluster.pod_named(pod).meta.id;
    // A page fault is told, nothing else; and so is what no rule names.
    for code in [31, 63, 999] {
        cluster.tell_fault(node, "GPU-0", code, None);
    }
    assert!(["s", "t", "a", "b", "plain"].iter().all(|pod| !cluster.is_deleting(pod)));
    // A contained memory error ends the pod that had it; without its name nobody on a shared card.
    cluster.tell_fault(node, "GPU-0", 94, None);
    assert!(!cluster.is_deleting("s") && !cluster.is_deleting("t"));
    let (t, b) = (id(&cluster, "t"), id(&cluster, "b"));
    cluster.tell_fault(node, "GPU-0", 94, Some(b));
    assert!(!cluster.is_deleting("b"), "it does not have that card");
    cluster.tell_fault(node, "GPU-0", 94, Some(t));
    assert!(cluster.is_deleting("t") && !cluster.is_deleting("s"));
    // An uncontained one ends all on the card.
    cluster.tell_fault(node, "GPU-0", 95, None);
    assert!(cluster.is_deleting("s"));
    // One that takes a card offline keeps it from others, and leaves who has it alone.
    cluster.tell_fault(node, "GPU-1", 79, None);
    assert!(!cluster.is_deleting("a"));
    // A double bit error drains the card until it was reset.
    let device = cluster.pod_named("b").devices()[0].device.to_string();
    cluster.tell_fault(node, &device, 48, None);
    assert!(cluster.is_deleting("b") && !cluster.is_deleting("a") && !cluster.is_deleting("plain"));
    let fences = |cluster: &Cluster| {
        let slice = cluster.state().resource_slice_of(node).unwrap();
        slice.fences().iter().map(|fence| fence.code).collect::<Vec<_>>()
    };
    assert_eq!(fences(&cluster), [79, 48]);
    assert!(!cluster.state().nodes().get(node).unwrap().spec.unschedulable, "the node goes on");
    let resets = vec!["GPU-1".into(), device.into()];
    cluster.tell(node, DeviceReport { resets, ..DeviceReport::default() });
    assert_eq!(fences(&cluster), [79], "a reset mends no card that fell off its bus");
    cluster.ok(cordon("node-0", "GPU-1", false));
    assert_eq!(fences(&cluster), [] as [u32; 0]);
    let faults = cluster.state().resource_slice_of(node).unwrap().state.get().unwrap().faults.len();
    assert_eq!(faults, 9);
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
}

#[test]
fn a_fenced_card_is_given_to_nobody_and_its_pods_come_back_elsewhere() {
    let mut cluster = Cluster::new();
    let node = cluster.device_node("node-0", cards(2));
    create(&mut cluster, [replica_set("train", 1, asking(&[("nvidia.com/gpu", 1)]))]);
    cluster.converge();
    cluster.tell_fault(node, "GPU-0", 61, None);
    cluster.converge();
    let active: Vec<String> = cluster
        .active_pods()
        .iter()
        .flat_map(|pod| pod.devices().iter().map(|one| one.device.to_string()))
        .collect();
    assert_eq!(active, ["GPU-1"]);
    assert_eq!(cluster.counts(node, "nvidia.com/gpu"), "2/1/1");
}

#[test]
fn only_so_many_faults_are_taken_and_kept() {
    let mut cluster = Cluster::new();
    let node = cluster.device_node("node-0", cards(1));
    cluster.rest();
    let fault = |code| DeviceFault { device: "GPU-0".into(), code, at_ms: 1, pod: None };
    let report = |faults| DeviceReport { sequence: 100, faults, ..DeviceReport::default() };
    let too_many = report((0..65).map(fault).collect());
    let command = Command::ReportDevices { node, incarnation: 1, report: too_many };
    assert_eq!(cluster.submit(vec![command]).unwrap_err().code, RejectionCode::Invalid);
    cluster.ok(Command::ReportDevices {
        node,
        incarnation: 1,
        report: report((100..164).map(fault).collect()),
    });
    let slice = cluster.state().resource_slice_of(node).unwrap();
    let kept: Vec<u32> = slice.state.get().unwrap().faults.iter().map(|one| one.fault.code).collect();
    assert_eq!((kept.len(), kept.last()), (32, Some(&163)));
}

#[test]
fn below_their_level_there_is_nothing_of_it_and_classes_are_brought_up_to_date() {
    let mut cluster = Cluster::at_level(ReconcileConfig::default(), DEVICES_LEVEL);
    let node = cluster.device_node("node-0", cards(1));
    cluster.rest();
    let of = |cluster: &Cluster, text: &str| {
        let class = cluster.state().find_object(&reference(Kind::DeviceClass, text)).unwrap();
        let Object::DeviceClass(class) = class else { panic!("a class") };
        class.spec.clone()
    };
    assert!(of(&cluster, "nvidia-gpu").partitioning.get().is_none());
    let report = DeviceReport { sequence: 50, gpu_mode: Some("whole".into()), ..DeviceReport::default() };
    let gpu = Some(NodeGpu { mode: "shared".into(), strategy: MIXED });
    for command in [
        Command::ReportDevices { node, incarnation: 1, report },
        Command::SetGpuMode { node: name("node-0"), gpu },
    ] {
        let refused = cluster.submit(vec![command]).expect_err("below the level");
        assert!(refused.to_string().contains("needs level 9"), "{refused}");
    }
    // A class that somebody changed stays as it is.
    let mut own = of(&cluster, "kunlun-xpu");
    own.selector.drivers.push("vfio-pci".into());
    let mut meta = bulkhead_types::ObjectMeta::new(None, name("kunlun-xpu"));
    meta.labels = map(&[("own", "true")]);
    cluster.ok(Command::Apply(Object::DeviceClass(
        bulkhead_types::DeviceClass { meta, spec: own.clone() }.into(),
    )));
    cluster.ok(Command::RaiseFeatureLevel { level: PARTITIONS_LEVEL });
    cluster.tell_devices(node, cards(2));
    cluster.rest();
    assert!(of(&cluster, "nvidia-gpu").partitioning.get().is_some());
    assert_eq!(of(&cluster, "kunlun-xpu"), own);
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
}
