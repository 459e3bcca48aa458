//! Affinity, anti-affinity and spreading, one rule a test.

use std::collections::BTreeMap;
use std::sync::Arc;

use bulkhead_types::{
    Binding, Command, Kind, LabelSelector, Namespace, NodeAffinity, NodeInclusionPolicy,
    NodeSelectorOperator, NodeSelectorRequirement, NodeSelectorTerm, Object, ObjectMeta, PLACEMENT_LEVEL,
    Pod, PodAffinity, PodAffinityTerm, PodOptions, PodPlacement, PodSpec, PodStatus, PreferredSchedulingTerm,
    Rare, Shared, TopologySpreadConstraint, WeightedPodAffinityTerm, WhenUnsatisfiable,
};

use crate::kit::{Cluster, GIB, Say, deployment, facts, map, name, pod_spec, reference, template};
use crate::sets::daemon_set;
use bulkhead_controlplane_core::reconcile::ReconcileConfig;

pub fn placed(placement: PodPlacement) -> PodSpec {
    let options = PodOptions { placement: Rare::some(placement), ..PodOptions::default() };
    PodSpec { options: Rare::some(options), ..pod_spec("web:1", 10, 1 << 20) }
}

pub fn term(app: &str, key: &str) -> PodAffinityTerm {
    let label_selector = Some(LabelSelector::from_labels(map(&[("app", app)])));
    PodAffinityTerm { label_selector, topology_key: key.into(), ..PodAffinityTerm::default() }
}

pub fn required(term: PodAffinityTerm) -> Rare<PodAffinity> {
    Rare::some(PodAffinity { required: vec![term], preferred: vec![] })
}

fn preferred(term: PodAffinityTerm) -> Rare<PodAffinity> {
    let preferred = vec![WeightedPodAffinityTerm { weight: 100, pod_affinity_term: term }];
    Rare::some(PodAffinity { required: vec![], preferred })
}

fn near(app: &str, key: &str) -> PodSpec {
    placed(PodPlacement { pod_affinity: required(term(app, key)), ..PodPlacement::default() })
}

fn away(app: &str, key: &str) -> PodSpec {
    placed(PodPlacement { pod_anti_affinity: required(term(app, key)), ..PodPlacement::default() })
}

pub fn constraint(app: &str, key: &str, when_unsatisfiable: WhenUnsatisfiable) -> TopologySpreadConstraint {
    TopologySpreadConstraint {
        max_skew: 1,
        topology_key: key.into(),
        when_unsatisfiable,
        label_selector: Some(LabelSelector::from_labels(map(&[("app", app)]))),
        min_domains: None,
        node_affinity_policy: NodeInclusionPolicy::Honor,
        node_taints_policy: NodeInclusionPolicy::Ignore,
        match_label_keys: vec![],
    }
}

fn spread(one: TopologySpreadConstraint) -> PodSpec {
    placed(PodPlacement { topology_spread_constraints: vec![one], ..PodPlacement::default() })
}

pub fn labelled(text: &str, app: &str, namespace: &str, spec: PodSpec) -> Object {
    let mut meta = ObjectMeta::new(Some(name(namespace)), name(text));
    meta.labels = map(&[("app", app)]);
    Object::Pod(Arc::new(Pod { meta, spec: Shared::new(spec), node: None, status: PodStatus::default() }))
}

fn create(cluster: &mut Cluster, text: &str, app: &str, spec: PodSpec) {
    cluster.ok(Command::Create(labelled(text, app, "default", spec)));
    cluster.settle();
}

/// Nodes `a0`, `a1`, ... in zone a, and so on for each zone.
fn zones(cluster: &mut Cluster, sizes: &[(&str, usize)]) {
    for (zone, size) in sizes {
        for n in 0..*size {
            cluster.node(&format!("{zone}{n}"), facts(8000, 8 * GIB, 50));
            label(cluster, &format!("{zone}{n}"), "zone", Some(zone));
        }
    }
    cluster.settle();
}

fn label(cluster: &mut Cluster, node: &str, key: &str, value: Option<&str>) {
    let Some(Object::Node(mut found)) = cluster.state().find_object(&reference(Kind::Node, node)) else {
        panic!("no node {node}")
    };
    let labels = &mut Arc::make_mut(&mut found).meta.labels;
    match value {
        Some(value) => _ = labels.insert(key.into(), value.into()),
        None => _ = labels.remove(key),
    }
    cluster.ok(Command::Apply(Object::Node(found)));
}

