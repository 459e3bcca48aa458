//! StatefulSets: a pod for each ordinal, in order, and from one template to the next from the highest ordinal down.
//!
//! Source: "StatefulSets" in the Kubernetes documentation.

mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bulkhead_types::{
    ClaimRetention, Command, ControllerRevision, Kind, Name, Object, ObjectId, ObjectStatus, OwnerRef,
    PersistentVolumeClaim, Pod, PodManagementPolicy, PodStamp, Rejection, StatefulSet,
    StatefulSetUpdateStrategy,
};
use smol_str::SmolStr;

use super::backoff::Backoff;
use super::blocked::{Blocked, stamp_refusal};
use super::history::{History, is_doomed};
use super::{Queue, Reconciler, View, work_off};
use crate::claims::claims_of;
use crate::decide::{claim_from, is_surplus_claim};
use crate::workload::{self, Roster, Seen};
use crate::{Change, ChangeType, State};

/// Pods created or deleted by one command, at most.
const PODS_PER_COMMAND: usize = 500;
/// Pods of one set created or deleted per run, at most.
const PODS_PER_RUN: usize = 4000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct StatefulSets {
    queue: Queue,
    blocked: Blocked,
    sets: BTreeMap<ObjectId, Known>,
    /// Sets that have templates of claims, by namespace and name: a claim's name ends with its set's.
    with_claims: BTreeMap<(Option<Name>, SmolStr), ObjectId>,
}

/// What is kept of one set between runs.
#[derive(Debug, Default)]
struct Known {
    roster: Roster,
    backoff: Backoff<u32>,
    /// Pods or claims of it are gone, or it has another size: claims may not be wanted any more.
    claims_changed: bool,
}

fn set_of(pod: &Pod) -> Option<ObjectId> {
    pod.meta.owner.filter(|owner| owner.kind == Kind::StatefulSet).map(|owner| owner.id)
}

impl Reconciler for StatefulSets {
    fn name(&self) -> &'static str {
        "stateful-set"
    }

    fn reset(&mut self, state: &State) {
        *self = Self::default();
        for set in state.stateful_sets().iter() {
            let roster = Roster::of(state, set, 0);
            self.note_claims(set);
            self.sets.insert(set.meta.id, Known { roster, claims_changed: true, ..Known::default() });
            self.queue.mark(set.meta.id);
        }
    }

    fn observe(&mut self, change: &Change) {
        self.blocked.observe(change);
        let gone = change.change_type == ChangeType::Deleted;
        match &change.object {
            Object::StatefulSet(set) if gone => {
                self.queue.forget(set.meta.id);
                self.sets.remove(&set.meta.id);
                self.with_claims.remove(&name_of(set));
            }
            Object::StatefulSet(set) => {
                self.note_claims(set);
                self.sets.entry(set.meta.id).or_default().claims_changed = true;
                self.queue.mark(set.meta.id);
            }
            Object::ControllerRevision(row) => {
                let owner = row.meta.owner.filter(|owner| self.sets.contains_key(&owner.id));
                owner.into_iter().for_each(|owner| self.queue.mark(owner.id));
            }
            Object::Pod(pod) => self.observe_pod(pod, gone),
            Object::PersistentVolumeClaim(claim) if change.change_type != ChangeType::Modified => {
                self.observe_claim(claim);
            }
            _ => {}
        }
    }

    fn reconcile(&mut self, view: &View<'_>) -> Vec<Command> {
        self.queue.begin(view.now_ms);
        self.blocked.wake(&mut self.queue, view);
        work_off(
            self,
            |this| &mut this.queue,
            |this, id, commands| {
                let set = view.state.stateful_sets().get(id).filter(|set| !is_doomed(view.state, &set.meta));
                let (Some(set), Some(known)) = (set, this.sets.get_mut(&id)) else { return };
                known.roster.catch_up(set, view.now_ms);
                debug_assert_eq!(
                    known.roster,
                    Roster::of(view.state, set, view.now_ms),
                    "kept change by change"
                );
                let mut pass = Pass { view, set, known, commands, wake_at_ms: None, refusal: None };
                pass.run();
                let (place, waits) = ((id, set.meta.namespace.as_ref()), pass.refusal.is_some());
                this.blocked.set(&mut this.queue, view, place, waits);
                let wake_at_ms = pass.wake_at_ms.into_iter().chain(pass.known.roster.next_ripe_ms()).min();
                wake_at_ms.into_iter().for_each(|at_ms| this.queue.wake_at(id, at_ms));
            },
        )
    }

    fn next_wake_ms(&self) -> Option<u64> {
        if self.blocked.has_news() { Some(0) } else { self.queue.next_wake_ms() }
    }
}

impl StatefulSets {
    fn note_claims(&mut self, set: &StatefulSet) {
        if !set.spec.claim_templates().is_empty() {
            self.with_claims.insert(name_of(set), set.meta.id);
        }
    }

