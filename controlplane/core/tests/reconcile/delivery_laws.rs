//! What holds of deliveries by steps, whatever users do and pods suffer.
//!
//! The model knows one thing: which step a delivery may have reached, by what users said and how much time went by.

use bulkhead_controlplane_core::State;
use bulkhead_types::{
    BatchPause, CanaryStep, Command, Delivery, DeliveryStatus, DeliveryStep, Deployment, IntOrPercent, Kind,
    Rare,
};
use proptest::prelude::*;

use crate::kit::{Cluster, deployment, reference, rolling};
use crate::laws::check_bounds;
use crate::play::{self, Chance, Seen, Word, any_chance, check_history};

#[derive(Clone, Debug)]
enum Op {
    Word(Word),
    Image(u32),
    Chance(Chance),
}

fn any_op() -> impl Strategy<Value = Op> {
    let word = prop_oneof![
        1 => (0u32..8).prop_map(Word::Scale),
        1 => any::<bool>().prop_map(Word::Pause),
        1 => any::<bool>().prop_map(Word::Stop),
        1 => Just(Word::Undo),
        3 => prop::bool::weighted(0.2).prop_map(|full| Word::Promote { full }),
        1 => Just(Word::Abort),
        1 => Just(Word::Retry),
    ];
    prop_oneof![
        9 => word.prop_map(Op::Word),
        2 => (0u32..4).prop_map(Op::Image),
        19 => any_chance().prop_map(Op::Chance),
    ]
}

fn any_delivery() -> impl Strategy<Value = Delivery> {
    let share =
        || prop_oneof![(0u32..5).prop_map(IntOrPercent::Int), (0u32..=100).prop_map(IntOrPercent::Percent)];
    let duration = || prop::option::of(0u64..30_000);
    let step = prop_oneof![
        share().prop_map(|replicas| CanaryStep::SetReplicas { replicas }),
        duration().prop_map(|duration_ms| CanaryStep::Pause { duration_ms }),
    ];
    prop_oneof![
        (prop::collection::vec(step, 0..5), 0u32..3)
            .prop_map(|(steps, failure_limit)| Delivery::Canary { steps, failure_limit }),
        (share(), prop::option::of(1u32..4), prop::option::of(duration())).prop_map(
            |(partition, size, pause)| {
                let pause = pause.filter(|_| size.is_some()).map(|duration_ms| BatchPause { duration_ms });
                Delivery::Batches { partition, size: size.map(IntOrPercent::Int), pause }
            }
        ),
        (duration(), 0u64..20_000, prop::option::of(1u32..3)).prop_map(
            |(auto_promotion_ms, scale_down_delay_ms, preview_replicas)| Delivery::BlueGreen {
                auto_promotion_ms,
                scale_down_delay_ms,
                preview_replicas,
            }
        ),
    ]
}

fn size_of(state: &State, name: &str) -> u32 {
    state.replica_sets().iter().find(|set| set.meta.name.as_str() == name).map_or(0, |set| set.spec.replicas)
}

/// No command of a reconciler lets more new pods be than the step allows, or passes over a pause that is not over.
pub fn check_steps(seen: &Seen<'_>, is: &Deployment) {
    let Some(was) = seen.before.deployments().get(is.meta.id) else { return };
    let Some(delivery) = is.spec.delivery.get() else { return };
    let (Some(former), Some(status)) = (was.status.delivery.get(), is.status.delivery.get()) else { return };
    let desired = is.spec.wanted_replicas();
    if status.is_under_way() {
        let (had, has) = (size_of(seen.before, &status.update), size_of(seen.after, &status.update));
        let allowed = if status.is_aborted() { 0 } else { delivery.new_max(status.step, desired) };
        assert!(has <= had.max(allowed), "{has} new pods, {allowed} are allowed: {status:?}");
    }
    if former.update == status.update && former.is_under_way() && status.step > former.step {
        assert_eq!(status.step, former.step + 1);
        match delivery.step(former.step, desired) {
            Some(DeliveryStep::Pause(Some(ms))) => assert!(seen.now_ms >= former.step_started_ms + ms),
            Some(DeliveryStep::Size(_)) => {}
            other => panic!("{other:?} was passed over"),
        }
    }
}

