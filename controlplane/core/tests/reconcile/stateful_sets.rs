//! StatefulSets, from their creation to the end of a rollout.

use bulkhead_types::{
    Command, Kind, Object, OwnerRef, PodManagementPolicy, PodStamp, StatefulSetUpdateStrategy,
};

use crate::kit::{Cluster, Say, name, pod, pod_spec, reference};
use crate::sets::{image, partition, stateful_set};

fn cluster(replicas: u32, change: impl FnOnce(&mut bulkhead_types::StatefulSetSpec)) -> Cluster {
    let mut cluster = Cluster::new();
    cluster.nodes(3);
    cluster.ok(Command::Apply(stateful_set("db", replicas, change)));
    cluster.settle();
    cluster
}

fn db() -> bulkhead_types::ObjectRef {
    reference(Kind::StatefulSet, "db")
}

#[test]
fn pods_come_in_order_each_when_all_before_are_ready() {
    let mut cluster = cluster(3, |_| ());
    assert_eq!(cluster.ordinals("db"), "0:1!");
    cluster.say(cluster.pod_at("db", 0), Say::Ready);
    cluster.settle();
    assert_eq!(cluster.ordinals("db"), "0:1 1:1!");
    cluster.say(cluster.pod_at("db", 0), Say::NotReady);
    cluster.say(cluster.pod_at("db", 1), Say::Ready);
    cluster.settle();
    assert_eq!(cluster.ordinals("db"), "0:1! 1:1", "the first one is not ready any more");
    cluster.converge();
    assert_eq!(cluster.ordinals("db"), "0:1 1:1 2:1");
    let status = cluster.get_stateful_set("db").status.clone();
    assert_eq!((status.replicas, status.ready_replicas, status.available_replicas), (3, 3, 3));
    assert_eq!((status.current_replicas, status.updated_replicas), (3, 3));
    assert_eq!(status.current_revision, status.update_revision);
    assert_eq!(cluster.history(), "1:1");
}

#[test]
fn min_ready_seconds_hold_the_next_one_back() {
    let mut cluster = cluster(2, |spec| spec.min_ready_ms = 10_000);
    cluster.converge();
    assert_eq!(cluster.ordinals("db"), "0:1");
    cluster.advance(9000);
    assert_eq!(cluster.ordinals("db"), "0:1");
    cluster.advance(1000);
    assert_eq!(cluster.ordinals("db"), "0:1 1:1!");
    assert_eq!(cluster.get_stateful_set("db").status.available_replicas, 1);
}

#[test]
fn parallel_pods_come_and_go_at_once() {
    let mut cluster = cluster(4, |spec| spec.pod_management_policy = PodManagementPolicy::Parallel);
    assert_eq!(cluster.ordinals("db"), "0:1! 1:1! 2:1! 3:1!");
    cluster.ok(Command::Scale { object: db(), replicas: 1 });
    cluster.settle();
    assert_eq!(cluster.ordinals("db"), "0:1! 1:1~ 2:1~ 3:1~");
    cluster.converge();
    assert_eq!(cluster.ordinals("db"), "0:1");
}

#[test]
fn scaling_down_goes_one_by_one_from_the_highest_and_only_while_all_others_are_ready() {
    let mut cluster = cluster(4, |_| ());
    cluster.converge();
    cluster.say(cluster.pod_at("db", 0), Say::NotReady);
    cluster.ok(Command::Scale { object: db(), replicas: 1 });
    cluster.settle();
    assert_eq!(cluster.ordinals("db"), "0:1! 1:1 2:1 3:1");
    cluster.say(cluster.pod_at("db", 0), Say::Ready);
    cluster.settle();
    assert_eq!(cluster.ordinals("db"), "0:1 1:1 2:1 3:1~");
    cluster.say(cluster.pod_at("db", 3), Say::Gone);
    cluster.settle();
    assert_eq!(cluster.ordinals("db"), "0:1 1:1 2:1~");
    cluster.converge();
    assert_eq!(cluster.ordinals("db"), "0:1");
}

