//! Queues: of which one a pod is, and whether there is room in it. Asked by the scheduler, and by `decide` again.

use std::collections::BTreeMap;
use std::sync::Arc;

use bulkhead_types::{
    Kind, Measure, Name, ObjectId, Pod, PodGroup, PodGroupKey, QUEUE_DEFAULT, QUEUES_LEVEL, Queue,
    QueueState, QuotaAmounts,
};

use crate::State;
use crate::state::{Charge, QuotaUse};

/// The PodGroup of a group, if there is one.
pub(crate) fn pod_group<'a>(state: &'a State, key: &PodGroupKey) -> Option<&'a Arc<PodGroup>> {
    if state.feature_level() < QUEUES_LEVEL || state.pod_groups.is_empty() {
        return None;
    }
    let name = Name::new(key.name.as_str()).ok()?;
    state.pod_groups.get(state.find(Kind::PodGroup, key.namespace.as_ref(), &name)?)
}

/// The queue of pods of a group that name one themselves, or do not; `None` is the default one.
pub(crate) fn of(state: &State, group: Option<&PodGroupKey>, own: Option<&Name>) -> Option<Name> {
    if state.feature_level() < QUEUES_LEVEL {
        return None;
    }
    let of_group = group.and_then(|key| pod_group(state, key)).map(|group| &group.spec.queue);
    of_group.or(own).filter(|name| name.as_str() != QUEUE_DEFAULT).cloned()
}

/// The queue of a pod; `None` is the default one.
pub(crate) fn of_pod(state: &State, pod: &Pod) -> Option<Name> {
    if state.feature_level() < QUEUES_LEVEL {
        return None;
    }
    let (group, own) = (pod.group_key(), pod.own_queue());
    if group.is_none() && own.is_none() {
        return None;
    }
    of(state, group.as_ref(), own.as_ref())
}

/// A queue by name.
pub(crate) fn find<'a>(state: &'a State, name: &Name) -> Option<&'a Arc<Queue>> {
    state.queues.get(state.find(Kind::Queue, None, name)?)
}

/// Why nothing of a queue gets room, however much there is; `None` when it may.
pub(crate) fn closed(state: &State, name: &Name) -> Option<String> {
    match find(state, name) {
        None => Some(format!("Queue {name} does not exist: create it, or name another one")),
        Some(queue) if queue.spec.state != QueueState::Open => {
            Some(format!("Queue {name} is closed: nothing new of it gets room until it is opened"))
        }
        Some(_) => None,
    }
}

/// As containers ask for it: `cpu`, `nvidia.com/gpu`.
pub(crate) fn resource_name(measure: &Measure) -> String {
    let name = measure.name();
    name.strip_prefix("requests.").map(ToOwned::to_owned).unwrap_or(name)
}

/// What is used of queues, with what one command or run has given beside that.
#[derive(Clone, Debug, Default)]
pub(crate) struct QueueLedger {
    given: BTreeMap<Name, QuotaUse>,
}

impl QueueLedger {
    /// Whether a queue has room for something more.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn check(&self, state: &State, name: &Name, charge: &Charge) -> Result<(), String> {
        let asked = |measure: &Measure| {
            charge.iter().filter(|(one, _)| *one == measure).map(|(_, amount)| u128::from(amount)).sum()
        };
        self.check_amounts(state, name, asked)
    }

    /// Whether a pod's queue has room for it.
    pub(crate) fn has_room(&self, state: &State, pod: ObjectId) -> bool {
        let queue = state.pods.get(pod).and_then(|pod| Some((pod, of_pod(state, pod)?)));
        queue.is_none_or(|(pod, queue)| {
            self.check(state, &queue, &Charge::of_pod(pod, &state.devices.classes)).is_ok()
        })
    }

    /// The same for what a group says it needs at least.
    pub(crate) fn check_least(
        &self,
        state: &State,
        name: &Name,
        least: &QuotaAmounts,
        held: &QuotaUse,
    ) -> Result<(), String> {
        let asked =
            |measure: &Measure| u128::from(least.of(measure).unwrap_or(0)).saturating_sub(held.of(measure));
        self.check_amounts(state, name, asked)
    }

    fn check_amounts(
        &self,
        state: &State,
        name: &Name,
        asked: impl Fn(&Measure) -> u128,
    ) -> Result<(), String> {
        if let Some(reason) = closed(state, name) {
            return Err(reason);
        }
        let Some(queue) = find(state, name) else { return Ok(()) };
        for measure in queue.spec.capability.measures() {
            let most = u128::from(queue.spec.capability.of(measure).unwrap_or(u64::MAX));
            let used = self.used(state, name, measure);
            let asked = asked(measure);
            if asked > 0 && used + asked > most {
                let show = |amount: u128| measure.format_amount(u64::try_from(amount).unwrap_or(u64::MAX));
                let resource = resource_name(measure);
                return Err(format!(
                    "Queue {name}: {} of {resource} is asked for, its pods use {} and may use {} together",
                    show(asked),
                    show(used),
                    show(most)
                ));
            }
        }
        Ok(())
    }

    fn used(&self, state: &State, name: &Name, measure: &Measure) -> u128 {
        let used = state.queue_use.of_queue(name).map_or(0, |used| used.of(measure));
        used + self.given.get(name).map_or(0, |given| given.of(measure))
    }

    /// Something of a queue gets room.
    pub(crate) fn take(&mut self, name: &Name, charge: &Charge) {
        self.given.entry(name.clone()).or_default().add(charge);
    }
}
