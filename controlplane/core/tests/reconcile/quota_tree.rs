//! The elastic quota tree: what is guaranteed, lent, refused, and taken back.
//!
//! The worked example is that of "Capacity scheduling" in ACK's documentation: a root of 40 cores with two teams of 20, each with
//! two leaves of min 10 and max 20, and five pods of 5 cores in one namespace after another.

use std::sync::Arc;

use bulkhead_controlplane_core::placement::reference::{elastic, preemption::judge};
use bulkhead_controlplane_core::{State, decide, evolve::evolve, invariant};
use bulkhead_types::{
    ANNOTATION_QUEUE_NAME, Command, ELASTIC_QUOTA_LEVEL, ELASTIC_QUOTA_NAMESPACE, ElasticQuota,
    ElasticQuotaTree, ElasticQuotaTreeSpec, Kind, Namespace, Object, ObjectId, ObjectMeta, ObjectRef, Pod,
    PodOptions, PodSpec, QueueState, QuotaAmounts, QuotaResource, Rare,
};
use expect_test::{Expect, expect};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::kit::{Cluster, GIB, Say, facts, map, name, pod, pod_spec, replica_set};
use crate::preemption::{budget, class};
use crate::queues::{amounts, queue};

const CORE: u64 = 1000;

/// A level of `cpu`: min and max in cores.
fn level(named: &str, (min, max): (u64, u64), children: Vec<ElasticQuota>, of: &[&str]) -> ElasticQuota {
    ElasticQuota {
        name: named.into(),
        max: amounts(&[("cpu", max * CORE)]),
        min: amounts(&[("cpu", min * CORE)]),
        children,
        namespaces: of.iter().map(|text| name(text)).collect(),
    }
}

fn tree_in(namespace: &str, named: &str, root: ElasticQuota) -> Object {
    let meta = ObjectMeta::new(Some(name(namespace)), name(named));
    let (spec, status) = (ElasticQuotaTreeSpec { root }, Default::default());
    Object::ElasticQuotaTree(Arc::new(ElasticQuotaTree { meta, spec, status }))
}

fn tree(root: ElasticQuota) -> Object {
    tree_in(ELASTIC_QUOTA_NAMESPACE, "tree", root)
}

fn memory() -> QuotaResource {
    QuotaResource::parse("memory").unwrap()
}

/// The root of the example. Memory counts too, and nobody uses as much of it as is guaranteed.
fn example() -> ElasticQuota {
    let with_memory = |mut quota: ElasticQuota| {
        for (amounts, own) in [(&mut quota.max, 40), (&mut quota.min, 10)] {
            amounts.insert(memory(), own * GIB);
        }
        quota
    };
    let leaf = |named: &str, of: &str| with_memory(level(named, (10, 20), vec![], &[of]));
    let team = |named: &str, leaves: Vec<ElasticQuota>| {
        let mut team = level(named, (20, 40), leaves, &[]);
        team.max.insert(memory(), 40 * GIB);
        team.min.insert(memory(), 20 * GIB);
        team
    };
    let a = team("root.a", vec![leaf("root.a.1", "ns1"), leaf("root.a.2", "ns2")]);
    let b = team("root.b", vec![leaf("root.b.1", "ns3"), leaf("root.b.2", "ns4")]);
    let mut root = level("root", (40, 40), vec![a, b], &[]);
    root.max.insert(memory(), 40 * GIB);
    root.min = root.max.clone();
    root
}

/// Nodes of so many cores, namespaces `ns1` to `ns4`, classes `high` and `low`, and a tree.
fn cluster(nodes: &[u64], root: ElasticQuota) -> Cluster {
    let mut cluster = Cluster::new();
    for (number, cores) in nodes.iter().enumerate() {
        cluster.node(&format!("n{number}"), facts(cores * CORE, 256 * GIB, 100));
    }
    for text in [ELASTIC_QUOTA_NAMESPACE, "ns1", "ns2", "ns3", "ns4"] {
        let meta = ObjectMeta::new(None, name(text));
        cluster.ok(Command::Create(Object::Namespace(Arc::new(Namespace { meta }))));
    }
    for (named, value) in [("high", 100), ("low", 10)] {
        cluster.ok(Command::Create(class(named, value, None)));
    }
    cluster.ok(Command::Create(tree(root)));
    cluster
}

