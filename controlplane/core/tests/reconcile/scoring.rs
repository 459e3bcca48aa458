//! How nodes are scored by configuration, by what pods say and by measured load; and which nodes are a namespace's own.

use std::collections::BTreeMap;
use std::sync::Arc;

use bulkhead_types::{
    ANNOTATION_DEFAULT_TOLERATIONS, ANNOTATION_LOAD_AWARE, ANNOTATION_NODE_SELECTOR,
    ANNOTATION_SCORING_STRATEGY, ANNOTATION_TOLERATIONS_WHITELIST, Command, ConfigMap, IMAGES_LEVEL, Kind,
    Namespace, NodeImage, NodeImages, Object, ObjectId, ObjectMeta, ObjectRef, Pod, PodSpec, PodStatus,
    PodUsage, QUEUES_LEVEL, Shared, Taint, TaintEffect, Toleration, TolerationOperator,
};

use crate::device_kit::{asking, cards};
use crate::kit::{Cluster, GIB, deployment, facts, map, name, pod_spec, reference};
use bulkhead_controlplane_core::reconcile::ReconcileConfig;

const TYPE: &str = "NodeResourcesFit.scoringStrategy.type";
const RESOURCES: &str = "NodeResourcesFit.scoringStrategy.resources";
const FIT: &str = "NodeResourcesFit.weight";
const BALANCED: &str = "NodeResourcesBalancedAllocation.weight";
const IMAGES: &str = "ImageLocality.weight";
const EXCLUSIVE: &str = "ExclusiveNamespace";

fn config(data: &[(&str, &str)]) -> Object {
    let data = data.iter().map(|(key, value)| ((*key).into(), (*value).to_owned())).collect();
    let meta = ObjectMeta::new(Some(name("kube-system")), name("scheduler-config"));
    Object::ConfigMap(Arc::new(ConfigMap { meta, immutable: false, data, binary_data: BTreeMap::new() }))
}

fn namespace(text: &str, annotations: &[(&str, &str)]) -> Object {
    let mut meta = ObjectMeta::new(None, name(text));
    meta.annotations = map(annotations);
    Object::Namespace(Arc::new(Namespace { meta }))
}

/// A pod that says so in its annotations.
fn saying(text: &str, within: &str, annotations: &[(&str, &str)], spec: PodSpec) -> Object {
    let mut meta = ObjectMeta::new(Some(name(within)), name(text));
    meta.annotations = map(annotations);
    Object::Pod(Arc::new(Pod { meta, spec: Shared::new(spec), node: None, status: PodStatus::default() }))
}

trait Scoring {
    /// A cluster with a namespace for the scheduler's ConfigMap.
    fn with_system() -> Self;
    /// Which node a new pod gets; the reason when it gets none.
    fn placed(&mut self, pod: Object) -> String;
    /// A pod that is there already.
    fn occupy(&mut self, text: &str, node: &str, spec: PodSpec);
}

impl Scoring for Cluster {
    fn with_system() -> Self {
        let mut cluster = Self::new();
        cluster.ok(Command::Create(namespace("kube-system", &[])));
        cluster
    }

    fn placed(&mut self, pod: Object) -> String {
        let reference = pod.object_ref();
        self.ok(Command::Create(pod));
        self.converge();
        let Some(Object::Pod(pod)) = self.state().find_object(&reference) else { panic!("no {reference}") };
        let node = pod.node.and_then(|node| self.state().nodes().get(node));
        node.map_or_else(|| pod.status.message.to_string(), |node| node.meta.name.to_string())
    }

    fn occupy(&mut self, text: &str, node: &str, spec: PodSpec) {
        let spec = PodSpec { node_name: Some(node.into()), ..spec };
        assert_eq!(self.placed(saying(text, "default", &[], spec)), node);
    }
}

/// A node with 8 processors, 16 GiB and 8 cards, of which so much is in use.
fn half_used(cluster: &mut Cluster, node: &str, cpu_millis: u64) {
    let id = cluster.device_node(node, cards(8));
    let mut facts = cluster.state().nodes().get(id).unwrap().status.facts.clone();
    facts.allocatable.cpu_millis = 8000;
    facts.allocatable.memory_bytes = 16 * GIB;
    facts.capacity = facts.allocatable;
    cluster.node(node, facts);
    cluster.tell_devices(id, cards(8));
    let mut spec = asking(&[("nvidia.com/gpu", 4)]);
    spec.containers[0].requests = pod_spec("web:1", cpu_millis, 8 * GIB).containers[0].requests;
    cluster.occupy(&format!("on-{node}"), node, spec);
}

