//! Pods of StatefulSets, DaemonSets and Jobs: which of those that a reconciler asks for are really wanted.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_types::{
    DaemonSet, DaemonSetUpdateStrategy, EventKind, Job, Kind, Object, ObjectId, OwnerRef, PodStamp,
    Rejection, StatefulSet,
};

use super::owned::find_owner;
use super::{Emit, check_items, not_allowed};
use crate::State;
use crate::job_pods::{JobPods, is_indexed, is_open};

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
    for stamp in pods {
        let is_free = state.find(Kind::Pod, namespace, &stamp.name).is_none() && names.insert(&stamp.name);
        let is_own = stamp.revision.is_none_or(|id| {
            state.controller_revisions.get(id).is_some_and(|row| row.meta.owner == Some(owner))
        });
        if is_free && is_own && wanted.take(state, stamp) {
            emit.push(EventKind::OwnedPodCreated { owner, stamp: stamp.clone() });
        }
    }
    Ok(())
}

/// What is left to create.
enum Wanted<'a> {
    /// Ordinals; names are taken by the pods that are there, those that end included: at most one ever lives.
    StatefulSet { set: &'a StatefulSet },
    /// Nodes, with how many pods of the set are there, and how many may be.
    DaemonSet { per_node: BTreeMap<ObjectId, u32>, most: u32 },
    /// So many more, and the indexes that are taken.
    Job { room: u32, job: &'a Job, taken: BTreeSet<u32> },
}

impl<'a> Wanted<'a> {
    fn of_stateful_set(_state: &State, set: &'a StatefulSet) -> Self {
        Self::StatefulSet { set }
    }

    fn of_daemon_set(state: &State, set: &'a DaemonSet) -> Self {
        let mut per_node = BTreeMap::new();
        for pod in state.pods_of(set.meta.id).filter(|pod| !pod.status.phase.is_terminal()) {
            let name = pod.spec.node_name.as_ref().and_then(|name| bulkhead_types::Name::new(name).ok());
            let node = pod.node.or_else(|| name.and_then(|name| state.find(Kind::Node, None, &name)));
            if let Some(node) = node {
                *per_node.entry(node).or_insert(0) += 1;
            }
        }
        let surges = match set.spec.update_strategy {
            DaemonSetUpdateStrategy::RollingUpdate { max_surge, .. } => max_surge.resolve(100, true) > 0,
            DaemonSetUpdateStrategy::OnDelete => false,
        };
        Self::DaemonSet { per_node, most: if surges { 2 } else { 1 } }
    }

    fn of_job(state: &State, job: &'a Job) -> Self {
        let JobPods { room, taken, .. } = JobPods::of(state, job);
        Self::Job { room, job, taken }
    }

    /// Whether the pod is wanted; it then counts as created.
    fn take(&mut self, state: &State, stamp: &PodStamp) -> bool {
        match self {
            Self::StatefulSet { set } => {
                let is_named = |ordinal: u32| stamp.name.as_str() == format!("{}-{ordinal}", set.meta.name);
                stamp.index.is_some_and(|ordinal| set.spec.ordinals().contains(&ordinal) && is_named(ordinal))
            }
            Self::DaemonSet { per_node, most } => {
                let Some(node) = stamp.node.filter(|node| state.nodes.get(*node).is_some()) else {
                    return false;
                };
                let count = per_node.entry(node).or_insert(0);
                let wanted = *count < *most;
                *count += u32::from(wanted);
                wanted
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
