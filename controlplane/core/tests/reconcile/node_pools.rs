//! What nodes get from their pools, and what stays their own.

use std::sync::Arc;

use bulkhead_controlplane_core::reconcile::ReconcileConfig;
use bulkhead_types::{
    Command, FEATURE_LEVEL_MAX, Kind, LABEL_NODE_POOL, NODE_POOL_DEFAULT, NodeFacts, NodePool, NodePoolSpec,
    Object, ObjectId, ObjectMeta, POOLS_LEVEL, StringMap, Taint, TaintEffect,
};

use crate::kit::{Cluster, GIB, Say, facts, map, name, pod_spec, reference, replica_set};

fn taint(key: &str, value: &str) -> Taint {
    Taint { key: key.into(), value: value.into(), effect: TaintEffect::NoSchedule }
}

pub fn node_pool(text: &str, change: impl FnOnce(&mut NodePoolSpec)) -> Object {
    let mut spec = NodePoolSpec::default();
    change(&mut spec);
    let meta = ObjectMeta::new(None, name(text));
    Object::NodePool(Arc::new(NodePool { meta, spec, status: Default::default() }))
}

/// With these labels and taints.
fn giving(text: &str, labels: &[(&str, &str)], taints: &[(&str, &str)]) -> Object {
    node_pool(text, |spec| {
        spec.labels = map(labels);
        spec.taints = taints.iter().map(|(key, value)| taint(key, value)).collect();
    })
}

impl Cluster {
    /// A node whose agent says that it is of this pool.
    pub fn node_of(&mut self, node: &str, pool: &str) -> ObjectId {
        let labels = map(&[(LABEL_NODE_POOL, pool)]);
        self.node(node, NodeFacts { labels, ..facts(16_000, 64 * GIB, 100) })
    }

    fn edit_node(&mut self, node: &str, change: impl FnOnce(&mut StringMap, &mut Vec<Taint>)) {
        let Some(Object::Node(mut node)) = self.state().find_object(&reference(Kind::Node, node)) else {
            panic!("no node")
        };
        let present = Arc::make_mut(&mut node);
        change(&mut present.meta.labels, &mut present.spec.taints);
        self.ok(Command::Apply(Object::Node(node)));
        self.settle();
    }

    /// A node's labels and taints, but for its names, as `a=1 b=2 | t=1`.
    fn has(&self, node: &str) -> String {
        let Some(Object::Node(node)) = self.state().find_object(&reference(Kind::Node, node)) else {
            panic!("no node")
        };
        let of_system = ["kubernetes.io/hostname", LABEL_NODE_POOL];
        let labels = node.meta.labels.iter().filter(|(key, _)| !of_system.contains(&key.as_str()));
        let labels: Vec<_> = labels.map(|(key, value)| format!("{key}={value}")).collect();
        let taints: Vec<_> = node.spec.taints.iter().map(|t| format!("{}={}", t.key, t.value)).collect();
        format!("{} | {}", labels.join(" "), taints.join(" ")).trim().to_owned()
    }

    fn put(&mut self, object: Object) {
        self.ok(Command::Apply(object));
        self.settle();
    }

    fn pool_figures(&mut self, pool: &str) -> String {
        self.advance(3000);
        let Some(Object::NodePool(pool)) = self.state().find_object(&reference(Kind::NodePool, pool)) else {
            panic!("no pool")
        };
        let s = &pool.status;
        format!("{}/{} -{} +{} !{}", s.ready, s.nodes, s.missing, s.surplus, s.out_of_sync)
    }

    fn refusal(&mut self, command: Command) -> String {
        self.submit(vec![command]).expect_err("a refusal").to_string()
    }
}

