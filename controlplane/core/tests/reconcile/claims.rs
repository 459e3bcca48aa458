//! PersistentVolumeClaims over a real machine: where they are, what they let pods do, and how they end.

use std::sync::Arc;

use bulkhead_controlplane_core::intent::{intent_of, nodes_touched};
use bulkhead_controlplane_core::reconcile::ReconcileConfig;
use bulkhead_controlplane_core::{ChangeType, State};
use bulkhead_types::{
    AccessMode, Binding, BuiltinClass, ClaimPhase, ClaimRetention, Command, ContainerState, ContainerStatus,
    ContainerTermination, DELIVERY_LEVEL, DeploymentStrategy, EventKind, FEATURE_LEVEL_MAX, Kind,
    LABEL_VOLUMES_MAX, Namespace, Object, ObjectId, ObjectMeta, ObjectRef, ObjectStatus,
    PersistentVolumeClaim, PersistentVolumeClaimSpec, Pod, PodOptions, PodPhase, PodReport, PodSpec,
    PodStatus, Rare, Volume, VolumeSource,
};
use expect_test::{Expect, expect};

use crate::cron_autoscalers;
use crate::kit::{Cluster, GIB, Say, deployment, facts, name, pod, pod_spec, reference, rolling};
use crate::sets::stateful_set;
use crate::stateful_laws::data_claims;

fn claim(named: &str, change: impl FnOnce(&mut PersistentVolumeClaimSpec)) -> Object {
    let mut spec = PersistentVolumeClaimSpec {
        access_mode: AccessMode::ReadWriteOnce,
        storage_bytes: GIB,
        storage_class: BuiltinClass::Local,
        class: Default::default(),
        volume_name: Default::default(),
    };
    change(&mut spec);
    let meta = ObjectMeta::new(Some(name("default")), name(named));
    Object::PersistentVolumeClaim(Arc::new(PersistentVolumeClaim {
        meta,
        spec,
        source: Default::default(),
        status: Default::default(),
    }))
}

fn alone(spec: &mut PersistentVolumeClaimSpec) {
    spec.access_mode = AccessMode::ReadWriteOncePod;
}

/// A pod's spec that uses claims.
fn with_claims(mut spec: PodSpec, claims: &[&str]) -> PodSpec {
    let volume = |claim: &&str| Volume {
        name: (*claim).into(),
        source: VolumeSource::PersistentVolumeClaim { claim_name: (*claim).into(), read_only: false },
    };
    let volumes = claims.iter().map(volume).collect();
    spec.options = Rare::some(PodOptions { volumes, ..PodOptions::default() });
    spec
}

fn user(named: &str, cpu_millis: u64, claims: &[&str]) -> Command {
    Command::Create(pod(named, with_claims(pod_spec("web:1", cpu_millis, 1 << 20), claims)))
}

fn delete(kind: Kind, named: &str) -> Command {
    Command::Delete { object: reference(kind, named), grace_ms: None, force: false }
}

fn find(state: &State, named: &str) -> Option<Arc<PersistentVolumeClaim>> {
    state.claim(Some(&name("default")), named).cloned()
}

fn find_pod(cluster: &Cluster, named: &str) -> Arc<Pod> {
    match cluster.state().find_object(&reference(Kind::Pod, named)) {
        Some(Object::Pod(pod)) => pod,
        _ => panic!("no pod {named}"),
    }
}

/// Two nodes, a claim, and a pod that uses it.
fn cluster(change: impl FnOnce(&mut PersistentVolumeClaimSpec)) -> Cluster {
    let mut cluster = Cluster::new();
    cluster.volume_nodes(2);
    cluster.ok(Command::Create(claim("data", change)));
    cluster.ok(user("one", 1000, &["data"]));
    cluster.settle();
    cluster
}

