//! The pods of a Job: how many it may have, which of them are too many, and which indexes wait for one.
//!
//! Asked by the reconciler, and again by `decide` when what that proposed is applied.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use bulkhead_types::{CompletionMode, Job, ObjectId, Pod, PodPhase, PodReplacementPolicy};

use crate::State;
use crate::owned_pod::completion_index;
use crate::reconcile::is_active;

/// What there is of a Job's pods. Costs time in proportion to the pods that are kept.
pub(crate) struct JobPods {
    /// Pods that neither end nor ended.
    pub(crate) active: u32,
    /// Of those, ready ones.
    pub(crate) ready: u32,
    /// Pods that were asked to end and have not.
    pub(crate) terminating: u32,
    /// Restarts of the containers of active pods.
    pub(crate) restarts: u64,
    /// Active pods that are too many, first those that should go first.
    pub(crate) surplus: Vec<ObjectId>,
    /// How many more there may be.
    pub(crate) room: u32,
    /// Indexes that have a pod, by which no other may be made now.
    pub(crate) taken: BTreeSet<u32>,
}

/// Whether pods stand for indexes.
pub(crate) fn is_indexed(job: &Job) -> bool {
    job.spec.completion_mode == CompletionMode::Indexed
}

/// Whether an index still needs a success.
pub(crate) fn is_open(job: &Job, index: u32) -> bool {
    let status = &job.status;
    job.spec.completions.is_some_and(|n| index < n)
        && !status.completed_indexes.contains(index)
        && !status.failed_indexes.contains(index)
}

/// How many active pods a Job should have when it has `active`.
pub(crate) fn wanted(job: &Job, active: u32) -> u32 {
    let (spec, status) = (&job.spec, &job.status);
    if job.verdict().is_some() || job.end().is_some() || spec.suspend {
        return 0;
    }
    match spec.completions {
        // A queue of work: once one pod found it empty, the others only finish what they have.
        None if status.succeeded > 0 => active.min(spec.parallelism),
        None => spec.parallelism,
        Some(completions) => {
            let failed = u32::try_from(status.failed_indexes.count()).unwrap_or(u32::MAX);
            let left = completions.saturating_sub(status.succeeded).saturating_sub(failed);
            left.min(spec.parallelism)
        }
    }
}

impl JobPods {
    pub(crate) fn of(state: &State, job: &Job) -> Self {
        let waits = job.spec.pod_replacement_policy == PodReplacementPolicy::Failed;
        let indexed = is_indexed(job);
        let mut found = Self {
            active: 0,
            ready: 0,
            terminating: 0,
            restarts: 0,
            surplus: Vec::new(),
            room: 0,
            taken: BTreeSet::new(),
        };
        let mut placed = Vec::<Arc<Pod>>::new();
        for pod in state.pods_of(job.meta.id).filter(|pod| !pod.status.phase.is_terminal()) {
            let index = completion_index(pod);
            if !is_active(pod) {
                found.terminating += 1;
                if waits {
                    found.taken.extend(index);
                }
                continue;
            }
            found.active += 1;
            found.ready += u32::from(pod.status.ready);
            found.restarts += restarts(pod);
            let has_place = match index {
                Some(index) => indexed && is_open(job, index) && found.taken.insert(index),
                None => !indexed,
            };
            if has_place { placed.push(pod.clone()) } else { found.surplus.push(pod.meta.id) }
        }
        let wanted = wanted(job, found.active) as usize;
        let excess = placed.len().saturating_sub(wanted);
        let held = placed.len() + if waits { found.terminating as usize } else { 0 };
        found.room = u32::try_from(wanted.saturating_sub(held)).unwrap_or(u32::MAX);
        if excess > 0 {
            found.surplus.extend(first_to_go(&placed, excess));
        }
        found
    }
}

/// Restarts of all containers of a pod.
pub(crate) fn restarts(pod: &Pod) -> u64 {
    let containers = pod.status.init_containers.iter().chain(&pod.status.containers);
    containers.map(|container| u64::from(container.restart_count)).sum()
}

/// Those that have done least: without a node, then not started, not ready, and the youngest first.
fn first_to_go(pods: &[Arc<Pod>], count: usize) -> Vec<ObjectId> {
    let key = |pod: &Arc<Pod>| {
        let started = pod.status.phase != PodPhase::Pending;
        (pod.node.is_some(), started, pod.status.ready, Reverse(pod.meta.id))
    };
    let mut ranked: Vec<_> = pods.iter().map(key).collect();
    ranked.sort_unstable();
    ranked.into_iter().take(count).map(|key| key.3.0).collect()
}
