//! Ports of nodes that pods publish: who may be where, who waits, who ends for whom, over a real machine.

use bulkhead_controlplane_core::placement::check_fit;
use bulkhead_controlplane_core::placement::reference::{ports as judge, preemption::fits_without};
use bulkhead_controlplane_core::reconcile::ReconcileConfig;
use bulkhead_controlplane_core::what_if::{AddedNodes, Fate, NodeShape, Question, ask};
use bulkhead_types::{
    Binding, Command, ContainerPort, EventKind, HostPort, Kind, LABEL_HOST_PORTS, LABEL_POD_GROUP,
    LABEL_POD_GROUP_MIN_AVAILABLE, NodeFacts, Object, ObjectId, PORTS_LEVEL, PodSpec, Protocol, Rare,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::kit::{
    Cluster, GIB, Say, deployment, facts, map, name, pod, pod_spec, reference, replica_set, template,
};
use crate::preemption::{class, find, of_class};

/// A spec that publishes ports of its node, each on an address or (with none) on all.
fn publishing(mut spec: PodSpec, ports: &[(u16, &str)]) -> PodSpec {
    let port = |(at, (port, ip)): (usize, &(u16, &str))| {
        let host = Rare::some(HostPort { port: *port, ip: ip.parse().ok() });
        let container_port = 8000 + u16::try_from(at).unwrap();
        ContainerPort { name: None, container_port, protocol: Protocol::Tcp, host }
    };
    spec.containers[0].ports = ports.iter().enumerate().map(port).collect();
    spec
}

fn web(ports: &[(u16, &str)]) -> PodSpec {
    publishing(pod_spec("web:1", 100, 64 << 20), ports)
}

fn can_publish() -> NodeFacts {
    NodeFacts { labels: map(&[(LABEL_HOST_PORTS, "true")]), ..facts(16_000, 64 * GIB, 100) }
}

/// So many nodes that publish ports.
fn cluster(nodes: usize) -> Cluster {
    let mut cluster = Cluster::new();
    for n in 0..nodes {
        cluster.node(&format!("node-{n}"), can_publish());
    }
    cluster
}

/// The node of a pod, or why it waits.
fn at(cluster: &Cluster, named: &str) -> String {
    let pod = find(cluster, named);
    match pod.node.and_then(|node| cluster.state().nodes().get(node)) {
        Some(node) => node.meta.name.to_string(),
        None => pod.status.message.clone(),
    }
}

fn delete(cluster: &mut Cluster, named: &str) {
    cluster.ok(Command::Delete { object: reference(Kind::Pod, named), grace_ms: None, force: false });
}

#[test]
fn each_node_takes_one_and_the_rest_wait() {
    let mut cluster = cluster(2);
    cluster.nodes(0);
    cluster.node("plain", facts(16_000, 64 * GIB, 100));
    cluster.ok(Command::Apply(replica_set("web", 3, web(&[(80, "")]))));
    cluster.converge();
    let (placed, waiting): (Vec<_>, Vec<_>) =
        cluster.active_pods().into_iter().partition(|pod| pod.node.is_some());
    assert_eq!((placed.len(), waiting.len()), (2, 1));
    assert_ne!(placed[0].node, placed[1].node);
    assert_eq!(
        waiting[0].status.message,
        "0/3 nodes are available: 1 node(s) cannot publish ports, 2 node(s) didn't have free ports for the requested pod \
         ports."
    );
    // Another port is no matter, and who publishes nothing may be anywhere.
    cluster.ok(Command::Create(pod("other", web(&[(81, "")]))));
    cluster.ok(Command::Create(pod("quiet", pod_spec("web:1", 100, 64 << 20))));
    cluster.converge();
    assert!(at(&cluster, "other").starts_with("node-") && find(&cluster, "quiet").node.is_some());
    // One that ends has its port until it has gone.
    let (first, node) = (placed[0].meta.name.to_string(), placed[0].node);
    delete(&mut cluster, &first);
    cluster.settle();
    assert_eq!(find(&cluster, waiting[0].meta.name.as_str()).node, None);
    cluster.say(placed[0].meta.id, Say::Gone);
    cluster.settle();
    assert_eq!(find(&cluster, waiting[0].meta.name.as_str()).node, node);
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
}

#[test]
fn addresses_of_a_node_are_told_apart() {
    let mut cluster = cluster(1);
    for (named, port) in [
        ("a", (80, "10.0.0.1")),
        ("b", (80, "10.0.0.2")),
        ("c", (80, "10.0.0.1")),
        ("d", (80, "")),
        ("e", (443, "0.0.0.0")),
        ("f", (443, "10.0.0.1")),
        ("g", (443, "::")),
    ] {
        cluster.ok(Command::Create(pod(named, web(&[port]))));
        cluster.settle();
    }
    let placed: Vec<_> =
        "abcdefg".chars().filter(|named| find(&cluster, &named.to_string()).node.is_some()).collect();
    assert_eq!(placed, ['a', 'b', 'e']);
}

#[test]
fn a_binding_that_would_give_a_port_twice_is_passed_over() {
    let mut cluster = cluster(1);
    cluster.node("plain", facts(16_000, 64 * GIB, 100));
    for named in ["a", "b", "c"] {
        cluster.ok(Command::Create(pod(named, web(&[(80, "")]))));
    }
    let node = |cluster: &Cluster, text: &str| cluster.state().find(Kind::Node, None, &name(text)).unwrap();
    let bind = |cluster: &mut Cluster, pairs: &[(&str, &str)]| {
        let bindings = pairs.iter().map(|(named, to)| Binding {
            pod: find(cluster, named).meta.id,
            node: node(cluster, to),
            nodes_considered: 1,
            score: 0,
            devices: vec![],
            networks: vec![],
            cpus: Rare::NONE,
        });
        let command = Command::BindPods { bindings: bindings.collect() };
        cluster.ok(command);
        ["a", "b", "c"].map(|named| find(cluster, named).node.is_some())
    };
    assert_eq!(bind(&mut cluster, &[("a", "plain")]), [false, false, false], "where nobody publishes");
    assert_eq!(
        bind(&mut cluster, &[("a", "node-0"), ("b", "node-0")]),
        [true, false, false],
        "in one command"
    );
    assert_eq!(bind(&mut cluster, &[("c", "node-0")]), [true, false, false], "one after the other");
}

#[test]
fn a_port_is_freed_for_a_higher_priority_and_kept_for_it() {
    let mut cluster = cluster(1);
    for (named, value) in [("high", 100), ("mid", 50), ("low", 10)] {
        cluster.ok(Command::Create(class(named, value, None)));
    }
    let of = |class: &str, port| publishing(of_class(class, 0), &[(port, "")]);
    cluster.ok(Command::Create(pod("has-80", of("low", 80))));
    cluster.ok(Command::Create(pod("has-81", of("low", 81))));
    cluster.converge();
    cluster.ok(Command::Create(pod("wants-80", of("high", 80))));
    cluster.settle();
    let ending: Vec<_> = cluster
        .state()
        .pods()
        .iter()
        .filter(|pod| pod.meta.is_deleting())
        .map(|pod| pod.meta.name.clone())
        .collect();
    assert_eq!(ending, [name("has-80")], "nobody else need end");
    assert!(find(&cluster, "wants-80").status.nominated_node.get().is_some());
    // Meanwhile others of a lower priority do not get it, and nobody ends for them.
    cluster.ok(Command::Create(pod("late", of("mid", 80))));
    cluster.say(find(&cluster, "has-80").meta.id, Say::Gone);
    cluster.settle();
    assert_eq!(at(&cluster, "wants-80"), "node-0");
    assert!(at(&cluster, "late").contains("didn't have free ports"), "{}", at(&cluster, "late"));
    // What is refused is refused in the log as well.
    let (late, node) = (find(&cluster, "late").meta.id, find(&cluster, "wants-80").node.unwrap());
    let victims = vec![find(&cluster, "has-81").meta.id];
    let refused = cluster.submit(vec![Command::Preempt { pod: late, node, victims }]).unwrap_err();
    assert!(refused.to_string().contains("didn't have free ports"), "{refused}");
}

#[test]
fn a_group_is_placed_where_all_of_it_can_publish() {
    let mut cluster = cluster(1);
    let member = |named: &str| {
        let Object::Pod(mut member) = pod(named, web(&[(80, "")])) else { unreachable!() };
        std::sync::Arc::make_mut(&mut member).meta.labels =
            map(&[(LABEL_POD_GROUP, "g"), (LABEL_POD_GROUP_MIN_AVAILABLE, "2")]);
        Command::Create(Object::Pod(member))
    };
    ["a", "b"].into_iter().for_each(|named| cluster.ok(member(named)));
    cluster.settle();
    assert_eq!(cluster.state().pending_pods().len(), 2, "one port is not enough for two");
    cluster.node("node-1", can_publish());
    cluster.settle();
    let mut nodes = [at(&cluster, "a"), at(&cluster, "b")];
    nodes.sort();
    assert_eq!(nodes, ["node-0", "node-1"]);
}

#[test]
fn a_rollout_that_must_not_surge_replaces_one_after_the_other() {
    let mut cluster = cluster(2);
    let spec = |image: &str| template("web", publishing(pod_spec(image, 100, 64 << 20), &[(80, "")]));
    cluster.ok(Command::Create(deployment("web", 2, |it| {
        it.template = spec("web:1");
        it.strategy = crate::kit::rolling(0, 1);
    })));
    cluster.converge();
    cluster.change("web", |it| it.template = spec("web:2"));
    cluster.converge();
    let images: Vec<_> = cluster
        .active_pods()
        .iter()
        .map(|pod| (pod.spec.containers[0].image.to_string(), pod.status.ready))
        .collect();
    assert_eq!(images, vec![("web:2".to_owned(), true); 2]);
}

#[test]
fn a_question_knows_of_ports() {
    let mut cluster = cluster(1);
    cluster.ok(Command::Create(pod("a", web(&[(80, "")]))));
    cluster.ok(Command::Create(pod("b", web(&[(80, "")]))));
    cluster.converge();
    let labels = map(&[(LABEL_HOST_PORTS, "true")]);
    let allocatable = facts(1000, GIB, 10).allocatable;
    let fate = |shape: NodeShape| {
        let question = Question { added: vec![AddedNodes { count: 1, shape }], ..Question::default() };
        let answer = ask(cluster.state(), &question, cluster.state().now_ms(), &mut || true).unwrap();
        answer.pods.iter().find(|pod| pod.pod.name.as_str() == "b").map(|pod| pod.fate.clone())
    };
    let of = |labels| NodeShape::Of { allocatable, pods_max: 10, labels, taints: Vec::new() };
    assert!(matches!(fate(of(labels)), Some(Fate::Placed { .. })));
    assert!(
        matches!(fate(of(map(&[]))), Some(Fate::Waits { reason }) if reason.contains("1 node(s) cannot publish ports"))
    );
    assert!(matches!(fate(NodeShape::Like(name("node-0"))), Some(Fate::Placed { .. })));
}

#[test]
fn ports_need_their_level() {
    let command = Command::Create(pod("a", web(&[(80, "")])));
    assert_eq!(command.feature_level(), PORTS_LEVEL);
    let mut cluster = Cluster::at_level(ReconcileConfig::default(), PORTS_LEVEL - 1);
    cluster.node("node-0", can_publish());
    let refused = cluster.submit(vec![command]).unwrap_err();
    assert!(refused.to_string().contains("11"), "{refused}");
}

#[derive(Clone, Debug)]
enum Step {
    Create { ports: Vec<(u16, u8)>, class: u8 },
    Node(bool),
    End(usize),
    Gone(usize),
    NewLeader,
    Lose,
}

fn any_step() -> impl Strategy<Value = Step> {
    let port = (prop::sample::select(vec![80u16, 443]), 0u8..3);
    prop_oneof![
        6 => (vec(port, 0..3), 0u8..3).prop_map(|(mut ports, class)| {
            ports.dedup_by_key(|port| port.0);
            Step::Create { ports, class }
        }),
        2 => any::<bool>().prop_map(Step::Node),
        1 => any::<usize>().prop_map(Step::End),
        3 => any::<usize>().prop_map(Step::Gone),
        1 => Just(Step::NewLeader),
        1 => Just(Step::Lose),
    ]
}

fn some_pod(cluster: &Cluster, at: usize, is_ending: bool) -> Option<ObjectId> {
    let pods: Vec<_> =
        cluster.state().pods().iter().filter(|pod| pod.meta.is_deleting() == is_ending).collect();
    (!pods.is_empty()).then(|| pods[at % pods.len()].meta.id)
}

fn perform(cluster: &mut Cluster, number: usize, step: &Step) {
    match step {
        Step::Create { ports, class } => {
            let ips = ["", "10.0.0.1", "10.0.0.2"];
            let ports: Vec<_> = ports.iter().map(|(port, ip)| (*port, ips[usize::from(*ip)])).collect();
            let spec = publishing(of_class(["low", "mid", "high"][usize::from(*class)], 0), &ports);
            cluster.ok(Command::Create(pod(&format!("p{number}"), spec)));
        }
        Step::Node(can) => {
            let facts = if *can { can_publish() } else { facts(16_000, 64 * GIB, 100) };
            cluster.node(&format!("n{number}"), NodeFacts { pods_max: 3, ..facts });
        }
        Step::End(at) => {
            let Some(id) = some_pod(cluster, *at, false) else { return };
            let named = cluster.state().pods().get(id).unwrap().meta.name.to_string();
            delete(cluster, &named);
        }
        Step::Gone(at) => {
            if let Some(id) = some_pod(cluster, *at, true) {
                cluster.say(id, Say::Gone);
            }
        }
        Step::NewLeader => cluster.new_leader(),
        Step::Lose => {
            cluster.lose();
            cluster.advance(60_000);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    /// By a judge that knows pods and nodes only: every binding is right, and nobody waits who fits.
    #[test]
    fn every_binding_is_right_and_nobody_waits_for_nothing(steps in vec(any_step(), 1..40)) {
        let mut cluster = cluster(1);
        for (named, value) in [("high", 100), ("mid", 50), ("low", 10)] {
            cluster.ok(Command::Create(class(named, value, None)));
        }
        let (mut seen, mut past) = (cluster.transactions.len(), cluster.state().clone());
        for (number, step) in steps.iter().enumerate() {
            perform(&mut cluster, number, step);
            cluster.settle();
            for transaction in &cluster.transactions[seen..] {
                let mut earlier: Vec<Binding> = Vec::new();
                for event in &transaction.events {
                    let EventKind::PodBound(binding) = &event.kind else { continue };
                    prop_assert_eq!(judge::check(&past, binding, &earlier), Ok(()));
                    earlier.push(binding.clone());
                }
                bulkhead_controlplane_core::evolve::evolve(&mut past, transaction);
            }
            seen = cluster.transactions.len();
            let state = cluster.state();
            for id in state.pending_pods() {
                let waits = state.pods().get(*id).unwrap();
                for node in state.nodes().iter() {
                    let request = waits.spec.scheduling_request();
                    let fits = check_fit(&waits.spec, request, node, state.node_usage(node.meta.id)).is_ok();
                    let suits = fits && fits_without(state, waits, node, &[]);
                    prop_assert!(!suits, "{} waits although {} suits", waits.meta.name, node.meta.name);
                }
            }
        }
        prop_assert_eq!(cluster.replayed().digest(), cluster.state().digest());
    }
}