#[test]
fn the_first_pod_decides_where_a_claim_is() {
    let mut cluster = Cluster::new();
    cluster.volume_nodes(3);
    cluster.ok(Command::Create(claim("data", |_| ())));
    cluster.settle();
    assert_eq!(find(cluster.state(), "data").unwrap().status.phase, ClaimPhase::Pending, "nobody needs it");
    cluster.ok(user("one", 1000, &["data"]));
    cluster.settle();
    let (data, one) = (find(cluster.state(), "data").unwrap(), find_pod(&cluster, "one"));
    assert_eq!((data.status.phase, data.status.node), (ClaimPhase::Bound, one.node));
    assert_eq!(
        (data.status.capacity_bytes, data.status.volume),
        (GIB, data.meta.id.uid(cluster.state().cluster_id().unwrap()))
    );
    let bound = cluster
        .transactions
        .iter()
        .find(|t| t.events.iter().any(|e| matches!(e.kind, EventKind::PodBound(_))));
    let binds = |e: &bulkhead_types::Event| {
        matches!(&e.kind, EventKind::StatusChanged { status: ObjectStatus::PersistentVolumeClaim(_), .. })
    };
    assert!(bound.unwrap().events.iter().any(binds), "both in one transaction");
    // The node has the least room of all, and gets the next ones nevertheless.
    for at in 0..3 {
        cluster.ok(user(&format!("next-{at}"), 1000, &["data"]));
    }
    cluster.settle();
    assert!(cluster.state().pods().iter().all(|pod| pod.node == one.node));
    let intent = intent_of(cluster.state(), one.node.unwrap()).unwrap();
    assert!(intent.pods.iter().all(|pod| pod.claims[0].uid == data.status.volume));
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
}

#[test]
fn pods_of_one_new_claim_are_placed_together() {
    let mut cluster = Cluster::new();
    cluster.volume_nodes(4);
    cluster.ok(Command::Create(claim("data", |_| ())));
    cluster.ok(Command::Create(claim("more", |_| ())));
    cluster.ok(user("one", 1000, &["data"]));
    cluster.ok(user("two", 1500, &["data", "more"]));
    cluster.settle();
    cluster.ok(user("three", 2000, &["more"]));
    cluster.settle();
    let node = find_pod(&cluster, "one").node;
    assert!(node.is_some() && cluster.state().pods().iter().all(|pod| pod.node == node));
}

/// Whether the claim `data` counts as used once its pod's agent has said these things of it; and in the intent, too.
#[track_caller]
fn check_used(level: u32, said: &[(PodPhase, ContainerState)], expected: bool) {
    let mut cluster = Cluster::at_level(ReconcileConfig::default(), level);
    cluster.volume_nodes(1);
    cluster.ok(Command::Create(claim("data", |_| ())));
    cluster.ok(user("one", 1000, &["data"]));
    cluster.settle();
    let one = find_pod(&cluster, "one");
    let node = one.node.expect("placed");
    for (sequence, (phase, state)) in (1..).zip(said) {
        let container = ContainerStatus {
            name: "init".into(),
            state: state.clone(),
            last_termination: None,
            restart_count: 0,
            ready: false,
            image_digest: "".into(),
        };
        let status = PodStatus { phase: *phase, init_containers: vec![container], ..PodStatus::default() };
        let reports = vec![PodReport { pod: one.meta.id, sequence, status, gone: false }];
        cluster.ok(Command::ReportPods { node, incarnation: 1, reports });
    }
    let data = find(cluster.state(), "data").unwrap();
    assert_eq!(data.status.first_used_at_ms.get().is_some(), expected, "{said:?}");
    assert_eq!(data.status.phase, ClaimPhase::Bound);
    cluster.ok(user("two", 1000, &["data"]));
    cluster.settle();
    let intent = intent_of(cluster.state(), node).unwrap();
    let used = |named| {
        let pod = intent.pods.iter().find(|pod| pod.name == name(named));
        pod.and_then(|pod| pod.claims.first()).map(|claim| claim.used)
    };
    let ended = said.iter().any(|(phase, _)| phase.is_terminal());
    assert_eq!((used("one"), used("two")), ((!ended).then_some(expected), Some(expected)));
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
}

