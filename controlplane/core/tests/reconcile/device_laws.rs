//! Whatever happens to nodes, devices, classes and pods: no device has two holders, and the ledgers are what the objects say.

use bulkhead_controlplane_core::intent::intent_of;
use bulkhead_controlplane_core::invariant;
use bulkhead_controlplane_core::placement::reference as judges;
use bulkhead_types::{
    Binding, Command, Device, DeviceFault, DeviceReport, Kind, NodeGpu, NumaPolicy, ObjectId,
    PartitionStrategy, Rare,
};
use proptest::prelude::*;

use crate::cpus::{NUMA, QOS, cpu_facts, saying, topology, whole};
use crate::device_kit::{self, asking, cordon, gpu_pod, shared_pod};
use crate::kit::{Cluster, GIB, Say, name, pod, pod_spec, reference};
use crate::play::Seen;

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    /// A pod that asks for so many cards, or for shares of them, in MiB and per cent.
    Create(u64, Option<(u64, u64)>),
    /// Agents do what they are told.
    Agents,
    /// The pod of this number ends by itself.
    End(usize),
    /// Somebody wants it gone.
    Delete(usize),
    /// A node has these devices now: which are there, and which of them are sick.
    Devices(usize, u8, u8),
    Cordon(usize, u32, bool),
    /// A pod that wants CPUs for itself, and maybe a card.
    Pinned(usize, u64, bool),
    /// A pod that asks for units of memory, or for partitions.
    Special(usize),
    /// How an operator wants a node's cards.
    Mode(usize, usize),
    /// An agent has brought its cards into the mode that is wanted.
    Observe(usize),
    /// A card of a node has a fault.
    Fault(usize, u32, usize),
    /// Without its class, until that comes back.
    Class,
    NewLeader,
}

fn step() -> impl Strategy<Value = Step> {
    let share = proptest::option::of((1u64..9000, prop_oneof![Just(0u64), Just(30), Just(100)]));
    prop_oneof![
        6 => (1u64..4, share).prop_map(|(count, share)| Step::Create(count, share)),
        4 => Just(Step::Agents),
        2 => any::<usize>().prop_map(Step::End),
        3 => any::<usize>().prop_map(Step::Delete),
        3 => (0usize..2, any::<u8>(), any::<u8>()).prop_map(|(node, there, sick)| Step::Devices(node, there, sick)),
        1 => (0usize..2, 0u32..8, any::<bool>()).prop_map(|(node, index, on)| Step::Cordon(node, index, on)),
        2 => (0usize..4).prop_map(Step::Special),
        4 => (0usize..5, 1u64..5, any::<bool>()).prop_map(|(kind, cpus, card)| Step::Pinned(kind, cpus, card)),
        2 => (0usize..2, 0usize..5).prop_map(|(node, mode)| Step::Mode(node, mode)),
        2 => (0usize..2).prop_map(Step::Observe),
        1 => (0usize..2, 0u32..8, 0usize..5).prop_map(|(node, card, code)| Step::Fault(node, card, code)),
        1 => Just(Step::Class),
        1 => Just(Step::NewLeader),
    ]
}

/// A card that can be partitioned.
fn card(index: u32) -> Device {
    Device { device: 0x20b0, ..device_kit::card(index) }
}

fn sick(index: u32) -> Device {
    Device { device: 0x20b0, ..device_kit::sick(index) }
}

/// An agent does what its node's mode wants of its cards.
fn observe(cluster: &mut Cluster, node: ObjectId) {
    let Some(gpu) = intent_of(cluster.state(), node).and_then(|intent| intent.gpu) else { return };
    let Some(slice) = cluster.state().resource_slice_of(node) else { return };
    let is_card = |device: &&Device| device.parent.is_none() && !device.is_lost();
    let mut devices: Vec<Device> = slice.devices.iter().filter(is_card).cloned().collect();
    for layout in &gpu.cards {
        let Some(card) = devices.iter().find(|card| card.id == layout.device).cloned() else { continue };
        devices.extend(layout.partitions.iter().map(|one| Device {
            id: format!("{}/{}", card.id, one.start).into(),
            parent: Some(card.id.clone()),
            partition: Rare::some(one.clone()),
            ..card.clone()
        }));
    }
    cluster.sequence += 1;
    let report = DeviceReport {
        sequence: cluster.sequence,
        snapshot: true,
        devices,
        gpu_mode: Some(gpu.mode),
        ..DeviceReport::default()
    };
    cluster.ok(Command::ReportDevices { node, incarnation: 1, report });
}

/// A pod that asks for units of memory, or for partitions.
fn special(cluster: &mut Cluster, at: usize, kind: usize) {
    let (resource, amount) = [
        ("aliyun.com/gpu-mem", 3),
        ("nvidia.com/mig-3g.20gb", 1),
        ("nvidia.com/mig-1g.5gb", 2),
        ("aliyun.com/gpu-mem", 16),
    ][kind];
    cluster.ok(Command::Create(pod(&format!("pod-{at}"), asking(&[(resource, amount)]))));
}

