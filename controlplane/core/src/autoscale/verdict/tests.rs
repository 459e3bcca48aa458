use bulkhead_types::{
    AutoscalerMetric, Kind, MeasuredResource, MetricTarget, Name, ScaleTarget, ScalingRules,
};
use proptest::prelude::*;

use super::super::metric::{PodFigure, read_metric};
use super::*;

const NOW_MS: u64 = 1_000_000_000;

fn spec(min_replicas: u32, max_replicas: u32) -> AutoscalerSpec {
    AutoscalerSpec {
        target: ScaleTarget { kind: Kind::Deployment, name: Name::new("web").expect("a name") },
        min_replicas,
        max_replicas,
        metrics: vec![AutoscalerMetric::resource(MeasuredResource::Cpu, MetricTarget::Utilization(50))],
        scale_up: ScalingRules::scale_up_default(),
        scale_down: ScalingRules::scale_down_default(),
    }
}

fn proposals(proposals: &[Option<u32>]) -> Vec<MetricReading> {
    let reading = |proposal: &Option<u32>| MetricReading {
        proposal: *proposal,
        message: if proposal.is_none() { "silent".to_owned() } else { String::new() },
        ..MetricReading::default()
    };
    proposals.iter().map(reading).collect()
}

/// Bounds of 2 to 10: from a size, by the metrics' proposals, to a size, with each condition's reason.
fn check(replicas: Option<u32>, wanted: &[Option<u32>], to: u32, reasons: &str) {
    let (spec, status) = (spec(2, 10), AutoscalerStatus::default());
    let seen = Look { spec: &spec, generation: 1, status: &status, now_ms: NOW_MS, replicas };
    let decision = look(&seen, proposals(wanted));
    let said: Vec<String> =
        decision.status.conditions.iter().map(|c| format!("{:?} {}", c.status, c.reason)).collect();
    assert_eq!((decision.to, said.join(", ").as_str()), (to, reasons), "{replicas:?} {wanted:?}");
}

#[test]
fn the_largest_proposal_counts_within_bounds_and_policies() {
    let with = |able, limited| format!("True {able}, True ValidMetricFound, {limited}");
    let free = "False DesiredWithinRange";
    check(Some(4), &[Some(4)], 4, &with("ReadyForNewScale", free));
    check(Some(4), &[Some(6), Some(7)], 7, &with("SucceededRescale", free));
    check(Some(4), &[Some(20)], 8, &with("SucceededRescale", "True ScaleUpLimit"));
    check(Some(8), &[Some(14)], 10, &with("SucceededRescale", "True TooManyReplicas"));
    check(Some(4), &[Some(0)], 2, &with("SucceededRescale", "True TooFewReplicas"));
    check(Some(12), &[Some(12)], 10, &with("SucceededRescale", "True TooManyReplicas"));
    check(Some(1), &[Some(1)], 2, &with("SucceededRescale", "True TooFewReplicas"));
}

#[test]
fn what_is_not_known_changes_nothing() {
    check(None, &[], 0, "False FailedGetScale");
    check(Some(0), &[], 0, "True ReadyForNewScale, False ScalingDisabled");
    check(Some(4), &[None], 4, "True ReadyForNewScale, False FailedGetResourceMetric");
    check(Some(4), &[None, Some(3)], 4, "True ReadyForNewScale, False FailedGetResourceMetric");
    let more = "True SucceededRescale, True ValidMetricFound, False DesiredWithinRange";
    check(Some(4), &[None, Some(6)], 6, more);
}

/// Plays an autoscaler over time: the load in thousandths of a core at each look, and the sizes that follow. Each pod
/// requests 100; all pods are ready at once.
fn play(spec: &AutoscalerSpec, start: u32, loads: &[u64]) -> Vec<(u64, u32, u32)> {
    let mut status = AutoscalerStatus::default();
    let (mut replicas, mut now_ms, mut sizes) = (start, NOW_MS, Vec::new());
    for load in loads {
        let usage = load / u64::from(replicas);
        let pods = vec![PodFigure::Counted { request: 100, usage }; replicas as usize];
        let readings = vec![read_metric(MetricTarget::Utilization(50), &pods, replicas)];
        let seen = Look { spec, generation: 1, status: &status, now_ms, replicas: Some(replicas) };
        let decision = look(&seen, readings);
        if decision.is_news {
            status = decision.status;
            if decision.to != replicas {
                status.changes.push(ReplicaChange { at_ms: now_ms, from: replicas, to: decision.to });
            }
        }
        sizes.push((now_ms, replicas, decision.to));
        replicas = decision.to;
        now_ms += 15_000;
    }
    sizes
}

#[test]
fn fewer_pods_come_five_minutes_after_the_load_is_gone() {
    let sizes = play(&spec(1, 10), 4, &[vec![200; 5], vec![40; 25]].concat());
    let first = sizes.iter().position(|(_, _, to)| *to < 4).expect("fewer at last");
    // The recommendation of 4 held until the load went, at the sixth look.
    assert_eq!(first, 5 + 20, "{sizes:?}");
    assert_eq!(sizes.last().expect("looks").2, 1);
}

proptest! {
    #[test]
    fn bounds_always_hold(
        min in 1..20u32,
        more in 0..50u32,
        start in 1..100u32,
        loads in proptest::collection::vec(0..100_000u64, 1..40),
    ) {
        let spec = spec(min, min + more);
        for (_, _, to) in play(&spec, start, &loads) {
            prop_assert!((min..=min + more).contains(&to));
        }
    }

    #[test]
    fn a_constant_load_makes_no_oscillation(start in 1..100u32, load in 1..20_000u64) {
        let sizes: Vec<u32> = play(&spec(1, 1000), start, &[load; 80]).iter().map(|(_, _, to)| *to).collect();
        let turns = sizes.windows(3).filter(|w| (w[0] < w[1] && w[1] > w[2]) || (w[0] > w[1] && w[1] < w[2]));
        prop_assert_eq!(turns.count(), 0, "{:?}", sizes);
        // It comes to rest.
        prop_assert!(sizes[40..].windows(2).all(|w| w[0] == w[1]), "{:?}", sizes);
    }

    #[test]
    fn no_change_is_faster_than_the_policies(
        start in 1..50u32,
        loads in proptest::collection::vec(0..100_000u64, 1..60),
    ) {
        let sizes = play(&spec(1, 1000), start, &loads);
        for (_, from, to) in sizes {
            prop_assert!(to <= from.max((from * 2).max(from + 4)), "{from} to {to}");
        }
    }
}
