//! The end of each pod of a Job is counted once, by the transaction that brings it about; and as a success only when
//! its guest said so.
//!
//! What goes with its namespace is not counted: its Job goes too.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_controlplane_core::State;
use bulkhead_types::{EventKind, Kind, ObjectId, Pod, PodEnd, Transaction};

use super::{Verdict, Violation, ensure};

/// The garbage collector.
const COLLECTOR: &str = "system:garbage";

/// Checks a transaction between two States. `well` holds the pods whose guests ended with success.
///
/// # Errors
/// With the first Job whose count is wrong.
pub fn check(before: &State, after: &State, transaction: &Transaction, well: &BTreeSet<ObjectId>) -> Verdict {
    let mut ended = BTreeMap::<ObjectId, i64>::new();
    let mut last_ended = None;
    for event in &transaction.events {
        match &event.kind {
            EventKind::PodStatusChanged { id, .. } | EventKind::ObjectDeleted { kind: Kind::Pod, id } => {
                last_ended = None;
                let Some(job) = before.pods().get(*id).and_then(|pod| open_job(pod)) else { continue };
                let is_over = after.pods().get(*id).is_none_or(|pod| pod.status.phase.is_terminal());
                let collected = transaction.actor == COLLECTOR || before.jobs().get(job).is_none();
                if is_over && !collected {
                    *ended.entry(job).or_default() += 1;
                    last_ended = Some(*id);
                }
            }
            EventKind::JobPodEnded { job, end, .. } => {
                *ended.entry(*job).or_default() -= 1;
                let pod = last_ended.take();
                let said = *end != PodEnd::Succeeded || pod.is_some_and(|pod| well.contains(&pod));
                ensure(said, "job_ends", || {
                    format!("pod {pod:?} of Job {job} counts as a success it was not")
                })?;
            }
            _ => {}
        }
    }
    match ended.into_iter().find(|(_, left)| *left != 0) {
        None => Ok(()),
        Some((job, left)) => {
            let text = format!("Job {job}: {left} ends of pods were not counted by what ended them");
            Err(Violation::new("job_ends", text))
        }
    }
}

/// The Job of a pod that has not ended.
fn open_job(pod: &Pod) -> Option<ObjectId> {
    let owner = pod.meta.owner.filter(|owner| owner.kind == Kind::Job)?;
    (!pod.status.phase.is_terminal()).then_some(owner.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::jobs::tests::{running_job, transaction};

    #[test]
    fn ends_that_are_not_counted_once_are_noticed() {
        let (state, job, pod) = running_job();
        let gone = || EventKind::ObjectDeleted { kind: Kind::Pod, id: pod };
        let end = |end| EventKind::JobPodEnded { job, end, index: None, message: String::new() };
        let check = |events: Vec<EventKind>, well: &[ObjectId], good: bool| {
            let transaction = transaction(&state, events.clone());
            let mut after = state.clone();
            bulkhead_controlplane_core::evolve::evolve(&mut after, &transaction);
            let well = well.iter().copied().collect();
            assert_eq!(super::check(&state, &after, &transaction, &well).is_ok(), good, "{events:?}");
        };
        check(vec![gone(), end(PodEnd::Failed)], &[], true);
        check(vec![gone()], &[], false);
        check(vec![end(PodEnd::Failed)], &[], false);
        check(vec![gone(), end(PodEnd::Failed), end(PodEnd::Failed)], &[], false);
        check(vec![gone(), end(PodEnd::Succeeded)], &[], false);
        check(vec![gone(), end(PodEnd::Succeeded)], &[pod], true);
    }
}
