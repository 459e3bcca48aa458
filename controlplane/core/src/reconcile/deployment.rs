//! Deployments: a ReplicaSet per template, and their sizes moved from the old to the new within bounds.

mod delivery;
mod history;
mod rolling;
mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bulkhead_types::{
    Command, Deployment, DeploymentStrategy, Kind, Name, Object, ObjectId, ObjectRef, ReplicaSet,
};
use smol_str::SmolStr;

use self::rolling::{Bounds, Resize, SetSize};
use self::status::Found;
use super::blocked::Blocked;
use super::tally::is_unplaced;
use super::{Queue, Reconciler, View, names, work_off};
use crate::quota::count_refusal;
use crate::{Change, ChangeType, State};

/// Names tried for a new ReplicaSet in one run.
const NAME_TRIES: u32 = 16;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Deployments {
    queue: Queue,
    blocked: Blocked,
    /// Sets of which a pod went: their Deployments may have waited for that.
    touched_sets: BTreeSet<ObjectId>,
    /// Deployments whose wanted number changed: what it was, with its surge. Lost with the leader, whose
    /// successor then corrects the sizes without keeping proportions.
    scaled_from: BTreeMap<ObjectId, u32>,
}

impl Reconciler for Deployments {
    fn name(&self) -> &'static str {
        "deployment"
    }

    fn reset(&mut self, state: &State) {
        *self = Self::default();
        state.deployments().iter().for_each(|deployment| self.queue.mark(deployment.meta.id));
    }

    fn observe(&mut self, change: &Change) {
        self.blocked.observe(change);
        match (&change.object, &change.former) {
            (Object::Deployment(deployment), _) if change.change_type == ChangeType::Deleted => {
                self.queue.forget(deployment.meta.id);
                self.scaled_from.remove(&deployment.meta.id);
            }
            (Object::Deployment(deployment), former) => {
                if let Some(Object::Deployment(former)) = former
                    && former.spec.wanted_replicas() != deployment.spec.wanted_replicas()
                {
                    let before = bounds_of(former).total_max();
                    self.scaled_from.entry(deployment.meta.id).or_insert(before);
                }
                self.queue.mark(deployment.meta.id);
            }
            (Object::ReplicaSet(set), _) => {
                if let Some(owner) = set.meta.owner {
                    self.queue.mark(owner.id);
                }
            }
            (Object::Pod(pod), former) => {
                let gone = change.change_type == ChangeType::Deleted;
                let was_unplaced = matches!(former, Some(Object::Pod(former)) if is_unplaced(former));
                if gone || was_unplaced != is_unplaced(pod) {
                    self.touched_sets.extend(pod.meta.owner.map(|owner| owner.id));
                }
            }
            _ => {}
        }
    }

    fn reconcile(&mut self, view: &View<'_>) -> Vec<Command> {
        self.queue.begin(view.now_ms);
        self.blocked.wake(&mut self.queue, view);
        for set in std::mem::take(&mut self.touched_sets) {
            let owner = view.state.replica_sets().get(set).and_then(|set| set.meta.owner);
            owner.into_iter().for_each(|owner| self.queue.keep(owner.id));
        }
        work_off(
            self,
            |this| &mut this.queue,
            |this, id, commands| {
                let deployment = view.state.deployments().get(id).filter(|d| !is_doomed(view.state, d));
                let Some(deployment) = deployment else { return };
                let scaled_from = this.scaled_from.remove(&id);
                let mut pass = Pass::new(view, deployment, scaled_from);
                pass.run(commands);
                let place = (id, deployment.meta.namespace.as_ref());
                this.blocked.set(&mut this.queue, view, place, pass.is_refused);
                if let Some(at_ms) = pass.wake_at_ms {
                    this.queue.wake_at(id, at_ms);
                }
            },
        )
    }

    fn next_wake_ms(&self) -> Option<u64> {
        if self.touched_sets.is_empty() && !self.blocked.has_news() {
            self.queue.next_wake_ms()
        } else {
            Some(0)
        }
    }
}

fn is_doomed(state: &State, deployment: &Deployment) -> bool {
    let namespace = deployment.meta.namespace.as_ref();
    let namespace = namespace.and_then(|name| state.find(Kind::Namespace, None, name));
    namespace.and_then(|id| state.namespaces().get(id)).is_none_or(|ns| ns.meta.is_deleting())
}

fn bounds_of(deployment: &Deployment) -> Bounds {
    let desired = deployment.spec.wanted_replicas();
    let (surge, unavailable) = deployment.spec.strategy.bounds(desired);
    Bounds { desired, surge, unavailable }
}

/// One look at one Deployment.
struct Pass<'a> {
    view: &'a View<'a>,
    deployment: &'a Arc<Deployment>,
    bounds: Bounds,
    /// All its sets, in order of creation.
    sets: Vec<Arc<ReplicaSet>>,
    new: Option<Arc<ReplicaSet>>,
    old: Vec<Arc<ReplicaSet>>,
    scaled_from: Option<u32>,
    wake_at_ms: Option<u64>,
    /// The ReplicaSet of the present template does not fit in a quota.
    is_refused: bool,
}

