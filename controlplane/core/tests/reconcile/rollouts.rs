//! Deployments, from their creation to the end of a rollout.

use bulkhead_types::{Command, DeploymentStrategy, Kind};

use crate::kit::{Cluster, GIB, Say, deployment, facts, pod_spec, reference, replica_set, rolling};

#[test]
fn a_deployment_becomes_ready_pods_on_nodes() {
    let mut cluster = Cluster::new();
    cluster.nodes(3);
    cluster.ok(Command::Apply(deployment("web", 3, |_| ())));
    cluster.converge();
    assert_eq!(cluster.sets("web"), "1:3/3/3");
    assert_eq!(
        cluster.conditions("web"),
        "Available=True(MinimumReplicasAvailable) Progressing=True(NewReplicaSetAvailable)"
    );
    let status = cluster.get_deployment("web").status.clone();
    assert_eq!((status.observed_generation, status.rollout_revision), (1, 1));
    assert_eq!((status.replicas, status.updated_replicas, status.available_replicas), (3, 3, 3));
    let nodes: std::collections::BTreeSet<_> = cluster.state().pods().iter().map(|pod| pod.node).collect();
    assert_eq!(nodes.len(), 3, "one pod on each node");
}

#[test]
fn a_new_template_rolls_without_losing_a_pod() {
    let mut cluster = Cluster::new();
    cluster.nodes(3);
    cluster.ok(Command::Apply(deployment("web", 4, |spec| spec.strategy = rolling(1, 0))));
    cluster.converge();
    cluster.watch(|seen| {
        let state = seen.after;
        let (mut available, mut active) = (0, 0);
        for pod in state.pods().iter().filter(|pod| !pod.meta.is_deleting()) {
            active += 1;
            available += usize::from(pod.status.ready);
        }
        assert!(available >= 4, "only {available} available");
        assert!(active <= 5, "{active} active pods");
    });
    cluster.set_image("web", "web:2");
    cluster.converge();
    assert_eq!(cluster.sets("web"), "2:4/4/4");
    assert_eq!(cluster.get_deployment("web").status.rollout_revision, 2);
}

#[test]
fn recreate_waits_until_nothing_of_the_old_is_left() {
    let mut cluster = Cluster::new();
    cluster.nodes(3);
    cluster.ok(Command::Apply(deployment("web", 2, |spec| spec.strategy = DeploymentStrategy::Recreate)));
    cluster.converge();
    cluster.set_image("web", "web:2");
    cluster.settle();
    assert_eq!(cluster.sets("web"), "", "no active pod of either");
    let ending: Vec<_> = cluster.state().pods().iter().map(|pod| pod.meta.id).collect();
    assert_eq!(ending.len(), 2);
    cluster.say(ending[0], Say::Gone);
    cluster.settle();
    assert_eq!(cluster.sets("web"), "", "the other one still runs");
    cluster.say(ending[1], Say::Gone);
    cluster.converge();
    assert_eq!(cluster.sets("web"), "2:2/2/2");
}

#[test]
fn a_rollout_that_stands_still_is_reported_and_recovers() {
    let mut cluster = Cluster::new();
    cluster.nodes(3);
    cluster.ok(Command::Apply(deployment("web", 3, |spec| spec.progress_deadline_ms = 60_000)));
    cluster.converge();
    cluster.set_image("web", "web:broken");
    cluster.settle();
    assert_eq!(cluster.sets("web"), "1:3/3/3 2:1/1/0");
    cluster.advance(59_000);
    assert!(cluster.conditions("web").contains("Progressing=True"), "{}", cluster.conditions("web"));
    cluster.advance(2000);
    assert_eq!(
        cluster.conditions("web"),
        "Available=True(MinimumReplicasAvailable) Progressing=False(ProgressDeadlineExceeded)"
    );
    let deployment = reference(Kind::Deployment, "web");
    cluster.ok(Command::UndoRollout { deployment, to_revision: None });
    cluster.converge();
    assert_eq!(cluster.sets("web"), "3:3/3/3", "the first set stands for a third revision");
    assert!(cluster.conditions("web").contains("Progressing=True(NewReplicaSetAvailable)"));
}