/// The worked example of binpack: of two nodes that differ in processor time only the fuller one is taken; without binpack the
/// emptier one.
#[test]
fn the_fuller_node_is_taken_where_that_is_wanted() {
    let check = |data: &[(&str, &str)], expected: &str| {
        let mut cluster = Cluster::with_system();
        half_used(&mut cluster, "node-1", 4000);
        half_used(&mut cluster, "node-2", 6000);
        if !data.is_empty() {
            cluster.ok(Command::Create(config(data)));
        }
        let mut spec = asking(&[("nvidia.com/gpu", 4)]);
        spec.containers[0].requests = pod_spec("web:1", 2000, 4 * GIB).containers[0].requests;
        assert_eq!(cluster.placed(saying("new", "default", &[], spec)), expected, "{data:?}");
    };
    let weights = (RESOURCES, "cpu=1,memory=1,nvidia.com/gpu=2");
    check(&[(TYPE, "MostAllocated"), weights, (FIT, "5"), (BALANCED, "0")], "node-2");
    check(&[(TYPE, "LeastAllocated"), weights, (FIT, "5"), (BALANCED, "0")], "node-1");
    check(&[], "node-1");
}

fn images(mib: u64) -> NodeImages {
    let names = vec!["docker.io/library/web:1".into()];
    NodeImages {
        images: vec![NodeImage {
            digest: format!("sha256:{}", "0b".repeat(32)).into(),
            names,
            size_bytes: mib << 20,
        }],
    }
}

fn tell(cluster: &mut Cluster, node: ObjectId, images: NodeImages) {
    let incarnation = cluster.state().nodes().get(node).unwrap().status.incarnation;
    cluster.ok(Command::ReportImages { node, incarnation, images });
}

#[test]
fn a_node_with_the_pods_images_is_preferred() {
    let check = |mib: u64, data: &[(&str, &str)], image: &str, expected: bool| {
        let mut cluster = Cluster::with_system();
        cluster.nodes(3);
        let node = cluster.state().find(Kind::Node, None, &name("node-1")).unwrap();
        // A little fuller than the others.
        cluster.occupy("first", "node-1", pod_spec("other:1", 1000, GIB));
        tell(&mut cluster, node, images(mib));
        if !data.is_empty() {
            cluster.ok(Command::Create(config(data)));
        }
        let found = cluster.placed(saying("new", "default", &[], pod_spec(image, 100, 64 << 20)));
        assert_eq!(found == "node-1", expected, "{mib} MiB, {data:?}, {image}: {found}");
        assert_eq!(cluster.replayed().digest(), cluster.state().digest());
    };
    check(900, &[], "web:1", true);
    check(900, &[], &format!("docker.io/library/web@sha256:{}", "0b".repeat(32)), true);
    check(900, &[], "web:2", false);
    // A third of the nodes has it: 60 MiB are 20, below the threshold.
    check(60, &[], "web:1", false);
    check(900, &[(IMAGES, "0")], "web:1", false);
    check(140, &[], "web:1", false);
    check(140, &[(IMAGES, "100")], "web:1", true);
}

/// The share of nodes that have an image is followed, and nodes do not count for it once they are gone.
#[test]
fn an_image_that_all_nodes_have_tells_nothing() {
    let mut cluster = Cluster::with_system();
    cluster.nodes(2);
    let nodes: Vec<_> = cluster.state().nodes().iter().map(|node| node.meta.id).collect();
    cluster.occupy("first", "node-1", pod_spec("other:1", 1000, GIB));
    tell(&mut cluster, nodes[1], images(900));
    assert_eq!(cluster.placed(saying("a", "default", &[], pod_spec("web:1", 100, 64 << 20))), "node-1");
    tell(&mut cluster, nodes[0], images(900));
    assert_eq!(cluster.placed(saying("b", "default", &[], pod_spec("web:1", 100, 64 << 20))), "node-0");
    tell(&mut cluster, nodes[0], NodeImages::default());
    assert_eq!(cluster.placed(saying("c", "default", &[], pod_spec("web:1", 100, 64 << 20))), "node-1");
    cluster.new_leader();
    assert_eq!(cluster.placed(saying("d", "default", &[], pod_spec("web:1", 100, 64 << 20))), "node-1");
}