#[test]
fn a_stopped_set_keeps_its_number_and_goes_and_comes_in_order() {
    let mut cluster = cluster(3, |_| ());
    cluster.converge();
    cluster.ok(Command::SetStopped { object: db(), stopped: true });
    cluster.settle();
    assert_eq!(cluster.ordinals("db"), "0:1 1:1 2:1~", "the highest first");
    cluster.converge();
    assert_eq!(cluster.ordinals("db"), "");
    let Some(Object::StatefulSet(set)) = cluster.state().find_object(&db()) else { panic!("no set") };
    assert_eq!(set.spec.replicas, 3);
    let available = set.status.conditions.iter().find(|c| c.condition_type == "Available").unwrap();
    assert_eq!(available.reason, "StatefulSetStopped");
    let refused = cluster.submit(vec![Command::Scale { object: db(), replicas: 5 }]).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "StatefulSet default/db: is stopped: its number stays until it runs again; start it first"
    );
    cluster.ok(Command::SetStopped { object: db(), stopped: false });
    cluster.settle();
    assert_eq!(cluster.ordinals("db"), "0:1!", "the lowest first");
    cluster.converge();
    assert_eq!(cluster.ordinals("db"), "0:1 1:1 2:1");
    let stop = Command::SetStopped { object: db(), stopped: true };
    assert_eq!(stop.feature_level(), bulkhead_types::POLICY_LEVEL);
}

#[test]
fn a_pod_that_goes_anyway_holds_nothing_up() {
    let mut cluster = cluster(4, |_| ());
    cluster.converge();
    cluster.say(cluster.pod_at("db", 2), Say::NotReady);
    cluster.ok(Command::Scale { object: db(), replicas: 1 });
    cluster.settle();
    assert_eq!(cluster.ordinals("db"), "0:1 1:1 2:1! 3:1~");
}

#[test]
fn ordinals_start_where_they_are_told_to_and_the_partition_counts_from_there() {
    let mut cluster = cluster(3, |spec| spec.ordinals_start = 5);
    cluster.converge();
    assert_eq!(cluster.ordinals("db"), "5:1 6:1 7:1");
    cluster.change_stateful_set("db", |spec| {
        spec.update_strategy = partition(2, 1);
        spec.template = image("db", 2);
    });
    cluster.converge();
    assert_eq!(cluster.ordinals("db"), "5:1 6:1 7:2");
    cluster.change_stateful_set("db", |spec| spec.ordinals_start = 6);
    cluster.converge();
    assert_eq!(cluster.ordinals("db"), "6:1 7:2 8:2");
}

#[test]
fn a_rollout_goes_from_the_highest_ordinal_down_one_by_one() {
    let mut cluster = cluster(3, |_| ());
    cluster.converge();
    cluster.change_stateful_set("db", |spec| spec.template = image("db", 2));
    cluster.settle();
    assert_eq!(cluster.ordinals("db"), "0:1 1:1 2:1~");
    cluster.say(cluster.pod_at("db", 2), Say::Gone);
    cluster.settle();
    assert_eq!(cluster.ordinals("db"), "0:1 1:1 2:2!");
    let status = cluster.get_stateful_set("db").status.clone();
    assert_ne!(status.current_revision, status.update_revision);
    assert_eq!((status.current_replicas, status.updated_replicas), (2, 1));
    cluster.say(cluster.pod_at("db", 2), Say::Ready);
    cluster.settle();
    assert_eq!(cluster.ordinals("db"), "0:1 1:1~ 2:2");
    cluster.converge();
    assert_eq!(cluster.ordinals("db"), "0:2 1:2 2:2");
    let status = cluster.get_stateful_set("db").status.clone();
    assert_eq!(status.current_revision, status.update_revision);
    assert_eq!((status.current_replicas, status.updated_replicas), (3, 3));
}

