//! StorageClasses, and what retained claims leave behind, over a real machine.

use std::sync::Arc;

use bulkhead_controlplane_core::evolve::evolve;
use bulkhead_controlplane_core::intent::intent_of;
use bulkhead_controlplane_core::invariant::{self, Violation};
use bulkhead_types::{
    AccessMode, BuiltinClass, ClaimPhase, ClaimRetention, Command, Event, EventKind, Kind, Measure, Object,
    ObjectId, ObjectMeta, ObjectRef, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec,
    PersistentVolumeSpec, PodOptions, Rare, STORAGE_CLASS_LEVEL, StorageClass, StorageClassSpec, Transaction,
    Volume, VolumeSource,
};
use expect_test::{Expect, expect};

use crate::kit::{Cluster, GIB, name, pod, pod_spec, reference};
use crate::sets::stateful_set;
use crate::stateful_laws::data_claims;

fn class(named: &str, spec: StorageClassSpec) -> Object {
    Object::StorageClass(Arc::new(StorageClass { meta: ObjectMeta::new(None, name(named)), spec }))
}

fn retain() -> StorageClassSpec {
    StorageClassSpec { reclaim: BuiltinClass::LocalRetain, ..StorageClassSpec::default() }
}

fn claim(named: &str, class: Option<&str>, volume: Option<&str>, gib: u64) -> Object {
    let spec = PersistentVolumeClaimSpec {
        access_mode: AccessMode::ReadWriteOnce,
        storage_bytes: gib * GIB,
        storage_class: BuiltinClass::Local,
        class: class.map(smol_str::SmolStr::from).into(),
        volume_name: volume.map(smol_str::SmolStr::from).into(),
    };
    let (meta, status) = (ObjectMeta::new(Some(name("default")), name(named)), Default::default());
    Object::PersistentVolumeClaim(Arc::new(PersistentVolumeClaim { meta, spec, source: Rare::NONE, status }))
}

fn user(named: &str, claim: &str) -> Command {
    let mut spec = pod_spec("web:1", 1000, 1 << 20);
    let source = VolumeSource::PersistentVolumeClaim { claim_name: claim.into(), read_only: false };
    let volumes = vec![Volume { name: "v".into(), source }];
    spec.options = Rare::some(PodOptions { volumes, ..PodOptions::default() });
    Command::Create(pod(named, spec))
}

fn delete(kind: Kind, named: &str) -> Command {
    let object = match kind.is_namespaced() {
        true => reference(kind, named),
        false => ObjectRef { kind, namespace: None, name: name(named) },
    };
    Command::Delete { object, grace_ms: None, force: false }
}

fn find(cluster: &Cluster, named: &str) -> Option<Arc<PersistentVolumeClaim>> {
    cluster.state().claim(Some(&name("default")), named).cloned()
}

fn volumes(cluster: &Cluster) -> Vec<Arc<PersistentVolume>> {
    cluster.state().persistent_volumes().iter().cloned().collect()
}

#[track_caller]
fn check_refused(cluster: &mut Cluster, command: Command, expected: Expect) {
    let refused = cluster.submit(vec![command]).unwrap_err();
    expected.assert_eq(&format!("{}: {}; {}", refused.field, refused.reason, refused.remedy));
}

/// A pod uses the claim `data` of a class, and both are deleted.
fn use_and_delete(cluster: &mut Cluster, class_name: &str) {
    let mut object = claim("data", Some(class_name).filter(|name| !name.starts_with("local")), None, 1);
    if let (Object::PersistentVolumeClaim(claim), "local-retain") = (&mut object, class_name) {
        Arc::make_mut(claim).spec.storage_class = BuiltinClass::LocalRetain;
    }
    cluster.ok(Command::Create(object));
    cluster.ok(user("one", "data"));
    cluster.settle();
    cluster.agents();
    cluster.settle();
    assert!(find(cluster, "data").unwrap().status.first_used_at_ms.get().is_some());
    cluster.ok(delete(Kind::PersistentVolumeClaim, "data"));
    assert!(find(cluster, "data").is_some() && volumes(cluster).is_empty(), "its pod has it");
    cluster.ok(delete(Kind::Pod, "one"));
    cluster.agents();
    cluster.settle();
}