#[test]
fn a_node_has_what_its_pool_gives_from_its_first_moment() {
    let mut cluster = Cluster::new();
    cluster.put(node_pool("gpu", |spec| {
        spec.labels = map(&[("tier", "gold")]);
        spec.taints = vec![taint("dedicated", "gpu")];
        spec.unschedulable_on_join = true;
    }));
    let id = cluster.node_of("node-0", "gpu");
    // Before any reconciler ran.
    assert_eq!(cluster.has("node-0"), "tier=gold | dedicated=gpu");
    assert!(cluster.state().nodes().get(id).unwrap().spec.unschedulable);
    // It comes back as the operator left it.
    cluster.ok(Command::SetUnschedulable { node: name("node-0"), unschedulable: false });
    cluster.node_of("node-0", "gpu");
    assert!(!cluster.state().nodes().get(id).unwrap().spec.unschedulable);
    cluster.settle();
    assert_eq!(cluster.has("node-0"), "tier=gold | dedicated=gpu");
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
}

#[test]
fn what_a_pool_gives_follows_it_and_nothing_else() {
    let mut cluster = Cluster::new();
    cluster.node_of("node-0", "a");
    cluster.node("node-1", facts(16_000, 64 * GIB, 100));
    cluster.settle();
    assert_eq!(cluster.has("node-0"), "|");
    cluster.put(giving("a", &[("x", "1"), ("y", "1")], &[("t", "1"), ("u", "1")]));
    assert_eq!((cluster.has("node-0").as_str(), cluster.has("node-1").as_str()), ("x=1 y=1 | t=1 u=1", "|"));
    // An operator sets one label and one taint of the pool, and one of each that it does not give yet.
    cluster.edit_node("node-0", |labels, taints| {
        labels.insert("y".into(), "mine".into());
        labels.insert("z".into(), "mine".into());
        taints[1].value = "mine".into();
        taints.push(taint("v", "mine"));
    });
    cluster.put(giving("a", &[("x", "2"), ("y", "2"), ("z", "2")], &[("t", "2"), ("u", "2"), ("v", "2")]));
    assert_eq!(cluster.has("node-0"), "x=2 y=mine z=mine | t=2 u=mine v=mine");
    cluster.put(giving("a", &[], &[]));
    assert_eq!(cluster.has("node-0"), "y=mine z=mine | u=mine v=mine");
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
}

#[test]
fn who_says_so_keeps_its_present_nodes_as_they_are() {
    let mut cluster = Cluster::new();
    let pool = |value: &str| {
        node_pool("a", |spec| {
            spec.labels = map(&[("x", value)]);
            spec.sync_existing = false;
        })
    };
    cluster.put(pool("1"));
    cluster.node_of("node-0", "a");
    cluster.put(pool("2"));
    cluster.node_of("node-1", "a");
    cluster.settle();
    assert_eq!((cluster.has("node-0").as_str(), cluster.has("node-1").as_str()), ("x=1 |", "x=2 |"));
}

#[test]
fn a_node_that_moves_leaves_what_it_had_behind() {
    let mut cluster = Cluster::new();
    cluster.put(giving("a", &[("x", "a"), ("only-a", "1")], &[("t", "a")]));
    cluster.put(giving("b", &[("x", "b")], &[]));
    cluster.node_of("node-0", "a");
    cluster.edit_node("node-0", |labels, _| _ = labels.insert(LABEL_NODE_POOL.into(), "b".into()));
    assert_eq!(cluster.has("node-0"), "x=b |");
    // The agent's word of before does not move it back.
    cluster.node_of("node-0", "a");
    cluster.settle();
    assert_eq!(cluster.has("node-0"), "x=b |");
    // Into a pool that is not there: it has nothing from any.
    cluster.edit_node("node-0", |labels, _| _ = labels.insert(LABEL_NODE_POOL.into(), "c".into()));
    assert_eq!(cluster.has("node-0"), "|");
    let node = cluster.state().find_object(&reference(Kind::Node, "node-0"));
    assert!(matches!(node, Some(Object::Node(node)) if node.status.pool.get().is_none()));
    cluster.put(giving("c", &[("x", "c")], &[]));
    assert_eq!(cluster.has("node-0"), "x=c |");
}