fn find(cluster: &Cluster, pod: &str) -> Arc<Pod> {
    let Some(Object::Pod(pod)) = cluster.state().find_object(&reference(Kind::Pod, pod)) else {
        panic!("no pod {pod}")
    };
    pod
}

fn node_of(cluster: &Cluster, pod: &str) -> Option<String> {
    let node = find(cluster, pod).node?;
    Some(cluster.state().nodes().get(node).unwrap().meta.name.to_string())
}

fn message(cluster: &Cluster, pod: &str) -> String {
    find(cluster, pod).status.message.clone()
}

fn per_zone(cluster: &Cluster, app: &str) -> Vec<usize> {
    let mut zones = BTreeMap::new();
    for node in cluster.state().nodes().iter() {
        zones.entry(node.meta.labels.get("zone").cloned()).or_insert(0);
    }
    for pod in cluster.active_pods().iter().filter(|pod| pod.meta.labels.get("app").is_some_and(|a| a == app))
    {
        let Some(node) = pod.node.and_then(|node| cluster.state().nodes().get(node)) else { continue };
        *zones.entry(node.meta.labels.get("zone").cloned()).or_insert(0) += 1;
    }
    zones.into_values().collect()
}

fn zone_term(operator: NodeSelectorOperator, values: &[&str]) -> NodeSelectorTerm {
    let values = values.iter().map(|value| (*value).into()).collect();
    let requirement = NodeSelectorRequirement { key: "zone".into(), operator, values };
    NodeSelectorTerm { match_expressions: vec![requirement], match_fields: vec![] }
}

#[test]
fn required_node_affinity_chooses_and_preferred_prefers() {
    let mut cluster = Cluster::new();
    zones(&mut cluster, &[("a", 2), ("b", 2), ("c", 2)]);
    let affinity = |required: &[&str], preferred: &[&str]| {
        let required = vec![zone_term(NodeSelectorOperator::In, required)];
        let preference = zone_term(NodeSelectorOperator::In, preferred);
        let preferred = vec![PreferredSchedulingTerm { weight: 50, preference }];
        let node_affinity = Rare::some(NodeAffinity { required, preferred });
        placed(PodPlacement { node_affinity, ..PodPlacement::default() })
    };
    for n in 0..8 {
        create(&mut cluster, &format!("p{n}"), "web", affinity(&["b", "c"], &["c"]));
        assert!(
            node_of(&cluster, &format!("p{n}")).unwrap().starts_with('c'),
            "preferred while there is room"
        );
    }
    create(&mut cluster, "nowhere", "web", affinity(&["d"], &["a"]));
    let expected = "0/6 nodes are available: 6 node(s) didn't match Pod's node affinity/selector.";
    assert_eq!(message(&cluster, "nowhere"), expected);
    label(&mut cluster, "a1", "zone", Some("d"));
    cluster.settle();
    assert_eq!(node_of(&cluster, "nowhere").as_deref(), Some("a1"), "a label wakes who waits for it");
}

#[test]
fn the_first_of_its_kind_may_be_anywhere_and_the_others_follow() {
    let mut cluster = Cluster::new();
    zones(&mut cluster, &[("a", 3), ("b", 3)]);
    create(&mut cluster, "first", "web", near("web", "zone"));
    let zone = node_of(&cluster, "first").unwrap().remove(0);
    for n in 0..10 {
        create(&mut cluster, &format!("p{n}"), "web", near("web", "zone"));
        assert!(node_of(&cluster, &format!("p{n}")).unwrap().starts_with(zone));
    }
    create(&mut cluster, "other", "other", near("db", "zone"));
    let expected = "0/6 nodes are available: 6 node(s) didn't match pod affinity rules.";
    assert_eq!(message(&cluster, "other"), expected, "it is not its own kind");
    create(&mut cluster, "db", "db", pod_spec("db:1", 10, 1));
    let zone = node_of(&cluster, "db").unwrap().remove(0);
    assert!(node_of(&cluster, "other").unwrap().starts_with(zone), "what it waited for came");
}

