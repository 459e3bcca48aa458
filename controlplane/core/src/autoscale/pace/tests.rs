use bulkhead_types::{Kind, Name, ScaleTarget};

use super::*;

const NOW_MS: u64 = 1_000_000;

fn spec(up: ScalingRules, down: ScalingRules) -> AutoscalerSpec {
    AutoscalerSpec {
        target: ScaleTarget { kind: Kind::Deployment, name: Name::new("web").expect("a name") },
        min_replicas: 1,
        max_replicas: 1000,
        metrics: vec![],
        scale_up: up,
        scale_down: down,
    }
}

fn rules(select_policy: PolicySelect, policies: &[(PolicyUnit, u32, u64)]) -> ScalingRules {
    let policy = |(unit, value, period_ms): &(PolicyUnit, u32, u64)| ScalingPolicy {
        unit: *unit,
        value: *value,
        period_ms: *period_ms,
    };
    ScalingRules {
        stabilization_window_ms: 0,
        select_policy,
        policies: policies.iter().map(policy).collect(),
    }
}

/// Changes as (how long ago, from, to), and what is allowed from a size with the same rules in both directions.
fn check(rules: &ScalingRules, changes: &[(u64, u32, u32)], replicas: u32, expected: (u32, u32)) {
    let spec = spec(rules.clone(), rules.clone());
    let changes: Vec<ReplicaChange> = changes
        .iter()
        .map(|(ago_ms, from, to)| ReplicaChange { at_ms: NOW_MS - ago_ms, from: *from, to: *to })
        .collect();
    let found = limits(&spec, &changes, NOW_MS, replicas);
    assert_eq!((found.lowest, found.highest), expected, "{replicas} by {rules:?} after {changes:?}");
}

#[test]
fn policies_bound_the_change_within_their_period() {
    use PolicySelect::{Disabled, Max, Min};
    use PolicyUnit::{Percent, Pods};
    let four = rules(Max, &[(Pods, 4, 60_000)]);
    check(&four, &[], 10, (6, 14));
    check(&four, &[(59_999, 8, 10)], 10, (4, 12));
    check(&four, &[(60_000, 8, 10)], 10, (6, 14));
    check(&four, &[(1, 14, 10)], 10, (10, 18));
    check(&rules(Max, &[(Pods, 4, 60_000), (Percent, 50, 60_000)]), &[], 10, (5, 15));
    check(&rules(Min, &[(Pods, 4, 60_000), (Percent, 50, 60_000)]), &[], 10, (6, 14));
    check(&rules(Disabled, &[(Pods, 4, 60_000)]), &[], 10, (10, 10));
    check(&rules(Max, &[(Percent, 10, 60_000)]), &[], 5, (4, 6));
    check(&rules(Max, &[(Percent, 100, 15_000)]), &[], 3, (0, 6));
    check(&rules(Max, &[(Percent, 900, 15_000)]), &[], 3, (0, 30));
}

#[test]
fn what_is_given_by_default_is_what_kubernetes_gives() {
    let spec = spec(ScalingRules::scale_up_default(), ScalingRules::scale_down_default());
    let check = |replicas, expected| {
        let found = limits(&spec, &[], NOW_MS, replicas);
        assert_eq!((found.lowest, found.highest), expected);
    };
    check(1, (0, 5));
    check(3, (0, 7));
    check(10, (0, 20));
}

#[test]
fn of_the_recommendations_in_the_window_the_mildest_counts() {
    let window = |ms| ScalingRules { stabilization_window_ms: ms, ..rules(PolicySelect::Max, &[]) };
    let check = |(up_ms, down_ms), told: &[(u64, u32)], (replicas, wanted), expected| {
        let spec = spec(window(up_ms), window(down_ms));
        let told: Vec<Recommendation> = told
            .iter()
            .map(|(ago_ms, replicas)| Recommendation { since_ms: NOW_MS - ago_ms, replicas: *replicas })
            .collect();
        assert_eq!(stabilized(&spec, &told, NOW_MS, replicas, wanted), expected, "{told:?}");
    };
    let kubernetes = (0, 300_000);
    check(kubernetes, &[], (4, 8), 8);
    check(kubernetes, &[], (8, 4), 4);
    check(kubernetes, &[(290_000, 7), (200_000, 5)], (8, 4), 7);
    // It held until 200 s ago.
    check(kubernetes, &[(900_000, 7), (200_000, 5)], (8, 4), 7);
    check(kubernetes, &[(900_000, 7), (300_000, 5)], (8, 4), 5);
    check((60_000, 0), &[(30_000, 5), (10_000, 9)], (4, 8), 5);
    check((60_000, 0), &[(30_000, 3)], (4, 8), 4);
    // The last one holds still.
    check(kubernetes, &[(900_000, 7)], (8, 4), 7);
}
