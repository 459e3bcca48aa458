use bulkhead_types::{DeploymentStrategy, IntOrPercent};
use proptest::prelude::*;

use super::*;

/// A set as `replicas/active/available`; ids count from 1 in the order given, which is that of creation.
fn sets(text: &str) -> Vec<SetSize> {
    let set = |(position, part): (usize, &str)| {
        let figures: Vec<u32> = part.split('/').map(|n| n.parse().expect("a figure")).collect();
        let [replicas, active, available] = figures[..] else { panic!("{part}: replicas/active/available") };
        SetSize { id: ObjectId(position as u64 + 1), replicas, active, available }
    };
    text.split(' ').enumerate().map(set).collect()
}

fn show(resizes: &[Resize]) -> String {
    let show = |r: &Resize| format!("{}:{}->{}", r.id.0, r.from, r.to);
    resizes.iter().map(show).collect::<Vec<_>>().join(" ")
}

fn bounds(desired: u32, surge: &str, unavailable: &str) -> Bounds {
    let parse = |text: &str| match text.strip_suffix('%') {
        Some(percent) => IntOrPercent::Percent(percent.parse().expect("per cent")),
        None => IntOrPercent::Int(text.parse().expect("a number")),
    };
    let strategy =
        DeploymentStrategy::RollingUpdate { max_surge: parse(surge), max_unavailable: parse(unavailable) };
    let (surge, unavailable) = strategy.bounds(desired);
    Bounds { desired, surge, unavailable }
}

/// Old sets, then the new one last.
fn check_roll(limits: (u32, &str, &str), text: &str, expected: &str) {
    let sets = sets(text);
    let (new, old) = sets.split_last().expect("at least the new set");
    let bounds = bounds(limits.0, limits.1, limits.2);
    assert_eq!(show(&roll(bounds, *new, old)), expected, "{limits:?} {text}");
}

#[test]
fn a_rolling_update_moves_within_its_bounds() {
    // Kubernetes' documented example: 3 replicas, 25 %: one more at a time, none less.
    check_roll((3, "25%", "25%"), "3/3/3 0/0/0", "2:0->1");
    check_roll((3, "25%", "25%"), "3/3/3 1/1/0", "");
    check_roll((3, "25%", "25%"), "3/3/3 1/1/1", "1:3->2");
    check_roll((3, "25%", "25%"), "2/2/2 1/1/1", "2:1->2");
    // 4 replicas, 25 %: one more and one less.
    check_roll((4, "25%", "25%"), "4/4/4 0/0/0", "2:0->1");
    check_roll((4, "25%", "25%"), "4/4/4 1/1/0", "1:4->3");
    check_roll((4, "25%", "25%"), "3/3/3 1/1/0", "2:1->2");
    // All at once.
    check_roll((4, "100%", "0"), "4/4/4 0/0/0", "2:0->4");
    check_roll((4, "0", "100%"), "4/4/4 0/0/0", "1:4->0");
    check_roll((4, "0", "100%"), "0/0/0 0/0/0", "2:0->4");
    // Never both at zero.
    check_roll((5, "0", "10%"), "5/5/5 0/0/0", "1:5->4");
    // At zero wanted nothing is kept.
    check_roll((0, "25%", "25%"), "3/3/3 1/1/1", "2:1->0");
    check_roll((0, "25%", "25%"), "3/3/3 0/0/0", "1:3->0");
}

#[test]
fn unhealthy_old_pods_go_first_and_cost_no_availability() {
    check_roll((10, "0", "2"), "10/10/7 0/0/0", "1:10->8");
    check_roll((10, "3", "2"), "5/5/5 5/5/3 3/3/0", "2:5->3");
    check_roll((10, "3", "2"), "6/6/6 4/4/0 3/3/3", "1:6->5 2:4->0");
    check_roll((10, "3", "2"), "8/8/8 5/5/0", "");
}

#[test]
fn surplus_pods_count_against_the_surge_and_not_as_available() {
    // The old set still has five pods although it wants three: there is no room for two new ones yet.
    check_roll((5, "0", "2"), "3/5/5 0/0/0", "");
    check_roll((5, "0", "2"), "3/3/3 0/0/0", "2:0->2");
}

