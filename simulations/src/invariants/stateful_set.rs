//! Ordinals of a StatefulSet come, go and are replaced in their order and within their bound, and there is one pod of
//! each.
//!
//! Looked at is every pod that its reconciler creates or asks to go, against the State just before: `decide` looks at
//! each word anew, so unlike a Deployment's sizes it must be right at that very moment. Judged from the objects alone,
//! without the code that decides.

use std::collections::BTreeMap;

use bulkhead_controlplane_core::State;
use bulkhead_types::{
    EventKind, Kind, LABEL_CONTROLLER_REVISION_HASH, Pod, PodManagementPolicy, StatefulSet,
    StatefulSetUpdateStrategy, Transaction,
};

use super::{Verdict, ensure};

/// The actor whose words are looked at.
const ACTOR: &str = "system:stateful-set";
const NAME: &str = "stateful_set";

/// Checks a transaction against the State before it and the one after.
///
/// # Errors
/// With the first pod that must not have come or gone.
pub fn check(before: &State, after: &State, transaction: &Transaction) -> Verdict {
    if transaction.actor != ACTOR {
        return Ok(());
    }
    let created = transaction.events.iter().find_map(|event| match &event.kind {
        EventKind::OwnedPodCreated { owner, .. } => after.stateful_sets().get(owner.id),
        _ => None,
    });
    if let Some(set) = created {
        check_created(before, after, set, transaction.at_ms)?;
    }
    for event in &transaction.events {
        if let EventKind::DeletionRequested { kind: Kind::Pod, id, .. }
        | EventKind::ObjectDeleted { kind: Kind::Pod, id } = &event.kind
            && let Some(pod) = before.pods().get(*id).filter(|pod| is_active(pod))
            && let Some(set) = pod.meta.owner.and_then(|owner| before.stateful_sets().get(owner.id))
        {
            check_given_up(before, after, set, pod, transaction.at_ms)?;
        }
    }
    Ok(())
}

fn is_active(pod: &Pod) -> bool {
    !pod.meta.is_deleting() && !pod.status.phase.is_terminal()
}

fn ordinal(pod: &Pod) -> Option<u32> {
    pod.meta.name.as_str().rsplit_once('-')?.1.parse().ok()
}

fn in_order(set: &StatefulSet) -> bool {
    set.spec.pod_management_policy == PodManagementPolicy::OrderedReady
}

/// A set's pods by ordinal.
struct Pods<'a> {
    set: &'a StatefulSet,
    at_ms: u64,
    pods: BTreeMap<u32, &'a Pod>,
    /// An ordinal that two pods have.
    twice: Option<u32>,
}

impl<'a> Pods<'a> {
    fn of(state: &'a State, set: &'a StatefulSet, at_ms: u64) -> Self {
        let (mut pods, mut twice) = (BTreeMap::new(), None);
        for pod in state.pods_of(set.meta.id) {
            let Some(ordinal) = ordinal(pod) else { continue };
            if pods.insert(ordinal, &**pod).is_some() {
                twice = Some(ordinal);
            }
        }
        Self { set, at_ms, pods, twice }
    }

    fn is_available(&self, ordinal: u32) -> bool {
        self.pods.get(&ordinal).is_some_and(|pod| {
            let since_ms = self.at_ms.saturating_sub(pod.status.ready_since_ms);
            is_active(pod) && pod.status.ready && since_ms >= self.set.spec.min_ready_ms
        })
    }

    fn unavailable(&self) -> u32 {
        self.set.spec.ordinals().filter(|ordinal| !self.is_available(*ordinal)).count() as u32
    }
}

fn check_created(before: &State, after: &State, set: &StatefulSet, at_ms: u64) -> Verdict {
    let (was, is) = (Pods::of(before, set, at_ms), Pods::of(after, set, at_ms));
    let name = &set.meta.name;
    ensure(is.twice.is_none(), NAME, || format!("{name} has two pods of ordinal {:?}", is.twice))?;
    for at in is.pods.keys().filter(|at| !was.pods.contains_key(at)) {
        ensure(set.spec.ordinals().contains(at), NAME, || format!("{name}-{at} is not wanted"))?;
        let ready = set.spec.ordinals().take_while(|below| below < at).all(|below| was.is_available(below));
        ensure(!in_order(set) || ready, NAME, || format!("{name}-{at} came before others were available"))?;
    }
    Ok(())
}