#[test]
fn images_are_kept_within_bounds_and_only_when_they_are_others() {
    let mut cluster = Cluster::with_system();
    cluster.nodes(1);
    let node = cluster.state().nodes().iter().next().unwrap().meta.id;
    tell(&mut cluster, node, images(5));
    let events = |cluster: &Cluster| cluster.transactions.iter().map(|one| one.events.len()).sum::<usize>();
    let before = events(&cluster);
    tell(&mut cluster, node, images(5));
    assert_eq!(events(&cluster), before);
    tell(&mut cluster, node, NodeImages::default());
    assert_eq!(cluster.state().nodes().get(node).unwrap().status.images.get(), None);
    let many = NodeImages { images: vec![images(1).images[0].clone(); 51] };
    let command = |incarnation, images| Command::ReportImages { node, incarnation, images };
    let refused = cluster.submit(vec![command(1, many)]).unwrap_err();
    assert_eq!(refused.to_string(), "Node node-0: images: at most 50 images are allowed, there are 51");
    cluster.submit(vec![command(7, images(1))]).unwrap_err();
    assert_eq!(command(1, images(1)).feature_level(), IMAGES_LEVEL);
}

#[test]
fn before_their_level_images_cannot_be_weighed() {
    let mut cluster = Cluster::at_level(ReconcileConfig::default(), IMAGES_LEVEL - 1);
    cluster.ok(Command::Create(namespace("kube-system", &[])));
    let refused = cluster.submit(vec![Command::Create(config(&[(IMAGES, "1")]))]).unwrap_err();
    assert!(refused.to_string().contains("needs feature level 11"), "{refused}");
    cluster.ok(Command::Create(config(&[(FIT, "1")])));
}

/// Two replicas on a cluster of two nodes are on one of them (the document's example), and apart without.
#[test]
fn replicas_are_packed_where_that_is_wanted() {
    let check = |data: &[(&str, &str)], annotations: &[(&str, &str)], nodes_used: usize| {
        let mut cluster = Cluster::with_system();
        cluster.nodes(2);
        cluster.ok(Command::Create(config(data)));
        for text in ["a", "b"] {
            cluster.placed(saying(text, "default", annotations, pod_spec("web:1", 500, 64 << 20)));
        }
        let mut nodes: Vec<_> = cluster.active_pods().iter().filter_map(|pod| pod.node).collect();
        nodes.sort_unstable();
        nodes.dedup();
        assert_eq!(nodes.len(), nodes_used, "{data:?} {annotations:?}");
    };
    let packed = [(TYPE, "MostAllocated"), (FIT, "10")];
    check(&packed, &[], 1);
    check(&[], &[], 2);
    // What a pod says itself comes before what the cluster does.
    check(&packed, &[(ANNOTATION_SCORING_STRATEGY, "LeastAllocated")], 2);
    check(&[(FIT, "10")], &[(ANNOTATION_SCORING_STRATEGY, "MostAllocated")], 1);
    check(&packed, &[(ANNOTATION_SCORING_STRATEGY, "Binpack")], 1);
}

#[test]
fn a_malformed_configuration_is_refused_and_another_counts_at_once() {
    let mut cluster = Cluster::with_system();
    cluster.nodes(2);
    let refused = cluster.submit(vec![Command::Create(config(&[(FIT, "-5")]))]).unwrap_err();
    let expected = "ConfigMap kube-system/scheduler-config: data[NodeResourcesFit.weight]: must be a number from 0 to 100";
    assert!(refused.to_string().contains(expected), "{refused}");
    cluster.ok(Command::Create(config(&[(TYPE, "MostAllocated"), (FIT, "10")])));
    let mut used =
        |text: &str| cluster.placed(saying(text, "default", &[], pod_spec("web:1", 500, 64 << 20)));
    let first = used("a");
    assert_eq!(used("b"), first);
    cluster.ok(Command::Apply(config(&[(TYPE, "LeastAllocated"), (FIT, "10")])));
    let mut used =
        |text: &str| cluster.placed(saying(text, "default", &[], pod_spec("web:1", 500, 64 << 20)));
    assert_ne!(used("c"), first);
    // One of this name elsewhere is anybody's.
    let mut other = config(&[("anything", "else")]);
    other.meta_mut().namespace = Some(name("default"));
    cluster.ok(Command::Create(other));
}