    /// A pod may wait for the end of its claim, and a claim that came may be one too many.
    fn observe_claim(&mut self, claim: &PersistentVolumeClaim) {
        if self.with_claims.is_empty() {
            return;
        }
        let Some((rest, _)) = claim.meta.name.as_str().rsplit_once('-') else { return };
        // `template-set-ordinal`, where both names may have hyphens: every end of the rest may be the set's.
        for (at, _) in rest.match_indices('-') {
            let key = (claim.meta.namespace.clone(), SmolStr::new(&rest[at + 1..]));
            let Some(id) = self.with_claims.get(&key) else { continue };
            self.queue.mark(*id);
            if let Some(known) = self.sets.get_mut(id) {
                known.claims_changed = true;
            }
        }
    }

    fn observe_pod(&mut self, pod: &Pod, gone: bool) {
        let (Some(id), Some(ordinal)) = (set_of(pod), workload::ordinal_of(pod)) else { return };
        let Some(known) = self.sets.get_mut(&id) else { return };
        known.claims_changed |= gone;
        let seen = (!gone).then(|| Seen::of(pod));
        if seen.as_ref().is_some_and(Seen::is_ready) {
            known.backoff.forgive(&ordinal);
        }
        if known.roster.put(ordinal, seen) {
            self.queue.mark(id);
        }
    }
}

fn name_of(set: &StatefulSet) -> (Option<Name>, SmolStr) {
    (set.meta.namespace.clone(), SmolStr::new(set.meta.name.as_str()))
}

/// One look at one StatefulSet.
struct Pass<'a> {
    view: &'a View<'a>,
    set: &'a Arc<StatefulSet>,
    known: &'a mut Known,
    commands: &'a mut Vec<Command>,
    wake_at_ms: Option<u64>,
    /// Why the next pod does not fit, if it does not.
    refusal: Option<Rejection>,
}