/// The same with a class made for it, which retains.
fn left_behind(class_name: &str, spec: StorageClassSpec) -> Cluster {
    let mut cluster = Cluster::new();
    cluster.volume_nodes(2);
    cluster.ok(Command::Create(class(class_name, spec)));
    use_and_delete(&mut cluster, class_name);
    assert!(find(&cluster, "data").is_none());
    cluster
}

#[test]
fn a_claim_takes_over_what_its_class_says() {
    let mut cluster = Cluster::new();
    cluster.volume_nodes(1);
    check_refused(
        &mut cluster,
        Command::Create(claim("data", Some("gold"), None, 1)),
        expect![
            "PersistentVolumeClaim default/data: spec.storageClassName: there is no StorageClass gold; create the StorageClass first, or name another one; local and local-retain are always there"
        ],
    );
    cluster.ok(Command::Create(class("gold", retain())));
    cluster.ok(Command::Create(claim("data", Some("gold"), None, 1)));
    let spec = find(&cluster, "data").unwrap().spec.clone();
    assert_eq!((spec.storage_class, spec.class_name()), (BuiltinClass::LocalRetain, "gold"));
    // Applied again it stays as it is, also when the class is another one by then.
    cluster.ok(delete(Kind::StorageClass, "gold"));
    cluster.ok(Command::Create(class("gold", StorageClassSpec::default())));
    cluster.ok(Command::Apply(claim("data", Some("gold"), None, 1)));
    assert_eq!(find(&cluster, "data").unwrap().spec, spec);
    check_refused(
        &mut cluster,
        Command::Apply(claim("data", Some("other"), None, 1)),
        expect![
            "PersistentVolumeClaim default/data: spec.storageClassName: cannot change after creation; delete the object and create it anew, or give the new one another name"
        ],
    );
    check_refused(
        &mut cluster,
        Command::Apply(claim("data", None, None, 1)),
        expect![
            "PersistentVolumeClaim default/data: spec.storageClassName: cannot change after creation; delete the object and create it anew, or give the new one another name"
        ],
    );
    check_refused(
        &mut cluster,
        Command::Apply(claim("data", Some("gold"), None, 2)),
        expect![
            "PersistentVolumeClaim default/data: spec.resources.requests.storage: cannot grow: StorageClass gold does not let claims grow; set allowVolumeExpansion of the class"
        ],
    );
    let grows = StorageClassSpec { allow_volume_expansion: true, ..StorageClassSpec::default() };
    cluster.ok(Command::Apply(class("gold", grows)));
    cluster.ok(Command::Apply(claim("data", Some("gold"), None, 2)));
    check_refused(
        &mut cluster,
        Command::Apply(class("gold", retain())),
        expect![
            "StorageClass gold: reclaimPolicy: cannot change after creation; delete the object and create it anew, or give the new one another name"
        ],
    );
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
}

#[test]
fn claims_of_a_class_are_counted_by_its_name() {
    let mut cluster = Cluster::new();
    cluster.ok(Command::Create(class("gold", StorageClassSpec::default())));
    for (at, of) in [Some("gold"), Some("gold"), None].into_iter().enumerate() {
        cluster.ok(Command::Create(claim(&format!("c{at}"), of, None, 2)));
    }
    let used = |cluster: &Cluster, measure: &Measure| {
        let level = bulkhead_controlplane_core::QuotaLevel::Namespace(name("default"));
        cluster.state().quota_use(&level).of(measure)
    };
    assert_eq!(used(&cluster, &Measure::class_storage("gold")), u128::from(4 * GIB));
    assert_eq!(used(&cluster, &Measure::class_claims("gold")), 2);
    assert_eq!(used(&cluster, &Measure::ClassClaims(BuiltinClass::Local)), 1);
    cluster.ok(delete(Kind::PersistentVolumeClaim, "c0"));
    assert_eq!(used(&cluster, &Measure::class_claims("gold")), 1);
    assert_eq!(invariant::check(cluster.state()), []);
}