#[test]
fn as_many_as_allowed_are_replaced_at_a_time() {
    let mut cluster = cluster(5, |spec| spec.update_strategy = partition(0, 2));
    cluster.converge();
    cluster.change_stateful_set("db", |spec| spec.template = image("db", 2));
    cluster.settle();
    assert_eq!(cluster.ordinals("db"), "0:1 1:1 2:1 3:1~ 4:1~");
    cluster.converge();
    assert_eq!(cluster.ordinals("db"), "0:2 1:2 2:2 3:2 4:2");
}

#[test]
fn below_the_partition_pods_keep_the_current_revision_even_when_they_are_lost() {
    let mut cluster = cluster(3, |_| ());
    cluster.converge();
    cluster.change_stateful_set("db", |spec| {
        spec.update_strategy = partition(2, 1);
        spec.template = image("db", 2);
    });
    cluster.converge();
    assert_eq!(cluster.ordinals("db"), "0:1 1:1 2:2");
    for ordinal in [0, 2] {
        let object = reference(Kind::Pod, &format!("db-{ordinal}"));
        cluster.ok(Command::Delete { object, grace_ms: None, force: false });
    }
    cluster.converge();
    assert_eq!(cluster.ordinals("db"), "0:1 1:1 2:2");
    cluster.change_stateful_set("db", |spec| spec.update_strategy = partition(0, 1));
    cluster.converge();
    assert_eq!(cluster.ordinals("db"), "0:2 1:2 2:2");
}

#[test]
fn on_delete_waits_for_somebody_to_delete() {
    let mut cluster = cluster(2, |spec| spec.update_strategy = StatefulSetUpdateStrategy::OnDelete);
    cluster.converge();
    cluster.change_stateful_set("db", |spec| spec.template = image("db", 2));
    cluster.converge();
    assert_eq!(cluster.ordinals("db"), "0:1 1:1");
    for (ordinal, expected) in [(0, "0:2 1:1"), (1, "0:2 1:2")] {
        let object = reference(Kind::Pod, &format!("db-{ordinal}"));
        cluster.ok(Command::Delete { object, grace_ms: None, force: false });
        cluster.converge();
        assert_eq!(cluster.ordinals("db"), expected);
    }
    let status = cluster.get_stateful_set("db").status.clone();
    assert_eq!(status.current_revision, status.update_revision);
}

#[test]
fn a_broken_template_never_keeps_its_successor_from_coming() {
    // Kubernetes' known issue: there somebody has to delete the broken pod by hand.
    for undo in [false, true] {
        let mut cluster = cluster(3, |_| ());
        cluster.converge();
        cluster.change_stateful_set("db", |spec| spec.template = image("db", 2));
        cluster.settle();
        cluster.say(cluster.pod_at("db", 2), Say::Gone);
        cluster.settle();
        cluster.say(cluster.pod_at("db", 2), Say::NotReady);
        cluster.advance(3_600_000);
        assert_eq!(cluster.ordinals("db"), "0:1 1:1 2:2!");
        if undo {
            cluster.ok(Command::UndoRollout { deployment: db(), to_revision: None });
        } else {
            cluster.change_stateful_set("db", |spec| spec.template = image("db", 3));
        }
        cluster.settle();
        assert_eq!(cluster.ordinals("db"), "0:1 1:1 2:2~");
        cluster.converge();
        assert_eq!(cluster.ordinals("db"), if undo { "0:1 1:1 2:1" } else { "0:3 1:3 2:3" });
    }
}

#[test]
fn an_ordinal_is_free_only_when_the_agent_says_so() {
    let mut cluster = cluster(1, |_| ());
    cluster.converge();
    cluster.say(cluster.pod_at("db", 0), Say::Failed);
    cluster.settle();
    assert_eq!(cluster.ordinals("db"), "0:1~", "what ended is asked to go");
    cluster.advance(3_600_000);
    assert_eq!(cluster.ordinals("db"), "0:1~", "nothing takes its place before it is gone");
    cluster.converge();
    assert_eq!(cluster.ordinals("db"), "0:1");
}

