//! The nodes of one DaemonSet, with its pods on each, sorted by what is to be done there: every question costs a look
//! into a set, every change of a node or pod the logarithm of their number.
//!
//! Source: "DaemonSet" in the Kubernetes documentation, and `nodeShouldRunDaemonPod`, `podsShouldBeOnNode` and
//! `rollingUpdate` of its controller.

mod figures;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use bulkhead_types::{
    DaemonSet, DaemonSetUpdateStrategy, Node, NodePhase, ObjectId, Pod, PodSpec, TaintEffect,
};
use smol_str::SmolStr;

use self::figures::Figures;
use super::{Seen, Standing};
use crate::State;
use crate::owned_pod::with_daemon_tolerations;
use crate::placement::{is_selected, untolerated};

/// What is to be done on a node. One thing at a time: the next one is seen when that has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    /// A pod is to be created: nothing of the set is there.
    Gap,
    /// Pods are to go: they may not be here, or are too many, or their successor is available.
    Excess,
    /// The one pod has another template and is not available: nothing is lost with it.
    OutdatedUnwell,
    /// The one pod has another template and is available, but its node is lost: it goes last.
    OutdatedLost,
    /// The one pod has another template and is available.
    Outdated,
}

/// What matters of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    id: ObjectId,
    /// Whether the set wants a pod there.
    wanted: bool,
    /// Whether a pod that is there may stay.
    may_stay: bool,
    reachable: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Slot {
    /// `None` when there is no such node (any more).
    place: Option<Place>,
    pods: BTreeMap<ObjectId, Seen>,
    verdict: Option<Verdict>,
    figures: Figures,
    has_ended: bool,
}

/// See the module. Nodes go by name: a pod is tied to its node by that.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fleet {
    generation: u64,
    /// The name of the ControllerRevision of the wanted template.
    update: SmolStr,
    /// The template's pod as it counts for taints.
    spec: PodSpec,
    strategy: DaemonSetUpdateStrategy,
    min_ready_ms: u64,
    now_ms: u64,
    slots: BTreeMap<SmolStr, Slot>,
    verdicts: BTreeMap<Verdict, BTreeSet<SmolStr>>,
    ended: BTreeSet<SmolStr>,
    totals: Figures,
    /// Active pods by revision.
    revisions: BTreeMap<SmolStr, u32>,
    /// When to look again at which node: a ready pod becomes available.
    ripening: BTreeSet<(u64, SmolStr)>,
}

/// The node that a DaemonSet's pod is for.
pub(crate) fn node_of(pod: &Pod) -> SmolStr {
    pod.spec.node_name.clone().unwrap_or_default()
}

impl Fleet {
    /// The nodes of a set at a time. Costs time in proportion to the nodes and the set's pods.
    pub(crate) fn of(state: &State, set: &DaemonSet, update: &str, now_ms: u64) -> Self {
        let mut fleet = Self::default();
        for pod in state.pods_of(set.meta.id) {
            fleet.put_pod(&node_of(pod), pod.meta.id, Some(Seen::of(pod)));
        }
        fleet.catch_up(state, set, update, now_ms);
        fleet
    }

    /// Follows a change of the set's spec or of the wanted revision, and lets time pass.
    pub(crate) fn catch_up(&mut self, state: &State, set: &DaemonSet, update: &str, now_ms: u64) {
        self.now_ms = now_ms;
        if self.generation != set.meta.generation || self.update != update {
            self.adopt(state, set, update);
        }
        while let Some((due_ms, name)) = self.ripening.first().cloned().filter(|(ms, _)| *ms <= now_ms) {
            self.ripening.remove(&(due_ms, name.clone()));
            self.judge(&name);
        }
    }