#[test]
fn what_a_container_has_had_is_data_from_then_on() {
    let waiting = || ContainerState::Waiting { reason: "ContainerCreating".into(), message: String::new() };
    let running = || ContainerState::Running { started_at_ms: 5 };
    let ended = || {
        ContainerState::Terminated(Box::new(ContainerTermination {
            exit_code: 1,
            signal: 0,
            reason: "Error".into(),
            message: String::new(),
            started_at_ms: 5,
            finished_at_ms: 6,
        }))
    };
    let check = |said: &[_], expected| check_used(FEATURE_LEVEL_MAX, said, expected);
    check(&[], false);
    check(&[(PodPhase::Pending, waiting())], false);
    // The guest never came up: nothing was written, and the next pod may have the volume made.
    check(&[(PodPhase::Failed, waiting())], false);
    check(&[(PodPhase::Pending, running())], true);
    check(&[(PodPhase::Pending, ended())], true);
    check(&[(PodPhase::Failed, ended())], true);
    check(&[(PodPhase::Pending, waiting()), (PodPhase::Running, waiting())], true);
    check_used(DELIVERY_LEVEL, &[(PodPhase::Running, running())], false);
}

#[test]
fn the_first_use_is_logged_once_and_reaches_the_node() {
    let mut cluster = cluster(|_| ());
    let one = find_pod(&cluster, "one");
    cluster.say(one.meta.id, Say::Ready);
    let first = find(cluster.state(), "data").unwrap().status.first_used_at_ms.clone();
    let count = |cluster: &Cluster| {
        let events = cluster.transactions.iter().flat_map(|t| &t.events);
        events.filter(|e| matches!(&e.kind, EventKind::StatusChanged { .. })).count()
    };
    let before = count(&cluster);
    cluster.advance(1000);
    cluster.say(one.meta.id, Say::NotReady);
    assert_eq!(find(cluster.state(), "data").unwrap().status.first_used_at_ms, first);
    assert_eq!(count(&cluster), before);
}

/// What a pod `web` with claim `data` is told while it waits.
fn check_waits(setup: impl FnOnce(&mut Cluster), expected: Expect) {
    let mut cluster = cluster(|_| ());
    setup(&mut cluster);
    cluster.ok(user("web", 2000, &["data"]));
    cluster.settle();
    let web = find_pod(&cluster, "web");
    assert_eq!(web.node, None);
    expected.assert_eq(&web.status.message);
}

#[test]
fn a_pod_that_waits_for_a_claim_is_told_which() {
    let replace = |cluster: &mut Cluster, object: Object| {
        cluster.ok(delete(Kind::PersistentVolumeClaim, "data"));
        cluster.ok(delete(Kind::Pod, "one"));
        cluster.converge();
        cluster.ok(Command::Create(object));
    };
    check_waits(
        |cluster| {
            replace(cluster, claim("other", |_| ()));
        },
        expect!["PersistentVolumeClaim data does not exist: create it, or let the pod name another one"],
    );
    check_waits(
        |cluster| cluster.ok(delete(Kind::PersistentVolumeClaim, "data")),
        expect!["PersistentVolumeClaim data is being deleted"],
    );
    check_waits(
        |cluster| {
            replace(cluster, claim("data", alone));
            cluster.ok(user("owner", 1, &["data"]));
            cluster.settle();
        },
        expect!["PersistentVolumeClaim data is ReadWriteOncePod, and pod owner has it"],
    );
    check_waits(
        |cluster| {
            let node = find_pod(cluster, "one").node.unwrap();
            let node = cluster.state().nodes().get(node).unwrap().meta.name.clone();
            let filler = PodSpec { node_name: Some(node.as_str().into()), ..pod_spec("x:1", 14_000, 1) };
            cluster.ok(Command::Create(pod("filler", filler)));
            cluster.settle();
        },
        expect![[
            "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) didn't have PersistentVolumeClaim data, which is on node node-0."
        ]],
    );
    check_waits(
        |cluster| {
            let node = find_pod(cluster, "one").node.unwrap();
            cluster.silent.push(node);
            cluster.advance(120_000);
            let node = cluster.state().nodes().get(node).unwrap().meta.name.clone();
            cluster.ok(delete(Kind::Node, node.as_str()));
        },
        expect!["PersistentVolumeClaim data is lost with node node-0: delete it and create it anew"],
    );
    check_waits(
        |cluster| {
            replace(cluster, claim("data", |_| ()));
            for node in ["node-0", "node-1"] {
                cluster.node(node, facts(16_000, 64 * GIB, 100));
            }
        },
        expect!["0/2 nodes are available: 2 node(s) keep no volumes."],
    );
}