fn check_all(seen: &Seen<'_>, is_stable: bool) {
    for deployment in seen.after.deployments().iter() {
        check_steps(seen, deployment);
        if is_stable {
            check_bounds(seen, deployment);
        }
    }
}

fn perform(cluster: &mut Cluster, op: &Op) {
    match op {
        Op::Word(word) => _ = cluster.submit(vec![word.of(reference(Kind::Deployment, "web"))]),
        Op::Image(version) => cluster.set_image("web", &format!("web:{version}")),
        Op::Chance(chance) => cluster.befall(chance),
    }
    if matches!(op, Op::Chance(Chance::Lose)) {
        cluster.advance(40_000);
    }
}

fn play(delivery: &Delivery, min_ready_ms: u64, ops: &[Op]) -> Cluster {
    let mut cluster = Cluster::new();
    cluster.nodes(4);
    cluster.ok(Command::Apply(deployment("web", 4, |spec| {
        let is_blue_green = matches!(delivery, Delivery::BlueGreen { .. });
        spec.strategy = if is_blue_green { rolling(8, 0) } else { rolling(1, 1) };
        spec.delivery = Rare::some(delivery.clone());
        spec.min_ready_ms = min_ready_ms;
        spec.progress_deadline_ms = 90_000;
    })));
    cluster.converge();
    for op in ops {
        // A user's word may change the bounds at once; the steps hold always.
        let is_users =
            !matches!(op, Op::Chance(chance) if !matches!(chance, Chance::Delete(_) | Chance::Lose));
        cluster.watch(move |seen| check_all(seen, !is_users));
        perform(&mut cluster, op);
        cluster.settle();
    }
    cluster
}

fn status(cluster: &Cluster) -> DeliveryStatus {
    cluster.get_deployment("web").status.delivery.get().cloned().unwrap_or_default()
}

/// Lets everything get well. Returns whether the delivery was over, or stood at its partition, by itself or by promotion.
fn heal(cluster: &mut Cluster) {
    let web = || reference(Kind::Deployment, "web");
    cluster.watch(|seen| check_all(seen, false));
    cluster.ok(Command::SetStopped { object: web(), stopped: false });
    cluster.ok(Command::SetPaused { deployment: web(), paused: false });
    cluster.converge();
    cluster.watch(|seen| check_all(seen, true));
    for _ in 0..60 {
        cluster.converge();
        cluster.advance(5000);
        let status = status(cluster);
        if status.is_under_way() && !status.is_aborted() {
            _ = cluster.submit(vec![Command::PromoteRollout { deployment: web(), full: false }]);
        }
    }
    cluster.converge();
}

proptest! {
    #![proptest_config(play::cases(72))]

    #[test]
    fn deliveries_keep_their_steps_and_end(
        delivery in any_delivery(),
        min_ready_ms in prop_oneof![Just(0u64), Just(7000)],
        ops in prop::collection::vec(any_op(), 1..30),
    ) {
        let mut cluster = play(&delivery, min_ready_ms, &ops);
        heal(&mut cluster);
        let deployment = cluster.get_deployment("web");
        let (desired, status) = (deployment.spec.replicas, status(&cluster));
        let (stable, update) = (size_of(cluster.state(), &status.stable), size_of(cluster.state(), &status.update));
        let shown = format!("{} {} {status:?}", cluster.sets("web"), cluster.conditions("web"));
        prop_assert_eq!(cluster.active_pods().len() as u32, desired, "{}", shown);
        prop_assert_eq!(deployment.status.available_replicas, desired, "{}", shown);
        if status.is_aborted() {
            prop_assert_eq!((stable, update), (desired, 0), "only the stable one is left: {}", shown);
        } else if status.is_under_way() {
            let goal = delivery.goal(desired);
            prop_assert_eq!((stable, update), (desired - goal, goal), "it stands at its partition: {}", shown);
        } else {
            prop_assert_eq!(update, desired, "it is over: {}", shown);
        }
        check_history(&cluster);
    }
}