#[test]
fn the_deadline_stands_still_while_paused() {
    let mut cluster = Cluster::new();
    cluster.nodes(3);
    cluster.ok(Command::Apply(deployment("web", 3, |spec| spec.progress_deadline_ms = 60_000)));
    cluster.converge();
    let web = || reference(Kind::Deployment, "web");
    cluster.ok(Command::SetPaused { deployment: web(), paused: true });
    cluster.set_image("web", "web:2");
    cluster.advance(120_000);
    assert_eq!(cluster.sets("web"), "1:3/3/3", "nothing rolls");
    assert!(cluster.conditions("web").contains("Progressing=Unknown(DeploymentPaused)"));
    cluster.ok(Command::Scale { object: web(), replicas: 5 });
    cluster.converge();
    assert_eq!(cluster.sets("web"), "1:5/5/5", "scaling works");
    cluster.ok(Command::SetPaused { deployment: web(), paused: false });
    cluster.settle();
    assert!(cluster.conditions("web").contains("Progressing=True"), "{}", cluster.conditions("web"));
    cluster.converge();
    assert_eq!(cluster.sets("web"), "2:5/5/5");
}

#[test]
fn scaling_in_the_middle_keeps_proportions() {
    // Kubernetes' documented example: 10 wanted, surge 3, unavailable 2, an image that never starts; then 15.
    let mut cluster = Cluster::new();
    cluster.nodes(5);
    cluster.ok(Command::Apply(deployment("web", 10, |spec| spec.strategy = rolling(3, 2))));
    cluster.converge();
    cluster.set_image("web", "web:unresolved");
    cluster.settle();
    assert_eq!(cluster.sets("web"), "1:8/8/8 2:5/5/0");
    cluster.ok(Command::Scale { object: reference(Kind::Deployment, "web"), replicas: 15 });
    cluster.settle();
    assert_eq!(cluster.sets("web"), "1:11/11/8 2:7/7/0");
}

#[test]
fn min_ready_seconds_delay_availability_and_follow_the_deployment() {
    let mut cluster = Cluster::new();
    cluster.nodes(3);
    cluster.ok(Command::Apply(deployment("web", 2, |spec| spec.min_ready_ms = 10_000)));
    cluster.converge();
    assert_eq!(cluster.sets("web"), "1:2/2/0");
    assert_eq!(cluster.get_deployment("web").status.ready_replicas, 2);
    cluster.advance(9000);
    assert_eq!(cluster.sets("web"), "1:2/2/0");
    cluster.advance(1000);
    assert_eq!(cluster.sets("web"), "1:2/2/2");
    cluster.change("web", |spec| spec.min_ready_ms = 30_000);
    cluster.settle();
    assert_eq!(cluster.sets("web"), "1:2/2/0", "the same set, measured anew");
    cluster.change("web", |spec| spec.min_ready_ms = 0);
    cluster.settle();
    assert_eq!(cluster.sets("web"), "1:2/2/2");
}

#[test]
fn history_is_kept_up_to_its_limit() {
    let mut cluster = Cluster::new();
    cluster.nodes(3);
    cluster.ok(Command::Apply(deployment("web", 1, |spec| spec.revision_history_limit = 2)));
    cluster.converge();
    for version in 2..=5 {
        cluster.set_image("web", &format!("web:{version}"));
        cluster.converge();
    }
    let mut revisions: Vec<_> =
        cluster.state().replica_sets().iter().map(|set| set.spec.rollout_revision).collect();
    revisions.sort_unstable();
    assert_eq!(revisions, [3, 4, 5]);
    let undo =
        |to_revision| Command::UndoRollout { deployment: reference(Kind::Deployment, "web"), to_revision };
    let refused = cluster.submit(vec![undo(Some(1))]).unwrap_err();
    assert_eq!(refused.reason, "has no revision 1 in its history");
    cluster.ok(undo(Some(3)));
    cluster.converge();
    assert_eq!(cluster.sets("web"), "6:1/1/1");
}