/// A State below the level reads neither, and refuses nothing.
#[test]
fn before_its_level_nothing_of_it_is_read() {
    let mut cluster = Cluster::at_level(ReconcileConfig::default(), QUEUES_LEVEL);
    cluster.nodes(2);
    cluster.ok(Command::Create(namespace("kube-system", &[(ANNOTATION_NODE_SELECTOR, "none=such")])));
    cluster.ok(Command::Create(config(&[(TYPE, "nonsense")])));
    let placed = cluster.placed(saying("a", "kube-system", &[], pod_spec("web:1", 500, 64 << 20)));
    assert!(placed.starts_with("node-"), "{placed}");
    // From it on malformed ones count as none, and well-formed ones count.
    cluster.ok(Command::RaiseFeatureLevel { level: bulkhead_types::FEATURE_LEVEL_MAX });
    let waits = cluster.placed(saying("b", "kube-system", &[], pod_spec("web:1", 500, 64 << 20)));
    assert!(waits.starts_with("0/2 nodes"), "{waits}");
}

/// Nodes are equally reserved, and one of them works much harder.
#[test]
fn measured_load_counts_for_pods_that_ask_for_it() {
    let check = |annotations: &[(&str, &str)], busy: &str, expected: Option<&str>| {
        let mut cluster = Cluster::with_system();
        cluster.nodes(2);
        for node in ["node-0", "node-1"] {
            cluster.occupy(&format!("on-{node}"), node, pod_spec("web:1", 4000, 4 * GIB));
        }
        for pod in cluster.active_pods() {
            let node = pod.node.unwrap();
            let is_busy = pod.meta.name.as_str().ends_with(busy);
            let usage = PodUsage {
                pod: pod.meta.id,
                cpu_millis: if is_busy { 4000 } else { 100 },
                memory_bytes: if is_busy { 4 * GIB } else { GIB },
                window_ms: 15_000,
                age_ms: 0,
                containers: vec![],
            };
            cluster.soft.set_usage(node, cluster.now_ms, vec![usage]);
        }
        let placed: Vec<String> = ["a", "b", "c"]
            .into_iter()
            .map(|text| {
                cluster.placed(saying(text, "default", annotations, pod_spec("web:1", 100, 64 << 20)))
            })
            .collect();
        let expected = expected.map(|node| vec![node.to_owned(); 3]);
        let is_as_expected = expected.as_ref().map_or(placed[0] != placed[1], |expected| placed == *expected);
        assert!(is_as_expected, "{annotations:?} {busy} {placed:?}");
    };
    let aware = [(ANNOTATION_LOAD_AWARE, "true")];
    check(&aware, "node-0", Some("node-1"));
    check(&aware, "node-1", Some("node-0"));
    // Those that do not ask go by what is reserved: each where the one before it is not.
    check(&[], "node-1", None);
    check(&[(ANNOTATION_LOAD_AWARE, "false")], "node-0", None);
}

/// Nodes that were not measured count with what their pods request: a burst does not all go to one node.
#[test]
fn a_burst_of_pods_spreads_although_nothing_was_measured() {
    let mut cluster = Cluster::with_system();
    cluster.nodes(2);
    let mut placed: Vec<String> = (0..8)
        .map(|n| {
            let spec = pod_spec("web:1", 1000, GIB);
            cluster.placed(saying(&format!("p{n}"), "default", &[(ANNOTATION_LOAD_AWARE, "true")], spec))
        })
        .collect();
    placed.sort_unstable();
    assert_eq!(placed.iter().filter(|node| *node == "node-0").count(), 4, "{placed:?}");
}

fn exclusive(owner: &str) -> Taint {
    Taint { key: EXCLUSIVE.into(), value: owner.into(), effect: TaintEffect::NoSchedule }
}

fn set_taints(cluster: &mut Cluster, node: &str, taints: Vec<Taint>) {
    let Some(Object::Node(mut found)) = cluster.state().find_object(&reference(Kind::Node, node)) else {
        panic!("no node {node}")
    };
    Arc::make_mut(&mut found).spec.taints = taints;
    cluster.ok(Command::Apply(Object::Node(found)));
    cluster.settle();
}

