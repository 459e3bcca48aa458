//! Pods of StatefulSets, DaemonSets and Jobs: which of those that a reconciler asks for are really wanted.

use std::collections::BTreeSet;
use std::sync::Arc;

use bulkhead_types::{
    ControllerRevision, DaemonSet, EventKind, Job, Kind, Object, ObjectId, OwnerRef, Pod, PodStamp,
    Rejection, StatefulSet,
};
use smol_str::SmolStr;

use super::owned::find_owner;
use super::{Emit, check_items, not_allowed, not_found};
use crate::State;
use crate::job_pods::{JobPods, is_indexed, is_open};
use crate::owned_pod::{Birth, owned_pod};
use crate::quota::Ledger;
use crate::workload::{self, Fleet, Roster, Seen, Standing};

pub(super) fn create(
    state: &State,
    owner: OwnerRef,
    generation: u64,
    pods: &[PodStamp],
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    check_items("pods", pods.len())?;
    let found = find_owner(state, owner, generation)?;
    let mut wanted = match &found {
        Object::StatefulSet(set) => Wanted::of_stateful_set(state, set),
        Object::DaemonSet(set) => Wanted::of_daemon_set(state, set),
        Object::Job(job) => Wanted::of_job(state, job),
        other => return Err(not_allowed(other.object_ref(), "makes no pods of its own")),
    };
    let namespace = found.meta().namespace.as_ref();
    let mut names = BTreeSet::new();
    let mut ledger = Ledger::of(state, namespace);
    let mut refused = None;
    let mut created = 0;
    for stamp in pods {
        let is_free = state.find(Kind::Pod, namespace, &stamp.name).is_none() && names.insert(&stamp.name);
        let is_own = stamp.revision.is_none_or(|id| {
            state.controller_revisions.get(id).is_some_and(|row| row.meta.owner == Some(owner))
        });
        if !is_free || !is_own {
            continue;
        }
        // As many as fit in the quotas above, each with its claims.
        let before = ledger.mark();
        if let Err(rejection) = charge_stamp(state, &found, stamp, &mut ledger) {
            refused = Some(rejection);
            break;
        }
        if wanted.take(state, stamp, emit) {
            created += 1;
            emit.push(EventKind::OwnedPodCreated { owner, stamp: stamp.clone() });
        } else {
            ledger.back_to(before);
        }
    }
    match refused {
        Some(rejection) if created == 0 => Err(rejection),
        _ => Ok(()),
    }
}

/// Charges what a stamp brings: a pod, and before it the claims of its ordinal that are missing.
///
/// # Errors
/// When it does not fit in the quotas above.
pub(crate) fn charge_stamp(
    state: &State,
    owner: &Object,
    stamp: &PodStamp,
    ledger: &mut Ledger<'_>,
) -> Result<(), Rejection> {
    if ledger.is_unlimited() {
        return Ok(());
    }
    let mut objects = Vec::new();
    if let (Object::StatefulSet(set), Some(ordinal)) = (owner, stamp.index) {
        let missing = super::claims::missing(state, set, ordinal);
        objects.extend(missing.into_iter().map(|claim| Object::PersistentVolumeClaim(Arc::new(claim))));
    }
    // What names a node or a template that is not there is not wanted: there is no pod to look at.
    let is_there = stamp.node.is_none_or(|id| state.nodes.get(id).is_some())
        && stamp.revision.is_none_or(|id| state.controller_revisions.get(id).is_some());
    if is_there {
        let owner = OwnerRef { kind: owner.kind(), id: owner.meta().id };
        objects.push(Object::Pod(Arc::new(owned_pod(state, &Birth::trial(state), owner, stamp))));
    }
    ledger.take_all(&objects)
}

/// Asks pods of a StatefulSet or DaemonSet to end that are not wanted, or that an update gives up. Each is looked at on
/// top of those before.
pub(super) fn delete(
    state: &State,
    owner: OwnerRef,
    generation: u64,
    pods: &[ObjectId],
    reason: &SmolStr,
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    check_items("pods", pods.len())?;
    let found = find_owner(state, owner, generation)?;
    let template = match &found {
        Object::StatefulSet(set) => &set.spec.template,
        Object::DaemonSet(set) => &set.spec.template,
        other => return Err(not_allowed(other.object_ref(), "ends no pods by this")),
    };
    // Without it nobody could tell which pods have another template.
    let update = workload::wanted(state, owner.id, template);
    let update =
        update.ok_or_else(|| not_found(format!("the revision of {}'s template", found.object_ref())))?;
    let update = SmolStr::new(update.meta.name.as_str());
    let mut given_up = match &found {
        Object::StatefulSet(set) => {
            GivenUp::StatefulSet { set, update, roster: Roster::of(state, set, state.now_ms) }
        }
        Object::DaemonSet(set) => GivenUp::DaemonSet { fleet: Fleet::of(state, set, &update, state.now_ms) },
        _ => unreachable!("others were refused above"),
    };
    for pod in pods.iter().filter_map(|id| state.pods.get(*id)) {
        let is_own = pod.meta.owner == Some(owner) && !pod.meta.is_deleting();
        if is_own && given_up.take(pod) {
            super::pods::delete_one(state, pod, None, false, reason, emit);
        }
    }
    Ok(())
}