fn spec(cores: u64, class: &str) -> PodSpec {
    let class = Some(class.into()).filter(|_| !class.is_empty());
    let options = PodOptions { priority_class: class.into(), ..PodOptions::default() };
    PodSpec { options: Rare::unless_default(options), ..pod_spec("nginx:1", cores * CORE, 1 << 20) }
}

fn within(namespace: &str, mut object: Object) -> Command {
    object.meta_mut().namespace = Some(name(namespace));
    Command::Create(object)
}

/// Pods one after another, `name@namespace`, with their cores and class; they run.
fn run(cluster: &mut Cluster, wanted: &[(&str, u64, &str)]) {
    for (named, cores, class) in wanted {
        let (named, namespace) = named.split_once('@').unwrap_or((named, "default"));
        cluster.ok(within(namespace, pod(named, spec(*cores, class))));
        cluster.converge();
        cluster.now_ms += 1000;
    }
}

/// Of every namespace how many pods have a node and how many wait: `ns1 4+1`.
fn counts(cluster: &Cluster) -> String {
    let mut counts = std::collections::BTreeMap::<String, (u32, u32)>::new();
    for pod in cluster.state().pods().iter().filter(|pod| !pod.meta.is_deleting()) {
        let namespace = pod.meta.namespace.as_ref().unwrap().to_string();
        let count = counts.entry(namespace).or_default();
        if pod.node.is_some() { count.0 += 1 } else { count.1 += 1 }
    }
    let shown: Vec<_> =
        counts.iter().map(|(name, (placed, wait))| format!("{name} {placed}+{wait}")).collect();
    shown.join(", ")
}

/// `name` of those with a node, `name-` of those that end, `name?` of those that wait, `name!` of those for which room is kept.
fn pods(cluster: &Cluster) -> String {
    let show = |pod: &Arc<Pod>| {
        let mark = match (pod.node, pod.status.nominated_node.get()) {
            (Some(_), _) if pod.meta.is_deleting() => "-",
            (Some(_), _) => "",
            (None, Some(_)) => "!",
            (None, None) => "?",
        };
        format!("{}{mark}", pod.meta.name)
    };
    let mut shown: Vec<_> = cluster.state().pods().iter().map(show).collect();
    shown.sort();
    shown.join(" ")
}

fn find(cluster: &Cluster, named: &str) -> Arc<Pod> {
    let mut pods = cluster.state().pods().iter();
    Arc::clone(pods.find(|pod| pod.meta.name.as_str() == named).unwrap())
}

/// Everything that happened was right, by who asks every pod.
fn judge_all(cluster: &Cluster) {
    let mut past = State::default();
    for transaction in &cluster.transactions {
        let before = past.clone();
        evolve(&mut past, transaction);
        assert_eq!(judge(&before, transaction), Ok(()));
        assert_eq!(elastic::judge(&before, &past, transaction), Ok(()));
    }
    assert_eq!(invariant::check(cluster.state()), []);
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
}

/// `root 40, root.a 20`: cores used at every level, as the tree says.
fn told(cluster: &Cluster) -> String {
    let trees = cluster.state().elastic_quota_trees();
    let status = &trees.iter().next().unwrap().status;
    let used = |used: &QuotaAmounts| used.iter().next().map_or(0, |(_, amount)| amount / CORE);
    let shown: Vec<_> =
        status.levels.iter().map(|level| format!("{} {}", level.name, used(&level.used))).collect();
    shown.join(", ")
}

#[test]
fn the_documents_example() {
    // More than the root: it is the root that bounds.
    let mut cluster = cluster(&[28, 28], example());
    let steps = [
        // What others do not use is lent, up to the leaf's max.
        ("ns1", "ns1 4+1"),
        ("ns2", "ns1 4+1, ns2 4+1"),
        // The owner gets its min back, and no more; from who came last.
        ("ns3", "ns1 4+1, ns2 2+3, ns3 2+3"),
        ("ns4", "ns1 2+3, ns2 2+3, ns3 2+3, ns4 2+3"),
    ];
    for (namespace, expected) in steps {
        cluster.ok(within(namespace, replica_set("nginx", 5, spec(5, ""))));
        cluster.converge();
        cluster.advance(31_000);
        cluster.converge();
        assert_eq!(counts(&cluster), expected);
        judge_all(&cluster);
    }
    cluster.advance(2000);
    assert_eq!(
        told(&cluster),
        "root 40, root.a 20, root.a.1 10, root.a.2 10, root.b 20, root.b.1 10, root.b.2 10"
    );
    // It stays so: nobody takes from an equal for ever.
    let preempted = cluster.transactions.len();
    cluster.advance(120_000);
    cluster.converge();
    assert_eq!(counts(&cluster), "ns1 2+3, ns2 2+3, ns3 2+3, ns4 2+3");
    assert!(cluster.transactions.len() < preempted + 20, "it never comes to rest");
}

