//! Huge pages, and memory that guests have pinned: placement, quotas, NUMA nodes, levels, over a real machine.

use bulkhead_controlplane_core::QuotaLevel;
use bulkhead_controlplane_core::invariant::{self, Violation};
use bulkhead_controlplane_core::reconcile::ReconcileConfig;
use bulkhead_types::{
    ANNOTATION_ENABLE_HUGEPAGES, ANNOTATION_NUMA_POLICY, Command, ContainerOptions, GuestMemory,
    HUGE_PAGES_LEVEL, HugePageSize, HugePages, LABEL_DEVICES, LABEL_FENCE_GUARD, Measure, NodeFacts,
    NumaPolicy, Object, ObjectId, PodSpec, Rare, Resources,
};
use proptest::prelude::*;

use crate::cpus::{cpu_facts, saying, topology, whole};
use crate::device_kit::{asking, cards};
use crate::kit::{Cluster, GIB, Say, facts, map, name, pod, pod_spec};
use crate::quota_kit::quota;

const MIB: u64 = 1 << 20;

fn two_mib(mib: u64) -> HugePages {
    HugePages { two_mib_bytes: mib * MIB, one_gib_bytes: 0 }
}

fn paged_facts(pages: HugePages) -> NodeFacts {
    let plain = facts(16_000, 64 * GIB, 100);
    let all = Resources { huge_pages: pages, ..plain.allocatable };
    NodeFacts { capacity: all, allocatable: all, ..plain }
}

fn with_pages(mut spec: PodSpec, pages: HugePages) -> PodSpec {
    let present = spec.containers[0].options.get().cloned().unwrap_or_default();
    spec.containers[0].options = Rare::some(ContainerOptions { huge_pages: pages, ..present });
    spec
}

fn paged_pod(text: &str, pages: HugePages) -> Object {
    pod(text, with_pages(pod_spec("web:1", 100, 64 * MIB), pages))
}

/// Nodes of so many MiB of pages of 2 MiB, and pods that ask for so many; where they are, or what they wait for.
fn check(nodes: &[u64], pods: &[u64], expected: &[&str]) {
    let mut cluster = Cluster::new();
    for (number, mib) in nodes.iter().enumerate() {
        cluster.node(&format!("node-{number}"), paged_facts(two_mib(*mib)));
    }
    let names: Vec<String> = (0..pods.len()).map(|number| format!("p{number}")).collect();
    for (text, mib) in names.iter().zip(pods) {
        cluster.ok(Command::Create(paged_pod(text, two_mib(*mib))));
        cluster.rest();
    }
    let found: Vec<String> = names.iter().map(|text| cluster.holds(text)).collect();
    assert_eq!(found, expected);
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
}

#[test]
fn a_node_gives_as_many_pages_as_it_has() {
    check(&[64], &[32, 32], &["node-0: ", "node-0: "]);
    let lacking = "Unschedulable 0/1 nodes are available: 1 Insufficient hugepages-2Mi.";
    check(&[64], &[32, 34], &["node-0: ", lacking]);
    check(&[16, 64], &[32], &["node-1: "]);
    check(&[0], &[2], &[lacking]);
}

#[test]
fn what_ends_gives_its_pages_back_and_a_larger_pool_is_told() {
    let mut cluster = Cluster::new();
    cluster.node("node-0", paged_facts(two_mib(64)));
    cluster.ok(Command::Create(paged_pod("a", two_mib(64))));
    cluster.rest();
    cluster.ok(Command::Create(paged_pod("b", two_mib(64))));
    cluster.ok(Command::Create(paged_pod("c", two_mib(64))));
    cluster.rest();
    assert!(cluster.holds("b").contains("hugepages-2Mi") && cluster.holds("c").contains("hugepages-2Mi"));
    cluster.say(cluster.pod_named("a").meta.id, Say::Failed);
    cluster.rest();
    let waits = if cluster.holds("b") == "node-0: " { "c" } else { "b" };
    assert!(cluster.holds(waits).contains("Insufficient hugepages-2Mi"), "{}", cluster.holds(waits));
    // The operator sets more aside: the agent registers again.
    cluster.node("node-0", paged_facts(two_mib(128)));
    cluster.rest();
    assert_eq!(cluster.holds(waits), "node-0: ");
}

