//! Manifests of PersistentVolumeClaims and of what uses them: what is read, what is printed, and what is refused where.

mod kit;

use bulkhead_manifest::to_yaml;
use bulkhead_types::{AccessMode, BuiltinClass, ClaimRetention, ClaimSourceKind, Object, VolumeSource};
use expect_test::{Expect, expect};
use kit::{NAMES, check, read};

#[test]
fn the_examples_are_read_whole_and_printed_as_the_same() {
    let of_claim = read(include_str!("../../../examples/persistent-volume-claim.yaml"));
    let of_set = read(include_str!("../../../examples/statefulset-volumes.yaml"));
    let of_snapshot = read(include_str!("../../../examples/volume-snapshot.yaml"));
    let of_shared = read(include_str!("../../../examples/volume-shared.yaml"));
    let of_class = read(include_str!("../../../examples/storage-class.yaml"));
    for object in of_claim.iter().chain(&of_set).chain(&of_snapshot).chain(&of_shared).chain(&of_class) {
        assert_eq!(read(&to_yaml(object, NAMES)), std::slice::from_ref(object));
    }
    let [Object::PersistentVolumeClaim(claim), Object::Deployment(user)] = &of_claim[..] else {
        panic!("a claim and its user, not {of_claim:?}")
    };
    let spec = &claim.spec;
    assert_eq!((spec.access_mode, spec.storage_class), (AccessMode::ReadWriteOnce, BuiltinClass::Local));
    assert_eq!(spec.storage_bytes, 64 << 20);
    let source = VolumeSource::PersistentVolumeClaim { claim_name: "notes".into(), read_only: false };
    assert_eq!(user.spec.template.spec.volumes()[0].source, source);
    let [Object::VolumeSnapshot(snapshot), Object::PersistentVolumeClaim(restored), _] = &of_snapshot[..]
    else {
        panic!("a snapshot and two claims, not {of_snapshot:?}")
    };
    assert_eq!(snapshot.spec.claim_name, "notes");
    let source = restored.source.get().expect("a source");
    assert_eq!((source.kind, source.name.as_str()), (ClaimSourceKind::VolumeSnapshot, "before-upgrade"));
    let [Object::PersistentVolumeClaim(shared), Object::Deployment(readers)] = &of_shared[..] else {
        panic!("a claim and who reads it, not {of_shared:?}")
    };
    assert_eq!(shared.spec.access_mode, AccessMode::ReadOnlyMany);
    assert_eq!((readers.spec.replicas, readers.spec.template.spec.written_claims().count()), (3, 0));
    let [Object::StatefulSet(set)] = &of_set[..] else { panic!("a StatefulSet, not {of_set:?}") };
    let claims = set.spec.claims.get().expect("claims");
    assert_eq!((claims.when_deleted, claims.when_scaled), (ClaimRetention::Retain, ClaimRetention::Delete));
    assert_eq!(claims.templates[0].spec.access_mode, AccessMode::ReadWriteOncePod);
}

fn check_claim(spec: &str, expected: Expect) {
    check(
        &format!("apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: c}}\nspec: {spec}\n"),
        expected,
    );
}

