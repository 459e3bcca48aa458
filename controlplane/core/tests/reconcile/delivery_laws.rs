//! What holds of deliveries by steps, whatever users do and pods suffer.
//!
//! The model knows one thing: which step a delivery may have reached, by what users said and how much time went by.

use bulkhead_controlplane_core::State;
use bulkhead_types::{
    BatchPause, CanaryStep, Command, Delivery, DeliveryStatus, DeliveryStep, Deployment, IntOrPercent, Kind,
    Pod, Rare,
};
use proptest::prelude::*;

use crate::kit::{Cluster, Say, deployment, reference, rolling};

#[derive(Clone, Debug)]
enum Op {
    Scale(u32),
    Image(u32),
    Pause(bool),
    Stop(bool),
    Undo,
    Promote(bool),
    Abort,
    Retry,
    Delete(usize),
    Say(usize, Say),
    Agents,
    Advance(u64),
    NewLeader,
    Lose,
}

fn any_op() -> impl Strategy<Value = Op> {
    let say = prop_oneof![4 => Just(Say::Ready), 2 => Just(Say::NotReady), 1 => Just(Say::Failed), 3 => Just(Say::Gone)];
    prop_oneof![
        1 => (0u32..8).prop_map(Op::Scale),
        2 => (0u32..4).prop_map(Op::Image),
        1 => any::<bool>().prop_map(Op::Pause),
        1 => any::<bool>().prop_map(Op::Stop),
        1 => Just(Op::Undo),
        3 => prop::bool::weighted(0.2).prop_map(Op::Promote),
        1 => Just(Op::Abort),
        1 => Just(Op::Retry),
        1 => (0usize..16).prop_map(Op::Delete),
        6 => (0usize..16, say).prop_map(|(pod, say)| Op::Say(pod, say)),
        5 => Just(Op::Agents),
        3 => (1u64..40_000).prop_map(Op::Advance),
        1 => Just(Op::NewLeader),
        1 => Just(Op::Lose),
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

fn figures(state: &State, deployment: &Deployment) -> (u32, u32) {
    let is_active = |pod: &&std::sync::Arc<Pod>| !pod.meta.is_deleting() && !pod.status.phase.is_terminal();
    let active = || state.pods().iter().filter(is_active);
    let now_ms = state.now_ms();
    let is_available = |pod: &&std::sync::Arc<Pod>| {
        pod.status.ready && now_ms >= pod.status.ready_since_ms + deployment.spec.min_ready_ms
    };
    (active().count() as u32, active().filter(is_available).count() as u32)
}

fn size_of(state: &State, name: &str) -> u32 {
    state.replica_sets().iter().find(|set| set.meta.name.as_str() == name).map_or(0, |set| set.spec.replicas)
}

/// No command of a reconciler lets more new pods be than the step allows, or passes over a pause that is not over.
fn check_steps(now_ms: u64, before: &State, after: &State) {
    let (Some(was), Some(is)) = (before.deployments().iter().next(), after.deployments().iter().next())
    else {
        return;
    };
    let Some(delivery) = is.spec.delivery.get() else { return };
    let (Some(former), Some(status)) = (was.status.delivery.get(), is.status.delivery.get()) else { return };
    let desired = is.spec.wanted_replicas();
    if status.is_under_way() {
        let (had, has) = (size_of(before, &status.update), size_of(after, &status.update));
        let allowed = if status.is_aborted() { 0 } else { delivery.new_max(status.step, desired) };
        assert!(has <= had.max(allowed), "{has} new pods, {allowed} are allowed: {status:?}");
    }
    if former.update == status.update && former.is_under_way() && status.step > former.step {
        assert_eq!(status.step, former.step + 1);
        match delivery.step(former.step, desired) {
            Some(DeliveryStep::Pause(Some(ms))) => assert!(now_ms >= former.step_started_ms + ms),
            Some(DeliveryStep::Size(_)) => {}
            other => panic!("{other:?} was passed over"),
        }
    }
}

/// The same, and no command of a reconciler raises the total above the surge, or takes availability below its minimum.
fn check_all(now_ms: u64, before: &State, after: &State) {
    check_steps(now_ms, before, after);
    let Some(deployment) = after.deployments().iter().next() else { return };
    let desired = deployment.spec.wanted_replicas();
    let (surge, unavailable) = deployment.spec.strategy.bounds(desired);
    let ((total_before, available_before), (total, available)) =
        (figures(before, deployment), figures(after, deployment));
    assert!(total <= total_before.max(desired + surge), "{total} of {desired}+{surge}");
    let least = desired.saturating_sub(unavailable).min(available_before);
    assert!(available >= least, "{available} available, of {available_before}, of {desired}-{unavailable}");
}

/// A word of the user's; the others are what pods and servers suffer.
fn command(op: &Op) -> Option<Command> {
    let web = || reference(Kind::Deployment, "web");
    Some(match op {
        Op::Scale(replicas) => Command::Scale { object: web(), replicas: *replicas },
        Op::Pause(paused) => Command::SetPaused { deployment: web(), paused: *paused },
        Op::Stop(stopped) => Command::SetStopped { object: web(), stopped: *stopped },
        Op::Undo => Command::UndoRollout { deployment: web(), to_revision: None },
        Op::Promote(full) => Command::PromoteRollout { deployment: web(), full: *full },
        Op::Abort => Command::AbortRollout { deployment: web() },
        Op::Retry => Command::RetryRollout { deployment: web() },
        _ => return None,
    })
}

fn perform(cluster: &mut Cluster, op: &Op) {
    let pods: Vec<_> = cluster.state().pods().iter().map(|pod| pod.meta.clone()).collect();
    match op {
        Op::Image(version) => cluster.set_image("web", &format!("web:{version}")),
        Op::Delete(at) => {
            if let Some(pod) = pods.get(at % pods.len().max(1)) {
                let object = reference(Kind::Pod, pod.name.as_str());
                cluster.ok(Command::Delete { object, grace_ms: None, force: false });
            }
        }
        Op::Say(at, say) => {
            if let Some(pod) = pods.get(at % pods.len().max(1)) {
                cluster.say(pod.id, *say);
            }
        }
        Op::Agents => _ = cluster.agents(),
        Op::Advance(ms) => cluster.advance(*ms),
        Op::NewLeader => cluster.new_leader(),
        Op::Lose => {
            cluster.lose();
            cluster.advance(40_000);
        }
        // Some are refused where they make no sense.
        user => _ = cluster.submit(command(user).into_iter().collect()),
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
        let is_users = command(op).is_some() || matches!(op, Op::Image(_) | Op::Delete(_) | Op::Lose);
        cluster.watch = if is_users { check_steps } else { check_all };
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
    cluster.watch = check_steps;
    cluster.ok(Command::SetStopped { object: web(), stopped: false });
    cluster.ok(Command::SetPaused { deployment: web(), paused: false });
    cluster.converge();
    cluster.watch = check_all;
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
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

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
        prop_assert_eq!(cluster.replayed().digest(), cluster.state().digest(), "events alone lead to the same State");
    }
}
