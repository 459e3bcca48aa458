//! Volumes that grow, snapshots, and claims that are made of something, over a real machine.

use std::sync::Arc;

use bulkhead_controlplane_core::State;
use bulkhead_controlplane_core::intent::{intent_of, nodes_touched};
use bulkhead_controlplane_core::invariant;
use bulkhead_controlplane_core::reconcile::ReconcileConfig;
use bulkhead_types::{
    AccessMode, BuiltinClass, ClaimSource, ClaimSourceKind, Command, Kind, Object, ObjectId, ObjectMeta,
    PersistentVolumeClaim, PersistentVolumeClaimSpec, Pod, PodOptions, Rare, VOLUMES_LEVEL, Volume,
    VolumeOrder, VolumeResult, VolumeSnapshot, VolumeSnapshotSpec, VolumeSource, VolumeTask,
};

use crate::kit::{Cluster, GIB, Say, name, pod, pod_spec, reference};

fn claim(named: &str, storage_bytes: u64, source: Option<(ClaimSourceKind, &str)>) -> Object {
    let (access_mode, storage_class) = (AccessMode::ReadWriteOnce, BuiltinClass::Local);
    let source = source.map(|(kind, name)| ClaimSource { kind, name: name.into() });
    Object::PersistentVolumeClaim(Arc::new(PersistentVolumeClaim {
        meta: ObjectMeta::new(Some(name("default")), name(named)),
        spec: PersistentVolumeClaimSpec {
            access_mode,
            storage_bytes,
            storage_class,
            class: Default::default(),
            volume_name: Default::default(),
        },
        source: Rare::from(source),
        status: Default::default(),
    }))
}

fn snapshot(named: &str, of: &str) -> Object {
    let meta = ObjectMeta::new(Some(name("default")), name(named));
    let spec = VolumeSnapshotSpec { claim_name: of.into() };
    Object::VolumeSnapshot(Arc::new(VolumeSnapshot { meta, spec, status: Default::default() }))
}

fn user(named: &str, claim: &str) -> Command {
    let mut spec = pod_spec("web:1", 1000, 1 << 20);
    let source = VolumeSource::PersistentVolumeClaim { claim_name: claim.into(), read_only: false };
    let volumes = vec![Volume { name: "v".into(), source }];
    spec.options = Rare::some(PodOptions { volumes, ..PodOptions::default() });
    Command::Create(pod(named, spec))
}

fn delete(kind: Kind, named: &str) -> Command {
    Command::Delete { object: reference(kind, named), grace_ms: None, force: false }
}

fn find(state: &State, named: &str) -> Arc<PersistentVolumeClaim> {
    state.claim(Some(&name("default")), named).cloned().unwrap_or_else(|| panic!("no claim {named}"))
}

fn find_snapshot(state: &State, named: &str) -> Option<Arc<VolumeSnapshot>> {
    state.volume_snapshot(Some(&name("default")), named).cloned()
}

fn find_pod(cluster: &Cluster, named: &str) -> Arc<Pod> {
    match cluster.state().find_object(&reference(Kind::Pod, named)) {
        Some(Object::Pod(pod)) => pod,
        _ => panic!("no pod {named}"),
    }
}

/// What the nodes are told to do with volumes, and to delete: `expand a to 2`, `restore b of s`, `delete s`.
fn told(cluster: &Cluster) -> Vec<String> {
    let state = cluster.state();
    let name_of = |id: ObjectId| {
        let claim = state.persistent_volume_claims().get(id).map(|claim| claim.meta.name.to_string());
        claim.or_else(|| state.volume_snapshots().get(id).map(|one| one.meta.name.to_string())).unwrap()
    };
    let mut told = Vec::new();
    for intent in state.nodes().iter().filter_map(|node| intent_of(state, node.meta.id)) {
        let of = |order: &VolumeOrder| {
            format!("{} {} to {}", order.task.as_str(), name_of(order.id), order.size_bytes / GIB)
        };
        told.extend(intent.volume_orders.iter().map(of));
        told.extend(intent.deleted_volumes.iter().map(|one| format!("delete {}", name_of(one.id))));
    }
    told
}

/// Agents do what they are told; `message` is what goes wrong. How many did something.
fn work(cluster: &mut Cluster, done: bool, message: &str) -> usize {
    let nodes: Vec<_> = cluster.state().nodes().iter().cloned().collect();
    let mut worked = 0;
    for node in nodes {
        let orders = intent_of(cluster.state(), node.meta.id).unwrap().volume_orders;
        let result = |order: &VolumeOrder| VolumeResult {
            id: order.id,
            task: order.task,
            size_bytes: if message.is_empty() { order.size_bytes } else { 0 },
            done,
            message: message.into(),
        };
        let results: Vec<_> = orders.iter().map(result).collect();
        if !results.is_empty() {
            worked += results.len();
            let (node, incarnation) = (node.meta.id, node.status.incarnation);
            cluster.ok(Command::ReportVolumeTasks { node, incarnation, results });
        }
    }
    cluster.settle();
    assert_eq!(invariant::check(cluster.state()), []);
    worked
}