#[test]
fn what_was_retained_is_listed_and_goes_when_somebody_says_so() {
    let mut cluster = left_behind("keep", retain());
    let [volume] = &volumes(&cluster)[..] else { panic!("one volume") };
    let spec = &volume.spec;
    assert_eq!((spec.claim_name.as_str(), spec.class_name(), spec.capacity_bytes), ("data", "keep", GIB));
    let node = spec.node;
    let deleted = |cluster: &Cluster| intent_of(cluster.state(), node).unwrap().deleted_volumes;
    assert_eq!(deleted(&cluster), []);
    cluster.ok(delete(Kind::PersistentVolume, volume.meta.name.as_str()));
    let [told] = &deleted(&cluster)[..] else { panic!("its node is told") };
    assert_eq!((told.id, told.uid), (volume.meta.id, spec.volume));
    let take = claim("again", Some("keep"), Some(volume.meta.name.as_str()), 1);
    check_refused(
        &mut cluster,
        Command::Create(take),
        expect![
            "PersistentVolumeClaim default/again: spec.volumeName: PersistentVolume pvc-1e78c4dc-5b08-59b8-8b0e-96da07fa684e is being deleted; "
        ],
    );
    let incarnation = cluster.state().nodes().get(node).unwrap().status.incarnation;
    cluster.ok(Command::ReportVolumes { node, incarnation, deleted: vec![volume.meta.id] });
    assert!(volumes(&cluster).is_empty());
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
}

#[test]
fn a_new_claim_takes_over_what_was_retained() {
    let mut cluster = left_behind("keep", retain());
    let [volume] = &volumes(&cluster)[..] else { panic!("one volume") };
    let named = volume.meta.name.as_str();
    // What became of the class is of no account: the volume stays what it was.
    cluster.ok(delete(Kind::StorageClass, "keep"));
    let mut refused = |object, expected| check_refused(&mut cluster, Command::Create(object), expected);
    refused(
        claim("again", None, Some(named), 1),
        expect![
            "PersistentVolumeClaim default/again: spec.volumeName: PersistentVolume pvc-1e78c4dc-5b08-59b8-8b0e-96da07fa684e is of class keep; set storageClassName: keep"
        ],
    );
    refused(
        claim("again", Some("keep"), Some(named), 2),
        expect![
            "PersistentVolumeClaim default/again: spec.volumeName: PersistentVolume pvc-1e78c4dc-5b08-59b8-8b0e-96da07fa684e has 1Gi; ask for at most 1Gi; the claim may grow later"
        ],
    );
    refused(
        claim("again", Some("keep"), Some("pvc-1"), 1),
        expect![
            "PersistentVolumeClaim default/again: spec.volumeName: PersistentVolume pvc-1: does not exist; name one that `bulkhead get pv` lists: what claims of reclaimPolicy Retain left"
        ],
    );
    cluster.ok(Command::Create(claim("again", Some("keep"), Some(named), 1)));
    assert!(volumes(&cluster).is_empty(), "it is the claim's");
    let again = find(&cluster, "again").unwrap();
    assert_eq!((again.status.phase, again.status.volume), (ClaimPhase::Bound, volume.spec.volume));
    assert_eq!(again.spec.storage_class, BuiltinClass::LocalRetain);
    check_refused(
        &mut cluster,
        Command::Create(claim("third", Some("keep"), Some(named), 1)),
        expect![
            "PersistentVolumeClaim default/third: spec.volumeName: PersistentVolume pvc-1e78c4dc-5b08-59b8-8b0e-96da07fa684e: does not exist; name one that `bulkhead get pv` lists: what claims of reclaimPolicy Retain left"
        ],
    );
    cluster.ok(user("two", "again"));
    cluster.settle();
    let intent = intent_of(cluster.state(), volume.spec.node).unwrap();
    assert!(intent.pods[0].claims[0].used, "it is never made anew");
    assert_eq!(intent.pods[0].claims[0].uid, volume.spec.volume);
    // It is left behind again, by the same name.
    cluster.ok(delete(Kind::PersistentVolumeClaim, "again"));
    cluster.ok(delete(Kind::Pod, "two"));
    cluster.agents();
    cluster.settle();
    assert_eq!(volumes(&cluster)[0].meta.name, volume.meta.name);
    assert_eq!(volumes(&cluster)[0].spec.claim_name, "again");
    assert_eq!(invariant::check(cluster.state()), []);
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
}

