//! Workloads whose pods do not fit in a quota: they wait with the reason, and are looked at again when room may have come.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_types::{Condition, ConditionStatus, Name, Object, ObjectId, PodStamp, Rare, Rejection};

use super::{Queue, View};
use crate::conditions::set_condition;
use crate::decide::charge_stamp;
use crate::quota::{Ledger, REASON_FAILED_CREATE};
use crate::state::QuotaLevel;
use crate::{Change, ChangeType, State};

/// The condition of a workload that lacks pods or objects, when it is not a matter of time alone.
pub(super) const REPLICA_FAILURE: &str = "ReplicaFailure";
/// From room to the next look, in milliseconds: pods that end one after another are one reason to look.
const WAKE_MS: u64 = 100;
/// To the next look without any reason, in milliseconds.
const LOOK_MS: u64 = 30_000;
/// How long a message stays although its figures changed, in milliseconds: the log need not follow each of them.
const MESSAGE_MS: u64 = 10_000;

/// Who waits. Whatever makes room in a level may make it for everybody below the topmost level above it.
#[derive(Debug, Default)]
pub(super) struct Blocked {
    waiting: BTreeMap<QuotaLevel, BTreeSet<ObjectId>>,
    level_of: BTreeMap<ObjectId, QuotaLevel>,
    /// Namespaces in which something went since the last look.
    freed: BTreeSet<Name>,
    /// A quota, a bound or what belongs to it changed.
    rules_changed: bool,
}

impl Blocked {
    /// Notes what may have made room. Costs nothing while nobody waits.
    pub(super) fn observe(&mut self, change: &Change) {
        if self.waiting.is_empty() {
            return;
        }
        let gone = change.change_type == ChangeType::Deleted;
        match (&change.object, &change.former) {
            (
                Object::ResourceQuota(_)
                | Object::LimitRange(_)
                | Object::Project(_)
                | Object::Department(_)
                | Object::DeviceClass(_)
                | Object::Profile(_),
                _,
            ) => self.rules_changed = true,
            (Object::Namespace(new), Some(Object::Namespace(old))) => {
                let (new, old) = (&new.meta, &old.meta);
                self.rules_changed |= (&new.labels, &new.annotations) != (&old.labels, &old.annotations);
            }
            (Object::Pod(new), Some(Object::Pod(old)))
                if gone
                    || new.status.phase.is_terminal() != old.status.phase.is_terminal()
                    || new.spec != old.spec =>
            {
                self.freed.extend(new.meta.namespace.clone());
            }
            // Its recommendation may fit where the template does not.
            (Object::VerticalPodAutoscaler(one), _) => self.freed.extend(one.meta.namespace.clone()),
            (object, _) if gone => self.freed.extend(object.meta().namespace.clone()),
            _ => {}
        }
    }

    /// Whether somebody who waits may have room.
    pub(super) fn has_news(&self) -> bool {
        !self.waiting.is_empty() && (self.rules_changed || !self.freed.is_empty())
    }

    /// Makes those due who may have room.
    pub(super) fn wake(&mut self, queue: &mut Queue, view: &View<'_>) {
        let freed = std::mem::take(&mut self.freed);
        let at_ms = view.now_ms + WAKE_MS;
        if std::mem::take(&mut self.rules_changed) {
            self.level_of.keys().for_each(|id| queue.wake_at(*id, at_ms));
            return;
        }
        let levels: BTreeSet<QuotaLevel> =
            freed.iter().filter_map(|namespace| topmost(view.state, namespace)).collect();
        for id in levels.iter().filter_map(|level| self.waiting.get(level)).flatten() {
            queue.wake_at(*id, at_ms);
        }
    }

    /// Notes whether a workload waits.
    pub(super) fn set(
        &mut self,
        queue: &mut Queue,
        view: &View<'_>,
        (id, namespace): (ObjectId, Option<&Name>),
        waits: bool,
    ) {
        if let Some(level) = self.level_of.remove(&id)
            && let Some(waiting) = self.waiting.get_mut(&level)
        {
            waiting.remove(&id);
            if waiting.is_empty() {
                self.waiting.remove(&level);
            }
        }
        let level = namespace.filter(|_| waits).and_then(|namespace| topmost(view.state, namespace));
        let Some(level) = level else { return };
        self.waiting.entry(level.clone()).or_default().insert(id);
        self.level_of.insert(id, level);
        queue.wake_at(id, view.now_ms + LOOK_MS);
    }
}

fn topmost(state: &State, namespace: &Name) -> Option<QuotaLevel> {
    state.quota_levels(namespace).last()
}

/// What a workload says of a refusal, beside what it said before.
fn message(former: Option<&Condition>, refusal: &Rejection, now_ms: u64) -> String {
    let former =
        former.filter(|c| c.reason == REASON_FAILED_CREATE && now_ms < c.last_update_ms + MESSAGE_MS);
    former.map_or_else(|| format!("{}: {}", refusal.field, refusal.reason), |c| c.message.clone())
}

/// Says in a list of conditions why objects of a workload cannot be created.
pub(super) fn tell(list: &mut Vec<Condition>, refusal: &Rejection, now_ms: u64) {
    let former = list.iter().find(|c| c.condition_type == REPLICA_FAILURE);
    let message = message(former, refusal, now_ms);
    let condition = (REPLICA_FAILURE, ConditionStatus::True);
    set_condition(list, now_ms, condition, REASON_FAILED_CREATE, &message);
}

/// Takes that back, if it was said.
pub(super) fn untell(list: &mut Vec<Condition>) {
    list.retain(|c| c.condition_type != REPLICA_FAILURE || c.reason != REASON_FAILED_CREATE);
}

/// The same where there is this condition only.
pub(super) fn failure(former: &Rare<Condition>, refusal: Option<&Rejection>, now_ms: u64) -> Rare<Condition> {
    let Some(refusal) = refusal else { return Rare::NONE };
    let mut list: Vec<Condition> = former.get().cloned().into_iter().collect();
    tell(&mut list, refusal, now_ms);
    list.pop().into()
}

/// Why a pod of an owner, with the claims that come with it, does not fit; `None` when it does.
pub(super) fn stamp_refusal(state: &State, owner: &Object, stamp: &PodStamp) -> Option<Rejection> {
    let mut ledger = Ledger::of(state, owner.meta().namespace.as_ref());
    // Names that are derived anew with each look would make each message another one.
    let name = match owner {
        Object::StatefulSet(_) => stamp.name.clone(),
        other => other.meta().name.clone(),
    };
    let stamp = PodStamp { name, ..stamp.clone() };
    charge_stamp(state, owner, &stamp, &mut ledger).err()
}