/// Two nodes, a claim of 1 GiB, and a pod that uses it.
fn cluster() -> Cluster {
    let mut cluster = Cluster::new();
    cluster.volume_nodes(2);
    cluster.ok(Command::Create(claim("data", GIB, None)));
    cluster.ok(user("one", "data"));
    cluster.settle();
    cluster.say(find_pod(&cluster, "one").meta.id, Say::Ready);
    cluster.settle();
    cluster
}

fn grow(cluster: &mut Cluster, gib: u64) -> Result<(), String> {
    let command = Command::Apply(claim("data", gib * GIB, None));
    cluster.submit(vec![command]).map(drop).map_err(|refusal| format!("{refusal}"))
}

#[test]
fn a_claim_grows_and_never_shrinks() {
    let mut cluster = cluster();
    let node = find(cluster.state(), "data").status.node.unwrap();
    grow(&mut cluster, 3).unwrap();
    assert_eq!(told(&cluster), ["expand data to 3"]);
    let shrunk = grow(&mut cluster, 2).unwrap_err();
    assert!(shrunk.contains("cannot shrink"), "{shrunk}");
    let look = |cluster: &Cluster| {
        let data = find(cluster.state(), "data");
        let progress = data.status.progress.get().cloned().unwrap_or_default();
        (data.status.capacity_bytes / GIB, progress.file_bytes / GIB, progress.message.to_string())
    };
    work(&mut cluster, false, "no room");
    assert_eq!(look(&cluster), (1, 0, "no room".to_owned()));
    // The file only: no guest has it.
    work(&mut cluster, false, "");
    assert_eq!(look(&cluster), (1, 3, String::new()));
    assert_eq!(told(&cluster), ["expand data to 3"], "until the file system has it");
    grow(&mut cluster, 4).unwrap();
    work(&mut cluster, true, "");
    assert_eq!(look(&cluster), (4, 0, String::new()));
    assert_eq!(told(&cluster), [""; 0]);
    // What was reported is known; who else says so is not believed.
    let lie = |node| {
        let id = find(cluster.state(), "data").meta.id;
        let task = VolumeTask::Expand;
        let result = VolumeResult { id, task, size_bytes: 99 * GIB, done: true, message: "".into() };
        Command::ReportVolumeTasks { node, incarnation: 1, results: vec![result] }
    };
    let lies = [lie(node), lie(node)];
    lies.into_iter().for_each(|lie| cluster.ok(lie));
    assert_eq!(look(&cluster).0, 4);
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
}

#[test]
fn growing_is_charged_and_needs_its_level() {
    let mut before = Cluster::at_level(ReconcileConfig::default(), VOLUMES_LEVEL - 1);
    before.volume_nodes(1);
    before.ok(Command::Create(claim("data", GIB, None)));
    let refused = grow(&mut before, 2).unwrap_err();
    assert!(refused.contains("cannot grow"), "{refused}");
    assert!(before.submit(vec![Command::Create(snapshot("s", "data"))]).is_err());

    let mut cluster = cluster();
    cluster.ok(Command::Create(crate::quota_kit::quota(
        "default",
        "quota",
        &[("requests.storage", 4 * GIB)],
    )));
    let refused = grow(&mut cluster, 5).unwrap_err();
    assert!(refused.contains("requests.storage"), "{refused}");
    grow(&mut cluster, 3).unwrap();
    grow(&mut cluster, 4).unwrap();
    assert_eq!(invariant::check(cluster.state()), []);
}

