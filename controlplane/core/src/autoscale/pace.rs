//! How fast the size may change: stabilization windows and policies.

use bulkhead_types::{
    AutoscalerSpec, PolicySelect, PolicyUnit, Recommendation, ReplicaChange, ScalingPolicy, ScalingRules,
};

/// Between what the policies let the size be now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Fewest pods; never above the present size.
    pub lowest: u32,
    /// Most pods; never below the present size.
    pub highest: u32,
}

/// What the policies allow, given the changes so far.
#[must_use]
pub fn limits(spec: &AutoscalerSpec, changes: &[ReplicaChange], now_ms: u64, replicas: u32) -> Limits {
    let at_begin = |policy: &ScalingPolicy| {
        let is_within = |change: &&ReplicaChange| change.at_ms.saturating_add(policy.period_ms) > now_ms;
        let within = changes.iter().filter(is_within);
        let moved: i64 = within.map(|change| i64::from(change.to) - i64::from(change.from)).sum();
        u64::try_from(i64::from(replicas) - moved).unwrap_or(0)
    };
    let up = |policy: &ScalingPolicy| match policy.unit {
        PolicyUnit::Pods => at_begin(policy) + u64::from(policy.value),
        PolicyUnit::Percent => (at_begin(policy) * (100 + u64::from(policy.value))).div_ceil(100),
    };
    let down = |policy: &ScalingPolicy| match policy.unit {
        PolicyUnit::Pods => at_begin(policy).saturating_sub(policy.value.into()),
        PolicyUnit::Percent => at_begin(policy) * 100u64.saturating_sub(policy.value.into()) / 100,
    };
    let size = |allowed: Option<u64>| allowed.map(|size| u32::try_from(size).unwrap_or(u32::MAX));
    let highest = size(chosen(&spec.scale_up, up, true)).unwrap_or(replicas);
    let lowest = size(chosen(&spec.scale_down, down, false)).unwrap_or(replicas);
    Limits { lowest: lowest.min(replicas), highest: highest.max(replicas) }
}

/// What the policy says that counts; `None` when none does.
fn chosen(rules: &ScalingRules, allowed: impl Fn(&ScalingPolicy) -> u64, up: bool) -> Option<u64> {
    let sizes = rules.policies.iter().map(allowed);
    match (rules.select_policy, up) {
        (PolicySelect::Disabled, _) => None,
        (PolicySelect::Max, true) | (PolicySelect::Min, false) => sizes.max(),
        (PolicySelect::Max, false) | (PolicySelect::Min, true) => sizes.min(),
    }
}

/// The recommendation that counts: of all in the window of its direction the one that changes least.
pub(super) fn stabilized(
    spec: &AutoscalerSpec,
    recommendations: &[Recommendation],
    now_ms: u64,
    replicas: u32,
    wanted: u32,
) -> u32 {
    let in_window = |window_ms: u64| in_window(recommendations, now_ms, window_ms).map(|one| one.replicas);
    let up = in_window(spec.scale_up.stabilization_window_ms).fold(wanted, u32::min);
    let down = in_window(spec.scale_down.stabilization_window_ms).fold(wanted, u32::max);
    if replicas < up {
        up
    } else if replicas > down {
        down
    } else {
        replicas
    }
}

/// The recommendations that held at some time within the window: each until the next one, the last until now.
pub(super) fn in_window(
    recommendations: &[Recommendation],
    now_ms: u64,
    window_ms: u64,
) -> impl Iterator<Item = &Recommendation> {
    let since_ms = now_ms.saturating_sub(window_ms);
    let ends = recommendations.iter().skip(1).map(|next| next.since_ms).chain([now_ms]);
    recommendations.iter().zip(ends).filter(move |(_, until_ms)| *until_ms > since_ms).map(|(one, _)| one)
}

#[cfg(test)]
mod tests;