    /// Takes over the set's spec: every node is looked at anew.
    fn adopt(&mut self, state: &State, set: &DaemonSet, update: &str) {
        let slots = std::mem::take(&mut self.slots);
        let revisions = std::mem::take(&mut self.revisions);
        *self = Self {
            revisions,
            generation: set.meta.generation,
            update: SmolStr::new(update),
            spec: with_daemon_tolerations(&set.spec.template.spec),
            strategy: set.spec.update_strategy,
            min_ready_ms: set.spec.min_ready_ms,
            now_ms: self.now_ms,
            ..Self::default()
        };
        for (name, slot) in slots {
            if !slot.pods.is_empty() {
                self.slots.insert(name, Slot { pods: slot.pods, ..Slot::default() });
            }
        }
        for node in state.nodes().iter() {
            let place = self.place(node);
            self.slots.entry(SmolStr::new(node.meta.name.as_str())).or_default().place = Some(place);
        }
        let names: Vec<_> = self.slots.keys().cloned().collect();
        names.iter().for_each(|name| self.judge(name));
    }

    /// Whether a node is wanted, or may at least keep its pod: a taint with `NoSchedule` comes too late for that. Neither
    /// a cordon nor a lost lease matters.
    fn place(&self, node: &Node) -> Place {
        let named = self.spec.node_name.as_ref().is_none_or(|name| name == node.meta.name.as_str());
        let fits = named && is_selected(&self.spec, node) && !node.meta.is_deleting();
        let repelled = untolerated(&self.spec, node).next().is_some();
        let driven_out = untolerated(&self.spec, node).any(|taint| taint.effect == TaintEffect::NoExecute);
        Place {
            id: node.meta.id,
            wanted: fits && !repelled,
            may_stay: fits && !driven_out,
            reachable: node.status.phase == NodePhase::Ready,
        }
    }

    /// Notes what a node is now; `None` when it is gone. Returns whether that is news.
    pub(crate) fn put_node(&mut self, name: &str, node: Option<&Node>) -> bool {
        let place = node.map(|node| self.place(node));
        let name = SmolStr::new(name);
        let slot = self.slots.entry(name.clone()).or_default();
        let is_news = slot.place != place;
        slot.place = place;
        // Also when nothing is new: a node that nobody knew leaves no trace.
        self.judge(&name);
        is_news
    }

    /// Notes what a pod is now; `None` when it is gone. Returns whether that is news.
    pub(crate) fn put_pod(&mut self, node: &SmolStr, id: ObjectId, seen: Option<Seen>) -> bool {
        let slot = self.slots.entry(node.clone()).or_default();
        let former = slot.pods.remove(&id);
        let is_news = former != seen;
        let revision =
            |seen: &Option<Seen>| seen.as_ref().filter(|s| s.is_active()).map(|s| s.revision.clone());
        if let Some(count) = revision(&former).and_then(|name| self.revisions.get_mut(&name)) {
            *count -= 1;
        }
        revision(&seen).into_iter().for_each(|name| *self.revisions.entry(name).or_default() += 1);
        self.revisions.retain(|_, count| *count > 0);
        slot.pods.extend(seen.map(|seen| (id, seen)));
        self.judge(node);
        is_news
    }

    /// The revisions of active pods.
    pub(crate) fn revisions(&self) -> impl Iterator<Item = &SmolStr> {
        self.revisions.keys()
    }

    /// Looks at a node anew, and sorts it in.
    fn judge(&mut self, name: &SmolStr) {
        let Some(slot) = self.slots.get(name) else { return };
        let (verdict, figures) = (self.verdict(slot), self.figures(slot));
        let has_ended = slot.pods.values().any(|seen| seen.standing == Standing::Ended);
        let ripe = slot.pods.values().filter_map(|seen| seen.available_at_ms(self.min_ready_ms));
        let next_ripe_ms = ripe.filter(|at_ms| *at_ms > self.now_ms).min();
        self.ripening.extend(next_ripe_ms.map(|at_ms| (at_ms, name.clone())));
        let is_empty = slot.place.is_none() && slot.pods.is_empty();
        let slot = self.slots.get_mut(name).expect("a slot that was just looked at");
        self.totals.each(slot.figures, u32::saturating_sub);
        self.totals.each(figures, u32::saturating_add);
        if slot.verdict != verdict {
            if let Some(former) = slot.verdict {
                self.verdicts.entry(former).or_default().remove(name);
            }
            if let Some(verdict) = verdict {
                self.verdicts.entry(verdict).or_default().insert(name.clone());
            }
        }
        if has_ended {
            self.ended.insert(name.clone());
        } else {
            self.ended.remove(name);
        }
        (slot.verdict, slot.figures, slot.has_ended) = (verdict, figures, has_ended);
        if is_empty {
            self.slots.remove(name);
        }
    }