#[test]
fn what_has_no_room_waits_and_says_where() {
    let mut cluster = cluster(&[100], example());
    run(&mut cluster, &[("a@ns1", 15, ""), ("b@ns1", 6, "")]);
    let message = |cluster: &Cluster, named| find(cluster, named).status.message.clone();
    let check = |found: String, expected: Expect| expected.assert_eq(&found);
    check(
        message(&cluster, "b"),
        expect![
            "ElasticQuota root.a.1: 6 of cpu is asked for and 5 is left: its pods have 15 and may have 20 together"
        ],
    );
    run(&mut cluster, &[("c@ns2", 20, ""), ("d@ns3", 6, "")]);
    // Its own; but whoever would end for it leaves a leaf with less than its min.
    check(
        message(&cluster, "d"),
        expect![
            "ElasticQuota root: 6 of cpu is asked for and 5 is left: its pods have 35 and may have 40 together"
        ],
    );
    // Who is in no tree does not care.
    run(&mut cluster, &[("e", 50, "")]);
    assert_eq!(pods(&cluster), "a b? c d? e");
    judge_all(&cluster);
}

/// Two leaves `a` (ns1) and `b` (ns2), min and max in cores, below a root of so many.
fn pair(root: u64, a: (u64, u64), b: (u64, u64)) -> ElasticQuota {
    let leaves = vec![level("a", a, vec![], &["ns1"]), level("b", b, vec![], &["ns2"])];
    level("root", (root, root), leaves, &[])
}

/// Pods that are there, one that comes, and all of them then, before anybody has ended.
fn check(
    (cores, root): (u64, ElasticQuota),
    there: &[(&str, u64, &str)],
    comes: (&str, u64, &str),
    expected: &str,
) -> Cluster {
    let mut cluster = cluster(&[cores], root);
    run(&mut cluster, there);
    let (named, namespace) = comes.0.split_once('@').unwrap_or((comes.0, "default"));
    cluster.ok(within(namespace, pod(named, spec(comes.1, comes.2))));
    cluster.settle();
    assert_eq!(pods(&cluster), expected, "{there:?} {comes:?}");
    judge_all(&cluster);
    cluster
}

#[test]
fn an_owner_takes_back_whatever_the_priorities_and_a_borrower_does_not() {
    let root = || pair(20, (10, 20), (10, 20));
    let lent = [("p@ns1", 5, ""), ("q@ns1", 5, ""), ("r@ns1", 5, ""), ("s@ns1", 5, "")];
    // The root is full, or the node is.
    for cores in [50, 20] {
        check((cores, root()), &lent, ("x@ns2", 5, ""), "p q r s- x!");
        check((cores, root()), &lent, ("x@ns2", 10, ""), "p q r- s- x!");
        // More than its min is borrowed.
        check((cores, root()), &lent, ("x@ns2", 11, ""), "p q r s x?");
        check((cores, root()), &lent, ("x@ns2", 11, "high"), "p q r s x?");
    }
    let high = [("p@ns1", 5, "high"), ("q@ns1", 5, "high"), ("r@ns1", 5, "high"), ("s@ns1", 5, "low")];
    check((50, root()), &high, ("x@ns2", 10, "low"), "p q r- s- x!");
    check((20, root()), &high, ("x@ns2", 10, "low"), "p q r- s- x!");
}

#[test]
fn no_leaf_falls_below_its_min() {
    let lent = [("p@ns1", 6, ""), ("q@ns1", 6, "")];
    check((50, pair(15, (10, 15), (5, 15))), &lent, ("x@ns2", 5, ""), "p q x?");
    check((50, pair(15, (6, 15), (5, 15))), &lent, ("x@ns2", 5, ""), "p q- x!");
    // Nothing is borrowed.
    let own = [("p@ns1", 5, "low"), ("q@ns1", 5, "low")];
    check((10, pair(20, (10, 20), (10, 20))), &own, ("x@ns2", 5, "high"), "p q x?");
}