#[test]
fn another_namespace_gets_a_volume_once_an_operator_has_struck_the_claim_out() {
    let mut cluster = left_behind("keep", retain());
    let [volume] = &volumes(&cluster)[..] else { panic!("one volume") };
    let namespace = bulkhead_types::Namespace { meta: ObjectMeta::new(None, name("other")) };
    cluster.ok(Command::Create(Object::Namespace(Arc::new(namespace))));
    let mut stranger = claim("again", Some("keep"), Some(volume.meta.name.as_str()), 1);
    stranger.meta_mut().namespace = Some(name("other"));
    check_refused(
        &mut cluster,
        Command::Create(stranger.clone()),
        expect![
            "PersistentVolumeClaim other/again: spec.volumeName: PersistentVolume pvc-1e78c4dc-5b08-59b8-8b0e-96da07fa684e was of a claim of namespace default, as that was then; create the claim in namespace default, if that is still the same, or remove spec.claimRef of the PersistentVolume to give its data away"
        ],
    );
    let wanted = |change: &dyn Fn(&mut PersistentVolumeSpec)| {
        let mut wanted = PersistentVolume::clone(volume);
        // A document does not say these.
        (wanted.spec.node, wanted.spec.first_used_at_ms) = (ObjectId(0), Rare::NONE);
        wanted.spec.claim_namespace_id = ObjectId(0);
        change(&mut wanted.spec);
        Command::Apply(Object::PersistentVolume(Arc::new(wanted)))
    };
    cluster.ok(wanted(&|_| ()));
    assert_eq!(volumes(&cluster)[0].spec, volume.spec);
    check_refused(
        &mut cluster,
        wanted(&|spec| spec.capacity_bytes += 1),
        expect![
            "PersistentVolume pvc-1e78c4dc-5b08-59b8-8b0e-96da07fa684e: spec: cannot change but for claimRef: it says what there is; leave the rest as `get -o yaml` prints it"
        ],
    );
    check_refused(
        &mut cluster,
        wanted(&|spec| spec.claim_namespace = "other".into()),
        expect![
            "PersistentVolume pvc-1e78c4dc-5b08-59b8-8b0e-96da07fa684e: spec.claimRef: can only be removed: a claim takes the volume over by volumeName; leave the rest as `get -o yaml` prints it"
        ],
    );
    check_refused(
        &mut cluster,
        wanted(&|spec| spec.claim_name = "".into()),
        expect![[
            r#"PersistentVolume pvc-1e78c4dc-5b08-59b8-8b0e-96da07fa684e: spec.claimRef.name: name "" is invalid: must be 1 to 63 characters of a-z, 0-9 and '-', starting and ending with a letter or digit; "#
        ]],
    );
    cluster.ok(wanted(&|spec| (spec.claim_namespace, spec.claim_name) = Default::default()));
    assert_eq!(
        (volumes(&cluster)[0].phase(), volumes(&cluster)[0].spec.node),
        ("Available", volume.spec.node)
    );
    cluster.ok(Command::Create(stranger));
    assert!(volumes(&cluster).is_empty());
    let again = cluster.state().claim(Some(&name("other")), "again").unwrap();
    assert_eq!(again.status.volume, volume.spec.volume);
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
}

