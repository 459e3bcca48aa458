//! What holds whatever users do and pods suffer.

use bulkhead_controlplane_core::State;
use bulkhead_types::{Command, Deployment, Kind, Pod};
use proptest::prelude::*;

use crate::kit::{Cluster, Say, deployment, reference, rolling};

const NODES: usize = 4;

#[derive(Clone, Debug)]
enum Op {
    Scale(u32),
    Image(u32),
    Pause(bool),
    Undo,
    Restart(u32),
    Delete(usize),
    Say(usize, Say),
    Agents,
    Advance(u64),
    /// Another server takes over: soft state and dirty sets are lost.
    NewLeader,
    /// The next proposals are dropped on their way to the log.
    Lose,
}

fn any_op() -> impl Strategy<Value = Op> {
    let say = prop_oneof![
        4 => Just(Say::Ready),
        2 => Just(Say::NotReady),
        1 => Just(Say::Failed),
        3 => Just(Say::Gone),
    ];
    prop_oneof![
        2 => (0u32..8).prop_map(Op::Scale),
        2 => (0u32..4).prop_map(Op::Image),
        1 => any::<bool>().prop_map(Op::Pause),
        1 => Just(Op::Undo),
        1 => (0u32..100).prop_map(Op::Restart),
        1 => (0usize..16).prop_map(Op::Delete),
        8 => (0usize..16, say).prop_map(|(pod, say)| Op::Say(pod, say)),
        3 => Just(Op::Agents),
        3 => (1u64..20_000).prop_map(Op::Advance),
        1 => Just(Op::NewLeader),
        2 => Just(Op::Lose),
    ]
}

fn is_active(pod: &Pod) -> bool {
    !pod.meta.is_deleting() && !pod.status.phase.is_terminal()
}

/// Active and available pods.
fn figures(state: &State, deployment: &Deployment, now_ms: u64) -> (u32, u32) {
    let active = || state.pods().iter().filter(|pod| is_active(pod));
    let available = |pod: &&std::sync::Arc<Pod>| {
        pod.status.ready && now_ms >= pod.status.ready_since_ms + deployment.spec.min_ready_ms
    };
    (active().count() as u32, active().filter(available).count() as u32)
}

/// No command of a reconciler raises the total above the surge, or takes availability below its minimum.
fn check_bounds(now_ms: u64, before: &State, after: &State) {
    let Some(deployment) = after.deployments().iter().next() else { return };
    let desired = deployment.spec.replicas;
    let (surge, unavailable) = deployment.spec.strategy.bounds(desired);
    let (total_before, available_before) = figures(before, deployment, now_ms);
    let (total, available) = figures(after, deployment, now_ms);
    assert!(total <= total_before.max(desired + surge), "{total} of {desired}+{surge}");
    let least = desired.saturating_sub(unavailable).min(available_before);
    assert!(available >= least, "{available} available, of {available_before}, of {desired}-{unavailable}");
}

fn is_users(op: &Op) -> bool {
    matches!(op, Op::Scale(_) | Op::Image(_) | Op::Pause(_) | Op::Undo | Op::Restart(_) | Op::Delete(_))
}

fn perform(cluster: &mut Cluster, op: &Op) {
    let web = || reference(Kind::Deployment, "web");
    let pods: Vec<_> = cluster.state().pods().iter().map(|pod| pod.meta.clone()).collect();
    match op {
        Op::Scale(replicas) => cluster.ok(Command::Scale { object: web(), replicas: *replicas }),
        Op::Image(version) => cluster.set_image("web", &format!("web:{version}")),
        Op::Pause(paused) => cluster.ok(Command::SetPaused { deployment: web(), paused: *paused }),
        // Refused while paused, without history, or twice in a second.
        Op::Undo => _ = cluster.submit(vec![Command::UndoRollout { deployment: web(), to_revision: None }]),
        Op::Restart(at) => {
            let restarted_at = format!("{at}").into();
            _ = cluster.submit(vec![Command::RestartRollout { deployment: web(), restarted_at }]);
        }
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
        Op::Lose => cluster.lose(),
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
    for (at, op) in ops.iter().enumerate() {
        let is_loss = matches!(op, Op::Lose);
        // Bounds are promised while the spec is stable; a user's word may change them at once.
        exempt = is_users(op) || (is_loss && exempt);
        cluster.watch = if exempt { |_, _, _| () } else { check_bounds };
        perform(&mut cluster, op);
        // What is to be lost must not have arrived before.
        if !matches!(ops.get(at + 1), Some(Op::Lose)) {
            cluster.settle();
        }
        // A lost word of the user's comes back after a while; until then the old spec rules.
        if is_loss {
            cluster.advance(40_000);
        }
    }
    cluster.watch = check_bounds;
    cluster
}

/// Lets everything get well, and the rollout end.
fn heal(cluster: &mut Cluster) {
    cluster.watch = |_, _, _| ();
    cluster.ok(Command::SetPaused { deployment: reference(Kind::Deployment, "web"), paused: false });
    cluster.watch = check_bounds;
    for _ in 0..200 {
        cluster.converge();
        let deployment = cluster.get_deployment("web");
        let (desired, status) = (deployment.spec.replicas, &deployment.status);
        let counts = (status.replicas, status.updated_replicas, status.available_replicas);
        if counts == (desired, desired, desired) && cluster.active_pods().len() as u32 == desired {
            return;
        }
        cluster.advance(5000);
    }
    panic!("never done: {} {}", cluster.sets("web"), cluster.conditions("web"));
}

proptest! {
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
        let replayed = cluster.replayed();
        prop_assert_eq!(replayed.digest(), cluster.state().digest(), "events alone lead to the same State");
    }
}

proptest! {
    // Each case is run twice, and a difference shows at once or never.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn equal_inputs_give_equal_outputs(ops in prop::collection::vec(any_op(), 1..25)) {
        let (one, other) = (play(1, 1, 0, &ops), play(1, 1, 0, &ops));
        prop_assert_eq!(&one.transactions, &other.transactions);
        prop_assert_eq!(&one.proposals, &other.proposals);
        prop_assert_eq!(one.state().digest(), other.state().digest());
    }
}