#[test]
fn within_a_leaf_and_outside_of_the_tree_priorities_hold() {
    let root = || pair(20, (5, 20), (10, 20));
    let there = [("p@ns1", 5, "low"), ("q@ns1", 5, "low"), ("r@ns2", 5, "low"), ("s", 5, "low")];
    // It borrows: of its own leaf, or of no leaf.
    let cluster = check((20, root()), &there, ("x@ns1", 5, "high"), "p q r s- x!");
    assert_eq!(find(&cluster, "x").meta.namespace, Some(name("ns1")));
    check((15, root()), &there[..3], ("x@ns1", 5, "high"), "p q- r x!");
    check((15, root()), &there[..3], ("x@ns1", 5, "low"), "p q r x?");
    // Outside of the tree nobody knows of it.
    check((15, root()), &there[..3], ("x", 5, "high"), "p q r- x!");
    check((15, root()), &there[..3], ("x", 5, "low"), "p q r x?");
    // What an owner takes back is taken from borrowers only.
    check((20, root()), &[there[0], there[1], ("s", 10, "low")], ("x@ns2", 5, "low"), "p q- s x!");
}

/// The tree has no room without that somebody ends, and the queue has none even then.
#[test]
fn nobody_ends_for_a_pod_whose_queue_is_full() {
    let mut cluster = cluster(&[50], pair(20, (5, 20), (10, 20)));
    cluster.ok(Command::Create(queue("q", 1, &[("pods", 1)], QueueState::Open)));
    let in_queue = |named: &str, cores: u64, class: &str| {
        let mut object = pod(named, spec(cores, class));
        object.meta_mut().annotations = map(&[(ANNOTATION_QUEUE_NAME, "q")]);
        within("ns1", object)
    };
    cluster.ok(in_queue("own", 5, ""));
    cluster.converge();
    run(&mut cluster, &[("p@ns1", 15, "low")]);
    cluster.ok(in_queue("x", 5, "high"));
    cluster.settle();
    assert_eq!(pods(&cluster), "own p x?");
    let commands = cluster.step();
    assert_eq!(commands, 0, "and nothing is proposed again and again");
    judge_all(&cluster);
}

#[test]
fn those_that_are_not_ready_end_before_older_ones() {
    let mut cluster = cluster(&[50], pair(20, (10, 20), (10, 20)));
    run(&mut cluster, &[("p@ns1", 5, ""), ("q@ns1", 5, ""), ("r@ns1", 5, ""), ("s@ns1", 5, "")]);
    let id = find(&cluster, "q").meta.id;
    cluster.say(id, Say::NotReady);
    cluster.ok(within("ns2", pod("x", spec(5, ""))));
    cluster.settle();
    assert_eq!(pods(&cluster), "p q- r s x!");
    judge_all(&cluster);
}

#[test]
fn budgets_hold() {
    let mut cluster = cluster(&[50], pair(20, (10, 20), (10, 20)));
    for (named, labelled) in [("p", false), ("q", true), ("r", true), ("s", true)] {
        let mut object = pod(named, spec(5, ""));
        if labelled {
            object.meta_mut().labels = crate::kit::map(&[("app", "web")]);
        }
        cluster.ok(within("ns1", object));
        cluster.converge();
    }
    let mut least = budget(2);
    least.meta_mut().namespace = Some(name("ns1"));
    cluster.ok(Command::Create(least));
    cluster.advance(2000);
    cluster.ok(within("ns2", pod("x", spec(10, ""))));
    cluster.settle();
    // One of those with the budget, and the one without.
    assert_eq!(pods(&cluster), "p- q r s- x!");
    judge_all(&cluster);
}

#[test]
fn what_is_made_anew_does_not_take_the_room_again() {
    let mut cluster = cluster(&[20], pair(20, (10, 20), (10, 20)));
    let mut set = replica_set("web", 4, spec(5, "high"));
    set.meta_mut().namespace = Some(name("ns1"));
    cluster.ok(Command::Create(set));
    cluster.converge();
    cluster.ok(within("ns2", pod("x", spec(5, "low"))));
    cluster.settle();
    let ending = cluster.state().pods().iter().find(|pod| pod.meta.is_deleting()).unwrap().meta.id;
    cluster.say(ending, Say::Gone);
    cluster.settle();
    assert!(find(&cluster, "x").node.is_some());
    assert_eq!(counts(&cluster), "ns1 3+1, ns2 1+0");
    cluster.converge();
    cluster.advance(60_000);
    assert_eq!(counts(&cluster), "ns1 3+1, ns2 1+0");
    judge_all(&cluster);
}