#[test]
fn a_namespace_that_is_made_anew_is_another_tenants() {
    let mut cluster = Cluster::new();
    cluster.volume_nodes(1);
    let namespace = || {
        let namespace = bulkhead_types::Namespace { meta: ObjectMeta::new(None, name("team")) };
        Command::Create(Object::Namespace(Arc::new(namespace)))
    };
    let within = |command: Command| match command {
        Command::Create(mut object) => {
            object.meta_mut().namespace = Some(name("team"));
            Command::Create(object)
        }
        other => other,
    };
    cluster.ok(namespace());
    cluster.ok(Command::Create(class("keep", retain())));
    cluster.ok(within(Command::Create(claim("data", Some("keep"), None, 1))));
    cluster.ok(within(user("one", "data")));
    cluster.converge();
    cluster.ok(delete(Kind::Namespace, "team"));
    cluster.converge();
    let [volume] = &volumes(&cluster)[..] else { panic!("one volume") };
    assert!(cluster.state().find(Kind::Namespace, None, &name("team")).is_none());
    cluster.ok(namespace());
    let take = within(Command::Create(claim("data", Some("keep"), Some(volume.meta.name.as_str()), 1)));
    check_refused(
        &mut cluster,
        take,
        expect![
            "PersistentVolumeClaim team/data: spec.volumeName: PersistentVolume pvc-1e78c4dc-5b08-59b8-8b0e-96da07fa684e was of a claim of namespace team, as that was then; create the claim in namespace team, if that is still the same, or remove spec.claimRef of the PersistentVolume to give its data away"
        ],
    );
}

#[test]
fn a_volume_of_two_is_noticed() {
    let mut cluster = left_behind("keep", retain());
    let [volume] = &volumes(&cluster)[..] else { panic!("one volume") };
    let mut second = PersistentVolume::clone(volume);
    let mut state = cluster.state().clone();
    let revision = state.revision() + 1;
    (second.meta.name, second.meta.id, second.meta.revision) = (name("second"), ObjectId(revision), revision);
    let kind = EventKind::ObjectCreated(Object::PersistentVolume(Arc::new(second)));
    let transaction = Transaction {
        request_id: uuid::Uuid::from_u128(1),
        actor: "user:test".into(),
        at_ms: cluster.now_ms,
        trace_context: None,
        outcome: Ok(revision),
        events: vec![Event { revision, kind }],
    };
    evolve(&mut state, &transaction);
    let found = invariant::check(&state);
    assert!(matches!(found[..], [Violation::VolumeTwice(_)]), "{found:?}");
    // What its node kept is forgotten with it.
    let node = cluster.state().nodes().get(volume.spec.node).unwrap().meta.name.clone();
    cluster.ok(Command::Delete {
        object: ObjectRef { kind: Kind::Node, namespace: None, name: node },
        grace_ms: None,
        force: true,
    });
    assert!(volumes(&cluster).is_empty());
}

#[test]
fn what_nobody_used_or_is_not_retained_leaves_nothing() {
    let mut cluster = Cluster::new();
    cluster.volume_nodes(1);
    cluster.ok(Command::Create(class("keep", retain())));
    cluster.ok(Command::Create(claim("data", Some("keep"), None, 1)));
    cluster.ok(user("one", "data"));
    cluster.settle();
    cluster.ok(Command::Delete { object: reference(Kind::Pod, "one"), grace_ms: Some(0), force: true });
    cluster.settle();
    assert!(find(&cluster, "data").unwrap().status.first_used_at_ms.get().is_none());
    cluster.ok(delete(Kind::PersistentVolumeClaim, "data"));
    assert!(find(&cluster, "data").is_none() && volumes(&cluster).is_empty());

    let mut cluster = Cluster::new();
    cluster.volume_nodes(1);
    cluster.ok(Command::Create(class("gone", StorageClassSpec::default())));
    use_and_delete(&mut cluster, "gone");
    assert!(find(&cluster, "data").unwrap().meta.is_deleting(), "its node deletes the data first");
    assert_eq!(cluster.delete_volumes(), 1);
    assert!(find(&cluster, "data").is_none() && volumes(&cluster).is_empty());
}

