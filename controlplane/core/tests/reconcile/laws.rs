//! What holds of Deployments whatever users do and pods suffer.

use std::sync::Arc;

use bulkhead_controlplane_core::State;
use bulkhead_types::{Command, Deployment, Kind, Pod};
use proptest::prelude::*;

use crate::kit::{Cluster, deployment, reference, rolling};
use crate::play::{self, Chance, Seen, Word, any_chance, check_history, check_repeats};
use crate::sets::{is_active, is_available};

const NODES: usize = 4;

#[derive(Clone, Debug)]
enum Op {
    Word(Word),
    Image(u32),
    Chance(Chance),
}

fn any_op() -> impl Strategy<Value = Op> {
    let word = prop_oneof![
        2 => (0u32..8).prop_map(Word::Scale),
        1 => any::<bool>().prop_map(Word::Pause),
        1 => Just(Word::Undo),
        1 => (0u32..100).prop_map(Word::Restart),
    ];
    prop_oneof![
        5 => word.prop_map(Op::Word),
        2 => (0u32..4).prop_map(Op::Image),
        19 => any_chance().prop_map(Op::Chance),
    ]
}

/// The pods of a Deployment, those of all of its sets.
pub fn pods_of<'a>(state: &'a State, deployment: &Deployment) -> impl Iterator<Item = &'a Arc<Pod>> {
    state.owned(deployment.meta.id, Kind::ReplicaSet).flat_map(|set| state.pods_of(set))
}

/// Active and available pods.
fn figures(state: &State, deployment: &Deployment, now_ms: u64) -> (u32, u32) {
    let active = pods_of(state, deployment).filter(|pod| is_active(pod)).count();
    let available = |pod: &&Arc<Pod>| is_available(pod, deployment.spec.min_ready_ms, now_ms);
    (active as u32, pods_of(state, deployment).filter(available).count() as u32)
}

/// No command of a reconciler raises the total above the surge, or takes availability below its minimum.
pub fn check_bounds(seen: &Seen<'_>, deployment: &Deployment) {
    let desired = deployment.spec.wanted_replicas();
    let (surge, unavailable) = deployment.spec.strategy.bounds(desired);
    let (total_before, available_before) = figures(seen.before, deployment, seen.now_ms);
    let (total, available) = figures(seen.after, deployment, seen.now_ms);
    assert!(total <= total_before.max(desired + surge), "{total} of {desired}+{surge}");
    let least = desired.saturating_sub(unavailable).min(available_before);
    assert!(available >= least, "{available} available, of {available_before}, of {desired}-{unavailable}");
}

fn check_all(seen: &Seen<'_>) {
    seen.after.deployments().iter().for_each(|deployment| check_bounds(seen, deployment));
}

fn perform(cluster: &mut Cluster, op: &Op) {
    match op {
        Op::Word(word) => _ = cluster.submit(vec![word.of(reference(Kind::Deployment, "web"))]),
        Op::Image(version) => cluster.set_image("web", &format!("web:{version}")),
        Op::Chance(chance) => cluster.befall(chance),
    }
}

fn play(surge: u32, unavailable: u32, min_ready_ms: u64, ops: &[Op]) -> Cluster {
    let mut cluster = Cluster::new();
    cluster.nodes(NODES);
    cluster.ok(Command::Apply(deployment("web", 4, |spec| {
        spec.strategy = rolling(surge, unavailable);
        spec.min_ready_ms = min_ready_ms;
        spec.revision_history_limit = 2;
    })));
    cluster.settle();
    let mut exempt = false;
    let is_loss = |op: &Op| matches!(op, Op::Chance(Chance::Lose));
    play::play(&mut cluster, ops, is_loss, |cluster, op| {
        // Bounds are promised while the spec is stable; a user's word may change them at once.
        let is_users = !matches!(op, Op::Chance(chance) if !matches!(chance, Chance::Delete(_)));
        exempt = is_users || (is_loss(op) && exempt);
        cluster.watch(if exempt { |_: &Seen<'_>| () } else { check_all });
        perform(cluster, op);
        // A lost word of the user's comes back after a while; until then the old spec rules.
        if is_loss(op) {
            cluster.advance(40_000);
        }
    });
    cluster.watch(check_all);
    cluster
}

/// Lets everything get well, and the rollout end.
fn heal(cluster: &mut Cluster) {
    cluster.watch(|_| ());
    cluster.ok(Command::SetPaused { deployment: reference(Kind::Deployment, "web"), paused: false });
    cluster.watch(check_all);
    let is_done = play::heal(cluster, |cluster| {
        let deployment = cluster.get_deployment("web");
        let (desired, status) = (deployment.spec.replicas, &deployment.status);
        let counts = (status.replicas, status.updated_replicas, status.available_replicas);
        counts == (desired, desired, desired) && cluster.active_pods().len() as u32 == desired
    });
    assert!(is_done, "never done: {} {}", cluster.sets("web"), cluster.conditions("web"));
}

proptest! {
    #![proptest_config(play::cases(96))]

    #[test]
    fn rollouts_keep_their_bounds_and_end(
        surge in 0u32..4,
        unavailable in 0u32..4,
        min_ready_ms in prop_oneof![Just(0u64), Just(7000)],
        ops in prop::collection::vec(any_op(), 1..40),
    ) {
        prop_assume!(surge + unavailable > 0);
        let mut cluster = play(surge, unavailable, min_ready_ms, &ops);
        heal(&mut cluster);
        let conditions = cluster.conditions("web");
        prop_assert!(conditions.contains("Progressing=True(NewReplicaSetAvailable)"), "{}", conditions);
        prop_assert!(conditions.contains("Available=True"), "{}", conditions);
        let deployment = cluster.get_deployment("web");
        prop_assert_eq!(deployment.status.observed_generation, deployment.meta.generation);
        let old = cluster.state().replica_sets().iter().filter(|set| set.spec.replicas == 0).count();
        prop_assert!(old <= 3, "{} old sets are kept", old);
        check_history(&cluster);
    }
}

proptest! {
    // Each case is run twice, and a difference shows at once or never.
    #![proptest_config(play::cases(24))]

    #[test]
    fn equal_inputs_give_equal_outputs(ops in prop::collection::vec(any_op(), 1..25)) {
        check_repeats(|| play(1, 1, 0, &ops));
    }
}