#[test]
fn several_owners_do_not_count_on_the_same_victim() {
    let mut cluster = cluster(&[50], pair(20, (5, 20), (15, 20)));
    run(&mut cluster, &[("p@ns1", 5, ""), ("q@ns1", 5, ""), ("r@ns1", 5, ""), ("s@ns1", 5, "")]);
    for named in ["x", "y"] {
        cluster.ok(within("ns2", pod(named, spec(5, ""))));
    }
    cluster.settle();
    assert_eq!(pods(&cluster), "p q r- s- x! y!");
    cluster.ok(within("ns2", pod("z", spec(5, ""))));
    cluster.settle();
    assert_eq!(pods(&cluster), "p q- r- s- x! y! z!");
    cluster.converge();
    assert_eq!(pods(&cluster), "p x y z");
    judge_all(&cluster);
}

#[test]
fn a_tree_comes_changes_and_goes() {
    let mut cluster = cluster(&[50], pair(20, (10, 20), (10, 20)));
    run(&mut cluster, &[("p@ns1", 15, ""), ("q@ns1", 5, ""), ("r@ns2", 5, "")]);
    assert_eq!(pods(&cluster), "p r");
    cluster.ok(Command::Apply(tree(pair(40, (10, 20), (10, 20)))));
    run(&mut cluster, &[("q@ns1", 5, "")]);
    assert_eq!(counts(&cluster), "ns1 2+0, ns2 1+0");
    // Lowered: nobody ends, nobody comes.
    cluster.ok(Command::Apply(tree(pair(20, (10, 10), (10, 20)))));
    run(&mut cluster, &[("s@ns1", 1, "")]);
    assert_eq!(counts(&cluster), "ns1 2+1, ns2 1+0");
    let object = ObjectRef {
        kind: Kind::ElasticQuotaTree,
        namespace: Some(name(ELASTIC_QUOTA_NAMESPACE)),
        name: name("tree"),
    };
    cluster.ok(Command::Delete { object, grace_ms: None, force: false });
    cluster.converge();
    assert_eq!(counts(&cluster), "ns1 3+0, ns2 1+0");
    assert_eq!(invariant::check(cluster.state()), []);
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
}

