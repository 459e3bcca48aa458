//! CPUs that pods have for themselves: policies, classes, the ledger, pools and devices, over a real machine.

use bulkhead_controlplane_core::intent::intent_of;
use bulkhead_controlplane_core::placement::reference;
use bulkhead_controlplane_core::reconcile::ReconcileConfig;
use bulkhead_types::{
    ANNOTATION_CPUSET_SCHEDULER, ANNOTATION_NUMA_POLICY, ANNOTATION_RESOURCE_SPEC, Binding, Command, CpuCore,
    CpuHold, CpuSet, CpuTopology, LABEL_DEVICES, LABEL_FENCE_GUARD, LABEL_QOS_CLASS, NUMA_LEVEL, NodeFacts,
    NumaNode, NumaPolicy, Object, ObjectId, PodCpus, PodSpec, Rare, RejectionCode, ResourceRequirements,
};

use crate::device_kit::{asking, card};
use crate::kit::{Cluster, GIB, Say, facts, map, name, pod, pod_spec};

pub fn set(text: &str) -> CpuSet {
    text.parse().expect("a set")
}

/// NUMA nodes of so many CPUs one after the other, of one thread each, with 64 GiB.
pub fn topology(nodes: &[u32], policy: NumaPolicy) -> CpuTopology {
    let mut next = 0;
    let node = |(id, count): (u32, &u32)| {
        let first = next;
        next += count;
        let core = |core: u32| CpuCore { package: id, core, cpus: [first + core].into_iter().collect() };
        NumaNode {
            id,
            memory_bytes: 64 * GIB,
            huge_pages: bulkhead_types::HugePages::NONE,
            cores: (0..*count).map(core).collect(),
        }
    };
    CpuTopology { numa_nodes: (0..).zip(nodes).map(node).collect(), reserved: CpuSet::new(), policy }
}

/// What an agent says of a node with these processors, which attaches devices.
pub fn cpu_facts(topology: CpuTopology) -> NodeFacts {
    let labels = map(&[(LABEL_DEVICES, "true"), (LABEL_FENCE_GUARD, "true")]);
    let cpu_millis = u64::from(topology.cpus().len()) * 1000;
    NodeFacts { labels, cpus: Rare::some(topology), ..facts(cpu_millis, 256 * GIB, 100) }
}

/// A pod of whole CPUs, requested and limited, that says this of itself.
pub fn pinned(text: &str, cpus: u64, says: &[(&str, &str)]) -> Object {
    saying(pod(text, whole(pod_spec("web:1", 0, 64 << 20), cpus)), says)
}

pub fn whole(mut spec: PodSpec, cpus: u64) -> PodSpec {
    let memory_bytes = Some(64 << 20);
    let all = ResourceRequirements { cpu_millis: Some(cpus * 1000), memory_bytes, ..Default::default() };
    (spec.containers[0].requests, spec.containers[0].limits) = (all, all);
    spec
}

pub fn saying(object: Object, says: &[(&str, &str)]) -> Object {
    let Object::Pod(mut pod) = object else { panic!("a pod") };
    let meta = &mut std::sync::Arc::make_mut(&mut pod).meta;
    for (key, value) in says {
        let map = if *key == LABEL_QOS_CLASS { &mut meta.labels } else { &mut meta.annotations };
        map.insert((*key).into(), (*value).into());
    }
    Object::Pod(pod)
}

pub const QOS: &str = LABEL_QOS_CLASS;
pub const NUMA: &str = ANNOTATION_NUMA_POLICY;
const SINGLE: &str = "single-numa-node";

impl Cluster {
    /// A pod's node and CPUs, as `node-0: 0-1`; its reason when it waits.
    fn cpus_of(&self, text: &str) -> String {
        let pod = self.pod_named(text);
        let Some(node) = pod.node.and_then(|id| self.state().nodes().get(id)) else {
            return format!("{} {}", pod.status.reason, pod.status.message).trim().to_owned();
        };
        let cpus = pod.cpus().map_or_else(|| "any".to_owned(), |given| given.cpus.to_string());
        format!("{}: {cpus}", node.meta.name)
    }