impl<'a> Pass<'a> {
    fn new(view: &'a View<'a>, deployment: &'a Arc<Deployment>, scaled_from: Option<u32>) -> Self {
        let owned = view.state.owned(deployment.meta.id, Kind::ReplicaSet);
        let sets: Vec<_> = owned.filter_map(|id| view.state.replica_sets().get(id).cloned()).collect();
        let new = history::find_new(deployment, &sets).cloned();
        let is_old = |set: &&Arc<ReplicaSet>| Some(set.meta.id) != new.as_ref().map(|n| n.meta.id);
        let old = sets.iter().filter(is_old).cloned().collect();
        let bounds = bounds_of(deployment);
        Self { view, deployment, bounds, sets, new, old, scaled_from, wake_at_ms: None, is_refused: false }
    }

    fn run(&mut self, commands: &mut Vec<Command>) {
        let mut found = self.found();
        self.sync_revision(&mut found, commands);
        let resizes = self.resizes(&mut found, commands);
        let at_rest = resizes.is_empty();
        self.is_refused = found.is_refused;
        found.blocked = at_rest && self.is_blocked(&found);
        let scale = |r: Resize| Command::ScaleReplicaSet { replica_set: r.id, from: r.from, to: r.to };
        commands.extend(resizes.into_iter().map(scale));
        commands.extend(self.advance(&found));
        found.hold = self.hold(&found);
        let status = status::status(self.deployment, self.bounds, &found, self.view.now_ms);
        let complete =
            at_rest && status::is_complete(self.deployment, &status, &found) && found.new.is_some();
        if complete || self.deployment.spec.paused {
            self.clean_up(commands);
        }
        // The report comes just after the deadline, not on it.
        let deadline_ms = status::deadline_ms(self.deployment, &status).map(|at_ms| at_ms + 1);
        self.wake_at_ms = [deadline_ms, self.delivery_wake_ms(&found)].into_iter().flatten().min();
        if status != self.deployment.status {
            commands.push(Command::SetDeploymentStatus { deployment: self.deployment.meta.id, status });
        }
    }

    fn size(&self, set: &ReplicaSet) -> SetSize {
        let id = set.meta.id;
        SetSize {
            id,
            replicas: set.spec.replicas,
            active: self.view.state.active_pods(id),
            available: self.view.tallies.of(id).available(),
        }
    }

    fn found(&self) -> Found {
        let tallies = self.view.tallies;
        let failing = self.sets.iter().find(|set| tallies.of(set.meta.id).is_failing());
        Found {
            new: self.new.as_ref().map(|set| self.size(set)),
            old: self.old.iter().map(|set| self.size(set)).collect(),
            ready: self.sets.iter().map(|set| tallies.of(set.meta.id).ready()).sum(),
            new_name: self.new.as_ref().map(|set| set.meta.name.to_string()).unwrap_or_default(),
            rollout_revision: self.new.as_ref().map_or(0, |set| set.spec.rollout_revision),
            collision_count: self.deployment.status.collision_count,
            creates: false,
            failing: failing.map(|set| set.meta.name.to_string()),
            unplaced: self.new.as_ref().and_then(|set| self.unplaced(set.meta.id)),
            refused: self.sets.iter().find_map(|set| Some(set.status.failure.get()?.message.clone())),
            is_refused: false,
            blocked: false,
            hold: None,
        }
    }

    /// How many pods of a set no node can take, and why the first of them.
    fn unplaced(&self, set: ObjectId) -> Option<(u32, String)> {
        let first = self.view.state.pods().get(self.view.tallies.first_unplaced(set)?)?;
        Some((self.view.tallies.unplaced(set), first.status.message.clone()))
    }

    /// Whether no old pod may make room for a new one that no node can take.
    fn is_blocked(&self, found: &Found) -> bool {
        let holds_room = found.old.iter().any(|set| set.replicas > 0);
        found.unplaced.is_some() && holds_room && self.bounds.unavailable == 0
    }

    /// A set whose template is wanted again stands for the newest revision.
    fn sync_revision(&self, found: &mut Found, commands: &mut Vec<Command>) {
        let Some(new) = &self.new else { return };
        let rollout_revision = history::new_revision(&self.sets, Some(new));
        if rollout_revision != new.spec.rollout_revision {
            commands.push(Command::SetRolloutRevision { replica_set: new.meta.id, rollout_revision });
            found.rollout_revision = rollout_revision;
        }
    }