#[test]
fn what_keeps_failing_is_replaced_later_and_later() {
    let mut cluster = cluster(1, |_| ());
    for _ in 0..5 {
        cluster.settle();
        cluster.say(cluster.pod_at("db", 0), Say::Failed);
        cluster.advance(60_000);
        cluster.say(cluster.pod_at("db", 0), Say::Gone);
    }
    cluster.settle();
    cluster.say(cluster.pod_at("db", 0), Say::Failed);
    cluster.settle();
    assert_eq!(cluster.ordinals("db"), "0:1x");
    let conditions = cluster.get_stateful_set("db").status.conditions.clone();
    assert!(conditions.iter().any(|c| c.condition_type == "ReplicaFailure"), "{conditions:?}");
    cluster.advance(16_000);
    assert_eq!(cluster.ordinals("db"), "0:1~");
}

#[test]
fn a_template_that_comes_back_keeps_its_revision_and_history_has_a_limit() {
    let mut cluster = cluster(1, |spec| spec.revision_history_limit = 2);
    for version in [1, 2, 3, 4] {
        cluster.change_stateful_set("db", |spec| spec.template = image("db", version));
        cluster.converge();
    }
    assert_eq!(cluster.history(), "2:2 3:3 4:4");
    let undo = |to_revision| Command::UndoRollout { deployment: db(), to_revision };
    let refused = cluster.submit(vec![undo(Some(1))]).unwrap_err();
    assert_eq!(refused.reason, "has no revision 1 in its history");
    cluster.ok(undo(Some(2)));
    cluster.converge();
    assert_eq!(cluster.history(), "3:3 4:4 5:2", "the same template, under a new number");
    assert_eq!(cluster.ordinals("db"), "0:2");
    cluster.ok(undo(None));
    cluster.converge();
    assert_eq!(cluster.history(), "3:3 5:2 6:4");
}

#[test]
fn a_taken_revision_name_is_passed_by() {
    let mut cluster = cluster(1, |_| ());
    cluster.converge();
    let first = cluster.get_stateful_set("db").status.update_revision.clone();
    // A DaemonSet of that name and template asks for the same name.
    cluster.ok(Command::Apply(crate::sets::daemon_set("db", |_| ())));
    cluster.converge();
    let other = cluster.get_daemon_set("db").status.clone();
    assert_eq!(other.collision_count, 1);
    assert_ne!(other.update_revision, first);
}

#[test]
fn a_restart_replaces_every_pod_in_order() {
    let mut cluster = cluster(2, |_| ());
    cluster.converge();
    let before: Vec<_> = cluster.active_pods().iter().map(|pod| pod.meta.id).collect();
    cluster.ok(Command::RestartRollout { deployment: db(), restarted_at: "2026-01-01T00:00:00Z".into() });
    cluster.settle();
    assert_eq!(cluster.ordinals("db"), "0:1 1:1~");
    cluster.converge();
    assert!(cluster.active_pods().iter().all(|pod| !before.contains(&pod.meta.id)));
}

#[test]
fn a_foreign_pod_of_that_name_is_waited_for() {
    let mut cluster = Cluster::new();
    cluster.nodes(1);
    cluster.ok(Command::Create(pod("db-0", pod_spec("other:9", 1, 1))));
    cluster.ok(Command::Apply(stateful_set("db", 1, |_| ())));
    cluster.converge();
    assert_eq!(cluster.ordinals("db"), "");
    let object = reference(Kind::Pod, "db-0");
    cluster.ok(Command::Delete { object, grace_ms: None, force: false });
    cluster.converge();
    cluster.advance(60_000);
    cluster.converge();
    assert_eq!(cluster.ordinals("db"), "0:1");
}

#[test]
fn what_it_owns_goes_with_it() {
    let mut cluster = cluster(2, |_| ());
    cluster.converge();
    cluster.ok(Command::Delete { object: db(), grace_ms: None, force: false });
    cluster.settle();
    assert!(cluster.state().pods().iter().all(|pod| pod.meta.is_deleting()), "they end gracefully");
    cluster.converge();
    assert_eq!((cluster.state().pods().len(), cluster.state().controller_revisions().len()), (0, 0));
}