#[test]
fn a_pod_that_waits_is_placed_as_soon_as_its_claim_is_there() {
    let mut cluster = Cluster::new();
    cluster.volume_nodes(1);
    cluster.ok(user("one", 1000, &["data"]));
    cluster.settle();
    assert_eq!(find_pod(&cluster, "one").node, None);
    cluster.ok(Command::Create(claim("data", alone)));
    cluster.ok(user("two", 1000, &["data"]));
    cluster.settle();
    let (one, two) = (find_pod(&cluster, "one"), find_pod(&cluster, "two"));
    assert!(one.node.is_some() && two.node.is_none(), "one alone has it");
    cluster.say(one.meta.id, Say::Failed);
    cluster.settle();
    assert!(find_pod(&cluster, "two").node.is_some(), "what has ended has no guest");
}

/// What is left of a claim and whether its node was told to delete it, step by step.
fn check_end(change: fn(&mut PersistentVolumeClaimSpec), expected: &[&str]) {
    let mut cluster = cluster(change);
    let node = find_pod(&cluster, "one").node.unwrap();
    let look = |cluster: &Cluster| {
        let told = intent_of(cluster.state(), node).map_or(0, |intent| intent.deleted_volumes.len());
        match find(cluster.state(), "data") {
            Some(data) if data.meta.is_deleting() => format!("ends, {told} to delete"),
            Some(_) => format!("is there, {told} to delete"),
            None => format!("is gone, {told} to delete"),
        }
    };
    let mut seen = vec![look(&cluster)];
    cluster.ok(delete(Kind::PersistentVolumeClaim, "data"));
    cluster.settle();
    seen.push(look(&cluster));
    cluster.ok(delete(Kind::Pod, "one"));
    cluster.settle();
    seen.push(look(&cluster));
    cluster.agents();
    cluster.settle();
    seen.push(look(&cluster));
    cluster.delete_volumes();
    cluster.settle();
    seen.push(look(&cluster));
    assert_eq!(seen, expected);
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
}

#[test]
fn a_claim_ends_when_its_last_pod_has_and_its_data_as_its_class_says() {
    check_end(
        |_| (),
        &[
            "is there, 0 to delete",
            "ends, 0 to delete",
            "ends, 0 to delete",
            "ends, 1 to delete",
            "is gone, 0 to delete",
        ],
    );
    check_end(
        |spec| spec.storage_class = BuiltinClass::LocalRetain,
        &[
            "is there, 0 to delete",
            "ends, 0 to delete",
            "ends, 0 to delete",
            "is gone, 0 to delete",
            "is gone, 0 to delete",
        ],
    );
}

#[test]
fn a_claim_without_a_node_goes_at_once() {
    let mut cluster = Cluster::new();
    cluster.ok(Command::Create(claim("data", |_| ())));
    cluster.ok(delete(Kind::PersistentVolumeClaim, "data"));
    assert_eq!(find(cluster.state(), "data"), None);
}

#[test]
fn words_of_agents_delete_only_what_ends() {
    let mut cluster = cluster(|_| ());
    let data = find(cluster.state(), "data").unwrap();
    let node = data.status.node.unwrap();
    let other = cluster.state().nodes().iter().map(|n| n.meta.id).find(|id| *id != node).unwrap();
    let report = |node, incarnation| Command::ReportVolumes {
        node,
        incarnation,
        deleted: vec![data.meta.id, data.meta.id, ObjectId(1)],
    };
    cluster.ok(report(node, 1));
    cluster.ok(delete(Kind::PersistentVolumeClaim, "data"));
    cluster.ok(report(node, 1));
    assert!(find(cluster.state(), "data").is_some(), "a pod uses it");
    cluster.ok(delete(Kind::Pod, "one"));
    cluster.agents();
    cluster.ok(report(other, 1));
    assert!(cluster.submit(vec![report(node, 2)]).is_err(), "another session");
    assert!(find(cluster.state(), "data").is_some());
    cluster.ok(report(node, 1));
    assert_eq!(find(cluster.state(), "data"), None);
}