#[test]
fn a_new_set_that_is_too_large_shrinks() {
    check_roll((3, "1", "0"), "2/2/2 5/5/5", "2:5->3");
}

#[test]
fn proportions_are_kept_when_the_wanted_number_changes() {
    let check = |limits: (u32, &str, &str), before, text: &str, expected: &str| {
        let bounds = bounds(limits.0, limits.1, limits.2);
        assert_eq!(show(&proportional(bounds, before, &sets(text))), expected, "{limits:?} {text}");
    };
    // Kubernetes' documented example: 10 wanted, surge 3, 8 old and 5 new; then 15 are wanted.
    check((15, "3", "2"), 13, "8/8/8 5/5/0", "1:8->11 2:5->7");
    check((10, "3", "2"), 18, "11/11/11 7/7/0", "1:11->8 2:7->5");
    check((0, "3", "2"), 13, "8/8/8 5/5/0", "1:8->0 2:5->0");
    check((20, "0", "1"), 10, "5/5/5 5/5/5", "2:5->10 1:5->10");
    check((13, "0", "1"), 10, "5/5/5 5/5/5", "2:5->7 1:5->6");
}

#[test]
fn recreate_empties_the_old_and_fills_the_new() {
    assert_eq!(show(&drop_all(&sets("3/3/3 0/0/0 1/0/0"))), "1:3->0 3:1->0");
    assert_eq!(show(&fill_new(3, sets("0/0/0")[0])), "1:0->3");
    assert_eq!(show(&fill_new(3, sets("3/3/3")[0])), "");
}

fn any_set() -> impl Strategy<Value = (u32, u32, u32)> {
    (0u32..20, 0u32..20).prop_flat_map(|(replicas, active)| (Just(replicas), Just(active), 0..=active))
}

proptest! {
    /// Whatever the figures: a step neither raises the total above the surge, nor takes availability that
    /// was spare below the minimum.
    #[test]
    fn every_step_keeps_the_bounds(
        desired in 0u32..20,
        surge in 0u32..10,
        unavailable in 0u32..10,
        figures in prop::collection::vec(any_set(), 1..5),
    ) {
        let bounds = bounds(desired, &surge.to_string(), &unavailable.to_string());
        let sets: Vec<SetSize> = (1..).zip(figures).map(|(id, (replicas, active, available))| {
            SetSize { id: ObjectId(id), replicas, active, available }
        }).collect();
        let (new, old) = sets.split_last().expect("at least one");
        let resizes = roll(bounds, *new, old);
        let after: Vec<SetSize> = sets.iter().map(|set| {
            let to = resizes.iter().find(|r| r.id == set.id).map_or(set.replicas, |r| r.to);
            SetSize { replicas: to, ..*set }
        }).collect();
        let occupied = |sets: &[SetSize]| sum(sets.iter().map(SetSize::occupied));
        let lasting = |sets: &[SetSize]| sum(sets.iter().map(SetSize::lasting));
        prop_assert!(occupied(&after) <= bounds.total_max().max(occupied(&sets)));
        if new.replicas <= desired {
            prop_assert!(lasting(&after) >= bounds.available_min().min(lasting(&sets)));
        }
    }

    #[test]
    fn proportional_sizes_add_up(
        desired in 0u32..50,
        surge in 0u32..10,
        before in 1u32..60,
        sizes in prop::collection::vec(1u32..20, 2..5),
    ) {
        let bounds = Bounds { desired, surge, unavailable: 1 };
        let sets: Vec<SetSize> = (1..).zip(sizes).map(|(id, n)| {
            SetSize { id: ObjectId(id), replicas: n, active: n, available: n }
        }).collect();
        let resizes = proportional(bounds, before, &sets);
        let total: u32 = sets.iter().map(|set| {
            resizes.iter().find(|r| r.id == set.id).map_or(set.replicas, |r| r.to)
        }).sum();
        let allowed = if desired == 0 { 0 } else { bounds.total_max() };
        prop_assert_eq!(total, allowed);
    }
}