#[test]
fn users_are_refused_what_must_not_change() {
    let mut cluster = cluster(1, |_| ());
    let mut check = |change: fn(&mut bulkhead_types::StatefulSetSpec), path: &str| {
        let mut set = cluster.get_stateful_set("db");
        change(&mut std::sync::Arc::make_mut(&mut set).spec);
        let refused = cluster.submit(vec![Command::Apply(Object::StatefulSet(set))]).unwrap_err();
        assert_eq!(refused.field, format!("StatefulSet default/db: {path}"), "{refused}");
    };
    check(|spec| spec.service_name = "other".into(), "spec.serviceName");
    check(|spec| spec.pod_management_policy = PodManagementPolicy::Parallel, "spec.podManagementPolicy");
    let refused = cluster.submit(vec![Command::Scale { object: db(), replicas: 1_000_001 }]).unwrap_err();
    assert_eq!(refused.reason, "must be at most 1000000");
    let refused = cluster.submit(vec![Command::SetPaused { deployment: db(), paused: true }]).unwrap_err();
    assert_eq!(refused.reason, "cannot be paused: a StatefulSet has no such field");
}

/// What a leader that looked at another State might ask for.
#[test]
fn stale_words_do_no_harm() {
    let mut cluster = cluster(3, |_| ());
    cluster.say(cluster.pod_at("db", 0), Say::Ready);
    cluster.settle();
    let set = cluster.get_stateful_set("db");
    let owner = OwnerRef { kind: Kind::StatefulSet, id: set.meta.id };
    let revision = cluster.state().controller_revisions().iter().next().unwrap().meta.id;
    let stamp = |ordinal: u32, text: &str| PodStamp {
        name: name(text),
        index: Some(ordinal),
        node: None,
        revision: Some(revision),
    };
    let generation = set.meta.generation;
    let mut create = |generation: u64, stamp: PodStamp| {
        let command = Command::CreateOwnedPods { owner, generation, pods: vec![stamp] };
        let before = cluster.state().pods().len();
        let refused = cluster.submit(vec![command]).is_err();
        (refused, cluster.state().pods().len() - before)
    };
    assert_eq!(create(generation, stamp(0, "db-0")), (false, 0), "the name is taken");
    assert_eq!(create(generation, stamp(2, "db-2")), (false, 0), "it is not its turn");
    assert_eq!(create(generation, stamp(9, "db-9")), (false, 0), "it is not wanted");
    assert_eq!(create(generation, stamp(2, "db-1")), (false, 0), "the name is another's");
    assert_eq!(create(generation, PodStamp { revision: None, ..stamp(2, "db-2") }), (false, 0));
    assert_eq!(create(generation + 1, stamp(2, "db-2")), (true, 0), "the spec is another");
    let pods = vec![cluster.pod_at("db", 0), cluster.pod_at("db", 1)];
    let delete =
        |generation| Command::DeleteOwnedPods { owner, generation, pods: pods.clone(), reason: "X".into() };
    cluster.ok(delete(generation));
    assert!(cluster.submit(vec![delete(generation + 1)]).is_err());
    assert_eq!(cluster.ordinals("db"), "0:1 1:1!", "both are wanted as they are");
    let objects = vec![(Kind::ControllerRevision, revision), (Kind::Pod, pods[0])];
    cluster.ok(Command::DeleteOwned { owner, objects });
    assert_eq!(cluster.history(), "1:1", "a template that is in use stays");
    let object =
        Object::ControllerRevision(cluster.state().controller_revisions().get(revision).unwrap().clone());
    let refused = cluster.submit(vec![Command::CreateOwned { owner, generation, object }]).unwrap_err();
    assert!(refused.reason.contains("taken") || refused.reason.contains("next template"), "{refused}");
    cluster.change_stateful_set("db", |spec| spec.template = image("db", 2));
    let delete = Command::DeleteOwnedPods { owner, generation: generation + 1, pods, reason: "X".into() };
    assert!(cluster.submit(vec![delete]).is_err(), "nobody knows the new template's revision yet");
}