#[test]
fn an_end_reaches_the_node_that_keeps_it() {
    let mut cluster = cluster(|_| ());
    let node = find(cluster.state(), "data").unwrap().status.node.unwrap();
    let stamped = cluster.stamped("user:test", vec![delete(Kind::PersistentVolumeClaim, "data")]);
    let changes = cluster.apply(&stamped).changes;
    assert_eq!(changes.iter().map(|c| c.change_type).collect::<Vec<_>>(), [ChangeType::Modified]);
    assert_eq!(nodes_touched(cluster.state(), &changes[0]), [node]);
}

#[test]
fn a_namespace_takes_its_claims_with_it() {
    let mut cluster = Cluster::new();
    cluster.volume_nodes(1);
    let team = Namespace { meta: ObjectMeta::new(None, name("team")) };
    cluster.ok(Command::Create(Object::Namespace(Arc::new(team))));
    for mut object in [claim("data", |_| ()), pod("one", with_claims(pod_spec("x:1", 1, 1), &["data"]))] {
        object.meta_mut().namespace = Some(name("team"));
        cluster.ok(Command::Create(object));
    }
    cluster.settle();
    let object = ObjectRef { kind: Kind::Namespace, namespace: None, name: name("team") };
    cluster.ok(Command::Delete { object, grace_ms: None, force: false });
    cluster.settle();
    assert!(cluster.state().persistent_volume_claims().iter().all(|claim| claim.meta.is_deleting()));
    cluster.converge();
    assert_eq!(cluster.state().persistent_volume_claims().len(), 0);
    assert!(cluster.state().find(Kind::Namespace, None, &name("team")).is_none());
}

#[test]
fn what_a_lost_node_kept_is_lost() {
    let mut cluster = cluster(|_| ());
    let node = find(cluster.state(), "data").unwrap().status.node.unwrap();
    cluster.silent.push(node);
    cluster.advance(120_000);
    cluster.ok(delete(Kind::Node, "node-0"));
    let data = find(cluster.state(), "data").unwrap();
    assert_eq!((data.status.phase, data.status.node_name.as_str()), (ClaimPhase::Lost, "node-0"));
    cluster.ok(delete(Kind::PersistentVolumeClaim, "data"));
    assert_eq!(find(cluster.state(), "data"), None, "there is nobody to wait for");
}

/// Where a command is refused on top of others, and why.
fn check_refused(setup: Vec<Object>, command: Command, expected: Expect) {
    let mut cluster = Cluster::new();
    cluster.volume_nodes(1);
    setup.into_iter().for_each(|object| cluster.ok(Command::Create(object)));
    let refused = cluster.submit(vec![command]).unwrap_err();
    expected.assert_eq(&format!("{}: {}", refused.field, refused.reason));
}

fn one_notes() -> Object {
    deployment("web", 1, |spec| {
        spec.strategy = DeploymentStrategy::Recreate;
        spec.template.spec =
            bulkhead_types::Shared::new(with_claims(PodSpec::clone(&spec.template.spec), &["data"]));
    })
}

