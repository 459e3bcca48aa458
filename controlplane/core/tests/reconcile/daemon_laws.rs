//! What holds of a DaemonSet whatever users do and nodes and pods suffer: every single command of a reconciler is held
//! against the rules in the documentation's words.

use std::collections::BTreeMap;
use std::sync::Arc;

use bulkhead_controlplane_core::State;
use bulkhead_types::{
    Command, DaemonSet, DaemonSetUpdateStrategy, Kind, LABEL_HOSTNAME, Node, Pod, Shared, TaintEffect,
};
use proptest::prelude::*;

use crate::kit::{Cluster, GIB, facts, reference};
use crate::play::{self, Chance, Seen, Word, any_chance, check_history, delete};
use crate::sets::{daemon_set, image, is_active, is_available, node_by_node, taint, template_of};

#[derive(Clone, Debug)]
enum Op {
    Image(u32),
    Strategy(u32, u32),
    OnDelete,
    Label(usize, bool),
    Taint(usize, Option<bool>),
    Cordon(usize, bool),
    Join(usize),
    Leave(usize),
    Undo,
    Chance(Chance),
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (1u32..4).prop_map(Op::Image),
        2 => (1u32..4).prop_map(|most| Op::Strategy(most, 0)),
        2 => (1u32..3).prop_map(|most| Op::Strategy(0, most)),
        1 => Just(Op::OnDelete),
        2 => (0usize..5, any::<bool>()).prop_map(|(node, is)| Op::Label(node, is)),
        2 => (0usize..5, prop::option::of(any::<bool>())).prop_map(|(node, is)| Op::Taint(node, is)),
        1 => (0usize..5, any::<bool>()).prop_map(|(node, is)| Op::Cordon(node, is)),
        1 => (0usize..5).prop_map(Op::Join),
        1 => (0usize..5).prop_map(Op::Leave),
        1 => Just(Op::Undo),
        19 => any_chance().prop_map(Op::Chance),
    ]
}

/// Whether a node suits, and whether a pod may stay there.
fn suits(node: &Node) -> (bool, bool) {
    let selected = node.meta.labels.get("disk").is_some_and(|value| value == "fast");
    let has = |effect| node.spec.taints.iter().any(|taint| taint.effect == effect);
    let driven_out = has(TaintEffect::NoExecute);
    (selected && !driven_out && !has(TaintEffect::NoSchedule), selected && !driven_out)
}

/// The obvious model: a set's pods by node, at a time.
struct Model<'a> {
    state: &'a State,
    set: &'a DaemonSet,
    now_ms: u64,
    pods: BTreeMap<&'a str, Vec<&'a Arc<Pod>>>,
}

impl<'a> Model<'a> {
    fn of(state: &'a State, set: &'a DaemonSet, now_ms: u64) -> Self {
        let mut pods = BTreeMap::<_, Vec<_>>::new();
        for pod in state.pods_of(set.meta.id) {
            pods.entry(pod.spec.node_name.as_deref().unwrap()).or_default().push(pod);
        }
        Self { state, set, now_ms, pods }
    }

    fn node(&self, name: &str) -> Option<&Arc<Node>> {
        self.state.nodes().iter().find(|node| node.meta.name.as_str() == name)
    }

    fn on(&self, name: &str) -> &[&'a Arc<Pod>] {
        self.pods.get(name).map_or(&[], Vec::as_slice)
    }

    fn well(&self, pod: &Pod) -> bool {
        is_available(pod, self.set.spec.min_ready_ms, self.now_ms)
    }

    fn is_new(&self, pod: &Pod) -> bool {
        template_of(self.state, pod) == self.set.spec.template
    }

    fn wanted(&self) -> impl Iterator<Item = &str> {
        let nodes = self.state.nodes().iter().filter(|node| suits(node).0);
        nodes.map(|node| node.meta.labels[LABEL_HOSTNAME].as_str())
    }

    fn unavailable(&self) -> u32 {
        let is_without = |name: &&str| !self.on(name).iter().any(|pod| self.well(pod));
        self.wanted().filter(is_without).count() as u32
    }

