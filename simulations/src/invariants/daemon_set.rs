//! Nodes that suit a DaemonSet get one pod each, two for a while with a surge, and no more of them are without an
//! available pod than allowed.
//!
//! Looked at is every pod that its reconciler creates or asks to go, against the State just before: `decide` looks at
//! each word anew, so it must be right at that very moment. Judged from the objects alone, without the code that
//! decides.

use std::collections::BTreeMap;

use bulkhead_controlplane_core::State;
use bulkhead_types::{
    DaemonSet, DaemonSetUpdateStrategy, EventKind, Kind, LABEL_CONTROLLER_REVISION_HASH, Name, Node,
    ObjectId, Pod, Taint, TaintEffect, Transaction,
};
use smol_str::SmolStr;

use super::{Verdict, ensure};

/// The actor whose words are looked at.
const ACTOR: &str = "system:daemon-set";
const NAME: &str = "daemon_set";

/// Checks a transaction against the State before it and the one after.
///
/// # Errors
/// With the first pod that must not have come or gone.
pub fn check(before: &State, after: &State, transaction: &Transaction) -> Verdict {
    if transaction.actor != ACTOR {
        return Ok(());
    }
    for event in &transaction.events {
        match &event.kind {
            EventKind::OwnedPodCreated { owner, .. } => {
                let Some(set) = before.daemon_sets().get(owner.id) else { continue };
                let Some(pod) = after.pods().get(ObjectId(event.revision)) else { continue };
                check_created(before, after, set, pod, transaction.at_ms)?;
            }
            EventKind::DeletionRequested { kind: Kind::Pod, id, .. }
            | EventKind::ObjectDeleted { kind: Kind::Pod, id } => {
                let Some(pod) = before.pods().get(*id).filter(|pod| is_active(pod)) else { continue };
                let set = pod.meta.owner.and_then(|owner| before.daemon_sets().get(owner.id));
                set.map_or(Ok(()), |set| check_given_up(before, after, set, pod, transaction.at_ms))?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn is_active(pod: &Pod) -> bool {
    !pod.meta.is_deleting() && !pod.status.phase.is_terminal()
}

/// Whether new pods of a set are kept away from a node or, with `drives_out`, its pods must leave it.
pub(super) fn repels(set: &DaemonSet, node: &Node, drives_out: bool) -> bool {
    let spec = &set.spec.template.spec;
    let unselected = spec.node_selector.iter().any(|(key, value)| node.meta.labels.get(key) != Some(value));
    let matters = |taint: &&Taint| match taint.effect {
        TaintEffect::NoExecute => true,
        TaintEffect::NoSchedule => !drives_out,
        TaintEffect::PreferNoSchedule => false,
    };
    let tolerated = |taint: &Taint| {
        let own = spec.tolerations.iter().any(|toleration| toleration.tolerates(taint));
        own || taint.key.starts_with("node.kubernetes.io/")
    };
    unselected || node.spec.taints.iter().filter(matters).any(|taint| !tolerated(taint))
}

fn node_name(pod: &Pod) -> SmolStr {
    pod.spec.node_name.clone().unwrap_or_default()
}

/// A set's pods by node.
struct Pods<'a> {
    state: &'a State,
    set: &'a DaemonSet,
    at_ms: u64,
    pods: BTreeMap<SmolStr, Vec<&'a Pod>>,
}

impl<'a> Pods<'a> {
    fn of(state: &'a State, set: &'a DaemonSet, at_ms: u64) -> Self {
        let mut pods = BTreeMap::<_, Vec<&Pod>>::new();
        for pod in state.pods_of(set.meta.id) {
            pods.entry(node_name(pod)).or_default().push(&**pod);
        }
        Self { state, set, at_ms, pods }
    }

    fn node(&self, name: &str) -> Option<&'a Node> {
        let id = self.state.find(Kind::Node, None, &Name::new(name).ok()?)?;
        self.state.nodes().get(id).map(|node| &**node)
    }

    fn on(&self, name: &str) -> &[&'a Pod] {
        self.pods.get(name).map_or(&[], Vec::as_slice)
    }

    fn is_available(&self, pod: &Pod) -> bool {
        let since_ms = self.at_ms.saturating_sub(pod.status.ready_since_ms);
        is_active(pod) && pod.status.ready && since_ms >= self.set.spec.min_ready_ms
    }

    fn is_new(&self, pod: &Pod) -> bool {
        let revision = pod.meta.labels.get(LABEL_CONTROLLER_REVISION_HASH);
        let rows = self.state.owned(self.set.meta.id, Kind::ControllerRevision);
        let mut rows = rows.filter_map(|id| self.state.controller_revisions().get(id));
        let row = rows.find(|row| revision.is_some_and(|name| name == row.meta.name.as_str()));
        row.is_some_and(|row| row.template == self.set.spec.template)
    }

    fn wanted(&self) -> impl Iterator<Item = &str> {
        let nodes = self.state.nodes().iter().filter(|node| !repels(self.set, node, false));
        nodes.map(|node| node.meta.name.as_str())
    }

    fn unavailable(&self) -> u32 {
        let is_without = |name: &&str| !self.on(name).iter().any(|pod| self.is_available(pod));
        self.wanted().filter(is_without).count() as u32
    }

    /// Nodes with more than one pod that may run.
    fn surging(&self) -> u32 {
        let lives = |pods: &[&Pod]| pods.iter().filter(|pod| !pod.status.phase.is_terminal()).count();
        self.pods.values().filter(|pods| lives(pods) > 1).count() as u32
    }

    /// Most nodes without, and with two; `None` for OnDelete.
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

fn check_created(before: &State, after: &State, set: &DaemonSet, pod: &Pod, at_ms: u64) -> Verdict {
    let (was, is) = (Pods::of(before, set, at_ms), Pods::of(after, set, at_ms));
    let (name, node) = (&pod.meta.name, node_name(pod));
    let suits = was.node(&node).is_some_and(|node| !repels(set, node, false));
    ensure(suits, NAME, || format!("{name} is for node {node}, which does not suit"))?;
    let most = is.bounds().map_or(0, |(_, surge)| surge);
    let there = was.on(&node);
    let beside = there.len() == 1 && most > 0 && !was.is_new(there[0]);
    ensure(there.is_empty() || beside, NAME, || format!("{name}: {} pods are on {node}", there.len()))?;
    let most = most.max(was.surging());
    ensure(is.surging() <= most, NAME, || format!("{} nodes have two pods, at most {most} may", is.surging()))
}

fn check_given_up(before: &State, after: &State, set: &DaemonSet, pod: &Pod, at_ms: u64) -> Verdict {
    let (was, is) = (Pods::of(before, set, at_ms), Pods::of(after, set, at_ms));
    let (name, node) = (&pod.meta.name, node_name(pod));
    if was.node(&node).is_none_or(|node| repels(set, node, true)) {
        return Ok(());
    }
    let left = is.on(&node).iter().any(|pod| is_active(pod));
    let replaced = was.bounds().is_some() && !was.is_new(pod);
    ensure(left || replaced, NAME, || format!("{name} is wanted on {node} as it is"))?;
    let most = was.bounds().map_or(0, |(most, _)| most).max(was.unavailable());
    ensure(is.unavailable() <= most, NAME, || {
        format!("{name} goes: {} nodes unavailable, at most {most} may be", is.unavailable())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::sets::{World, name};
    use bulkhead_types::{
        Command, DaemonSetSpec, DaemonSetStatus, LabelSelector, Object, ObjectMeta, OwnerRef, PodStamp,
    };
    use std::sync::Arc;

    fn set(version: u32) -> Object {
        let spec = DaemonSetSpec {
            selector: LabelSelector::from_labels(World::labels()),
            template: World::template(version),
            update_strategy: DaemonSetUpdateStrategy::default(),
            min_ready_ms: 0,
            revision_history_limit: 1,
        };
        let meta = ObjectMeta::new(Some(name("default")), name("log"));
        Object::DaemonSet(Arc::new(DaemonSet { meta, spec, status: DaemonSetStatus::default() }))
    }

    fn verdict(world: &World, kinds: Vec<EventKind>) -> Verdict {
        let (after, transaction) = world.forced(ACTOR, kinds);
        check(world.state(), &after, &transaction)
    }

    #[test]
    fn a_second_pod_and_one_that_goes_without_need_are_noticed() {
        let mut world = World::new();
        let node = world.node("n");
        let id = world.create(set(1));
        let owner = OwnerRef { kind: Kind::DaemonSet, id };
        let revision = world.own(owner, World::revision("log-a", 1));
        let stamp = |text: &str| PodStamp {
            name: name(text),
            index: None,
            node: Some(node),
            revision: Some(revision),
        };
        let create = |text: &str| vec![EventKind::OwnedPodCreated { owner, stamp: stamp(text) }];
        assert!(verdict(&world, create("log-1")).is_ok());
        world.ok(Command::CreateOwnedPods { owner, generation: 1, pods: vec![stamp("log-1")] });
        assert!(verdict(&world, create("log-2")).is_err(), "there is one already");
        let pod = world.state().pods().iter().next().expect("it was created").meta.id;
        let gone = || vec![EventKind::ObjectDeleted { kind: Kind::Pod, id: pod }];
        assert!(verdict(&world, gone()).is_err(), "it is wanted");
        world.ok(Command::Apply(set(2)));
        assert!(verdict(&world, gone()).is_ok(), "it has another template");
    }

    #[test]
    fn a_node_that_does_not_suit_is_noticed() {
        let mut world = World::new();
        let node = world.node("n");
        let Some(Object::Node(mut tainted)) = world.state().object(Kind::Node, node) else {
            unreachable!("it is there")
        };
        let taint = Taint { key: "gpu".into(), value: "".into(), effect: TaintEffect::NoSchedule };
        Arc::make_mut(&mut tainted).spec.taints = vec![taint];
        world.ok(Command::Apply(Object::Node(tainted)));
        let id = world.create(set(1));
        let owner = OwnerRef { kind: Kind::DaemonSet, id };
        let revision = Some(world.own(owner, World::revision("log-a", 1)));
        let stamp = PodStamp { name: name("log-1"), index: None, node: Some(node), revision };
        assert!(verdict(&world, vec![EventKind::OwnedPodCreated { owner, stamp }]).is_err());
    }
}
