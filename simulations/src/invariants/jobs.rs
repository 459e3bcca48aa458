//! A Job has no more active pods than its parallelism after it got one; and its result is final.

use bulkhead_controlplane_core::State;
use bulkhead_types::{EventKind, Kind, Transaction};

use super::{Verdict, ensure};

/// Checks a transaction between two States.
///
/// # Errors
/// With the first Job that has too many pods, or another result.
pub fn check(before: &State, after: &State, transaction: &Transaction) -> Verdict {
    for event in &transaction.events {
        let job = match &event.kind {
            EventKind::OwnedPodCreated { owner, .. } if owner.kind == Kind::Job => owner.id,
            EventKind::StatusChanged { id, status } if status.kind() == Kind::Job => *id,
            EventKind::JobPodEnded { job, .. } => *job,
            _ => continue,
        };
        let Some(is) = after.jobs().get(job) else { continue };
        let active = after.active_pods(job);
        let is_creation = matches!(event.kind, EventKind::OwnedPodCreated { .. });
        ensure(!is_creation || active <= is.spec.parallelism, "jobs", || {
            format!("Job {job} has {active} active pods, {} are allowed", is.spec.parallelism)
        })?;
        let end = before.jobs().get(job).and_then(|was| was.end());
        let stays = end.is_none_or(|end| !is_creation && is.end() == Some(end));
        ensure(stays, "jobs", || format!("Job {job} ended as {end:?}, and is now {:?}", is.end()))?;
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use bulkhead_controlplane_core::evolve::evolve;
    use bulkhead_types::{
        Condition, ConditionStatus, Event, JOB_COMPLETE, JobStatus, Name, Object, ObjectId, ObjectRef,
        ObjectStatus, OwnerRef, PodStamp,
    };
    use uuid::Uuid;

    use super::*;
    use crate::rng::Rng;

    pub(crate) fn transaction(state: &State, events: Vec<EventKind>) -> Transaction {
        let numbered = events.into_iter().zip(state.revision() + 1..);
        Transaction {
            request_id: Uuid::nil(),
            actor: "system:test".into(),
            at_ms: 5,
            trace_context: None,
            outcome: Ok(0),
            events: numbered.map(|(kind, revision)| Event { revision, kind }).collect(),
        }
    }

    fn stamp(name: &str) -> PodStamp {
        PodStamp { name: Name::new(name).expect("a name"), index: None, node: None, revision: None }
    }

    /// A Job of parallelism 1 with one pod.
    pub(crate) fn running_job() -> (State, ObjectId, ObjectId) {
        let mut state = State::default();
        let name = Name::new("work").expect("a name");
        let reference = ObjectRef { kind: Kind::Job, namespace: None, name };
        let mut job = crate::workload::any_job(&mut Rng::child(1, "test", 0), &reference);
        job.spec.parallelism = 1;
        job.spec.completion_mode = bulkhead_types::CompletionMode::NonIndexed;
        (job.meta.id, job.meta.revision) = (ObjectId(1), 1);
        let owner = OwnerRef { kind: Kind::Job, id: ObjectId(1) };
        let created = EventKind::ObjectCreated(Object::Job(Arc::new(job)));
        let made =
            transaction(&state, vec![created, EventKind::OwnedPodCreated { owner, stamp: stamp("p") }]);
        evolve(&mut state, &made);
        (state, ObjectId(1), ObjectId(2))
    }

    fn run(state: &State, events: Vec<EventKind>) -> (State, Verdict) {
        let transaction = transaction(state, events);
        let mut after = state.clone();
        evolve(&mut after, &transaction);
        let verdict = check(state, &after, &transaction);
        (after, verdict)
    }

    #[test]
    fn one_pod_too_many_is_noticed() {
        let (state, job, pod) = running_job();
        let owner = OwnerRef { kind: Kind::Job, id: job };
        let another = || EventKind::OwnedPodCreated { owner, stamp: stamp("q") };
        assert!(run(&state, vec![another()]).1.is_err());
        let gone = EventKind::ObjectDeleted { kind: Kind::Pod, id: pod };
        assert!(run(&state, vec![gone, another()]).1.is_ok());
    }

    #[test]
    fn a_result_that_changes_is_noticed() {
        let (state, job, _) = running_job();
        let condition = |reason: &str| Condition {
            condition_type: JOB_COMPLETE.into(),
            status: ConditionStatus::True,
            reason: reason.into(),
            message: String::new(),
            last_transition_ms: 1,
            last_update_ms: 1,
        };
        let status = |conditions| EventKind::StatusChanged {
            id: job,
            status: ObjectStatus::Job(JobStatus { conditions, ..JobStatus::default() }),
        };
        let (done, verdict) = run(&state, vec![status(vec![condition("A")])]);
        assert!(verdict.is_ok());
        assert!(run(&done, vec![status(vec![condition("A")])]).1.is_ok());
        assert!(run(&done, vec![status(vec![condition("B")])]).1.is_err());
        assert!(run(&done, vec![status(vec![])]).1.is_err());
    }
}