    pub fn create(&mut self, object: Object) {
        self.ok(Command::Create(object));
    }
}

/// Vector TV-18: a policy's pods go to nodes of that policy, and there where one NUMA node is enough.
#[test]
fn pods_go_to_nodes_of_their_policy_and_there_to_one_numa_node() {
    let mut cluster = Cluster::new();
    cluster.node("node-1", cpu_facts(topology(&[16, 16], NumaPolicy::SingleNumaNode)));
    cluster.node("node-2", cpu_facts(topology(&[16, 16], NumaPolicy::BestEffort)));
    cluster.node("node-3", cpu_facts(topology(&[20, 20], NumaPolicy::BestEffort)));
    cluster.node("node-4", facts(64_000, 256 * GIB, 100));
    cluster.create(pinned("a", 2, &[(NUMA, SINGLE)]));
    cluster.create(pinned("b", 20, &[(NUMA, "best-effort")]));
    cluster.create(pinned("c", 17, &[(NUMA, SINGLE)]));
    cluster.rest();
    assert_eq!(cluster.cpus_of("a"), "node-1: 0-1");
    assert_eq!(cluster.cpus_of("b"), "node-3: 0-19");
    assert_eq!(
        cluster.cpus_of("c"),
        "Unschedulable 0/4 nodes are available: 1 node(s) didn't have CPUs to pin that fit the pod's NUMA topology policy, \
         2 node(s) didn't match the pod's NUMA topology policy, 1 node(s) report no CPU topology."
    );
    // Its end helps nobody; that of a smaller wish does.
    cluster.create(pinned("d", 20, &[(NUMA, "best-effort")]));
    cluster.create(pinned("e", 30, &[(NUMA, "best-effort")]));
    cluster.rest();
    assert_eq!(cluster.cpus_of("d"), "node-2: 0-19");
    assert!(cluster.cpus_of("e").starts_with("Unschedulable"), "{}", cluster.cpus_of("e"));
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
}