/// A page of 1 GiB is had with one more, which the tables of its guest's kernel break.
#[test]
fn pages_of_one_gib_count_with_their_overhead() {
    let of = |gib: u64| HugePages { two_mib_bytes: 0, one_gib_bytes: gib * GIB };
    let mut cluster = Cluster::new();
    cluster.node("node-0", paged_facts(of(4)));
    for text in ["a", "b", "c"] {
        cluster.ok(Command::Create(paged_pod(text, of(1))));
    }
    cluster.rest();
    let placed = ["a", "b", "c"].iter().filter(|text| cluster.holds(text) == "node-0: ").count();
    assert_eq!(placed, 2);
}

#[test]
fn quotas_of_huge_pages_bind_and_release() {
    let mut cluster = Cluster::new();
    cluster.node("node-0", paged_facts(two_mib(1024)));
    cluster.ok(Command::Create(quota("default", "pages", &[("hugepages-2Mi", 64 * MIB)])));
    cluster.ok(Command::Create(paged_pod("a", two_mib(32))));
    let refused = cluster.submit(vec![Command::Create(paged_pod("b", two_mib(34)))]).expect_err("over it");
    assert_eq!(
        refused.to_string(),
        "Pod default/b: does not fit in ResourceQuota default/pages: requests.hugepages-2Mi: 34Mi asked for, 32Mi of 64Mi left; \
         ask for less, end what is not needed, or raise that quota"
    );
    let used = cluster.state().quota_use(&QuotaLevel::Namespace(name("default")));
    assert_eq!(used.of(&Measure::of_huge_pages(HugePageSize::TwoMib)), u128::from(32 * MIB));
    cluster.say(cluster.pod_named("a").meta.id, Say::Failed);
    cluster.rest();
    cluster.say(cluster.pod_named("a").meta.id, Say::Failed);
    cluster.ok(Command::Create(paged_pod("c", two_mib(64))));
}

#[test]
fn a_pod_on_one_numa_node_has_its_pages_there() {
    let mut told = topology(&[8, 8], NumaPolicy::SingleNumaNode);
    (told.numa_nodes[0].huge_pages, told.numa_nodes[1].huge_pages) = (two_mib(32), two_mib(96));
    let told = cpu_facts(told);
    let all = Resources { huge_pages: two_mib(128), ..told.allocatable };
    let mut cluster = Cluster::new();
    cluster.node("node-0", NodeFacts { capacity: all, allocatable: all, ..told });
    let single = |text: &str, mib| {
        let spec = with_pages(whole(pod_spec("web:1", 0, 64 * MIB), 2), two_mib(mib));
        saying(pod(text, spec), &[(ANNOTATION_NUMA_POLICY, "single-numa-node")])
    };
    let numa_nodes = |cluster: &Cluster, text: &str| {
        cluster.pod_named(text).status.cpus.get().map(|cpus| (cpus.numa_nodes.clone(), cpus.huge_pages))
    };
    for (text, mib) in [("a", 64), ("b", 32), ("c", 64)] {
        cluster.ok(Command::Create(single(text, mib)));
        cluster.rest();
    }
    assert_eq!(numa_nodes(&cluster, "a"), Some((vec![1], two_mib(64))));
    assert!(numa_nodes(&cluster, "b").is_some());
    assert_eq!(numa_nodes(&cluster, "c"), None, "64 MiB are left, on two NUMA nodes");
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
}