    /// Nodes with two pods that may run.
    fn surging(&self) -> u32 {
        let lives = |pods: &Vec<&Arc<Pod>>| pods.iter().filter(|pod| !pod.status.phase.is_terminal()).count();
        self.pods.values().filter(|pods| lives(pods) > 1).count() as u32
    }

    /// Most unavailable and most surging nodes; `None` for OnDelete.
    fn bounds(&self) -> Option<(u32, u32)> {
        let DaemonSetUpdateStrategy::RollingUpdate { max_unavailable, max_surge } =
            self.set.spec.update_strategy
        else {
            return None;
        };
        let wanted = self.wanted().count() as u32;
        Some((max_unavailable.resolve(wanted, true), max_surge.resolve(wanted, true)))
    }
}

/// A command of a reconciler does to a set's pods only what the documentation says.
pub fn check(seen: &Seen<'_>, set: &DaemonSet) {
    let &Seen { now_ms, before, after, .. } = seen;
    let (was, is) = (Model::of(before, set, now_ms), Model::of(after, set, now_ms));
    let most = is.bounds().map_or(0, |(_, surge)| surge);
    assert!(is.surging() <= most.max(was.surging()), "{} nodes with two pods", is.surging());
    for (node, pods) in &is.pods {
        assert!(pods.len() <= was.on(node).len().max(2), "{} pods on {node}", pods.len());
        for pod in pods.iter().filter(|pod| before.pods().get(pod.meta.id).is_none()) {
            let place = was.node(node).unwrap_or_else(|| panic!("no node {node}"));
            assert!(suits(place).0, "{node} does not suit");
            assert!(is.is_new(pod), "{node} gets an old template");
            let alone = was.on(node).is_empty();
            let beside = was.on(node).len() == 1 && !was.is_new(was.on(node)[0]) && most > 0;
            assert!(alone || beside, "{node} has {} pods already", was.on(node).len());
        }
    }
    for (node, pods) in &was.pods {
        for pod in pods.iter().filter(|pod| is_active(pod)) {
            let stays = after.pods().get(pod.meta.id).is_some_and(|pod| !pod.meta.is_deleting());
            if !stays {
                check_given_up(&was, &is, node, pod);
            }
        }
    }
}

fn check_given_up(was: &Model<'_>, is: &Model<'_>, node: &str, pod: &Pod) {
    if !was.node(node).is_some_and(|node| suits(node).1) {
        return;
    }
    let others = was.on(node).iter().filter(|other| other.meta.id != pod.meta.id && is_active(other)).count();
    if others > 0 {
        assert!(is.on(node).iter().any(|pod| is_active(pod)), "nothing is left on {node}");
    } else {
        assert!(was.bounds().is_some(), "the pod of {node} is given up, although OnDelete");
        assert!(!was.is_new(pod), "the pod of {node} has the wanted template");
    }
    let bound = was.bounds().map_or(0, |(most, _)| most).max(was.unavailable());
    assert!(is.unavailable() <= bound, "{} nodes unavailable, of {bound}", is.unavailable());
}