#[test]
fn anti_affinity_holds_from_both_sides_and_wakes_when_it_ends() {
    let mut cluster = Cluster::new();
    zones(&mut cluster, &[("a", 1), ("b", 1)]);
    create(&mut cluster, "one", "web", away("web", "zone"));
    create(&mut cluster, "two", "web", away("web", "zone"));
    assert_ne!(node_of(&cluster, "one"), node_of(&cluster, "two"));
    create(&mut cluster, "three", "web", away("web", "zone"));
    let expected = "0/2 nodes are available: 2 node(s) didn't match pod anti-affinity rules.";
    assert_eq!(message(&cluster, "three"), expected);
    create(&mut cluster, "plain", "web", pod_spec("web:1", 10, 1));
    let expected = "0/2 nodes are available: 2 node(s) didn't satisfy existing pods anti-affinity rules.";
    assert_eq!(message(&cluster, "plain"), expected);
    create(&mut cluster, "foreign", "other", pod_spec("web:1", 10, 1));
    assert!(node_of(&cluster, "foreign").is_some(), "it is not meant");
    let two = find(&cluster, "two").meta.id;
    cluster.ok(Command::Delete { object: reference(Kind::Pod, "two"), grace_ms: None, force: false });
    cluster.settle();
    assert_eq!(node_of(&cluster, "three"), None, "what ends is still there");
    cluster.say(two, Say::Gone);
    cluster.settle();
    assert!(node_of(&cluster, "three").is_some());
}

#[test]
fn a_label_that_changes_ends_what_it_meant() {
    let mut cluster = Cluster::new();
    zones(&mut cluster, &[("a", 1)]);
    create(&mut cluster, "old", "web", pod_spec("web:1", 10, 1));
    create(&mut cluster, "new", "web", away("web", "zone"));
    assert_eq!(node_of(&cluster, "new"), None);
    let mut old = find(&cluster, "old");
    Arc::make_mut(&mut old).meta.labels = map(&[("app", "done")]);
    cluster.ok(Command::Apply(Object::Pod(old)));
    cluster.settle();
    assert_eq!(node_of(&cluster, "new").as_deref(), Some("a0"));
}

#[test]
fn namespaces_are_meant_by_name_and_by_label() {
    let mut cluster = Cluster::new();
    zones(&mut cluster, &[("a", 1)]);
    let namespace = |labels| {
        let mut meta = ObjectMeta::new(None, name("team"));
        meta.labels = map(labels);
        Object::Namespace(Arc::new(Namespace { meta }))
    };
    cluster.ok(Command::Create(namespace(&[])));
    let by_label = LabelSelector::from_labels(map(&[("tier", "front")]));
    let meant = PodAffinityTerm { namespace_selector: Some(by_label), ..term("web", "zone") };
    let keeps_off = PodPlacement { pod_anti_affinity: required(meant), ..PodPlacement::default() };
    cluster.ok(Command::Create(labelled("theirs", "web", "team", pod_spec("web:1", 10, 1))));
    create(&mut cluster, "ours", "x", placed(keeps_off.clone()));
    assert!(node_of(&cluster, "ours").is_some(), "the namespace has no such label yet");
    cluster.ok(Command::Apply(namespace(&[("tier", "front")])));
    create(&mut cluster, "late", "x", placed(keeps_off));
    assert_eq!(node_of(&cluster, "late"), None);
    cluster.ok(Command::Apply(namespace(&[("tier", "back")])));
    cluster.settle();
    assert!(node_of(&cluster, "late").is_some(), "labels of namespaces wake who waits for them");
    let by_name = PodAffinityTerm { namespaces: vec!["team".into()], ..term("web", "zone") };
    create(
        &mut cluster,
        "named",
        "x",
        placed(PodPlacement { pod_anti_affinity: required(by_name), ..PodPlacement::default() }),
    );
    assert_eq!(node_of(&cluster, "named"), None);
}

