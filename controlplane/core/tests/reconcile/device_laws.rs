//! Whatever happens to nodes, devices, classes and pods: no device has two holders, and the ledgers are what the objects say.

use bulkhead_controlplane_core::invariant;
use bulkhead_types::{Command, Kind};
use proptest::prelude::*;

use crate::device_kit::{card, cordon, gpu_pod, shared_pod, sick};
use crate::kit::{Cluster, Say, name, reference};

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
        1 => Just(Step::Class),
        1 => Just(Step::NewLeader),
    ]
}

fn run(steps: Vec<Step>) {
    let mut cluster = Cluster::new();
    let nodes = [0, 1].map(|n| cluster.device_node(&format!("node-{n}"), (0..4).map(card).collect()));
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
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn ledgers_are_what_the_objects_say_and_nobody_holds_what_another_has(
        steps in proptest::collection::vec(step(), 1..40)
    ) {
        run(steps);
    }
}