fn check_given_up(before: &State, after: &State, set: &StatefulSet, pod: &Pod, at_ms: u64) -> Verdict {
    let (was, is) = (Pods::of(before, set, at_ms), Pods::of(after, set, at_ms));
    let (name, Some(at)) = (&pod.meta.name, ordinal(pod)) else { return Ok(()) };
    if !set.spec.ordinals().contains(&at) {
        // Those that stay may be above it: the first ordinal may have moved up.
        let mut surplus = was.pods.iter().filter(|(other, _)| !set.spec.ordinals().contains(other));
        let above = surplus.any(|(other, pod)| *other > at && is_active(pod));
        let fits = !in_order(set) || (was.unavailable() == 0 && !above);
        return ensure(fits, NAME, || format!("{name} goes out of turn: {} unavailable", was.unavailable()));
    }
    let StatefulSetUpdateStrategy::RollingUpdate { partition, max_unavailable } = set.spec.update_strategy
    else {
        return ensure(false, NAME, || format!("{name} is given up, although OnDelete"));
    };
    let from = set.spec.ordinals_start.saturating_add(partition);
    ensure(at >= from, NAME, || format!("{name} is below the partition {from}"))?;
    let revision = pod.meta.labels.get(LABEL_CONTROLLER_REVISION_HASH);
    let rows = before.owned(set.meta.id, Kind::ControllerRevision);
    let mut rows = rows.filter_map(|id| before.controller_revisions().get(id));
    let template = rows.find(|row| revision.is_some_and(|name| name == row.meta.name.as_str()));
    let is_new = template.is_some_and(|row| row.template == set.spec.template);
    ensure(!is_new, NAME, || format!("{name} has the wanted template already"))?;
    let most = max_unavailable.resolve(set.spec.replicas, true).max(1).max(was.unavailable());
    ensure(is.unavailable() <= most, NAME, || {
        format!("{name} goes: {} unavailable, at most {most} are allowed", is.unavailable())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::sets::{World, name};
    use bulkhead_types::{
        Command, LabelSelector, Object, ObjectMeta, OwnerRef, PodStamp, StatefulSetSpec, StatefulSetStatus,
    };
    use std::sync::Arc;

    fn set() -> Object {
        let spec = StatefulSetSpec {
            replicas: 2,
            ordinals_start: 0,
            selector: LabelSelector::from_labels(World::labels()),
            template: World::template(1),
            service_name: "".into(),
            claims: Default::default(),
            pod_management_policy: PodManagementPolicy::OrderedReady,
            update_strategy: StatefulSetUpdateStrategy::default(),
            min_ready_ms: 0,
            revision_history_limit: 1,
            stopped: false,
        };
        let meta = ObjectMeta::new(Some(name("default")), name("db"));
        Object::StatefulSet(Arc::new(StatefulSet { meta, spec, status: StatefulSetStatus::default() }))
    }

    fn verdict(world: &World, kinds: Vec<EventKind>) -> Verdict {
        let (after, transaction) = world.forced(ACTOR, kinds);
        check(world.state(), &after, &transaction)
    }

    #[test]
    fn what_comes_or_goes_out_of_turn_is_noticed() {
        let mut world = World::new();
        let id = world.create(set());
        let owner = OwnerRef { kind: Kind::StatefulSet, id };
        let revision = world.own(owner, World::revision("db-a", 1));
        let create = |ordinal: u32| EventKind::OwnedPodCreated {
            owner,
            stamp: PodStamp {
                name: name(&format!("db-{ordinal}")),
                index: Some(ordinal),
                node: None,
                revision: Some(revision),
            },
        };
        assert!(verdict(&world, vec![create(0)]).is_ok());
        assert!(verdict(&world, vec![create(1)]).is_err(), "the first one is missing");
        assert!(verdict(&world, vec![create(7)]).is_err(), "nobody wants it");
        let stamp = |event: EventKind| match event {
            EventKind::OwnedPodCreated { stamp, .. } => stamp,
            _ => unreachable!("a creation"),
        };
        world.ok(Command::CreateOwnedPods { owner, generation: 1, pods: vec![stamp(create(0))] });
        assert!(verdict(&world, vec![create(1)]).is_err(), "the first one is not ready");
        let pod = world.state().pods().iter().next().expect("it was created").meta.id;
        let gone = || vec![EventKind::ObjectDeleted { kind: Kind::Pod, id: pod }];
        assert!(verdict(&world, gone()).is_err(), "it has the wanted template");
        world.ok(Command::Apply(changed(|spec| spec.template = World::template(2))));
        assert!(verdict(&world, gone()).is_ok(), "it is old");
        world.ok(Command::Apply(changed(|spec| {
            spec.template = World::template(2);
            spec.update_strategy = StatefulSetUpdateStrategy::OnDelete;
        })));
        assert!(verdict(&world, gone()).is_err(), "nobody deleted it");
    }

    fn changed(change: impl FnOnce(&mut StatefulSetSpec)) -> Object {
        let Object::StatefulSet(mut set) = set() else { unreachable!("it is one") };
        change(&mut Arc::make_mut(&mut set).spec);
        Object::StatefulSet(set)
    }
}