    fn resizes(&self, found: &mut Found, commands: &mut Vec<Command>) -> Vec<Resize> {
        if self.deployment.spec.stopped {
            let all: Vec<SetSize> = found.old.iter().copied().chain(found.new).collect();
            return rolling::drop_all(&all);
        }
        if let Some(delivery) = self.deployment.spec.delivery.get() {
            if found.new.is_none() && !self.deployment.spec.paused {
                self.create_new(found, commands);
                return Vec::new();
            }
            if let Some(resizes) = self.deliver(delivery, found) {
                return resizes;
            }
        }
        if let Some(resizes) = self.scaling(found) {
            return resizes;
        }
        if self.deployment.spec.paused {
            return Vec::new();
        }
        if self.deployment.spec.strategy == DeploymentStrategy::Recreate {
            let dropped = rolling::drop_all(&found.old);
            if !dropped.is_empty() || self.old.iter().any(|set| has_live_pods(self.view.state, set.meta.id)) {
                return dropped;
            }
        }
        match (found.new, self.deployment.spec.strategy) {
            (None, _) => {
                self.create_new(found, commands);
                Vec::new()
            }
            (Some(new), DeploymentStrategy::Recreate) => rolling::fill_new(self.bounds.desired, new),
            (Some(new), DeploymentStrategy::RollingUpdate { .. }) => {
                rolling::roll(self.bounds, new, &found.old)
            }
        }
    }

    /// Sizes after the wanted number changed. `None` when the rollout's own rules say what happens.
    fn scaling(&self, found: &Found) -> Option<Vec<Resize>> {
        let mut sizes: Vec<SetSize> = found.old.iter().copied().chain(found.new).collect();
        sizes.sort_by_key(|set| set.id);
        let active: Vec<SetSize> = sizes.iter().copied().filter(|set| set.replicas > 0).collect();
        let desired = self.bounds.desired;
        let paused = self.deployment.spec.paused;
        if active.len() < 2 {
            // When nothing runs the present template comes first, whatever was scaled or started.
            if !paused && (self.scaled_from.is_none() || active.is_empty()) {
                return None;
            }
            let only = active.first().copied().or(found.new).or(sizes.last().copied())?;
            let resizes = rolling::fill_new(desired, only);
            // Nothing to scale: the rollout goes on.
            return (paused || !resizes.is_empty()).then_some(resizes);
        }
        if self.deployment.spec.strategy == DeploymentStrategy::Recreate {
            return None;
        }
        let total = active.iter().map(|set| set.replicas).fold(0, u32::saturating_add);
        let out_of_bounds = total > self.bounds.total_max() || total < self.bounds.available_min();
        if self.scaled_from.is_none() && !(paused && out_of_bounds) {
            return None;
        }
        let saturated = found.new.is_some_and(|new| new.replicas == desired && new.available >= desired);
        if saturated {
            return Some(rolling::drop_all(&found.old));
        }
        let before = self.scaled_from.unwrap_or(self.deployment.status.replicas);
        let resizes = rolling::proportional(self.bounds, before, &active);
        (paused || !resizes.is_empty()).then_some(resizes)
    }

    fn create_new(&self, found: &mut Found, commands: &mut Vec<Command>) {
        let deployment = self.deployment;
        let namespace = deployment.meta.namespace.as_ref();
        let is_free = |name: &Name| self.view.state.find(Kind::ReplicaSet, namespace, name).is_none();
        let template = history::hashed(&deployment.spec.template);
        for collision_count in (found.collision_count..).take(NAME_TRIES as usize) {
            let hash = names::template_hash(&template, collision_count);
            let name = names::replica_set_name(&deployment.meta.name, &hash);
            found.collision_count = collision_count;
            if !is_free(&name) {
                continue;
            }
            if let Some(refusal) = count_refusal(self.view.state, Kind::ReplicaSet, namespace, &name) {
                found.refused = Some(format!("{}: {}", refusal.field, refusal.reason));
                found.is_refused = true;
                return;
            }
            found.new_name = name.to_string();
            found.creates = true;
            found.rollout_revision = history::new_revision(&self.sets, None);
            commands.push(Command::CreateReplicaSet {
                deployment: deployment.meta.id,
                generation: deployment.meta.generation,
                name,
                template_hash: SmolStr::from(hash),
                rollout_revision: found.rollout_revision,
            });
            return;
        }
        // All taken: the count is kept in the status, and the next run goes on from there.
        found.collision_count = found.collision_count.saturating_add(1);
    }

    /// Old sets that nothing needs any more go.
    fn clean_up(&self, commands: &mut Vec<Command>) {
        let limit = self.deployment.spec.revision_history_limit;
        let is_empty = |set: ObjectId| !has_live_pods(self.view.state, set);
        for set in history::beyond_limit(&self.old, limit, is_empty) {
            let object = ObjectRef {
                kind: Kind::ReplicaSet,
                namespace: set.meta.namespace.clone(),
                name: set.meta.name.clone(),
            };
            commands.push(Command::Delete { object, grace_ms: None, force: false });
        }
    }
}

/// Whether a set has pods that have not ended, those that are about to included.
fn has_live_pods(state: &State, set: ObjectId) -> bool {
    state.pods_of(set).any(|pod| !pod.status.phase.is_terminal())
}