#[test]
fn a_snapshot_is_taken_restored_and_deleted_in_order() {
    let mut cluster = cluster();
    let node = find(cluster.state(), "data").status.node.unwrap();
    // The snapshot comes before its claim's end, which waits for it.
    cluster.ok(Command::Create(snapshot("s", "data")));
    assert_eq!(told(&cluster), ["snapshot s to 1"]);
    cluster.ok(delete(Kind::Pod, "one"));
    cluster.agents();
    cluster.ok(delete(Kind::PersistentVolumeClaim, "data"));
    cluster.settle();
    assert_eq!(told(&cluster), ["snapshot s to 1"], "the claim is not deleted yet");
    work(&mut cluster, false, "no room");
    assert_eq!(find_snapshot(cluster.state(), "s").unwrap().status.message, "no room");
    work(&mut cluster, true, "");
    let taken = find_snapshot(cluster.state(), "s").unwrap().status.clone();
    assert!(
        taken.ready && taken.node == Some(node) && taken.restore_bytes == GIB && taken.message.is_empty()
    );
    assert_eq!(told(&cluster), ["delete data"]);
    cluster.delete_volumes();
    cluster.settle();
    assert!(cluster.state().claim(Some(&name("default")), "data").is_none());
    assert!(find_snapshot(cluster.state(), "s").unwrap().status.ready, "it needs nothing of its claim");

    // A claim of it is where it is, waits for its copy, and is no smaller.
    let of_s = Some((ClaimSourceKind::VolumeSnapshot, "s"));
    let small = cluster.submit(vec![Command::Create(claim("new", GIB - 1, of_s))]).unwrap_err();
    assert!(format!("{small}").contains("VolumeSnapshot s has 1Gi"), "{small}");
    cluster.ok(Command::Create(claim("new", 2 * GIB, of_s)));
    assert_eq!(told(&cluster), [""; 0], "it has no node yet");
    cluster.ok(user("two", "new"));
    cluster.settle();
    let pod = find_pod(&cluster, "two");
    assert_eq!(pod.node, Some(node));
    let claims = |cluster: &Cluster| {
        let intent = intent_of(cluster.state(), node).unwrap();
        let pod = intent.pods.into_iter().find(|one| one.id == pod.meta.id).unwrap();
        pod.claims.iter().map(|claim| (claim.size_bytes / GIB, claim.used)).collect::<Vec<_>>()
    };
    assert_eq!((told(&cluster), claims(&cluster)), (vec!["restore new to 1".to_owned()], vec![]));
    // The snapshot goes after its last copy.
    cluster.ok(delete(Kind::VolumeSnapshot, "s"));
    cluster.settle();
    assert_eq!(told(&cluster), ["restore new to 1"]);
    work(&mut cluster, true, "");
    assert_eq!(claims(&cluster), [(1, true)], "what is missing is never made empty");
    assert_eq!(told(&cluster), ["expand new to 2", "delete s"]);
    cluster.delete_volumes();
    work(&mut cluster, true, "");
    assert_eq!(find_snapshot(cluster.state(), "s"), None);
    assert_eq!(find(cluster.state(), "new").status.capacity_bytes, 2 * GIB);
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
}

#[test]
fn a_claim_is_cloned_where_its_source_is() {
    let mut cluster = cluster();
    let of_data = Some((ClaimSourceKind::PersistentVolumeClaim, "data"));
    for early in [
        claim("copy", GIB, of_data),
        claim("of-copy", GIB, Some((ClaimSourceKind::PersistentVolumeClaim, "copy"))),
    ] {
        cluster.ok(Command::Create(early));
    }
    cluster.ok(user("two", "of-copy"));
    cluster.ok(user("three", "copy"));
    cluster.settle();
    assert_eq!(find_pod(&cluster, "three").node, find_pod(&cluster, "one").node);
    assert_eq!(find_pod(&cluster, "two").node, None, "its source has no data yet");
    assert_eq!(told(&cluster), ["clone copy to 1"]);
    cluster.ok(delete(Kind::Pod, "one"));
    cluster.agents();
    cluster.ok(delete(Kind::PersistentVolumeClaim, "data"));
    cluster.settle();
    assert_eq!(told(&cluster), ["clone copy to 1"], "what is copied stays");
    work(&mut cluster, true, "");
    assert!(told(&cluster).contains(&"delete data".to_owned()));
    assert!(find_pod(&cluster, "two").node.is_some());
    assert_eq!(told(&cluster).len(), 2, "{:?}", told(&cluster));
}

#[test]
fn snapshots_that_wait_hold_nothing_up_for_ever() {
    let mut cluster = Cluster::new();
    cluster.volume_nodes(1);
    // Of nothing, and of a claim that no pod ever had: both go at once, and so does the claim.
    cluster.ok(Command::Create(snapshot("of-nothing", "gone")));
    cluster.ok(Command::Create(claim("data", GIB, None)));
    cluster.ok(Command::Create(snapshot("s", "data")));
    assert_eq!(told(&cluster), [""; 0]);
    cluster.ok(delete(Kind::PersistentVolumeClaim, "data"));
    for one in ["of-nothing", "s"] {
        cluster.ok(delete(Kind::VolumeSnapshot, one));
        assert_eq!(find_snapshot(cluster.state(), one), None);
    }
    assert!(cluster.state().claim(Some(&name("default")), "data").is_none());
}

#[test]
fn a_lost_node_loses_its_snapshots() {
    let mut cluster = cluster();
    let node = find(cluster.state(), "data").status.node.unwrap();
    let node_name = find(cluster.state(), "data").status.node_name.clone();
    let stamped = cluster.stamped("user:test", vec![Command::Create(snapshot("s", "data"))]);
    let changes = cluster.apply(&stamped).changes;
    assert_eq!(nodes_touched(cluster.state(), &changes[0]), [node]);
    work(&mut cluster, true, "");
    let force = Command::Delete {
        object: bulkhead_types::ObjectRef { kind: Kind::Node, namespace: None, name: name(&node_name) },
        grace_ms: None,
        force: true,
    };
    cluster.ok(delete(Kind::Pod, "one"));
    cluster.agents();
    cluster.ok(force);
    let lost = find_snapshot(cluster.state(), "s").unwrap();
    assert!(!lost.status.ready && lost.status.message.contains(node_name.as_str()), "{:?}", lost.status);
    assert_eq!(invariant::check(cluster.state()), []);
    cluster.ok(delete(Kind::VolumeSnapshot, "s"));
    assert_eq!(find_snapshot(cluster.state(), "s"), None);
}