/// One that takes from a pod what it holds is refused.
fn set_mode(cluster: &mut Cluster, node: usize, mode: usize) {
    let mode = ["", "whole", "shared", "all-3g.20gb", "3g.20gb-1g.5gb-1g.5gb"][mode];
    let gpu = NodeGpu { mode: mode.into(), strategy: PartitionStrategy::Mixed };
    let gpu = (!mode.is_empty()).then_some(gpu);
    // One that takes from a pod what it holds is refused.
    let _ = cluster.submit(vec![Command::SetGpuMode { node: name(&format!("node-{node}")), gpu }]);
}

fn fault(cluster: &mut Cluster, node: ObjectId, index: u32, code: usize) {
    let code = [13, 94, 95, 48, 79][code];
    let fault = DeviceFault { device: format!("GPU-{index}").into(), code, at_ms: 1, pod: None };
    cluster.sequence += 1;
    let report = DeviceReport { sequence: cluster.sequence, faults: vec![fault], ..DeviceReport::default() };
    cluster.ok(Command::ReportDevices { node, incarnation: 1, report });
}

/// The slow judge says of every binding of CPUs that it may be.
fn judge(seen: &Seen<'_>) {
    let mut earlier: Vec<Binding> = Vec::new();
    for pod in seen.after.pods().iter() {
        let waited = seen.before.pods().get(pod.meta.id).is_some_and(|before| before.node.is_none());
        let Some(node) = pod.node.filter(|_| waited) else { continue };
        let binding = Binding {
            pod: pod.meta.id,
            node,
            nodes_considered: 1,
            score: 0,
            devices: pod.devices().to_vec(),
            networks: vec![],
            cpus: pod.status.cpus.clone(),
        };
        assert_eq!(judges::cpus::check(seen.before, &binding, &earlier), Ok(()), "{binding:?}");
        earlier.push(binding);
    }
}

fn run(steps: Vec<Step>) {
    let mut cluster = Cluster::new();
    cluster.watch = Box::new(judge);
    let nodes = [NumaPolicy::SingleNumaNode, NumaPolicy::Restricted].map(|policy| {
        let node = format!("node-{}", cluster.state().nodes().len());
        let id = cluster.node(&node, cpu_facts(topology(&[6, 6], policy)));
        cluster.tell_devices(id, (0..4).map(card).collect());
        id
    });
    cluster.settle();
    for (at, step) in steps.into_iter().enumerate() {
        let nth = |cluster: &Cluster, n: usize| {
            let pods = cluster.state().pods();
            (!pods.is_empty()).then(|| pods.iter().nth(n % pods.len()).unwrap().clone())
        };
        match step {
            Step::Create(count, share) => {
                let text = format!("pod-{at}");
                let pod = match share {
                    None => gpu_pod(&text, count),
                    Some((memory, cores)) => shared_pod(&text, count, memory, cores),
                };
                cluster.ok(Command::Create(pod));
            }
            Step::Pinned(kind, cpus, card) => {
                let says = [
                    (QOS, "LSE"),
                    (QOS, "LSR"),
                    (NUMA, "single-numa-node"),
                    (NUMA, "restricted"),
                    (QOS, "BE"),
                ];
                let asks = if card { asking(&[("nvidia.com/gpu", 1)]) } else { pod_spec("web:1", 0, GIB) };
                cluster.create(saying(pod(&format!("pod-{at}"), whole(asks, cpus)), &[says[kind]]));
            }
            Step::Agents => _ = cluster.agents(),
            Step::End(n) => {
                if let Some(pod) = nth(&cluster, n).filter(|pod| pod.node.is_some()) {
                    cluster.say(pod.meta.id, Say::Failed);
                }
            }
            Step::Delete(n) => {
                if let Some(pod) = nth(&cluster, n) {
                    let object = reference(Kind::Pod, pod.meta.name.as_str());
                    cluster.ok(Command::Delete { object, grace_ms: None, force: n % 2 == 0 });
                }
            }
            Step::Devices(node, there, bad) => {
                let has = |bits: u8, index: u32| bits & (1 << index) != 0;
                let devices = (0..8).filter(|index| has(there, *index));
                let devices = devices.map(|index| if has(bad, index) { sick(index) } else { card(index) });
                cluster.tell_devices(nodes[node], devices.collect());
            }
            Step::Cordon(node, index, on) => {
                // A device that is not there is refused.
                let _ = cluster.submit(vec![cordon(&format!("node-{node}"), &format!("GPU-{index}"), on)]);
            }
            Step::Special(kind) => special(&mut cluster, at, kind),
            Step::Mode(node, mode) => set_mode(&mut cluster, node, mode),
            Step::Observe(node) => observe(&mut cluster, nodes[node]),
            Step::Fault(node, index, code) => fault(&mut cluster, nodes[node], index, code),
            Step::Class => {
                let object = reference(Kind::DeviceClass, "nvidia-gpu");
                let _ = cluster.submit(vec![Command::Delete { object, grace_ms: None, force: false }]);
            }
            Step::NewLeader => cluster.new_leader(),
        }
        assert_eq!(invariant::check(cluster.state()), []);
        cluster.settle();
    }
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
    assert!(cluster.state().find(Kind::Node, None, &name("node-0")).is_some());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn ledgers_are_what_the_objects_say_and_nobody_holds_what_another_has(
        steps in proptest::collection::vec(step(), 1..40)
    ) {
        run(steps);
    }
}