/// The namespace's own annotations, with which its pods and nobody else's are let on its nodes.
fn owning(owner: &str, whitelist: &str) -> Object {
    let tolerations = format!(r#"[{{"key":"{EXCLUSIVE}","value":"{owner}","effect":"NoSchedule"}}]"#);
    let annotations = [
        (ANNOTATION_DEFAULT_TOLERATIONS, tolerations.as_str()),
        (ANNOTATION_TOLERATIONS_WHITELIST, whitelist),
    ];
    namespace(owner, &annotations)
}

#[test]
fn exclusive_nodes_take_their_namespaces_pods_only() {
    let mut cluster = Cluster::with_system();
    cluster.node("own", facts(8000, 8 * GIB, 50));
    cluster.ok(Command::Create(namespace("other", &[(ANNOTATION_TOLERATIONS_WHITELIST, "[]")])));
    let spec = || pod_spec("web:1", 100, 64 << 20);
    assert_eq!(cluster.placed(saying("before", "other", &[], spec())), "own");
    cluster.ok(Command::Create(owning("team", "[]")));
    set_taints(&mut cluster, "own", vec![exclusive("team")]);
    // Who is there stays; nobody else comes, and the namespace's pods do.
    let waits = cluster.placed(saying("after", "other", &[], spec()));
    assert!(waits.contains("taint"), "{waits}");
    assert_eq!(cluster.placed(saying("ours", "team", &[], spec())), "own");
    let Some(Object::Pod(before)) = cluster.state().find_object(&ObjectRef {
        kind: Kind::Pod,
        namespace: Some(name("other")),
        name: name("before"),
    }) else {
        panic!("gone")
    };
    assert!(before.node.is_some() && !before.meta.is_deleting());
    // A tenant cannot let itself in.
    let toleration = Toleration {
        key: EXCLUSIVE.into(),
        operator: TolerationOperator::Exists,
        value: "".into(),
        effect: None,
        toleration_ms: None,
    };
    let sneaky = PodSpec { tolerations: vec![toleration], ..spec() };
    let refused =
        cluster.submit(vec![Command::Create(saying("sneaky", "other", &[], sneaky.clone()))]).unwrap_err();
    let expected =
        "Pod other/sneaky: spec.tolerations: tolerates ExclusiveNamespace, which namespace other does not";
    assert!(refused.to_string().contains(expected), "{refused}");
    // Nor by a workload: that says why it has no pods.
    let mut workload = deployment("crowd", 2, |spec| {
        spec.template.spec = Shared::new(sneaky);
    });
    workload.meta_mut().namespace = Some(name("other"));
    cluster.ok(Command::Create(workload));
    cluster.converge();
    assert!(cluster.active_pods().iter().all(|pod| !pod.meta.name.as_str().starts_with("crowd")));
    let Some(Object::Deployment(crowd)) = cluster.state().find_object(&ObjectRef {
        kind: Kind::Deployment,
        namespace: Some(name("other")),
        name: name("crowd"),
    }) else {
        panic!("no Deployment")
    };
    let conditions =
        crowd.status.conditions.iter().map(|one| one.message.as_str()).collect::<Vec<_>>().join(" ");
    assert!(conditions.contains("does not let its pods tolerate"), "{conditions}");
    // Once they may, they come by themselves.
    cluster.ok(Command::Apply(namespace("other", &[])));
    cluster.advance(6000);
    let crowd =
        cluster.active_pods().iter().filter(|pod| pod.meta.name.as_str().starts_with("crowd")).count();
    assert_eq!(crowd, 2);
    // The node is everybody's again.
    set_taints(&mut cluster, "own", vec![]);
    assert_eq!(cluster.placed(saying("later", "other", &[], spec())), "own");
}

#[test]
fn a_namespaces_node_selector_is_its_pods_too() {
    let mut cluster = Cluster::with_system();
    let labelled =
        |zone: &str| bulkhead_types::NodeFacts { labels: map(&[("zone", zone)]), ..facts(8000, 8 * GIB, 50) };
    cluster.node("a", labelled("a"));
    cluster.node("b", labelled("b"));
    cluster.ok(Command::Create(namespace("team", &[(ANNOTATION_NODE_SELECTOR, "zone=b")])));
    for n in 0..3 {
        let placed = cluster.placed(saying(&format!("p{n}"), "team", &[], pod_spec("web:1", 100, 64 << 20)));
        assert_eq!(placed, "b");
    }
    let spec = PodSpec { node_selector: map(&[("zone", "a")]), ..pod_spec("web:1", 100, 64 << 20) };
    let refused = cluster.submit(vec![Command::Create(saying("q", "team", &[], spec))]).unwrap_err();
    let expected =
        "Pod team/q: spec.nodeSelector[zone]: is a, which contradicts the node selector of namespace team";
    assert!(refused.to_string().contains(expected), "{refused}");
    let bad = namespace("bad", &[(ANNOTATION_DEFAULT_TOLERATIONS, "[{")]);
    let refused = cluster.submit(vec![Command::Create(bad)]).unwrap_err();
    let expected = "Namespace bad: metadata.annotations[scheduler.alpha.kubernetes.io/defaultTolerations]: is no JSON list";
    assert!(refused.to_string().contains(expected), "{refused}");
}