    fn is_well(&self, seen: &Seen) -> bool {
        seen.available_at_ms(self.min_ready_ms).is_some_and(|at_ms| at_ms <= self.now_ms)
    }

    fn verdict(&self, slot: &Slot) -> Option<Verdict> {
        let active: Vec<_> = slot.pods.values().filter(|seen| seen.is_active()).collect();
        if !slot.place.is_some_and(|place| place.may_stay) {
            return (!active.is_empty()).then_some(Verdict::Excess);
        }
        let place = slot.place?;
        match active.as_slice() {
            [] => (place.wanted && slot.pods.is_empty()).then_some(Verdict::Gap),
            // What ends, or ended, on the node goes first; and where none would come, none is given up.
            [_] if slot.pods.len() > 1 || !place.wanted => None,
            [only] if only.revision == self.update => None,
            [_] if self.strategy == DaemonSetUpdateStrategy::OnDelete => None,
            [only] if !self.is_well(only) => Some(Verdict::OutdatedUnwell),
            [_] if place.reachable => Some(Verdict::Outdated),
            [_] => Some(Verdict::OutdatedLost),
            _ => (!self.superfluous(&active).is_empty()).then_some(Verdict::Excess),
        }
    }

    /// Which of several active pods of a node go: with a surge one old pod stays beside one new one until that is
    /// available.
    fn superfluous(&self, active: &[&Seen]) -> Vec<ObjectId> {
        let best = |pods: &[&Seen]| {
            pods.iter().max_by_key(|seen| (self.is_well(seen), Reverse(seen.id))).map(|seen| seen.id)
        };
        let (new, old): (Vec<&Seen>, Vec<&Seen>) =
            active.iter().copied().partition(|seen| seen.revision == self.update);
        let well = new.iter().any(|seen| self.is_well(seen));
        let kept_new = best(&new);
        let serves = old.iter().any(|seen| self.is_well(seen));
        // A strategy without surge has one place: the old pod keeps it while it serves and the new one does not.
        let kept_new = kept_new.filter(|_| self.surges() || well || !serves);
        let kept_old = best(&old).filter(|_| kept_new.is_none() || (self.surges() && serves && !well));
        active
            .iter()
            .map(|seen| seen.id)
            .filter(|id| Some(*id) != kept_new && Some(*id) != kept_old)
            .collect()
    }

    fn figures(&self, slot: &Slot) -> Figures {
        let wanted = slot.place.is_some_and(|place| place.wanted);
        let any = |is: &dyn Fn(&Seen) -> bool| u32::from(slot.pods.values().any(is));
        let there = any(&|seen| seen.lives());
        // Also where none is wanted any more: what runs there counts for the bound.
        let surging = u32::from(slot.pods.values().filter(|seen| seen.lives()).count() > 1);
        if !wanted {
            return Figures { misscheduled: there, surging, ..Figures::default() };
        }
        Figures {
            desired: 1,
            scheduled: there,
            misscheduled: 0,
            ready: any(&|seen| seen.is_ready()),
            available: any(&|seen| self.is_well(seen)),
            updated: any(&|seen| seen.is_active() && seen.revision == self.update),
            surging,
        }
    }

    /// The nodes with a verdict, in name order.
    pub(crate) fn with(&self, verdict: Verdict) -> impl Iterator<Item = &SmolStr> {
        self.verdicts.get(&verdict).into_iter().flatten()
    }

    /// Nodes with pods that ended and were not asked to go.
    pub(crate) fn ended(&self) -> &BTreeSet<SmolStr> {
        &self.ended
    }

    /// Whether the set has, or wants, a pod on a node.
    pub(crate) fn concerns(&self, name: &str) -> bool {
        self.slots.get(name).is_some_and(|slot| !slot.pods.is_empty() || slot.place.is_some_and(|p| p.wanted))
    }