#[test]
fn what_would_share_a_volume_is_refused() {
    let shared = expect![[
        "Deployment default/web: spec.replicas: must be at most 1: all pods would use PersistentVolumeClaim data, which one guest at a time can have; a StatefulSet with volumeClaimTemplates gives each pod its own, and pods that say readOnly: true of it read together"
    ]];
    let scale = Command::Scale { object: reference(Kind::Deployment, "web"), replicas: 2 };
    check_refused(vec![one_notes()], scale, shared);
    check_refused(
        vec![one_notes()],
        Command::Create(cron_autoscalers::autoscaler(1, 3)),
        expect![[
            "HorizontalPodAutoscaler default/web: spec.maxReplicas: must be at most 1: all pods would use PersistentVolumeClaim data, which one guest at a time can have; a StatefulSet with volumeClaimTemplates gives each pod its own, and pods that say readOnly: true of it read together"
        ]],
    );
    check_refused(
        vec![cron_autoscalers::autoscaler(1, 3)],
        Command::Create(one_notes()),
        expect![[
            "Deployment default/web: spec.template.spec.volumes: HorizontalPodAutoscaler default/web may give it more than one pod, and all would use PersistentVolumeClaim data, which one guest at a time can have"
        ]],
    );
    let clock = |kind| {
        let jobs = vec![
            cron_autoscalers::job("few", "0 0 1 * * *", 1),
            cron_autoscalers::job("many", "0 0 2 * * *", 4),
        ];
        cron_autoscalers::object(cron_autoscalers::scaler(kind, jobs))
    };
    check_refused(
        vec![one_notes()],
        Command::Create(clock(Kind::Deployment)),
        expect![[
            "CronHorizontalPodAutoscaler default/clock: spec.jobs[1].targetSize: must be at most 1: all pods would use PersistentVolumeClaim data, which one guest at a time can have; a StatefulSet with volumeClaimTemplates gives each pod its own, and pods that say readOnly: true of it read together"
        ]],
    );
    check_refused(
        vec![cron_autoscalers::autoscaler(1, 1), clock(Kind::HorizontalPodAutoscaler)],
        Command::Apply(one_notes()),
        expect![[
            "Deployment default/web: spec.template.spec.volumes: CronHorizontalPodAutoscaler default/clock may give it more than one pod, and all would use PersistentVolumeClaim data, which one guest at a time can have"
        ]],
    );
}

/// The same pod, which only reads.
fn reading(mut spec: PodSpec, claims: &[&str]) -> PodSpec {
    spec = with_claims(spec, claims);
    let mut options = spec.options.get().cloned().unwrap_or_default();
    for volume in &mut options.volumes {
        let VolumeSource::PersistentVolumeClaim { read_only, .. } = &mut volume.source else { continue };
        *read_only = true;
    }
    spec.options = Rare::some(options);
    spec
}

#[test]
fn who_reads_is_told_apart_from_who_may_write() {
    use AccessMode::*;
    let modes = [
        (ReadWriteOnce, [false, true]),
        (ReadWriteOncePod, [false, false]),
        (ReadWriteOnceReadOnlyMany, [false, true]),
    ];
    for (mode, expected) in modes {
        let mut cluster = cluster(|spec| spec.access_mode = mode);
        cluster.ok(delete(Kind::Pod, "one"));
        cluster.settle();
        for (named, read_only) in [("writer", false), ("reader", true)] {
            let spec = pod_spec("web:1", 1, 1);
            let spec = if read_only { reading(spec, &["data"]) } else { with_claims(spec, &["data"]) };
            cluster.ok(Command::Create(pod(named, spec)));
        }
        cluster.settle();
        let told = ["writer", "reader"].map(|named| {
            let node = find_pod(&cluster, named).node.or(find(cluster.state(), "data").unwrap().status.node);
            let intent = intent_of(cluster.state(), node.unwrap()).unwrap();
            let found = intent.pods.iter().find(|pod| pod.name.as_str() == named);
            found.is_some_and(|pod| pod.claims[0].read_only)
        });
        assert_eq!(told, expected, "{mode:?}");
    }
}

#[test]
fn pods_that_read_share_a_claim() {
    let mut cluster = Cluster::new();
    cluster.volume_nodes(2);
    cluster.ok(Command::Create(claim("data", |_| ())));
    let readers = deployment("web", 3, |spec| {
        let pods = reading(PodSpec::clone(&spec.template.spec), &["data"]);
        spec.template.spec = bulkhead_types::Shared::new(pods);
    });
    cluster.ok(Command::Create(readers));
    cluster.ok(Command::Create(cron_autoscalers::autoscaler(1, 5)));
    cluster.settle();
    let node = find(cluster.state(), "data").unwrap().status.node.expect("bound");
    let intent = intent_of(cluster.state(), node).unwrap();
    assert_eq!(intent.pods.len(), 3);
    assert!(intent.pods.iter().all(|pod| pod.claims[0].read_only));
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
}