/// Vector TV-23: 16 CPUs, and a pod of each class.
#[test]
fn classes_have_their_cpus_and_agents_are_told() {
    let mut cluster = Cluster::new();
    let node = cluster.node("node-0", cpu_facts(topology(&[16], NumaPolicy::None)));
    let spread = (ANNOTATION_RESOURCE_SPEC, r#"{"preferredCPUBindPolicy": "SpreadByPCPUs"}"#);
    for (text, class) in [("lse", "LSE"), ("lsr", "LSR"), ("ls", "LS"), ("be", "BE")] {
        cluster.create(pinned(text, 2, &[(QOS, class), spread]));
    }
    cluster.rest();
    let shown: Vec<String> = ["lse", "lsr", "ls", "be"].map(|text| cluster.cpus_of(text)).to_vec();
    assert_eq!(shown, ["node-0: 0-1", "node-0: 2-3", "node-0: any", "node-0: any"]);
    let intent = intent_of(cluster.state(), node).expect("an intent");
    let pools = intent.cpu_pools.expect("pools");
    assert_eq!((pools.shared, pools.batch), (set("4-15"), set("2-15")));
    let told: Vec<_> = intent.pods.iter().map(|pod| (pod.cpus.clone(), pod.batch, pod.unique)).collect();
    let expected = [
        (Some(set("0-1")), false, true),
        (Some(set("2-3")), false, true),
        (None, false, false),
        (None, true, false),
    ];
    assert_eq!(told, expected);
    // What ended gives its CPUs back to the pools.
    cluster.say(cluster.pod_named("lse").meta.id, Say::Failed);
    let pools = intent_of(cluster.state(), node).and_then(|intent| intent.cpu_pools).expect("pools");
    assert_eq!((pools.shared, pools.batch), (set("0-1,4-15"), set("0-15")));
    // Who may burst is bound, and takes nothing from the pool.
    let mut spec = whole(pod_spec("web:1", 0, 64 << 20), 4);
    spec.containers[0].requests.cpu_millis = Some(1000);
    cluster.create(saying(pod("burst", spec), &[(ANNOTATION_CPUSET_SCHEDULER, "true")]));
    cluster.rest();
    let given = cluster.pod_named("burst").status.cpus.get().cloned().expect("CPUs");
    assert_eq!((given.cpus.to_string().as_str(), given.hold), ("0-1,4-5", CpuHold::Bound));
    let pools = intent_of(cluster.state(), node).and_then(|intent| intent.cpu_pools).expect("pools");
    assert_eq!(pools.shared, set("0-1,4-15"));
}

#[test]
fn what_cannot_be_pinned_is_refused_when_it_is_created() {
    let mut cluster = Cluster::new();
    cluster.node("node-0", cpu_facts(topology(&[16], NumaPolicy::None)));
    let mut check = |object: Object, expected: &str| {
        let refused = cluster.submit(vec![Command::Create(object)]).expect_err("refused");
        assert_eq!(refused.code, RejectionCode::Invalid);
        assert_eq!(refused.to_string(), expected);
    };
    let mut spec = pod_spec("web:1", 500, 64 << 20);
    spec.containers[0].limits.cpu_millis = Some(1000);
    check(
        saying(pod("a", spec), &[(QOS, "LSR")]),
        "Pod default/a: spec.containers[0].resources.requests.cpu: is 500m and the limit 1000m: who has CPUs of its own \
         requests all of them; make both equal",
    );
    let stray = r#"[{"preferredCPUBindPolicy": "SpreadByPCPUs"}"#;
    let refused = cluster.submit(vec![Command::Create(pinned("a", 1, &[(ANNOTATION_RESOURCE_SPEC, stray)]))]);
    assert!(
        refused
            .expect_err("refused")
            .field
            .ends_with("metadata.annotations[scheduling.koordinator.sh/resource-spec]")
    );
    // An agent that says what no machine is like is refused as well.
    let twice = CpuTopology {
        numa_nodes: vec![topology(&[2], NumaPolicy::None).numa_nodes[0].clone(); 2],
        ..CpuTopology::default()
    };
    let facts = cpu_facts(topology(&[2], NumaPolicy::None));
    for (wrong, part) in
        [(Some(twice), "twice"), (Some(topology(&[1], NumaPolicy::None)), "more than its CPUs have")]
    {
        let facts = NodeFacts { cpus: wrong.into(), ..facts.clone() };
        let refused = cluster.submit(vec![Command::RegisterNode { name: name("node-9"), facts }]);
        let refused = refused.expect_err("refused").to_string();
        assert!(refused.contains(part), "{refused}");
    }
}

#[test]
fn before_their_level_labels_say_nothing() {
    let mut cluster = Cluster::at_level(ReconcileConfig::default(), NUMA_LEVEL - 1);
    cluster.nodes(1);
    cluster.create(pinned("a", 2, &[(QOS, "LSE"), (NUMA, "whatever")]));
    cluster.rest();
    assert_eq!(cluster.cpus_of("a"), "node-0: any");
    let told = cpu_facts(topology(&[4], NumaPolicy::None));
    let register = |facts| Command::RegisterNode { name: name("node-1"), facts };
    assert_eq!(register(told.clone()).feature_level(), NUMA_LEVEL);
    assert!(register(told.at_level(NUMA_LEVEL - 1)).feature_level() < NUMA_LEVEL);
}

fn binding(cluster: &Cluster, text: &str, node: ObjectId, cpus: &str, numa_nodes: &[u32]) -> Binding {
    let request = cluster.pod_named(text).spec.scheduling_request();
    let memory_bytes = if numa_nodes.len() == 1 { request.memory_bytes } else { 0 };
    let given = PodCpus {
        cpus: set(cpus),
        numa_nodes: numa_nodes.to_vec(),
        memory_bytes,
        huge_pages: bulkhead_types::HugePages::NONE,
        hold: CpuHold::Reserved,
    };
    Binding {
        pod: cluster.pod_named(text).meta.id,
        node,
        nodes_considered: 1,
        score: 0,
        devices: vec![],
        networks: vec![],
        cpus: Rare::some(given),
    }
}

/// However bindings arrive, no CPU is given twice, and the slow judge says the same of each.
#[test]
fn pain_07_figures_of_numa_nodes_are_judged_when_they_are_applied() {
    let mut cluster = Cluster::new();
    let reserving = |policy| CpuTopology { reserved: set("0"), ..topology(&[4, 4], policy) };
    let node = cluster.node("node-0", cpu_facts(reserving(NumaPolicy::SingleNumaNode)));
    let other = cluster.node("node-1", cpu_facts(reserving(NumaPolicy::BestEffort)));
    for text in ["a", "b", "c"] {
        cluster.create(pinned(text, 2, &[(NUMA, SINGLE)]));
    }
    let mut wrong = vec![
        binding(&cluster, "a", node, "0-1", &[0]),
        binding(&cluster, "a", node, "1", &[0]),
        binding(&cluster, "a", node, "1-3", &[0]),
        binding(&cluster, "a", node, "3-4", &[0, 1]),
        binding(&cluster, "a", node, "1-2", &[1]),
        binding(&cluster, "a", node, "8-9", &[]),
        binding(&cluster, "a", other, "1-2", &[0]),
    ];
    let good = binding(&cluster, "a", node, "1-2", &[0]);
    let change = |change: &dyn Fn(&mut PodCpus)| {
        let mut given = good.cpus.get().expect("CPUs").clone();
        change(&mut given);
        Binding { cpus: Rare::some(given), ..good.clone() }
    };
    wrong.push(change(&|given| given.hold = CpuHold::Exclusive));
    wrong.push(change(&|given| given.memory_bytes = 0));
    wrong.push(Binding { cpus: Rare::NONE, ..good.clone() });
    for binding in wrong {
        assert!(reference::cpus::check(cluster.state(), &binding, &[]).is_err(), "{binding:?}");
        cluster.ok(Command::BindPods { bindings: vec![binding.clone()] });
        assert_eq!(cluster.pod_named("a").node, None, "{binding:?}");
    }
    assert_eq!(reference::cpus::check(cluster.state(), &good, &[]), Ok(()));
    let overlapping = binding(&cluster, "b", node, "2-3", &[0]);
    assert!(reference::cpus::check(cluster.state(), &overlapping, std::slice::from_ref(&good)).is_err());
    cluster.ok(Command::BindPods { bindings: vec![good, overlapping.clone()] });
    assert_eq!(cluster.cpus_of("a"), "node-0: 1-2");
    assert_eq!(cluster.pod_named("b").node, None);
    // One ends while another one's binding is on its way: what it had is free from then on, and not before.
    cluster.ok(Command::BindPods { bindings: vec![overlapping.clone()] });
    assert_eq!(cluster.pod_named("b").node, None);
    cluster.say(cluster.pod_named("a").meta.id, Say::Failed);
    cluster.ok(Command::BindPods { bindings: vec![overlapping] });
    cluster.rest();
    assert_eq!(
        (cluster.cpus_of("b"), cluster.cpus_of("c")),
        ("node-0: 2-3".to_owned(), "node-0: 4-5".to_owned())
    );
    let ledger = cluster.state().node_cpus(node).expect("a ledger");
    assert_eq!((ledger.taken(), ledger.free()), (set("2-5"), set("1,6-7")));
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
}

#[test]
fn pain_17_a_device_and_the_cpus_of_its_pod_are_on_one_numa_node() {
    for policy in
        [NumaPolicy::SingleNumaNode, NumaPolicy::Restricted, NumaPolicy::BestEffort, NumaPolicy::None]
    {
        let mut cluster = Cluster::new();
        let node = cluster.node("node-0", cpu_facts(topology(&[8, 8], policy)));
        // One card on each NUMA node, and the processors of the first are busy.
        cluster.tell_devices(node, [0, 4].map(card).to_vec());
        cluster.rest();
        cluster.create(pinned("busy", 6, &[(QOS, "LSR")]));
        cluster.rest();
        assert_eq!(cluster.cpus_of("busy"), "node-0: 0-5", "{policy:?}");
        let gpu = |text: &str| pod(text, whole(asking(&[("nvidia.com/gpu", 1)]), 4));
        cluster.create(saying(gpu("a"), &[(NUMA, policy.name()), (QOS, "LSR")]));
        cluster.rest();
        if policy != NumaPolicy::None {
            assert_eq!(cluster.holds("a"), "node-0: GPU-4", "{policy:?}");
            assert_eq!(cluster.cpus_of("a"), "node-0: 8-11", "{policy:?}");
        }
        // The other card is far from what is left, which only some may bear.
        cluster.create(saying(gpu("b"), &[(NUMA, policy.name()), (QOS, "LSR")]));
        cluster.rest();
        let is_strict = matches!(policy, NumaPolicy::SingleNumaNode | NumaPolicy::Restricted);
        assert_eq!(cluster.pod_named("b").node.is_none(), is_strict, "{policy:?}: {}", cluster.cpus_of("b"));
        cluster.say(cluster.pod_named("busy").meta.id, Say::Failed);
        cluster.rest();
        if is_strict {
            assert_eq!(cluster.holds("b"), "node-0: GPU-0", "{policy:?}");
            assert_eq!(cluster.cpus_of("b"), "node-0: 0-3", "{policy:?}");
        }
    }
}

#[test]
fn pods_end_for_the_cpus_of_one_that_matters_more() {
    let mut cluster = Cluster::new();
    cluster.node("node-0", cpu_facts(topology(&[4, 4], NumaPolicy::SingleNumaNode)));
    for text in ["a", "b"] {
        cluster.create(pinned(text, 3, &[(NUMA, SINGLE)]));
    }
    cluster.rest();
    cluster.agents();
    let high = match pinned("high", 2, &[(NUMA, SINGLE)]) {
        Object::Pod(mut pod) => {
            let mut spec = PodSpec::clone(&pod.spec);
            let options = bulkhead_types::PodOptions {
                priority_class: Rare::some("system-cluster-critical".into()),
                ..Default::default()
            };
            spec.options = Rare::some(options);
            std::sync::Arc::make_mut(&mut pod).spec = bulkhead_types::Shared::new(spec);
            Object::Pod(pod)
        }
        _ => unreachable!("a pod"),
    };
    // There are two CPUs, and as much processor time; but not on one NUMA node.
    cluster.create(high);
    cluster.rest();
    let is_ending = |cluster: &Cluster, text: &str| cluster.pod_named(text).meta.is_deleting();
    assert_eq!([is_ending(&cluster, "a"), is_ending(&cluster, "b")].iter().filter(|one| **one).count(), 1);
    cluster.agents();
    cluster.rest();
    let given = cluster.pod_named("high").status.cpus.get().cloned().expect("CPUs");
    assert_eq!((given.cpus.len(), given.numa_nodes.len()), (2, 1));
}

#[test]
fn a_node_that_comes_back_as_another_keeps_its_pods_and_takes_what_fits() {
    let mut cluster = Cluster::new();
    let node = cluster.node("node-0", cpu_facts(topology(&[4], NumaPolicy::None)));
    cluster.create(pinned("a", 2, &[(QOS, "LSE")]));
    cluster.rest();
    cluster.node(
        "node-0",
        cpu_facts(CpuTopology { reserved: set("2"), ..topology(&[8], NumaPolicy::Restricted) }),
    );
    cluster.create(pinned("b", 3, &[(NUMA, "restricted")]));
    cluster.rest();
    assert_eq!(
        (cluster.cpus_of("a"), cluster.cpus_of("b")),
        ("node-0: 0-1".to_owned(), "node-0: 3-5".to_owned())
    );
    assert_eq!(cluster.state().node_cpus(node).expect("a ledger").taken(), set("0-1,3-5"));
    // One that tells of its CPUs no more has no ledger, and its pods keep what they have.
    cluster.node("node-0", facts(8000, 256 * GIB, 100));
    assert!(cluster.state().node_cpus(node).is_none());
    assert_eq!(cluster.cpus_of("a"), "node-0: 0-1");
    cluster.create(pinned("c", 1, &[(QOS, "LSR")]));
    cluster.rest();
    assert!(cluster.cpus_of("c").contains("1 node(s) report no CPU topology"), "{}", cluster.cpus_of("c"));
}
