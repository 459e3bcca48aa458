//! A CronJob starts at most one job for each time of its schedule.

use std::collections::BTreeSet;

use bulkhead_types::{ANNOTATION_SCHEDULED_AT, EventKind, Kind, Object, ObjectId, Transaction};
use smol_str::SmolStr;

use super::{Verdict, ensure};

/// The times that had their job, with whose it is.
pub type Starts = BTreeSet<(ObjectId, SmolStr)>;

/// Checks a transaction, and notes what it starts.
///
/// # Errors
/// When a time had its job already.
pub fn check(starts: &mut Starts, transaction: &Transaction) -> Verdict {
    for event in &transaction.events {
        let EventKind::ObjectCreated(Object::Job(job)) = &event.kind else { continue };
        let owner = job.meta.owner.filter(|owner| owner.kind == Kind::CronJob);
        let (Some(owner), Some(at)) = (owner, job.meta.annotations.get(ANNOTATION_SCHEDULED_AT)) else {
            continue;
        };
        ensure(starts.insert((owner.id, at.clone())), "cron_jobs", || {
            format!("CronJob {} starts {at} again, as {}", owner.id, job.meta.name)
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bulkhead_controlplane_core::State;
    use bulkhead_types::{Name, ObjectRef, OwnerRef};

    use super::*;
    use crate::invariants::jobs::tests::transaction;
    use crate::rng::Rng;

    #[test]
    fn a_second_start_of_one_time_is_noticed() {
        let start = |at: &str| {
            let name = Name::new("work").expect("a name");
            let reference = ObjectRef { kind: Kind::Job, namespace: None, name };
            let mut job = crate::workload::any_job(&mut Rng::child(1, "test", 0), &reference);
            job.meta.owner = Some(OwnerRef { kind: Kind::CronJob, id: ObjectId(7) });
            job.meta.annotations.insert(ANNOTATION_SCHEDULED_AT.into(), at.into());
            transaction(&State::default(), vec![EventKind::ObjectCreated(Object::Job(Arc::new(job)))])
        };
        let mut starts = Starts::new();
        assert!(check(&mut starts, &start("a")).is_ok());
        assert!(check(&mut starts, &start("b")).is_ok());
        assert!(check(&mut starts, &start("a")).is_err());
    }
}