#[test]
fn the_scheduler_goes_by_what_pools_give() {
    let mut cluster = Cluster::new();
    cluster.node_of("node-0", "a");
    let mut spec = pod_spec("web:1", 100, 64 << 20);
    spec.node_selector = map(&[("tier", "gold")]);
    cluster.ok(Command::Create(replica_set("web", 1, spec)));
    cluster.settle();
    assert!(cluster.active_pods()[0].node.is_none());
    cluster.put(giving("a", &[("tier", "gold")], &[]));
    assert!(cluster.active_pods()[0].node.is_some(), "its label woke the pod");
    cluster.put(giving("a", &[("tier", "gold")], &[("dedicated", "gpu")]));
    let pod = cluster.active_pods()[0].meta.id;
    cluster.say(pod, Say::Failed);
    cluster.settle();
    assert!(cluster.active_pods()[0].node.is_none(), "its taint repels");
}

#[test]
fn pools_say_how_many_nodes_are_missing() {
    let mut cluster = Cluster::new();
    let pool = |desired| node_pool("a", |spec| spec.desired_nodes = desired);
    cluster.put(pool(Some(3)));
    assert_eq!(cluster.pool_figures("a"), "0/0 -3 +0 !0");
    cluster.node_of("node-0", "a");
    cluster.node("node-1", facts(16_000, 64 * GIB, 100));
    assert_eq!(cluster.pool_figures("a"), "1/1 -2 +0 !0");
    assert_eq!(cluster.pool_figures(NODE_POOL_DEFAULT), "1/1 -0 +0 !0");
    cluster.put(pool(Some(0)));
    assert_eq!(cluster.pool_figures("a"), "1/1 -0 +1 !0");
    cluster.put(pool(None));
    assert_eq!(cluster.pool_figures("a"), "1/1 -0 +0 !0");
}

#[test]
fn pools_go_when_they_are_empty() {
    let mut cluster = Cluster::new();
    let delete = |pool: &str| Command::Delete {
        object: reference(Kind::NodePool, pool),
        grace_ms: None,
        force: false,
    };
    cluster.put(giving("a", &[], &[]));
    for n in 0..5 {
        cluster.node_of(&format!("node-{n}"), "a");
    }
    assert_eq!(
        cluster.refusal(delete("a")),
        "NodePool a: has 5 nodes: node-0, node-1, node-2, 2 more; move them to another pool with `bulkhead node \
         set-pool`, or delete the nodes"
    );
    // It came with the first pool.
    assert_eq!(cluster.refusal(delete("default")), "NodePool default: is always there and cannot be deleted");
    for n in 0..5 {
        cluster.edit_node(&format!("node-{n}"), |labels, _| {
            labels.insert(LABEL_NODE_POOL.into(), "default".into());
        });
    }
    cluster.ok(delete("a"));
}

#[test]
fn a_pool_gives_nothing_that_is_each_nodes_own() {
    let mut cluster = Cluster::new();
    let refused = [
        giving("a", &[("kubernetes.io/hostname", "x")], &[]),
        giving("a", &[(LABEL_NODE_POOL, "b")], &[]),
        giving("a", &[], &[("t", "1"), ("t", "2")]),
        node_pool("a", |spec| spec.desired_nodes = Some(1 << 20)),
    ];
    for object in refused {
        let refusal = cluster.refusal(Command::Create(object));
        assert!(refusal.starts_with("NodePool a: spec."), "{refusal}");
    }
}

#[test]
fn clusters_of_older_levels_know_no_pools() {
    let mut cluster = Cluster::at_level(ReconcileConfig::default(), POOLS_LEVEL - 1);
    let refusal = cluster.refusal(Command::Create(giving("a", &[("x", "1")], &[])));
    assert!(refusal.contains("needs level 10, the cluster runs at level 9"), "{refusal}");
    cluster.node_of("node-0", "a");
    cluster.settle();
    assert_eq!(cluster.has("node-0"), "|");
    cluster.ok(Command::RaiseFeatureLevel { level: FEATURE_LEVEL_MAX });
    cluster.put(giving("a", &[("x", "1")], &[]));
    assert_eq!(cluster.has("node-0"), "x=1 |");
}
