//! An autoscaler keeps to its bounds, and changes the size no faster than its policies allow.
//!
//! How fast it was is counted here from the log alone, not from what the autoscaler noted.

use std::collections::BTreeMap;

use bulkhead_controlplane_core::State;
use bulkhead_types::{
    AutoscalerSpec, EventKind, ObjectId, ObjectStatus, PolicySelect, PolicyUnit, ScalingPolicy, ScalingRules,
    Transaction,
};

use super::{Verdict, ensure};

/// The changes of each autoscaler: when, from what, to what.
pub type Changes = BTreeMap<ObjectId, Vec<(u64, u32, u32)>>;

/// Checks a transaction, and notes what it changes.
///
/// # Errors
/// When a size is outside of the bounds, or was reached too fast.
pub fn check(changes: &mut Changes, before: &State, transaction: &Transaction) -> Verdict {
    for event in &transaction.events {
        let EventKind::StatusChanged { id, status: ObjectStatus::HorizontalPodAutoscaler(status) } =
            &event.kind
        else {
            continue;
        };
        let (from, to) = (status.current_replicas, status.desired_replicas);
        if from == to {
            continue;
        }
        let Some(autoscaler) = before.horizontal_pod_autoscalers().get(*id) else { continue };
        let spec = &autoscaler.spec;
        let bounds = spec.min_replicas..=spec.max_replicas;
        ensure(bounds.contains(&to), "autoscaling", || {
            format!("autoscaler {id} sets {to}, outside of {bounds:?}")
        })?;
        let earlier = changes.entry(*id).or_default();
        if bounds.contains(&from) {
            let is_slow = is_slow(spec, earlier, transaction.at_ms, from, to);
            ensure(is_slow, "autoscaling", || {
                format!("autoscaler {id} goes from {from} to {to} too fast, after {earlier:?}")
            })?;
        }
        earlier.push((transaction.at_ms, from, to));
    }
    Ok(())
}

/// Whether the change is one that the policies allow, given the ones before it.
fn is_slow(spec: &AutoscalerSpec, earlier: &[(u64, u32, u32)], at_ms: u64, from: u32, to: u32) -> bool {
    let rules = if to > from { &spec.scale_up } else { &spec.scale_down };
    let allows = |policy: &ScalingPolicy| {
        let mut begin = i64::from(from);
        for (then_ms, from, to) in earlier.iter().filter(|(then_ms, ..)| then_ms + policy.period_ms > at_ms) {
            debug_assert!(*then_ms <= at_ms, "log time never goes back");
            begin += i64::from(*from) - i64::from(*to);
        }
        let value = i64::from(policy.value);
        let step = match policy.unit {
            PolicyUnit::Pods => value,
            PolicyUnit::Percent => (begin * value + 99) / 100,
        };
        if to > from { i64::from(to) <= begin + step } else { i64::from(to) >= begin - step }
    };
    let ScalingRules { select_policy, policies, .. } = rules;
    match select_policy {
        PolicySelect::Max => policies.iter().any(allows),
        PolicySelect::Min => policies.iter().all(allows),
        PolicySelect::Disabled => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bulkhead_controlplane_core::evolve::evolve;
    use bulkhead_types::{
        AutoscalerStatus, HorizontalPodAutoscaler, Kind, Name, Object, ObjectMeta, ScaleTarget,
    };

    use super::*;
    use crate::invariants::jobs::tests::transaction;

    /// An autoscaler of 2 to 20 pods that may add 4 pods, or double, in 15 s.
    fn state() -> State {
        let name = Name::new("web").expect("a name");
        let mut meta = ObjectMeta::new(None, name.clone());
        (meta.id, meta.revision) = (ObjectId(1), 1);
        let spec = AutoscalerSpec {
            target: ScaleTarget { kind: Kind::Deployment, name },
            min_replicas: 2,
            max_replicas: 20,
            metrics: vec![],
            scale_up: ScalingRules::scale_up_default(),
            scale_down: ScalingRules::scale_down_default(),
        };
        let autoscaler = HorizontalPodAutoscaler { meta, spec, status: AutoscalerStatus::default() };
        let mut state = State::default();
        let object = Object::HorizontalPodAutoscaler(Arc::new(autoscaler));
        evolve(&mut state, &transaction(&State::default(), vec![EventKind::ObjectCreated(object)]));
        state
    }

    fn check_all(sizes: &[(u64, u32, u32)], expected: bool) {
        let (state, mut changes) = (state(), Changes::new());
        let verdict = sizes.iter().try_for_each(|(at_ms, from, to)| {
            let status =
                AutoscalerStatus { current_replicas: *from, desired_replicas: *to, ..Default::default() };
            let status = ObjectStatus::HorizontalPodAutoscaler(status);
            let mut decided = transaction(&state, vec![EventKind::StatusChanged { id: ObjectId(1), status }]);
            decided.at_ms = *at_ms;
            check(&mut changes, &state, &decided)
        });
        assert_eq!(verdict.is_ok(), expected, "{sizes:?}: {verdict:?}");
    }

    #[test]
    fn what_is_too_fast_or_out_of_bounds_is_noticed() {
        check_all(&[(0, 2, 6), (15_000, 6, 12), (30_000, 12, 20)], true);
        check_all(&[(0, 2, 7)], false);
        check_all(&[(0, 2, 6), (14_999, 6, 7)], false);
        check_all(&[(0, 20, 21)], false);
        check_all(&[(0, 20, 2)], true);
        check_all(&[(0, 20, 1)], false);
        // A size outside of the bounds is brought within them at once.
        check_all(&[(0, 40, 20)], true);
    }
}