#[test]
fn a_claim_that_nobody_writes_to_does_not_grow() {
    let of = |storage_bytes| {
        let Object::PersistentVolumeClaim(mut made) = claim("copy", |_| ()) else { unreachable!() };
        let copy = Arc::make_mut(&mut made);
        copy.spec = PersistentVolumeClaimSpec {
            access_mode: AccessMode::ReadOnlyMany,
            storage_bytes,
            ..copy.spec.clone()
        };
        copy.source = Rare::some(bulkhead_types::ClaimSource {
            kind: bulkhead_types::ClaimSourceKind::VolumeSnapshot,
            name: "snap".into(),
        });
        Object::PersistentVolumeClaim(made)
    };
    check_refused(
        vec![of(GIB)],
        Command::Apply(of(2 * GIB)),
        expect![[
            "PersistentVolumeClaim default/copy: spec.resources.requests.storage: cannot grow: a file system grows in a guest that writes to it, and pods of a ReadOnlyMany claim only read"
        ]],
    );
}

#[test]
fn an_earlier_template_with_a_claim_is_checked_as_a_new_one() {
    let mut cluster = Cluster::new();
    cluster.volume_nodes(1);
    cluster.ok(Command::Create(one_notes()));
    cluster.settle();
    cluster.change("web", |spec| {
        spec.template.spec = bulkhead_types::Shared::new(pod_spec("web:2", 1, 1));
        (spec.replicas, spec.strategy) = (3, rolling(1, 0));
    });
    cluster.settle();
    let undo = Command::UndoRollout { deployment: reference(Kind::Deployment, "web"), to_revision: None };
    let refused = cluster.submit(vec![undo]).unwrap_err();
    assert!(refused.reason.starts_with("must be at most 1"), "{refused}");
}

#[test]
fn what_is_wanted_of_a_claim_cannot_change() {
    let check = |change: fn(&mut PersistentVolumeClaimSpec), expected: Expect| {
        check_refused(vec![claim("data", |_| ())], Command::Apply(claim("data", change)), expected);
    };
    check(
        |spec| spec.storage_bytes -= 1,
        expect![
            "PersistentVolumeClaim default/data: spec.resources.requests.storage: cannot shrink: what is stored might not fit"
        ],
    );
    check(
        |spec| (spec.storage_bytes, spec.storage_class) = (2 * GIB, BuiltinClass::LocalRetain),
        expect!["PersistentVolumeClaim default/data: spec.storageClassName: cannot change after creation"],
    );
    check(
        alone,
        expect!["PersistentVolumeClaim default/data: spec.accessModes: cannot change after creation"],
    );
    check(
        |spec| spec.storage_class = BuiltinClass::LocalRetain,
        expect!["PersistentVolumeClaim default/data: spec.storageClassName: cannot change after creation"],
    );
}

/// The claims that there are, those that end marked.
fn names(cluster: &Cluster) -> String {
    let shown = cluster
        .state()
        .persistent_volume_claims()
        .iter()
        .map(|claim| format!("{}{}", claim.meta.name, if claim.meta.is_deleting() { "!" } else { "" }));
    let mut shown: Vec<_> = shown.collect();
    shown.sort_unstable();
    shown.join(" ")
}

#[test]
fn a_stateful_sets_claims_follow_its_policy() {
    let set = |deleted, scaled| stateful_set("db", 2, |spec| spec.claims = data_claims(deleted, scaled));
    let (retain, gone) = (ClaimRetention::Retain, ClaimRetention::Delete);
    let check = |deleted, scaled, after_stop: &str, after_scale: &str, after_end: &str| {
        let mut cluster = Cluster::new();
        cluster.volume_nodes(2);
        cluster.ok(Command::Create(claim("data-db-x", |_| ())));
        cluster.ok(Command::Create(set(deleted, scaled)));
        cluster.converge();
        assert_eq!(names(&cluster), "data-db-0 data-db-1 data-db-x");
        let data = find(cluster.state(), "data-db-1").unwrap();
        let object = reference(Kind::StatefulSet, "db");
        for stopped in [true, false] {
            cluster.ok(Command::SetStopped { object: object.clone(), stopped });
            cluster.converge();
            assert_eq!(names(&cluster), after_stop);
        }
        assert_eq!(find(cluster.state(), "data-db-1").unwrap().meta.id, data.meta.id, "pods come back to it");
        cluster.ok(Command::Scale { object: object.clone(), replicas: 1 });
        cluster.converge();
        assert_eq!(names(&cluster), after_scale);
        cluster.ok(Command::Delete { object, grace_ms: None, force: false });
        cluster.converge();
        assert_eq!(names(&cluster), after_end);
    };
    let all = "data-db-0 data-db-1 data-db-x";
    check(retain, retain, all, all, all);
    check(retain, gone, all, "data-db-0 data-db-x", "data-db-0 data-db-x");
    check(gone, retain, all, all, "data-db-x");
    check(gone, gone, all, "data-db-0 data-db-x", "data-db-x");
}