#[test]
fn decide_asks_again_who_may_end() {
    let mut cluster = cluster(&[20], pair(20, (10, 20), (10, 20)));
    run(&mut cluster, &[("p@ns1", 5, ""), ("q@ns1", 5, ""), ("r@ns1", 5, ""), ("s@ns2", 5, "low")]);
    for (named, cores) in [("x", 5), ("y", 10)] {
        cluster.ok(within("ns2", pod(named, spec(cores, ""))));
    }
    let refused = |pod: &str, victims: &[&str], expected: Expect| {
        let id = |named: &str| find(&cluster, named).meta.id;
        let node = cluster.state().nodes().iter().next().unwrap().meta.id;
        let victims: Vec<ObjectId> = victims.iter().map(|named| id(named)).collect();
        let command = Command::Preempt { pod: id(pod), node, victims };
        let stamped = cluster.stamped("system:scheduler", vec![command]);
        let found = decide(cluster.state(), &stamped).map(|_| ()).map_err(|refusal| refusal.to_string());
        expected.assert_eq(&format!("{found:?}"));
    };
    refused("x", &["r"], expect![[r#"Ok(())"#]]);
    refused("x", &["r", "q"], expect![[r#"Err("victims: ElasticQuota a would fall below its min")"#]]);
    refused(
        "y",
        &["r", "q"],
        expect![[
            r#"Err("victims: pod r is neither of lower priority in the own leaf, or outside of the tree, nor of a leaf that has borrowed what is taken back")"#
        ]],
    );
    refused("x", &[], expect![[r#"Err("node: Insufficient cpu")"#]]);
    refused(
        "y",
        &["s", "r"],
        expect![[
            r#"Err("victims: pod s is neither of lower priority in the own leaf, or outside of the tree, nor of a leaf that has borrowed what is taken back")"#
        ]],
    );
}

#[test]
fn there_is_one_tree_in_one_namespace_and_not_before_its_level() {
    let mut cluster = cluster(&[20], pair(20, (10, 20), (10, 20)));
    let mut refused = |object: Object, expected: Expect| {
        let refusal = cluster.submit(vec![Command::Create(object)]).expect_err("refused");
        expected.assert_eq(&refusal.to_string());
    };
    refused(
        tree_in(ELASTIC_QUOTA_NAMESPACE, "other", pair(20, (1, 2), (1, 2))),
        expect![
            "ElasticQuotaTree kube-system/other: there is one already, tree: a cluster has one tree; change that one, or delete it first"
        ],
    );
    refused(
        tree_in("ns1", "tree", pair(20, (1, 2), (1, 2))),
        expect![
            "ElasticQuotaTree ns1/tree: metadata.namespace: must be kube-system: an ElasticQuotaTree counts nowhere else"
        ],
    );
    refused(
        tree(pair(20, (15, 20), (10, 20))),
        expect![
            "ElasticQuotaTree kube-system/tree: spec.root.min: of the levels below are 25 of requests.cpu together, which is above this level's min of 20"
        ],
    );
    refused(
        tree(pair(20, (15, 10), (5, 20))),
        expect![
            "ElasticQuotaTree kube-system/tree: spec.root.children[0].min[requests.cpu]: must not be above the max"
        ],
    );
    let low = Command::Create(tree(pair(20, (1, 2), (1, 2))));
    assert_eq!(low.feature_level(), ELASTIC_QUOTA_LEVEL);
}

#[derive(Clone, Debug)]
enum Op {
    Pod { namespace: &'static str, cores: u64, class: &'static str },
    Gone(usize),
    Ask(usize),
    Tree { root: u64, a: (u64, u64), b: (u64, u64) },
    Agents,
    NewLeader,
}

fn any_op() -> impl Strategy<Value = Op> {
    let range = || (0u64..6, 2u64..14);
    prop_oneof![
        12 => (select(&["ns1", "ns2", "ns3"][..]), 1u64..5, select(&["high", "low", ""][..]))
            .prop_map(|(namespace, cores, class)| Op::Pod { namespace, cores, class }),
        3 => (0usize..20).prop_map(Op::Gone),
        1 => (0usize..20).prop_map(Op::Ask),
        2 => (12u64..16, range(), range()).prop_map(|(root, a, b)| Op::Tree { root, a, b }),
        3 => Just(Op::Agents),
        1 => Just(Op::NewLeader),
    ]
}

fn perform(cluster: &mut Cluster, number: usize, op: &Op) {
    match op {
        Op::Pod { namespace, cores, class } => {
            cluster.ok(within(namespace, pod(&format!("p{number}"), spec(*cores, class))));
        }
        Op::Gone(at) | Op::Ask(at) => {
            let pods = cluster.state().pods();
            let Some(pod) = pods.iter().nth(at % pods.len().max(1)).cloned() else { return };
            let object = Object::Pod(pod.clone()).object_ref();
            cluster.ok(Command::Delete { object, grace_ms: None, force: false });
            if matches!(op, Op::Gone(_)) && pod.node.is_some() {
                cluster.say(pod.meta.id, Say::Gone);
            }
        }
        Op::Tree { root, a, b } => {
            let ordered = |(min, max): (u64, u64)| (min.min(max), max);
            cluster.ok(Command::Apply(tree(pair(*root, ordered(*a), ordered(*b)))));
        }
        Op::Agents => _ = cluster.agents(),
        Op::NewLeader => cluster.new_leader(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn no_level_is_above_its_max_and_nobody_loses_its_own(
        nodes in vec(4u64..12, 1..4),
        ops in vec(any_op(), 1..40),
    ) {
        let mut cluster = cluster(&nodes, pair(15, (5, 15), (5, 15)));
        for (number, op) in ops.iter().enumerate() {
            perform(&mut cluster, number, op);
            cluster.settle();
        }
        judge_all(&cluster);
        cluster.converge();
        cluster.advance(31_000);
        cluster.converge();
        judge_all(&cluster);
        // Whoever has room has a node, and nothing is kept for nobody.
        for pod in cluster.state().pods().iter().filter(|pod| pod.node.is_none()) {
            prop_assert_eq!(pod.status.nominated_node.get(), None, "{}", &pod.meta.name);
            let fits = cluster.state().nodes().iter().any(|node| {
                let usage = cluster.state().node_usage(node.meta.id);
                let free = node.status.facts.allocatable.cpu_millis - usage.requests.cpu_millis;
                pod.spec.scheduling_request().cpu_millis <= free
            });
            prop_assert!(!fits || elastic::may_wait(cluster.state(), pod), "{}", &pod.meta.name);
        }
    }
}
