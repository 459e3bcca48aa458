//! Who manages which fields: what `decide` lets an edit do, and what commands take over.

use bulkhead_types::{
    Command, FieldSet, Kind, MANAGERS_MAX, ManagerOperation, Managers, Object, RejectionCode, WORKLOADS_LEVEL,
};

use crate::kit::{Cluster, deployment, reference};

/// A Deployment as a manifest makes it that says so many replicas.
fn applied(replicas: u32) -> Object {
    let mut object = deployment("web", replicas, |_| ());
    let mut fields = FieldSet::default();
    fields.insert(&["spec", "replicas"]);
    fields.insert(&["spec", "template"]);
    let mut managers = Managers::default();
    managers.set("cli", ManagerOperation::Apply, fields);
    object.meta_mut().set_managers(managers);
    object
}

fn managers(cluster: &Cluster) -> Vec<String> {
    let managers = cluster.get_deployment("web").meta.managers.get().cloned().unwrap_or_default();
    managers.managers.iter().map(|m| format!("{} {:?} {}", m.manager, m.operation, m.fields)).collect()
}

fn seen(cluster: &Cluster) -> Option<u128> {
    Some(cluster.get_deployment("web").meta.edit_digest())
}

#[test]
fn an_edit_holds_only_for_what_it_was_decided_on() {
    let mut cluster = Cluster::new();
    cluster.nodes(1);
    cluster.ok(Command::Update { object: applied(2), seen: None });
    assert_eq!(managers(&cluster), ["cli Apply spec{replicas,template}"]);
    let refused = cluster.submit(vec![Command::Update { object: applied(2), seen: None }]).unwrap_err();
    assert_eq!(refused.code, RejectionCode::Conflict);
    assert_eq!(refused.to_string(), "Deployment default/web: changed meanwhile; try again");
    let before = seen(&cluster);
    // What pods do changes the status only: that is in nobody's way.
    cluster.converge();
    cluster.ok(Command::Update { object: applied(3), seen: before });
    let stale = cluster.submit(vec![Command::Update { object: applied(4), seen: before }]).unwrap_err();
    assert_eq!(stale.code, RejectionCode::Conflict);
    assert_eq!(cluster.get_deployment("web").spec.replicas, 3);
    let gone = reference(Kind::Deployment, "web");
    let seen = seen(&cluster);
    cluster.ok(Command::Delete { object: gone, grace_ms: None, force: false });
    let refused = cluster.submit(vec![Command::Update { object: applied(3), seen }]).unwrap_err();
    assert_eq!(refused.code, RejectionCode::Conflict, "it is gone, and is not made again");
}

#[test]
fn commands_take_over_what_they_set() {
    let mut cluster = Cluster::new();
    cluster.ok(Command::Update { object: applied(2), seen: None });
    let web = || reference(Kind::Deployment, "web");
    cluster.ok(Command::Scale { object: web(), replicas: 5 });
    assert_eq!(managers(&cluster), ["cli Apply spec{template}", "scale Update spec{replicas}"]);
    let revision = cluster.state().revision();
    cluster.ok(Command::Scale { object: web(), replicas: 5 });
    assert_eq!(cluster.state().revision(), revision, "nothing more to say");
    cluster.ok(Command::SetPaused { deployment: web(), paused: true });
    cluster.ok(Command::SetStopped { object: web(), stopped: true });
    assert_eq!(
        managers(&cluster),
        ["cli Apply spec{template}", "lifecycle Update spec{paused,stopped}", "scale Update spec{replicas}"]
    );
    assert_eq!(cluster.replayed().digest(), cluster.state().digest(), "the transactions say it all");
}

#[test]
fn there_is_a_bound_on_managers() {
    let mut cluster = Cluster::new();
    let mut object = applied(1);
    let mut managers = Managers::default();
    for n in 0..=MANAGERS_MAX {
        let mut fields = FieldSet::default();
        fields.insert(&["metadata", "labels", "app"]);
        managers.set(&format!("tool-{n:02}"), ManagerOperation::Apply, fields);
    }
    object.meta_mut().set_managers(managers);
    let refused = cluster.submit(vec![Command::Update { object, seen: None }]).unwrap_err();
    assert_eq!(refused.code, RejectionCode::Invalid);
    assert!(refused.reason.contains("at most 16 managers"), "{refused}");
}

#[test]
fn older_members_are_not_told_of_managers() {
    assert_eq!(Command::Update { object: applied(1), seen: None }.feature_level(), WORKLOADS_LEVEL);
    assert_eq!(Command::Apply(applied(1)).feature_level(), WORKLOADS_LEVEL);
    let stop = Command::SetStopped { object: reference(Kind::Deployment, "web"), stopped: true };
    assert_eq!(stop.feature_level(), WORKLOADS_LEVEL);
    assert_eq!(Command::Apply(deployment("web", 1, |_| ())).feature_level(), 1);
    assert_eq!(
        Command::Apply(deployment("web", 1, |spec| spec.stopped = true)).feature_level(),
        WORKLOADS_LEVEL
    );
}
