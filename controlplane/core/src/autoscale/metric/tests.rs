use proptest::prelude::*;

use super::*;

/// Pods that request 100 each and use so much; then pods that are not ready, then pods without figures.
fn pods(usage: &[u64], unready: usize, missing: usize) -> Vec<PodFigure> {
    let counted = usage.iter().map(|usage| PodFigure::Counted { request: 100, usage: *usage });
    let unready = std::iter::repeat_n(PodFigure::Unready { request: 100 }, unready);
    let missing = std::iter::repeat_n(PodFigure::Missing { request: 100 }, missing);
    counted.chain(unready).chain(missing).collect()
}

/// How many pods a utilization of 50 % wants of a workload of such a size.
fn check(replicas: u32, pods: &[PodFigure], expected: Option<u32>) {
    let reading = read_metric(MetricTarget::Utilization(50), pods, replicas);
    assert_eq!(reading.proposal, expected, "{replicas}: {pods:?} {reading:?}");
}

#[test]
fn the_size_follows_the_ratio() {
    check(2, &pods(&[100, 100], 0, 0), Some(4));
    check(3, &pods(&[90, 90, 90], 0, 0), Some(6));
    check(4, &pods(&[25, 25, 25, 25], 0, 0), Some(2));
    check(1, &pods(&[1000], 0, 0), Some(20));
    check(2, &pods(&[0, 0], 0, 0), Some(0));
    check(2, &pods(&[], 2, 0), None);
    check(2, &pods(&[], 0, 2), None);
}

#[test]
fn a_small_difference_changes_nothing() {
    check(10, &pods(&[55; 10], 0, 0), Some(10));
    check(10, &pods(&[45; 10], 0, 0), Some(10));
    check(10, &pods(&[56; 10], 0, 0), Some(12));
    check(10, &pods(&[44; 10], 0, 0), Some(9));
}

#[test]
fn pods_that_are_not_ready_dampen_more_pods_only() {
    // 2 x 100 over 4 pods are 50 %: enough.
    check(4, &pods(&[100, 100], 2, 0), Some(4));
    check(4, &pods(&[200, 200], 2, 0), Some(8));
    // They are set aside where there shall be fewer.
    check(4, &pods(&[20, 20, 20], 1, 0), Some(2));
}

#[test]
fn pods_without_figures_stand_in_the_way_of_either() {
    // As if they used nothing.
    check(4, &pods(&[100, 100, 100], 0, 1), Some(6));
    check(4, &pods(&[60, 60, 60], 0, 1), Some(4));
    // As if they used all that they request.
    check(4, &pods(&[20, 20, 20], 0, 1), Some(4));
    check(10, &pods(&[5; 9], 0, 1), Some(3));
    // Pods that are wanted and not there are such pods.
    check(10, &pods(&[100; 5], 0, 0), Some(10));
    check(10, &pods(&[150; 5], 0, 0), Some(15));
}

#[test]
fn pain_23_a_rollout_asks_for_no_more_pods() {
    // 4 wanted; a rollout brings up to 4 more. What each uses stays the same: so does the size.
    for surge in 0..=4 {
        check(4, &pods(&vec![50; 4 + surge], 0, 0), Some(4));
        check(4, &pods(&[50; 4], surge, 0), Some(4));
        check(4, &pods(&[50; 4], 0, surge), Some(4));
    }
    // The pods were at the edge, 110 % of what they shall use: nor then.
    check(383, &pods(&vec![54; 479], 0, 0), Some(383));
    // New pods burn processor time when they begin, and are not ready: they do not count.
    check(383, &pods(&vec![50; 383], 96, 0), Some(383));
    // The load is shared by more pods for a while: it is no reason for fewer later.
    check(4, &pods(&[40; 5], 0, 0), Some(4));
    // A load that grows meanwhile is answered, by what each pod uses.
    check(4, &pods(&[100; 5], 0, 0), Some(8));
}

#[test]
fn averages_need_no_requests() {
    let check = |usage: &[u64], missing, target, expected| {
        let pods: Vec<PodFigure> =
            usage.iter().map(|u| PodFigure::Counted { request: 0, usage: *u }).collect();
        let missing = std::iter::repeat_n(PodFigure::Missing { request: 0 }, missing);
        let pods: Vec<PodFigure> = pods.into_iter().chain(missing).collect();
        let size = u32::try_from(pods.len()).expect("few");
        let reading = read_metric(MetricTarget::AverageValue(target), &pods, size);
        assert_eq!(reading.proposal, expected, "{usage:?} of {target}");
    };
    check(&[300, 500], 0, 200, Some(4));
    check(&[300, 500], 1, 200, Some(4));
    check(&[50, 50, 50], 1, 200, Some(2));
    let nothing =
        read_metric(MetricTarget::Utilization(50), &[PodFigure::Counted { request: 0, usage: 5 }], 1);
    assert_eq!(nothing.proposal, None);
    assert!(!nothing.message.is_empty());
}

fn figure() -> impl Strategy<Value = PodFigure> {
    prop_oneof![
        4 => (0..3000u64).prop_map(|usage| PodFigure::Counted { request: 100, usage }),
        1 => Just(PodFigure::Unready { request: 100 }),
        1 => Just(PodFigure::Missing { request: 100 }),
    ]
}

proptest! {
    /// Pods that are not ready never ask for more pods.
    #[test]
    fn blind_to_surge(
        pods in proptest::collection::vec(figure(), 1..20),
        surge in 0..10usize,
        replicas in 1..20u32,
        percent in 1..200u32,
    ) {
        let target = MetricTarget::Utilization(percent);
        let before = read_metric(target, &pods, replicas).proposal;
        let mut with = pods.clone();
        with.extend(std::iter::repeat_n(PodFigure::Unready { request: 100 }, surge));
        let after = read_metric(target, &with, replicas).proposal;
        if let (Some(before), Some(after)) = (before, after) {
            prop_assert!(after <= before.max(replicas), "{before} became {after}");
        }
    }

    /// With pods that all use the same, more of them than are wanted change nothing that a ratio of one would not.
    #[test]
    fn ready_surge_keeps_the_size(replicas in 1..100u32, surge in 0..100usize, percent in 1..200u32) {
        let usage = u64::from(percent);
        let pods = pods(&vec![usage; replicas as usize + surge], 0, 0);
        let reading = read_metric(MetricTarget::Utilization(percent), &pods, replicas);
        prop_assert_eq!(reading.proposal, Some(replicas));
    }

    /// Missing pods never turn the direction, and nothing overflows.
    #[test]
    fn any_figures_have_an_answer(
        usages in proptest::collection::vec(any::<u64>(), 0..6),
        requests in any::<u64>(),
        percent in any::<u32>(),
        replicas in 1..1_000_000u32,
    ) {
        let counted = |usage: &u64| PodFigure::Counted { request: requests, usage: *usage };
        let pods: Vec<PodFigure> = usages.iter().take(4).map(counted).collect();
        let replicas = replicas.min(1000);
        let _ = read_metric(MetricTarget::Utilization(percent.max(1)), &pods, replicas);
        let _ = read_metric(MetricTarget::AverageValue(requests.max(1)), &pods, replicas);
    }
}