impl Pass<'_> {
    fn owner(&self) -> OwnerRef {
        OwnerRef { kind: Kind::StatefulSet, id: self.set.meta.id }
    }

    fn run(&mut self) {
        let ordinals = self.set.spec.ordinals();
        self.known.backoff.retain(|ordinal| ordinals.contains(ordinal));
        let history = History {
            view: self.view,
            owner: self.owner(),
            meta: &self.set.meta,
            template: &self.set.spec.template,
            limit: self.set.spec.revision_history_limit,
        };
        let mut collision_count = self.set.status.collision_count;
        let update = history.sync(&mut collision_count, self.commands);
        if let Some(update) = update {
            self.replace_ended();
            self.create(update);
            self.shrink();
            self.roll(update.meta.name.as_str());
        }
        if std::mem::take(&mut self.known.claims_changed) {
            self.restore_claims();
            self.drop_claims();
        }
        let update = update.map(|row| SmolStr::new(row.meta.name.as_str()));
        let status = status::status(self.view, self.set, &self.known.roster, update, collision_count);
        let (failing, refusal) = (self.known.backoff.failing(), self.refusal.as_ref());
        let status = status::with_failure(status, self.view.now_ms, failing, refusal);
        let live: BTreeSet<_> = self.known.roster.revisions().cloned().collect();
        let is_live = |name: &str| {
            live.contains(name) || status.current_revision == name || status.update_revision == name
        };
        history.clean_up(is_live, self.commands);
        if status != self.set.status {
            let (id, status) = (self.set.meta.id, ObjectStatus::StatefulSet(status));
            self.commands.push(Command::SetStatus { id, status });
        }
    }

    /// Pods that ended are asked to go, so that their ordinals are free; those that keep failing later and later.
    fn replace_ended(&mut self) {
        let mut doomed = Vec::new();
        for ordinal in self.known.roster.ended().iter().take(PODS_PER_RUN) {
            let Some(seen) = self.known.roster.get(*ordinal) else { continue };
            let is_wanted = self.set.spec.ordinals().contains(ordinal);
            let due_ms =
                if is_wanted { self.known.backoff.ended(*ordinal, seen.id, self.view.now_ms) } else { 0 };
            if due_ms <= self.view.now_ms {
                doomed.push(seen.id);
            } else {
                self.wake_at_ms = self.wake_at_ms.into_iter().chain([due_ms]).min();
            }
        }
        self.delete(&doomed, "Ended");
    }

    fn create(&mut self, update: &ControllerRevision) {
        let (state, set, roster) = (self.view.state, self.set, &self.known.roster);
        let most = match set.spec.pod_management_policy {
            PodManagementPolicy::OrderedReady => 1,
            PodManagementPolicy::Parallel => PODS_PER_RUN,
        };
        let below = workload::current(state, set).map_or(update.meta.id, |row| row.meta.id);
        let from = set.spec.partition_ordinal();
        let wanted = roster.missing().iter().take(most).filter(|ordinal| roster.may_create(set, **ordinal));
        let stamps: Vec<_> = wanted
            .filter_map(|ordinal| {
                let revision = Some(if *ordinal < from { below } else { update.meta.id });
                let name = workload::pod_name(&set.meta.name, *ordinal)?;
                Some(PodStamp { name, index: Some(*ordinal), node: None, revision })
            })
            .collect();
        if let Some(first) = stamps.first() {
            self.refusal = stamp_refusal(state, &Object::StatefulSet(Arc::clone(set)), first);
            if self.refusal.is_some() {
                return;
            }
        }
        let (owner, generation) = (self.owner(), set.meta.generation);
        for pods in stamps.chunks(PODS_PER_COMMAND) {
            self.commands.push(Command::CreateOwnedPods { owner, generation, pods: pods.to_vec() });
        }
    }

    /// Pods that are not wanted any more go, the highest ordinal first.
    fn shrink(&mut self) {
        let roster = &self.known.roster;
        let surplus = roster.surplus().iter().rev();
        let most = match self.set.spec.pod_management_policy {
            PodManagementPolicy::OrderedReady => 1,
            PodManagementPolicy::Parallel => PODS_PER_RUN,
        };
        let doomed = surplus.take(most).filter(|ordinal| roster.may_shrink(self.set, **ordinal));
        let doomed: Vec<_> = doomed.filter_map(|ordinal| Some(roster.get(*ordinal)?.id)).collect();
        self.delete(&doomed, "ScaledDown");
    }

    /// Pods of another template are given up, from the highest ordinal down: first those that are not available, because
    /// nothing is lost with them and a broken template must never keep its successor from coming; then as many as may
    /// be unavailable.
    fn roll(&mut self, update: &str) {
        if self.set.spec.update_strategy == StatefulSetUpdateStrategy::OnDelete {
            return;
        }
        let (set, roster, from) = (self.set, &self.known.roster, self.set.spec.partition_ordinal());
        let at_once = match set.spec.pod_management_policy {
            PodManagementPolicy::Parallel => PODS_PER_RUN,
            PodManagementPolicy::OrderedReady => usize::from(!roster.is_ending()),
        };
        let spare = (roster.spare(set) as usize).min(PODS_PER_RUN);
        let broken = roster.outdated(update, from, false).take(at_once);
        let doomed = broken.chain(roster.outdated(update, from, true).take(spare));
        let doomed: Vec<_> = doomed.filter_map(|ordinal| Some(roster.get(ordinal)?.id)).collect();
        self.delete(&doomed, "Replaced");
    }

    /// A pod without a node waits for ever when somebody deletes its claim: that is made anew.
    fn restore_claims(&mut self) {
        let (state, set) = (self.view.state, self.set);
        let (owner, generation) = (self.owner(), set.meta.generation);
        if set.spec.claim_templates().is_empty() {
            return;
        }
        let pods = state.pods_of(set.meta.id).filter(|pod| pod.node.is_none() && !pod.meta.is_deleting());
        for ordinal in pods.filter_map(|pod| workload::ordinal_of(pod)).take(PODS_PER_COMMAND) {
            for template in set.spec.claim_templates() {
                let Some(name) = template.claim_name(&set.meta.name, ordinal) else { continue };
                if state.claim(set.meta.namespace.as_ref(), name.as_str()).is_none() {
                    let object =
                        Object::PersistentVolumeClaim(Arc::new(claim_from(state, set, template, name)));
                    self.commands.push(Command::CreateOwned { owner, generation, object });
                    self.known.claims_changed = true;
                }
            }
        }
    }

    /// Claims of ordinals that are not wanted any more go with their pods, where that is the policy.
    fn drop_claims(&mut self) {
        let (state, set) = (self.view.state, self.set);
        if set.spec.claims.get().is_none_or(|claims| claims.when_scaled == ClaimRetention::Retain) {
            return;
        }
        let surplus = claims_of(state, set).filter(|(n, claim)| is_surplus_claim(state, set, *n, claim));
        let kind = Kind::PersistentVolumeClaim;
        let surplus: Vec<_> = surplus.map(|(_, claim)| (kind, claim.meta.id)).take(PODS_PER_RUN).collect();
        // Until all of them are seen to go.
        self.known.claims_changed |= !surplus.is_empty();
        let owner = self.owner();
        for objects in surplus.chunks(PODS_PER_COMMAND) {
            self.commands.push(Command::DeleteOwned { owner, objects: objects.to_vec() });
        }
    }

    fn delete(&mut self, pods: &[ObjectId], reason: &'static str) {
        let (owner, generation) = (self.owner(), self.set.meta.generation);
        for pods in pods.chunks(PODS_PER_COMMAND) {
            let (pods, reason) = (pods.to_vec(), SmolStr::new_static(reason));
            self.commands.push(Command::DeleteOwnedPods { owner, generation, pods, reason });
        }
    }
}