#[test]
fn hard_constraints_spread_and_say_why_not() {
    let mut cluster = Cluster::new();
    zones(&mut cluster, &[("a", 4), ("b", 2), ("c", 1)]);
    cluster.node("bare", facts(8000, 8 * GIB, 50));
    let hard = constraint("web", "zone", WhenUnsatisfiable::DoNotSchedule);
    let spec = spread(hard);
    cluster.ok(Command::Apply(deployment("web", 30, |it| it.template = template("web", spec))));
    cluster.settle();
    assert_eq!(per_zone(&cluster, "web"), [0, 10, 10, 10], "of the node without a zone, a, b and c");
    cluster.ok(Command::SetUnschedulable { node: name("c0"), unschedulable: true });
    for n in 0..3 {
        let one = constraint("web", "zone", WhenUnsatisfiable::DoNotSchedule);
        create(&mut cluster, &format!("p{n}"), "web", spread(one));
    }
    let expected = "0/8 nodes are available: 6 node(s) didn't match pod topology spread constraints, 1 node(s) didn't match \
                    pod topology spread constraints (missing required label), 1 node(s) were unschedulable.";
    assert_eq!(message(&cluster, "p2"), expected, "c counts although nothing new can be there");
    cluster.ok(Command::SetUnschedulable { node: name("c0"), unschedulable: false });
    cluster.settle();
    assert_eq!(per_zone(&cluster, "web"), [0, 11, 11, 11]);
}

#[test]
fn policies_and_wanted_domains_change_who_counts() {
    let mut cluster = Cluster::new();
    zones(&mut cluster, &[("a", 1), ("b", 1)]);
    cluster.ok(Command::SetUnschedulable { node: name("b0"), unschedulable: true });
    let honors = TopologySpreadConstraint {
        node_taints_policy: NodeInclusionPolicy::Honor,
        ..constraint("web", "zone", WhenUnsatisfiable::DoNotSchedule)
    };
    for n in 0..3 {
        create(&mut cluster, &format!("p{n}"), "web", spread(honors.clone()));
        assert_eq!(
            node_of(&cluster, &format!("p{n}")).as_deref(),
            Some("a0"),
            "the cordoned node does not count"
        );
    }
    let wants = TopologySpreadConstraint { min_domains: Some(2), ..honors };
    create(&mut cluster, "wants", "web", spread(wants));
    assert_eq!(node_of(&cluster, "wants"), None, "one domain is fewer than two: the fewest counts as none");
}

#[test]
fn soft_constraints_and_wishes_only_prefer() {
    let mut cluster = Cluster::new();
    zones(&mut cluster, &[("a", 3), ("b", 1)]);
    let spec = spread(constraint("web", "zone", WhenUnsatisfiable::ScheduleAnyway));
    cluster.ok(Command::Apply(deployment("web", 12, |it| it.template = template("web", spec))));
    cluster.settle();
    assert_eq!(per_zone(&cluster, "web"), [6, 6]);
    let wish =
        |affinity: Rare<PodAffinity>| PodPlacement { pod_affinity: affinity, ..PodPlacement::default() };
    create(&mut cluster, "db", "db", pod_spec("db:1", 10, 1));
    let home = node_of(&cluster, "db").unwrap();
    create(&mut cluster, "friend", "x", placed(wish(preferred(term("db", "kubernetes.io/hostname")))));
    assert_eq!(node_of(&cluster, "friend"), Some(home.clone()));
    let avoids = PodPlacement {
        pod_anti_affinity: preferred(term("db", "kubernetes.io/hostname")),
        ..PodPlacement::default()
    };
    create(&mut cluster, "foe", "x", placed(avoids));
    assert_ne!(node_of(&cluster, "foe"), Some(home));
}

#[test]
fn others_wishes_count_for_a_pod_that_says_nothing() {
    let mut cluster = Cluster::new();
    zones(&mut cluster, &[("a", 1), ("b", 1)]);
    let avoids = |app: &str| PodPlacement {
        pod_anti_affinity: preferred(term(app, "zone")),
        ..PodPlacement::default()
    };
    create(&mut cluster, "grump", "grump", placed(avoids("web")));
    let home = node_of(&cluster, "grump");
    create(&mut cluster, "filler", "filler", PodSpec { node_name: None, ..pod_spec("x:1", 4000, GIB) });
    create(&mut cluster, "web", "web", pod_spec("web:1", 10, 1));
    assert_ne!(node_of(&cluster, "web"), home, "although it may be there");
}