#[test]
fn a_stateful_sets_templates_of_claims_cannot_change() {
    let set = |change: fn(&mut bulkhead_types::StatefulSetSpec)| {
        stateful_set("db", 1, |spec| {
            spec.claims = data_claims(ClaimRetention::Retain, ClaimRetention::Retain);
            change(spec);
        })
    };
    check_refused(
        vec![set(|_| ())],
        Command::Apply(set(|spec| spec.claims = Rare::NONE)),
        expect!["StatefulSet default/db: spec.volumeClaimTemplates: cannot change after creation"],
    );
    let mut cluster = Cluster::new();
    cluster.ok(Command::Create(set(|_| ())));
    let other = set(|spec| spec.claims = data_claims(ClaimRetention::Delete, ClaimRetention::Retain));
    cluster.ok(Command::Apply(other));
}

/// A node's label says how many claims its pods may use together.
fn limited(cluster: &mut Cluster, node: &str, max: &str) {
    let Some(Object::Node(mut found)) = cluster.state().find_object(&reference(Kind::Node, node)) else {
        panic!("no node {node}")
    };
    Arc::make_mut(&mut found).meta.labels.insert(LABEL_VOLUMES_MAX.into(), max.into());
    cluster.ok(Command::Apply(Object::Node(found)));
}

/// The documents' case: a node with 16 volumes takes no 17th, another one does.
#[test]
fn a_node_takes_as_many_claims_as_its_label_says() {
    let mut cluster = Cluster::new();
    cluster.volume_nodes(2);
    limited(&mut cluster, "node-0", "16");
    limited(&mut cluster, "node-1", "1");
    for n in 0..18 {
        let named = format!("data-{n}");
        cluster.ok(Command::Create(claim(&named, |_| ())));
        cluster.ok(user(&format!("pod-{n}"), 10, &[&named]));
    }
    cluster.advance(60_000);
    let on = |cluster: &Cluster, node: &str| {
        let id = cluster.state().find(Kind::Node, None, &name(node)).unwrap();
        cluster.state().pods_on(id).count()
    };
    assert_eq!((on(&cluster, "node-0"), on(&cluster, "node-1")), (16, 1));
    let waits: Vec<_> = cluster.state().pods().iter().filter(|pod| pod.node.is_none()).cloned().collect();
    assert_eq!(waits.len(), 1);
    let expected = "0/2 nodes are available: 2 node(s) exceed max volume count.";
    assert_eq!(waits[0].status.message, expected);
    // A pod with a claim that is used there already is no more; one without claims is not looked at.
    let shared =
        cluster.state().pods_on(cluster.state().find(Kind::Node, None, &name("node-1")).unwrap()).next();
    let shared = shared.unwrap().spec.claims().next().unwrap().to_string();
    cluster.ok(user("beside", 10, &[&shared]));
    cluster.ok(Command::Create(pod("plain", pod_spec("web:1", 10, 1 << 20))));
    cluster.advance(3000);
    assert!(find_pod(&cluster, "beside").node.is_some() && find_pod(&cluster, "plain").node.is_some());
    // decide asks again, whoever proposes.
    let node = cluster.state().find(Kind::Node, None, &name("node-1")).unwrap();
    let (pod, devices, networks) = (waits[0].meta.id, vec![], vec![]);
    let binding = Binding { pod, node, nodes_considered: 1, score: 0, devices, networks, cpus: Rare::NONE };
    cluster.ok(Command::BindPods { bindings: vec![binding] });
    assert_eq!(find_pod(&cluster, waits[0].meta.name.as_str()).node, None);
    limited(&mut cluster, "node-1", "2");
    cluster.advance(3000);
    assert_eq!(find_pod(&cluster, waits[0].meta.name.as_str()).node, Some(node));
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
}