#[test]
fn below_its_level_there_are_no_classes_and_nothing_is_listed() {
    let mut cluster = Cluster::at_level(Default::default(), STORAGE_CLASS_LEVEL - 1);
    cluster.volume_nodes(1);
    check_refused(
        &mut cluster,
        Command::Create(class("keep", retain())),
        expect![
            "featureLevel: needs level 13, the cluster runs at level 12; upgrade every server, then run `bulkhead cluster feature-level set 13`"
        ],
    );
    check_refused(
        &mut cluster,
        Command::Create(claim("data", Some("keep"), None, 1)),
        expect![
            "featureLevel: needs level 13, the cluster runs at level 12; upgrade every server, then run `bulkhead cluster feature-level set 13`"
        ],
    );
    use_and_delete(&mut cluster, "local-retain");
    assert!(find(&cluster, "data").is_none() && volumes(&cluster).is_empty());
}

#[test]
fn sets_make_claims_of_their_classes() {
    let mut cluster = Cluster::new();
    cluster.volume_nodes(1);
    let mut claims = data_claims(ClaimRetention::Retain, ClaimRetention::Retain).get().unwrap().clone();
    claims.templates[0].spec.class = Rare::some("keep".into());
    let set = stateful_set("db", 1, |spec| spec.claims = Rare::some(claims.clone()));
    check_refused(
        &mut cluster,
        Command::Create(set.clone()),
        expect![
            "StatefulSet default/db: spec.volumeClaimTemplates[0].spec.storageClassName: there is no StorageClass keep; create the StorageClass first"
        ],
    );
    cluster.ok(Command::Create(class("keep", retain())));
    cluster.ok(Command::Create(set));
    cluster.settle();
    let [made] = &cluster.state().persistent_volume_claims().iter().collect::<Vec<_>>()[..] else {
        panic!("one claim")
    };
    assert_eq!((made.spec.class_name(), made.spec.storage_class), ("keep", BuiltinClass::LocalRetain));
    check_refused(
        &mut cluster,
        delete(Kind::StorageClass, "keep"),
        expect!["StorageClass keep: StatefulSet default/db makes claims of it; delete that first"],
    );
}

#[test]
fn snapshots_are_counted() {
    let mut cluster = Cluster::new();
    let hard = [(Measure::Count(Kind::VolumeSnapshot).into(), 1)].into_iter().collect();
    let meta = ObjectMeta::new(Some(name("default")), name("quota"));
    let (spec, status) = (bulkhead_types::ResourceQuotaSpec { hard }, Default::default());
    cluster.ok(Command::Create(Object::ResourceQuota(Arc::new(bulkhead_types::ResourceQuota {
        meta,
        spec,
        status,
    }))));
    let snapshot = |named: &str| {
        let meta = ObjectMeta::new(Some(name("default")), name(named));
        let spec = bulkhead_types::VolumeSnapshotSpec { claim_name: "data".into() };
        let status = Default::default();
        Command::Create(Object::VolumeSnapshot(Arc::new(bulkhead_types::VolumeSnapshot {
            meta,
            spec,
            status,
        })))
    };
    cluster.ok(snapshot("first"));
    check_refused(
        &mut cluster,
        snapshot("second"),
        expect![
            "VolumeSnapshot default/second: does not fit in ResourceQuota default/quota: count/volumesnapshots.snapshot.storage.k8s.io: 1 asked for, 0 of 1 left; ask for less, end what is not needed, or raise that quota"
        ],
    );
    cluster.ok(delete(Kind::VolumeSnapshot, "first"));
    cluster.ok(snapshot("second"));
}