#[test]
fn a_binding_that_breaks_a_rule_is_passed_over_where_it_is_applied() {
    let mut cluster = Cluster::new();
    zones(&mut cluster, &[("a", 2)]);
    create(&mut cluster, "one", "web", away("web", "zone"));
    for text in ["two", "three"] {
        cluster.ok(Command::Create(labelled(text, "web", "default", away("web", "zone"))));
    }
    cluster.ok(Command::Create(labelled("plain", "web", "default", pod_spec("web:1", 10, 1))));
    let node = find(&cluster, "one").node.unwrap();
    let bind = |pod: &str| Binding {
        pod: find(&cluster, pod).meta.id,
        node,
        nodes_considered: 2,
        score: 0,
        devices: vec![],
        networks: vec![],
        cpus: Default::default(),
    };
    let bindings = vec![bind("two"), bind("plain")];
    cluster.ok(Command::BindPods { bindings });
    assert_eq!(node_of(&cluster, "two"), None);
    assert_eq!(node_of(&cluster, "plain"), None);
    let one = find(&cluster, "one").meta.id;
    cluster.ok(Command::Delete { object: reference(Kind::Pod, "one"), grace_ms: None, force: true });
    let bind = |pod: &str| Binding {
        pod: find(&cluster, pod).meta.id,
        node,
        nodes_considered: 2,
        score: 0,
        devices: vec![],
        networks: vec![],
        cpus: Default::default(),
    };
    let bindings = vec![bind("two"), bind("three")];
    cluster.ok(Command::BindPods { bindings });
    assert!(cluster.state().pods().get(one).is_none() && node_of(&cluster, "two").is_some());
    assert_eq!(node_of(&cluster, "three"), None, "what the command itself bound counts");
}

#[test]
fn many_hosts_are_spread_over_by_their_names() {
    let mut cluster = Cluster::new();
    zones(&mut cluster, &[("a", 45)]);
    let hosts = constraint("web", "kubernetes.io/hostname", WhenUnsatisfiable::DoNotSchedule);
    let spec = placed(PodPlacement {
        topology_spread_constraints: vec![hosts],
        pod_anti_affinity: required(term("other", "kubernetes.io/hostname")),
        ..PodPlacement::default()
    });
    for n in 0..5 {
        create(&mut cluster, &format!("other-{n}"), "other", pod_spec("x:1", 10, 1));
    }
    cluster.ok(Command::Apply(deployment("web", 80, |it| it.template = template("web", spec))));
    cluster.settle();
    let mut by_node = BTreeMap::new();
    for pod in cluster.active_pods().iter().filter(|pod| pod.meta.labels["app"] == "web") {
        *by_node.entry(pod.node).or_insert(0) += 1;
    }
    // Five hosts have a pod that they keep away from, and stay empty: no other may have more than one.
    assert_eq!(by_node.remove(&None), Some(40));
    assert!(by_node.len() == 40 && by_node.values().all(|count| *count == 1), "{by_node:?}");
}

#[test]
fn daemons_are_where_node_affinity_lets_them_be() {
    let mut cluster = Cluster::new();
    cluster.nodes(3);
    label(&mut cluster, "node-1", "zone", Some("a"));
    let required = vec![zone_term(NodeSelectorOperator::In, &["a"])];
    let node_affinity = Rare::some(NodeAffinity { required, preferred: vec![] });
    let spec = placed(PodPlacement { node_affinity, ..PodPlacement::default() });
    cluster.ok(Command::Apply(daemon_set("log", |it| it.template.spec = Shared::new(spec))));
    cluster.converge();
    assert_eq!(cluster.daemons("log"), "1=1");
    label(&mut cluster, "node-2", "zone", Some("a"));
    label(&mut cluster, "node-1", "zone", None);
    cluster.converge();
    assert_eq!(cluster.daemons("log"), "2=1");
}

#[test]
fn pods_with_rules_need_their_feature_level() {
    let cluster = Cluster::at_level(ReconcileConfig::default(), PLACEMENT_LEVEL - 1);
    let command = Command::Create(labelled("p", "web", "default", away("web", "zone")));
    assert_eq!(command.feature_level(), PLACEMENT_LEVEL);
    let mut cluster = cluster;
    assert!(cluster.submit(vec![command]).is_err());
}