#[test]
fn mistakes_of_claims_are_named_with_path_and_reason() {
    check_claim(
        "{accessModes: [ReadWriteOncePod], resources: {requests: {storage: 1Gi}}}",
        expect![["accepted\n"]],
    );
    for accepted in [
        "{accessModes: [ReadOnlyMany, ReadWriteOnce], resources: {requests: {storage: 1Gi}}}",
        "{accessModes: [ReadOnlyMany], dataSource: {kind: PersistentVolumeClaim, name: a}, resources: {requests: {storage: 1Gi}}}",
    ] {
        check_claim(accepted, expect![["accepted\n"]]);
    }
    check_claim(
        "{accessModes: [ReadOnlyMany], resources: {requests: {storage: 1Gi}}}",
        expect![[r#"
        a.yaml:4:8 spec.accessModes: nobody could ever write to it: let it begin with something (dataSource), or add ReadWriteOnce
    "#]],
    );
    check_claim(
        "{accessModes: [], resources: {requests: {storage: 1Gi}}}",
        expect![[r#"
        a.yaml:4:21 spec.accessModes: must be one of ReadWriteOnce, ReadWriteOncePod and ReadOnlyMany, or ReadWriteOnce with ReadOnlyMany
    "#]],
    );
    check_claim(
        "{accessModes: [ReadOnce], resources: {requests: {storage: 1Gi}}}",
        expect![[r#"
        a.yaml:4:21 spec.accessModes: "ReadOnce" is not one of ReadWriteOnce, ReadWriteOncePod, ReadOnlyMany
    "#]],
    );
    check_claim(
        "{}",
        expect![[r#"
        a.yaml:4:7 spec.accessModes: is required
        a.yaml:4:7 spec.resources: is required
    "#]],
    );
    check_claim(
        "{accessModes: [ReadWriteMany], volumeMode: Block, storageClassName: fast, resources: {requests: {storage: 0}}}",
        expect![[r#"
            a.yaml:4:21 spec.accessModes: volumes are local to one node, and one guest at a time writes to them: ReadWriteMany is not possible; several pods of one node read by ReadOnlyMany
            a.yaml:4:50 spec.volumeMode: block devices are not given to containers yet: use Filesystem, or leave the field out
        "#]],
    );
    check_claim(
        "{accessModes: [ReadWriteOnce, ReadWriteOncePod], volumeName: pv, resources: {requests: {storage: 1Gi}}}",
        expect![[r#"
            a.yaml:4:21 spec.accessModes: ReadWriteOncePod is possible alone only
        "#]],
    );
    check_claim(
        "{accessModes: [ReadWriteOnce], resources: {requests: {storage: 0}, limits: {storage: 1Gi}}}",
        expect![[r#"
            a.yaml:4:61 spec.resources.requests.storage: must be more than nothing, and at most 2^53
            a.yaml:4:74 spec.resources.limits: not supported yet
        "#]],
    );
}

/// An object of a kind whose pods use the claim `data`.
fn user(kind: &str, api: &str, spec: &str, restart: &str) -> String {
    user_of("claimName: data", kind, api, spec, restart)
}

fn user_of(claim: &str, kind: &str, api: &str, spec: &str, restart: &str) -> String {
    let template = format!(
        "metadata: {{labels: {{a: b}}}}, spec: {{restartPolicy: {restart}, containers: [{{name: c, image: 'i:1'}}], \
         volumes: [{{name: v, persistentVolumeClaim: {{{claim}}}}}]}}"
    );
    format!(
        "apiVersion: {api}\nkind: {kind}\nmetadata: {{name: x}}\nspec: {{{spec}template: {{{template}}}}}\n"
    )
}

#[test]
fn what_reads_a_volume_together_is_accepted() {
    let set = "selector: {matchLabels: {a: b}}, replicas: 3, ";
    for (kind, api, spec, restart) in [
        ("Deployment", "apps/v1", set, "Always"),
        ("StatefulSet", "apps/v1", set, "Always"),
        ("ReplicaSet", "apps/v1", set, "Always"),
        ("Job", "batch/v1", "parallelism: 2, ", "Never"),
    ] {
        check(&user_of("claimName: data, readOnly: true", kind, api, spec, restart), expect![["accepted\n"]]);
    }
}

#[test]
fn what_would_share_a_volume_is_refused() {
    let deployment = |more: &str| {
        user("Deployment", "apps/v1", &format!("{more}, selector: {{matchLabels: {{a: b}}}}, "), "Always")
    };
    check(&deployment("strategy: {type: Recreate}"), expect![["accepted\n"]]);
    check(&deployment("strategy: {rollingUpdate: {maxSurge: 0}}"), expect![["accepted\n"]]);
    check(
        &deployment("replicas: 2"),
        expect![[r#"
        a.yaml:4:1 spec.strategy.rollingUpdate.maxSurge: must be 0: a new pod cannot have PersistentVolumeClaim data while the old one runs, so the rollout would never move; set it to 0, or the type to Recreate
        a.yaml:4:8 spec.replicas: must be at most 1: all pods would use PersistentVolumeClaim data, which one guest at a time can have; a StatefulSet with volumeClaimTemplates gives each pod its own, and pods that say readOnly: true of it read together
    "#]],
    );
    check(
        &deployment("strategy: {type: Canary, canary: {steps: [{pause: {}}]}}"),
        expect![[r#"
        a.yaml:4:8 spec.strategy: a delivery by steps runs old and new pods side by side, but PersistentVolumeClaim data is one guest's at a time: use Recreate
    "#]],
    );
    let set = "selector: {matchLabels: {a: b}}, ";
    check(
        &user("DaemonSet", "apps/v1", set, "Always"),
        expect![[r#"
        a.yaml:4:169 spec.template.spec.volumes[0].persistentVolumeClaim: is not possible in a DaemonSet: a claim is on one node, the pods are on many; use emptyDir, or a StatefulSet with volumeClaimTemplates
    "#]],
    );
    check(
        &user("StatefulSet", "apps/v1", &format!("{set}replicas: 2, "), "Always"),
        expect![[r#"
        a.yaml:4:41 spec.replicas: must be at most 1: all pods would use PersistentVolumeClaim data, which one guest at a time can have; a StatefulSet with volumeClaimTemplates gives each pod its own, and pods that say readOnly: true of it read together
    "#]],
    );
    check(
        &user("ReplicaSet", "apps/v1", &format!("{set}replicas: 2, "), "Always"),
        expect![[r#"
        a.yaml:4:41 spec.replicas: must be at most 1: all pods would use PersistentVolumeClaim data, which one guest at a time can have; a StatefulSet with volumeClaimTemplates gives each pod its own, and pods that say readOnly: true of it read together
    "#]],
    );
    check(
        &user("Job", "batch/v1", "parallelism: 2, ", "Never"),
        expect![[r#"
        a.yaml:4:8 spec.parallelism: must be at most 1: all pods would use PersistentVolumeClaim data, which one guest at a time can have; a StatefulSet with volumeClaimTemplates gives each pod its own, and pods that say readOnly: true of it read together
    "#]],
    );
}

#[test]
fn mistakes_of_pods_and_sets_are_named() {
    check(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec:\n  containers: [{name: c, image: 'i:1'}]\n  volumes:\n  \
         - {name: a, persistentVolumeClaim: {claimName: data}}\n  - {name: b, persistentVolumeClaim: {claimName: data}}\n  \
         - {name: c, persistentVolumeClaim: {claimName: Bad}}\n",
        expect![[r#"
            a.yaml:8:39 spec.volumes[1].persistentVolumeClaim.claimName: "data" is used twice in the pod: mount the one volume twice
            a.yaml:9:39 spec.volumes[2].persistentVolumeClaim.claimName: name "Bad" is invalid: must be 1 to 63 characters of a-z, 0-9 and '-', starting and ending with a letter or digit
        "#]],
    );
    let set = include_str!("../../../examples/statefulset-volumes.yaml");
    check(
        &set.replace("        name: data\n", "        name: log\n"),
        expect![[r#"
        a.yaml:35:15 spec.template.spec.containers[0].volumeMounts[0].name: "data" is no volume of the pod
    "#]],
    );
    let long = "a".repeat(60);
    check(
        &set.replace("name: data", &format!("name: {long}")),
        expect![[r#"
        a.yaml:18:9 spec.volumeClaimTemplates[0].metadata.name: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-store-1 would be too long for a claim's name
    "#]],
    );
    check(
        &set.replace("storage: 64Mi", "storage: 0").replace("Retain", "Keep"),
        expect![[r#"
        a.yaml:14:18 spec.persistentVolumeClaimRetentionPolicy.whenDeleted: "Keep" is not one of Retain, Delete
        a.yaml:23:13 spec.volumeClaimTemplates[0].spec.resources.requests.storage: must be more than nothing, and at most 2^53
    "#]],
    );
}

#[test]
fn storage_classes_are_read_with_what_is_possible() {
    let class = |more: &str| {
        format!("apiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata: {{name: gold}}\n{more}")
    };
    check(&class("provisioner: local.bulkhead.io\n"), expect![["accepted\n"]]);
    let whole = "provisioner: local.bulkhead.io\nreclaimPolicy: Retain\nvolumeBindingMode: WaitForFirstConsumer\n\
                 allowVolumeExpansion: true\nparameters: {driver: file, csi.storage.k8s.io/fstype: ext4}\n";
    check(&class(whole), expect![["accepted\n"]]);
    check(
        &class("reclaimPolicy: Recycle\n"),
        expect![[r#"
        a.yaml:1:1 provisioner: is required
        a.yaml:4:16 reclaimPolicy: "Recycle" is not one of Delete, Retain
    "#]],
    );
    check(
        &class(
            "provisioner: ebs.csi.aws.com\nvolumeBindingMode: Immediate\nmountOptions: [discard]\n\
             parameters: {driver: lvm, csi.storage.k8s.io/fstype: xfs, type: gp3}\n",
        ),
        expect![[r#"
            a.yaml:4:14 provisioner: volumes are local to their nodes: the only provisioner is local.bulkhead.io
            a.yaml:5:20 volumeBindingMode: a volume is made on the node of its first pod: use WaitForFirstConsumer, or leave the field out
            a.yaml:6:1 mountOptions: not supported yet
            a.yaml:7:22 parameters.driver: "lvm" is not one of file
            a.yaml:7:54 parameters.csi.storage.k8s.io/fstype: the only file system is ext4
            a.yaml:7:59 parameters.type: unknown field
        "#]],
    );
    check(
        &class("provisioner: local.bulkhead.io\n").replace("gold", "local"),
        expect![[r#"
        a.yaml:3:12 metadata.name: "local" is always there, and always the same
    "#]],
    );
    check(
        "apiVersion: v1\nkind: PersistentVolume\nmetadata: {name: pv}\nspec: {}\n",
        expect![[r#"
        a.yaml:4:7 spec.capacity: is required
        a.yaml:4:7 spec.node: is required
        a.yaml:4:7 spec.volume: is required
    "#]],
    );
    let volume = |spec: &str| {
        format!("apiVersion: v1\nkind: PersistentVolume\nmetadata: {{name: pv}}\nspec: {spec}\n")
    };
    check(
        &volume(
            "{capacity: {storage: 1Gi}, node: n, volume: here, claimRef: {name: a}, hostPath: {path: /a}}",
        ),
        expect![[r#"
            a.yaml:4:51 spec.volume: must be a UUID
            a.yaml:4:67 spec.claimRef.namespace: is required
            a.yaml:4:78 spec.hostPath: unknown field
        "#]],
    );
    // As it is printed, and without the claim that it was of.
    let uuid = "00000000-0000-0000-0000-000000000004";
    for claim in ["", ", claimRef: {namespace: default, name: data}"] {
        let text =
            format!("{{capacity: {{storage: 1Gi}}, storageClassName: gold, node: n, volume: {uuid}{claim}}}");
        let [volume] = &read(&volume(&text))[..] else { panic!("a volume") };
        assert_eq!(read(&to_yaml(volume, NAMES)), std::slice::from_ref(volume));
    }
}