#[test]
fn a_restart_replaces_every_pod() {
    let mut cluster = Cluster::new();
    cluster.nodes(3);
    cluster.ok(Command::Apply(deployment("web", 3, |_| ())));
    cluster.converge();
    let before: Vec<_> = cluster.active_pods().iter().map(|pod| pod.meta.id).collect();
    cluster.ok(Command::RestartRollout {
        deployment: reference(Kind::Deployment, "web"),
        restarted_at: "2026-01-01T00:00:00Z".into(),
    });
    cluster.converge();
    assert_eq!(cluster.sets("web"), "2:3/3/3");
    assert!(cluster.active_pods().iter().all(|pod| !before.contains(&pod.meta.id)));
}

#[test]
fn a_taken_name_is_passed_by() {
    let mut cluster = Cluster::new();
    cluster.nodes(1);
    cluster.ok(Command::Apply(deployment("web", 1, |_| ())));
    cluster.converge();
    let taken = cluster.state().replica_sets().iter().next().unwrap().meta.name.clone();
    cluster.ok(Command::Delete { object: reference(Kind::Deployment, "web"), grace_ms: None, force: false });
    cluster.converge();
    assert_eq!(cluster.state().replica_sets().len(), 0, "what it owned went with it");
    assert_eq!(cluster.state().pods().len(), 0);
    cluster.ok(Command::Apply(replica_set(taken.as_str(), 0, pod_spec("other:1", 1, 1))));
    cluster.ok(Command::Apply(deployment("web", 1, |_| ())));
    cluster.converge();
    assert_eq!(cluster.sets("web"), "1:1/1/1");
    assert_eq!(cluster.get_deployment("web").status.collision_count, 1);
}

#[test]
fn a_rollout_survives_lost_proposals() {
    let mut cluster = Cluster::new();
    cluster.nodes(3);
    cluster.ok(Command::Apply(deployment("web", 3, |_| ())));
    for _ in 0..40 {
        cluster.lose();
        cluster.step();
        cluster.agents();
        cluster.now_ms += 500;
        cluster.lose();
    }
    cluster.advance(120_000);
    cluster.converge();
    assert_eq!(cluster.sets("web"), "1:3/3/3");
}

/// A cluster with room for four pods and no more, with a Deployment of four.
fn full_cluster(surge: u32, unavailable: u32) -> Cluster {
    let mut cluster = Cluster::new();
    cluster.node("node-0", facts(16_000, 64 * GIB, 4));
    cluster.ok(Command::Apply(deployment("web", 4, |spec| spec.strategy = rolling(surge, unavailable))));
    cluster.converge();
    assert_eq!(cluster.sets("web"), "1:4/4/4");
    cluster
}

#[test]
fn pain_22_a_rolling_update_on_a_full_node_ends() {
    for (surge, unavailable) in [(0, 1), (1, 1), (2, 1), (1, 3), (4, 4)] {
        let mut cluster = full_cluster(surge, unavailable);
        cluster.watch(|seen| {
            let on_node = seen.after.pods().iter().filter(|pod| pod.node.is_some()).count();
            assert!(on_node <= 4, "{on_node} pods on a node of four");
        });
        cluster.set_image("web", "web:2");
        cluster.converge();
        assert_eq!(cluster.sets("web"), "2:4/4/4", "surge {surge}, unavailable {unavailable}");
        assert_eq!(
            cluster.conditions("web"),
            "Available=True(MinimumReplicasAvailable) Progressing=True(NewReplicaSetAvailable)"
        );
    }
}