#[test]
fn before_their_level_there_are_none() {
    let mut cluster = Cluster::at_level(ReconcileConfig::default(), HUGE_PAGES_LEVEL - 1);
    cluster.nodes(1);
    assert_eq!(Command::Create(paged_pod("a", two_mib(2))).feature_level(), HUGE_PAGES_LEVEL);
    let register = |facts| Command::RegisterNode { name: name("node-1"), facts };
    assert_eq!(register(paged_facts(two_mib(2))).feature_level(), HUGE_PAGES_LEVEL);
    assert!(
        register(paged_facts(two_mib(2)).at_level(HUGE_PAGES_LEVEL - 1)).feature_level() < HUGE_PAGES_LEVEL
    );
    // What is made below the level keeps counting as it did, also once the level is there.
    let said = pod("old", pod_spec("web:1", 100, 64 * MIB));
    cluster.ok(Command::Create(saying(said, &[(ANNOTATION_ENABLE_HUGEPAGES, "true")])));
    cluster.rest();
    cluster.ok(Command::RaiseFeatureLevel { level: HUGE_PAGES_LEVEL });
    assert_eq!(cluster.pod_named("old").spec.guest_memory(), GuestMemory::default());
    assert_eq!(cluster.holds("old"), "node-0: ");
}

fn device_facts(memory_bytes: u64, pinned_memory_bytes: u64) -> NodeFacts {
    let labels = map(&[(LABEL_DEVICES, "true"), (LABEL_FENCE_GUARD, "true")]);
    let plain = facts(64_000, memory_bytes, 100);
    let all = Resources { pinned_memory_bytes, ..plain.allocatable };
    NodeFacts { labels, capacity: all, allocatable: all, ..plain }
}

/// A pod with a card that requests and may use so much memory, in MiB.
fn pinning(text: &str, request: u64, limit: u64) -> Object {
    let mut spec = asking(&[("nvidia.com/gpu", 1)]);
    spec.containers[0].requests.memory_bytes = Some(request * MIB);
    spec.containers[0].limits.memory_bytes = Some(limit * MIB);
    pod(text, spec)
}

/// Requests below limits overcommit memory that other guests give back; a guest with devices never does.
#[test]
fn pain_26_pinned_memory_counts_as_large_as_the_guest_is() {
    let mut cluster = Cluster::new();
    let node = cluster.node("node-0", device_facts(8 * GIB, 0));
    cluster.tell_devices(node, cards(4));
    for text in ["a", "b", "c"] {
        cluster.ok(Command::Create(pinning(text, 64, 3 * 1024)));
        cluster.rest();
    }
    assert_eq!(
        (cluster.holds("a").as_str(), cluster.holds("b").as_str()),
        ("node-0: GPU-0", "node-0: GPU-1")
    );
    assert_eq!(cluster.holds("c"), "Unschedulable 0/1 nodes are available: 1 Insufficient memory.");
    let spec = cluster.pod_named("a").spec;
    assert!(spec.guest_memory().pinned);
    let pinned = spec.pinned_memory_bytes();
    assert!(pinned > 3 * GIB + (3 * GIB) / 256, "overhead and tables: {pinned}");
    assert_eq!(spec.scheduling_request().memory_bytes, pinned);
    // Who has no devices is counted by what it requests.
    let mut plain = pod_spec("web:1", 100, 64 * MIB);
    plain.containers[0].limits.memory_bytes = Some(3 * GIB);
    cluster.ok(Command::Create(pod("plain", plain)));
    cluster.rest();
    assert_eq!(cluster.holds("plain"), "node-0: ");
    // The quota counts it as the node does.
    let used = cluster.state().quota_use(&QuotaLevel::Namespace(name("default")));
    assert!(used.of(&Measure::RequestsMemory) > u128::from(3 * pinned));
    // Whoever submits a pod cannot say that nothing is pinned.
    let Object::Pod(mut sly) = pinning("sly", 64, 3 * 1024) else { panic!("a pod") };
    let mut spec = PodSpec::clone(&sly.spec);
    spec.options = Rare::some(bulkhead_types::PodOptions {
        guest_memory: Rare::some(GuestMemory { pinned: false, huge_pages: true }),
        ..Default::default()
    });
    std::sync::Arc::make_mut(&mut sly).spec = bulkhead_types::Shared::new(spec);
    cluster.ok(Command::Create(Object::Pod(sly)));
    assert_eq!(cluster.pod_named("sly").spec.guest_memory(), GuestMemory { pinned: true, huge_pages: false });
    // It is applied again as it is.
    let revision = cluster.state().revision();
    cluster.ok(Command::Apply(pinning("a", 64, 3 * 1024)));
    assert_eq!(cluster.state().revision(), revision);
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
}

