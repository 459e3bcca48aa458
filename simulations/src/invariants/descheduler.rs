//! Runs of DeschedulerPolicies leave owners alone for as long as they say, and a dry run evicts nobody.

use std::collections::BTreeSet;

use bulkhead_controlplane_core::State;
use bulkhead_types::{
    DESCHEDULED_PER_RUN_MAX, DeschedulerPolicy, DeschedulerPolicyStatus, EventKind, Kind, ObjectId,
    ObjectStatus, Transaction,
};

use super::{Verdict, ensure};

/// Checks the runs of a transaction.
///
/// # Errors
/// With the pod whose owner should have been left alone, or that a dry run evicted.
pub fn check(before: &State, transaction: &Transaction) -> Verdict {
    let ends = |event: &EventKind| match event {
        EventKind::DeletionRequested { kind: Kind::Pod, id, .. }
        | EventKind::ObjectDeleted { kind: Kind::Pod, id } => Some(*id),
        _ => None,
    };
    for event in &transaction.events {
        let EventKind::StatusChanged { id, status: ObjectStatus::DeschedulerPolicy(status) } = &event.kind
        else {
            continue;
        };
        let Some(policy) = before.descheduler_policies().get(*id) else { continue };
        let ended = transaction.events.iter().filter_map(|event| ends(&event.kind)).collect();
        let owner = |pod: ObjectId| {
            let owner = before.pods().get(pod)?.meta.owner?;
            let of_set = before.replica_sets().get(owner.id).and_then(|set| set.meta.owner);
            Some(of_set.map_or(owner.id, |deployment| deployment.id))
        };
        run(policy, status, &ended, transaction.at_ms, owner)?;
    }
    Ok(())
}

/// One run: the policy before it, what it says it did, and which pods end.
fn run(
    policy: &DeschedulerPolicy,
    after: &DeschedulerPolicyStatus,
    ended: &BTreeSet<ObjectId>,
    at_ms: u64,
    owner: impl Fn(ObjectId) -> Option<ObjectId>,
) -> Verdict {
    let name = &policy.meta.name;
    ensure(after.last.len() <= DESCHEDULED_PER_RUN_MAX as usize, "descheduler", || {
        format!("{name} evicts {} pods in one run", after.last.len())
    })?;
    for one in &after.last {
        ensure(policy.spec.dry_run != ended.contains(&one.pod), "descheduler", || {
            format!("{name} says that it evicts {}, and the dry run is {}", one.name, policy.spec.dry_run)
        })?;
        let cools = policy.status.cooling.iter().find(|cooling| owner(one.pod) == Some(cooling.owner));
        let until_ms = cools.map_or(0, |cooling| cooling.evicted_at_ms + policy.spec.cool_down_ms);
        ensure(until_ms <= at_ms, "descheduler", || {
            format!("{name} evicts {} at {at_ms}, whose owner is left alone until {until_ms}", one.name)
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bulkhead_types::{
        CoolingOwner, Descheduled, DeschedulerPolicySpec, DeschedulerStrategy, Name, ObjectMeta, Rare,
    };

    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).expect("a name")
    }

    /// A run at 100 by a policy with a cool-down of 50 that evicted a pod of owner 7 at some time; the pod is of owner 7.
    fn check_run(evicted_at_ms: u64, dry_run: bool, ends: bool, is_right: bool) {
        let policy = DeschedulerPolicy {
            meta: ObjectMeta::new(None, name("p")),
            spec: DeschedulerPolicySpec {
                interval_ms: 10_000,
                cool_down_ms: 50,
                dry_run,
                max_per_node: None,
                max_per_namespace: None,
                max_total: None,
                include: vec![],
                exclude: vec![],
                label_selector: Rare::NONE,
                priority_threshold: None,
                evict_local_storage_pods: false,
                strategies: vec![DeschedulerStrategy::RemoveDuplicates],
            },
            status: DeschedulerPolicyStatus {
                cooling: vec![CoolingOwner { owner: ObjectId(7), evicted_at_ms }],
                ..Default::default()
            },
        };
        let one = Descheduled {
            pod: ObjectId(1),
            name: "default/a".into(),
            node: name("n"),
            strategy: "RemoveDuplicates".into(),
            reason: String::new(),
        };
        let after = DeschedulerPolicyStatus { last: vec![one], ..Default::default() };
        let ended = ends.then_some(ObjectId(1)).into_iter().collect();
        let found = run(&policy, &after, &ended, 100, |_| Some(ObjectId(7)));
        assert_eq!(found.is_ok(), is_right, "{evicted_at_ms} {dry_run} {ends}: {found:?}");
    }

    #[test]
    fn who_is_evicted_too_soon_or_by_a_dry_run_is_seen() {
        check_run(50, false, true, true);
        check_run(51, false, true, false);
        check_run(0, true, true, false);
        check_run(0, true, false, true);
        check_run(0, false, false, false);
    }
}