fn perform(cluster: &mut Cluster, op: &Op) {
    let node = |at: &usize| format!("node-{at}");
    let is_there = |cluster: &Cluster, at: &usize| {
        cluster.state().find_object(&reference(Kind::Node, &node(at))).is_some()
    };
    match op {
        Op::Image(version) => cluster.change_daemon_set("log", |spec| spec.template = wanted(*version)),
        Op::Strategy(unavailable, surge) => {
            cluster
                .change_daemon_set("log", |spec| spec.update_strategy = node_by_node(*unavailable, *surge));
        }
        Op::OnDelete => {
            let on_delete = DaemonSetUpdateStrategy::OnDelete;
            cluster.change_daemon_set("log", |spec| spec.update_strategy = on_delete);
        }
        Op::Label(at, is) if is_there(cluster, at) => cluster.change_node(&node(at), |node| {
            node.meta.labels.insert("disk".into(), if *is { "fast" } else { "slow" }.into());
        }),
        Op::Taint(at, effect) if is_there(cluster, at) => cluster.change_node(&node(at), |node| {
            let effect = effect.map(|is| if is { TaintEffect::NoExecute } else { TaintEffect::NoSchedule });
            node.spec.taints = effect.map(|effect| taint("gpu", effect)).into_iter().collect();
        }),
        Op::Cordon(at, is) if is_there(cluster, at) => {
            let node = crate::kit::name(&node(at));
            cluster.ok(Command::SetUnschedulable { node, unschedulable: *is });
        }
        Op::Label(..) | Op::Taint(..) | Op::Cordon(..) => {}
        Op::Join(at) => {
            cluster.node(&node(at), facts(16_000, 64 * GIB, 100));
            cluster.change_node(&node(at), |node| _ = node.meta.labels.insert("disk".into(), "fast".into()));
        }
        // Refused while it is Ready and holds pods.
        Op::Leave(at) => _ = cluster.submit(vec![delete(Kind::Node, &node(at))]),
        Op::Undo => _ = cluster.submit(vec![Word::Undo.of(reference(Kind::DaemonSet, "log"))]),
        Op::Chance(chance) => cluster.befall(chance),
    }
}

/// A template for nodes with fast disks.
pub fn wanted(version: u32) -> bulkhead_types::PodTemplate {
    let mut template = image("log", version);
    let mut spec = (*template.spec).clone();
    spec.node_selector.insert("disk".into(), "fast".into());
    template.spec = Shared::new(spec);
    template
}

fn play(min_ready_ms: u64, ops: &[Op]) -> Cluster {
    let mut cluster = Cluster::new();
    cluster.watch(|seen| seen.before.daemon_sets().iter().for_each(|set| check(seen, set)));
    (0..4).for_each(|at| perform(&mut cluster, &Op::Join(at)));
    cluster.ok(Command::Apply(daemon_set("log", |spec| {
        spec.template = wanted(1);
        spec.min_ready_ms = min_ready_ms;
        spec.revision_history_limit = 2;
    })));
    cluster.settle();
    play::play(&mut cluster, ops, |op| matches!(op, Op::Chance(Chance::Lose)), perform);
    cluster
}

/// Lets everything get well: then every node that suits has one available pod, of the wanted template.
fn heal(cluster: &mut Cluster) {
    // A lost word comes back after a while.
    cluster.advance(40_000);
    let is_done = play::heal(cluster, |cluster| {
        let set = cluster.get_daemon_set("log");
        let model = Model::of(cluster.state(), &set, cluster.now_ms);
        let rolls = set.spec.update_strategy != DaemonSetUpdateStrategy::OnDelete;
        let is_done = |(node, pods): (&&str, &Vec<&Arc<Pod>>)| {
            let (wanted, may_stay) = model.node(node).map_or((false, false), |node| suits(node));
            may_stay && pods.len() == 1 && (!wanted || !rolls || model.is_new(pods[0]))
        };
        model.unavailable() == 0 && model.pods.iter().all(is_done)
    });
    assert!(is_done, "never done: {} {:#?}", cluster.daemons("log"), cluster.get_daemon_set("log").status);
}

proptest! {
    #![proptest_config(play::cases(96))]

    #[test]
    fn nodes_keep_their_bounds_and_rollouts_end(
        min_ready_ms in prop_oneof![Just(0u64), Just(7000)],
        ops in prop::collection::vec(any_op(), 1..40),
    ) {
        let mut cluster = play(min_ready_ms, &ops);
        heal(&mut cluster);
        let set = cluster.get_daemon_set("log");
        let status = &set.status;
        prop_assert_eq!(status.observed_generation, set.meta.generation);
        let wanted = Model::of(cluster.state(), &set, cluster.now_ms).wanted().count() as u32;
        prop_assert_eq!((status.desired_number_scheduled, status.number_available), (wanted, wanted));
        prop_assert_eq!(status.number_unavailable, 0);
        check_history(&cluster);
        cluster.watch(|_| panic!("a set at rest is left alone"));
        cluster.new_leader();
        cluster.settle();
    }
}