    /// The node of that name.
    pub(crate) fn node(&self, name: &str) -> Option<ObjectId> {
        self.slots.get(name)?.place.map(|place| place.id)
    }

    /// The set's pods on a node, in order of creation.
    pub(crate) fn pods(&self, name: &str) -> impl Iterator<Item = &Seen> {
        self.slots.get(name).into_iter().flat_map(|slot| slot.pods.values())
    }

    /// What is to be done on a node.
    pub(crate) fn verdict_on(&self, name: &str) -> Option<Verdict> {
        self.slots.get(name)?.verdict
    }

    /// The pods of a node that are too many there.
    pub(crate) fn excess(&self, name: &str) -> Vec<ObjectId> {
        let Some(slot) = self.slots.get(name) else { return Vec::new() };
        let active: Vec<_> = slot.pods.values().filter(|seen| seen.is_active()).collect();
        if slot.place.is_some_and(|place| place.may_stay) {
            self.superfluous(&active)
        } else {
            active.iter().map(|seen| seen.id).collect()
        }
    }

    /// The figures of all nodes together.
    pub(crate) fn totals(&self) -> Figures {
        self.totals
    }

    /// Whether a rolling update runs new pods beside old ones.
    pub(crate) fn surges(&self) -> bool {
        match self.strategy {
            DaemonSetUpdateStrategy::RollingUpdate { max_surge, .. } => max_surge.resolve(100, true) > 0,
            DaemonSetUpdateStrategy::OnDelete => false,
        }
    }

    /// How many nodes may be without an available pod, and with two pods, during a rolling update; `None` when there is
    /// none. When both come out as zero, one may be unavailable.
    fn bounds(&self) -> Option<(u32, u32)> {
        match self.strategy {
            DaemonSetUpdateStrategy::OnDelete => None,
            DaemonSetUpdateStrategy::RollingUpdate { max_unavailable, max_surge } => {
                let desired = self.totals.desired;
                let (unavailable, surge) =
                    (max_unavailable.resolve(desired, true), max_surge.resolve(desired, true));
                Some(if unavailable == 0 && surge == 0 { (1, 0) } else { (unavailable, surge) })
            }
        }
    }

    /// Whether a pod may be created on a node now.
    pub(crate) fn may_create(&self, name: &str) -> bool {
        match self.verdict_on(name) {
            Some(Verdict::Gap) => true,
            Some(Verdict::Outdated | Verdict::OutdatedLost) => self.surges() && self.spare_surge() > 0,
            _ => false,
        }
    }

    /// Whether a pod on a node may be asked to go now.
    pub(crate) fn may_go(&self, name: &str, pod: ObjectId) -> bool {
        let seen = self.slots.get(name).and_then(|slot| slot.pods.get(&pod));
        if seen.is_some_and(|seen| seen.standing == Standing::Ended) {
            return true;
        }
        match self.verdict_on(name) {
            Some(Verdict::Excess) => self.excess(name).contains(&pod),
            Some(Verdict::OutdatedUnwell) => true,
            Some(Verdict::Outdated | Verdict::OutdatedLost) => !self.surges() && self.spare() > 0,
            _ => false,
        }
    }

    /// On how many more nodes an available old pod may be given up now.
    pub(crate) fn spare(&self) -> u32 {
        let unavailable = self.totals.desired - self.totals.available.min(self.totals.desired);
        self.bounds().map_or(0, |(most, _)| most.saturating_sub(unavailable))
    }

    /// On how many more nodes a new pod may be created beside an old one now.
    pub(crate) fn spare_surge(&self) -> u32 {
        self.bounds().map_or(0, |(_, most)| most.saturating_sub(self.totals.surging))
    }

    /// Whether this, which followed every change, says the same as one that was made from the State just now.
    pub(crate) fn agrees_with(&self, fresh: &Self) -> bool {
        (&self.slots, &self.ended, self.totals, &self.revisions)
            == (&fresh.slots, &fresh.ended, fresh.totals, &fresh.revisions)
    }

    /// When the next pod becomes available, milliseconds since the epoch.
    pub(crate) fn next_ripe_ms(&self) -> Option<u64> {
        self.ripening.first().map(|(due_ms, _)| *due_ms)
    }
}