/// An operator may say that pods have more memory than there is: pinned memory is what there is.
#[test]
fn memory_that_is_only_said_to_be_there_is_not_pinned() {
    let mut cluster = Cluster::new();
    let node = cluster.node("node-0", device_facts(64 * GIB, 4 * GIB));
    cluster.tell_devices(node, cards(4));
    for text in ["a", "b"] {
        cluster.ok(Command::Create(pinning(text, 64, 3 * 1024)));
        cluster.rest();
    }
    assert_eq!(cluster.holds("a"), "node-0: GPU-0");
    assert_eq!(
        cluster.holds("b"),
        "Unschedulable 0/1 nodes are available: 1 Insufficient memory to pin for a guest with devices."
    );
    // The checker sees a node on which that is broken.
    let smaller = device_facts(64 * GIB, 2 * GIB);
    cluster.ok(Command::RegisterNode { name: name("node-0"), facts: smaller });
    assert!(invariant::check(cluster.state()).contains(&Violation::PinnedMemory(node)));
}

#[test]
fn a_whole_guest_of_huge_pages_counts_in_those() {
    let mut cluster = Cluster::new();
    cluster.node("node-0", paged_facts(two_mib(256)));
    let says = [(ANNOTATION_ENABLE_HUGEPAGES, "true")];
    for text in ["a", "b"] {
        cluster.ok(Command::Create(saying(pod(text, pod_spec("web:1", 100, 100 * MIB)), &says)));
        cluster.rest();
    }
    assert_eq!(cluster.holds("a"), "node-0: ");
    assert!(cluster.holds("b").contains("Insufficient hugepages-2Mi"), "{}", cluster.holds("b"));
    let request = cluster.pod_named("a").spec.scheduling_request();
    assert_eq!(request.huge_pages, two_mib(166), "100 MiB and 66 MiB of overhead");
    assert_eq!(request.memory_bytes, 64 * MIB, "QEMU itself");
}

fn pinned_of(cluster: &Cluster, node: ObjectId) -> u64 {
    let pods = cluster.state().pods().iter().filter(|pod| pod.node == Some(node));
    pods.map(|pod| pod.spec.pinned_memory_bytes()).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    /// Whatever is requested and limited: what guests have pinned on a node is there, and a pod is never counted below what its
    /// guest has pinned.
    #[test]
    fn pinned_memory_is_there(
        sizes in proptest::collection::vec((16u64..2048, 1u64..8, any::<bool>(), 0u64..64), 1..10),
        has in 1u64..8,
        really in 1u64..8,
    ) {
        let mut cluster = Cluster::new();
        let told = device_facts(has * GIB, really.min(has) * GIB);
        let all = Resources { huge_pages: two_mib(1024), ..told.allocatable };
        let node = cluster.node("node-0", NodeFacts { capacity: all, allocatable: all, ..told });
        cluster.tell_devices(node, cards(8));
        for (number, (request, times, is_whole, pages)) in sizes.into_iter().enumerate() {
            let text = format!("p{number}");
            let Object::Pod(mut one) = pinning(&text, request, request * times) else { panic!("a pod") };
            if pages % 2 == 0 && pages > 0 {
                let spec = with_pages(PodSpec::clone(&one.spec), two_mib(pages));
                std::sync::Arc::make_mut(&mut one).spec = bulkhead_types::Shared::new(spec);
            }
            let says: &[(&str, &str)] =
                if is_whole { &[(ANNOTATION_ENABLE_HUGEPAGES, "true")] } else { &[] };
            cluster.ok(Command::Create(saying(Object::Pod(one), says)));
            cluster.rest();
            let spec = cluster.pod_named(&text).spec;
            let request = spec.scheduling_request();
            prop_assert!(request.memory_bytes >= spec.pinned_memory_bytes());
            if !is_whole {
                prop_assert!(spec.pinned_memory_bytes() > spec.guest_memory_bytes());
            }
        }
        prop_assert!(pinned_of(&cluster, node) <= really.min(has) * GIB);
        prop_assert_eq!(invariant::check(cluster.state()), []);
        prop_assert_eq!(cluster.replayed().digest(), cluster.state().digest());
    }
}