#[test]
fn pain_22_a_rolling_update_that_no_old_pod_may_make_room_for_says_so() {
    let mut cluster = full_cluster(1, 0);
    cluster.set_image("web", "web:2");
    cluster.converge();
    assert_eq!(cluster.sets("web"), "1:4/4/4 2:1/1/0", "all four are kept");
    assert_eq!(
        cluster.conditions("web"),
        "Available=True(MinimumReplicasAvailable) Progressing=True(ReplicaSetUpdated) \
         ReplicaFailure=True(PodsUnschedulable)"
    );
    let status = cluster.get_deployment("web").status.clone();
    let failure = status.conditions.iter().find(|c| c.condition_type == "ReplicaFailure").unwrap();
    assert!(failure.message.contains("1 pods of ReplicaSet"), "{}", failure.message);
    assert!(failure.message.contains("maxUnavailable comes out as 0"), "{}", failure.message);
    cluster.advance(700_000);
    assert!(cluster.conditions("web").contains("Progressing=False(ProgressDeadlineExceeded)"));
    // What the message says helps.
    cluster.change("web", |spec| spec.strategy = rolling(1, 1));
    cluster.converge();
    assert_eq!(cluster.sets("web"), "2:4/4/4");
    assert!(!cluster.conditions("web").contains("ReplicaFailure"), "{}", cluster.conditions("web"));
    // So does a new leader, who learns it from the pods.
    let mut cluster = full_cluster(1, 0);
    cluster.set_image("web", "web:2");
    cluster.converge();
    cluster.new_leader();
    cluster.settle();
    assert!(cluster.conditions("web").contains("ReplicaFailure=True(PodsUnschedulable)"));
    cluster.node("node-1", facts(16_000, 64 * GIB, 4));
    cluster.converge();
    assert_eq!(cluster.sets("web"), "2:4/4/4");
}

#[test]
fn a_stopped_deployment_keeps_its_number_and_runs_nothing() {
    let mut cluster = Cluster::new();
    cluster.nodes(3);
    cluster.ok(Command::Apply(deployment("web", 3, |spec| spec.progress_deadline_ms = 60_000)));
    cluster.converge();
    let web = || reference(Kind::Deployment, "web");
    cluster.ok(Command::SetStopped { object: web(), stopped: true });
    cluster.converge();
    assert_eq!(cluster.sets("web"), "");
    assert_eq!(cluster.state().pods().len(), 0);
    assert_eq!(cluster.get_deployment("web").spec.replicas, 3);
    let stopped = "Available=False(DeploymentStopped) Progressing=Unknown(DeploymentStopped)";
    assert_eq!(cluster.conditions("web"), stopped);
    let refused = cluster.submit(vec![Command::Scale { object: web(), replicas: 5 }]).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "Deployment default/web: is stopped: its number stays until it runs again; start it first"
    );
    // No clock runs, and a new template is not rolled out before there is a start.
    cluster.set_image("web", "web:2");
    cluster.advance(120_000);
    assert_eq!(cluster.conditions("web"), stopped);
    cluster.ok(Command::SetStopped { object: web(), stopped: false });
    cluster.settle();
    assert_eq!(cluster.sets("web"), "2:3/3/0", "all of the new template at once");
    cluster.converge();
    assert_eq!(
        cluster.conditions("web"),
        "Available=True(MinimumReplicasAvailable) Progressing=True(NewReplicaSetAvailable)"
    );
    let set = replica_set("alone", 1, pod_spec("web:1", 1, 1));
    cluster.ok(Command::Apply(set));
    let alone = reference(Kind::ReplicaSet, "alone");
    let refused = cluster.submit(vec![Command::SetStopped { object: alone, stopped: true }]).unwrap_err();
    assert_eq!(refused.reason, "cannot be stopped or started: only Deployments and StatefulSets can");
}

#[test]
fn a_stop_in_the_middle_of_a_rollout_stops_both_templates() {
    for paused in [false, true] {
        let mut cluster = Cluster::new();
        cluster.nodes(3);
        cluster.ok(Command::Apply(deployment("web", 4, |spec| spec.strategy = rolling(1, 1))));
        cluster.converge();
        cluster.set_image("web", "web:2");
        cluster.settle();
        assert_eq!(cluster.sets("web"), "1:3/3/3 2:2/2/0");
        let web = || reference(Kind::Deployment, "web");
        cluster.ok(Command::SetPaused { deployment: web(), paused });
        cluster.ok(Command::SetStopped { object: web(), stopped: true });
        cluster.converge();
        assert_eq!(cluster.state().pods().len(), 0, "paused {paused}");
        cluster.ok(Command::SetStopped { object: web(), stopped: false });
        cluster.converge();
        assert_eq!(cluster.sets("web"), "2:4/4/4", "paused {paused}");
    }
}