/// What may go.
enum GivenUp<'a> {
    StatefulSet { set: &'a StatefulSet, update: SmolStr, roster: Roster },
    DaemonSet { fleet: Fleet },
}

impl GivenUp<'_> {
    /// Whether the pod may go; it then counts as going.
    fn take(&mut self, pod: &Pod) -> bool {
        let lives = !pod.status.phase.is_terminal();
        let going = Seen { standing: Standing::Ending { lives }, ..Seen::of(pod) };
        match self {
            Self::StatefulSet { set, update, roster } => {
                let Some(ordinal) = workload::ordinal_of(pod) else { return false };
                let may_go = roster.may_go(set, update, ordinal);
                if may_go {
                    roster.put(ordinal, Some(going));
                }
                may_go
            }
            Self::DaemonSet { fleet } => {
                let node = workload::node_of(pod);
                let may_go = fleet.may_go(&node, pod.meta.id);
                if may_go {
                    fleet.put_pod(&node, pod.meta.id, Some(going));
                }
                may_go
            }
        }
    }
}

/// What is left to create.
enum Wanted<'a> {
    /// Ordinals; names are taken by the pods that are there, those that end included: at most one ever lives.
    StatefulSet { set: &'a StatefulSet, roster: Roster },
    /// Nodes, with the ControllerRevision of the wanted template.
    DaemonSet { fleet: Fleet, update: Option<Arc<ControllerRevision>>, created: u64 },
    /// So many more, and the indexes that are taken.
    Job { room: u32, job: &'a Job, taken: BTreeSet<u32> },
}

impl<'a> Wanted<'a> {
    fn of_stateful_set(state: &State, set: &'a StatefulSet) -> Self {
        Self::StatefulSet { set, roster: Roster::of(state, set, state.now_ms) }
    }

    fn of_daemon_set(state: &State, set: &'a DaemonSet) -> Self {
        let update = workload::wanted(state, set.meta.id, &set.spec.template).cloned();
        let name = update.as_ref().map(|row| row.meta.name.to_string()).unwrap_or_default();
        Self::DaemonSet { fleet: Fleet::of(state, set, &name, state.now_ms), update, created: 0 }
    }

    fn of_job(state: &State, job: &'a Job) -> Self {
        let JobPods { room, taken, .. } = JobPods::of(state, job);
        Self::Job { room, job, taken }
    }

    /// Whether the pod is wanted, and may come now; it then counts as created, and its claims are made before it.
    fn take(&mut self, state: &State, stamp: &PodStamp, emit: &mut Emit<'_>) -> bool {
        match self {
            Self::StatefulSet { set, roster } => {
                let Some(ordinal) = stamp.index.filter(|_| stamp.node.is_none()) else { return false };
                let revision = workload::wanted_at(state, set, ordinal);
                let fits = workload::pod_name(&set.meta.name, ordinal).as_ref() == Some(&stamp.name)
                    && stamp.revision == revision.map(|row| row.meta.id)
                    && revision.is_some()
                    && roster.may_create(set, ordinal)
                    && super::claims::make(state, set, ordinal, emit);
                if fits {
                    let revision =
                        revision.map(|row| SmolStr::new(row.meta.name.as_str())).unwrap_or_default();
                    let seen = Seen { id: ObjectId(u64::MAX), revision, standing: Standing::Unready };
                    roster.put(ordinal, Some(seen));
                }
                fits
            }
            Self::DaemonSet { fleet, update, created } => {
                let Some(row) = update.as_ref().filter(|row| stamp.revision == Some(row.meta.id)) else {
                    return false;
                };
                let node = stamp.node.and_then(|node| state.nodes.get(node));
                let Some(node) = node.map(|node| SmolStr::new(node.meta.name.as_str())) else { return false };
                let fits = stamp.index.is_none() && fleet.may_create(&node);
                if fits {
                    *created += 1;
                    let (id, revision) =
                        (ObjectId(u64::MAX - *created), SmolStr::new(row.meta.name.as_str()));
                    fleet.put_pod(&node, id, Some(Seen { id, revision, standing: Standing::Unready }));
                }
                fits
            }
            Self::Job { room, job, taken } => {
                let fits = match stamp.index {
                    Some(index) => is_indexed(job) && is_open(job, index) && !taken.contains(&index),
                    None => !is_indexed(job),
                };
                if !fits || *room == 0 {
                    return false;
                }
                *room -= 1;
                taken.extend(stamp.index);
                true
            }
        }
    }
}
