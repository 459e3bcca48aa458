//! PersistentVolumeClaims on the command line.

use expect_test::expect;

use super::{Fake, bulkhead_on, check, text, without_times};

#[tokio::test(flavor = "multi_thread")]
async fn get_and_describe_show_where_a_claim_is() {
    let fake = Fake::start().await;
    fake.put_manifest(include_str!("../../../examples/persistent-volume-claim.yaml"));
    let claims = expect![[r#"
        exit 0
        NAME    STATUS    NODE   CAPACITY   ACCESS MODES   STORAGECLASS   AGE
        notes   Pending                     RWO            local          90d
    "#]];
    check(&fake, &["get", "pvc"], claims).await;
    let output = bulkhead_on(&fake.address, &["describe", "pvc", "notes"]).await;
    expect![[r#"
        Name:              notes
        Namespace:         default
        Labels:            <none>
        Annotations:       <none>
        Revision:          1 (generation 1)
        Status:            Pending
        Access mode:       ReadWriteOnce
        Storage class:     local (its data is deleted with it)
        Requested:         64Mi
        Used by:           <none>
        Events:
          REVISION   AGE   ACTOR              EVENT      SUMMARY
          7          87d   system:scheduler   PodBound   bound to node-1
    "#]]
    .assert_eq(&without_times(&text(&output.stdout)));
    fake.put_manifest(include_str!("../../../examples/statefulset-volumes.yaml"));
    let output = bulkhead_on(&fake.address, &["describe", "sts", "store"]).await;
    let shown = without_times(&text(&output.stdout));
    let lines: Vec<_> =
        shown.lines().filter(|line| line.contains("laim") || line.contains("/var/data")).collect();
    expect![[r#"
        Volume claims:     data: 64Mi, ReadWriteOncePod, local
        Claims afterwards: Retain when deleted, Delete when scaled
            Mounts:        /var/data from data"#]]
    .assert_eq(&lines.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn classes_and_their_claims_are_shown() {
    let fake = Fake::start().await;
    fake.put_manifest(include_str!("../../../examples/storage-class.yaml"));
    check(
        &fake,
        &["get", "sc"],
        expect![[r#"
        exit 0
        NAME   PROVISIONER         RECLAIMPOLICY   VOLUMEBINDINGMODE      ALLOWVOLUMEEXPANSION   AGE
        kept   local.bulkhead.io   Retain          WaitForFirstConsumer   true                   90d
    "#]],
    )
    .await;
    check(
        &fake,
        &["get", "pvc"],
        expect![[r#"
        exit 0
        NAME     STATUS    NODE   CAPACITY   ACCESS MODES   STORAGECLASS   AGE
        ledger   Pending                     RWO,ROX        kept           90d
    "#]],
    )
    .await;
    let output = bulkhead_on(&fake.address, &["describe", "sc", "kept"]).await;
    expect![[r#"
        Name:              kept
        Labels:            <none>
        Annotations:       storageclass.kubernetes.io/is-default-class=true
        Revision:          1 (generation 1)
        Default:           yes
        Provisioner:       local.bulkhead.io
        Reclaim policy:    Retain
        Volume binding:    WaitForFirstConsumer
        Expansion:         allowed
        Events:
          REVISION   AGE   ACTOR              EVENT      SUMMARY
          7          87d   system:scheduler   PodBound   bound to node-1
    "#]]
    .assert_eq(&without_times(&text(&output.stdout)));
}

/// What a retained claim left.
fn volume(name: &str, claim: &str) -> String {
    format!(
        "apiVersion: v1\nkind: PersistentVolume\nmetadata: {{name: {name}}}\n\
         spec: {{capacity: {{storage: 64Mi}}, storageClassName: kept, node: node-1, \
         volume: 00000000-0000-0000-0000-000000000004{claim}}}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn what_retained_claims_left_is_shown_given_away_and_deleted() {
    let fake = Fake::start().await;
    fake.put_manifest(include_str!("../../../examples/storage-class.yaml"));
    fake.put_manifest(&volume("pvc-4", ", claimRef: {namespace: default, name: ledger}"));
    fake.put_manifest(&volume("pvc-5", ""));
    check(
        &fake,
        &["get", "pv"],
        expect![[r#"
        exit 0
        NAME    CAPACITY   NODE     STATUS      CLAIM            STORAGECLASS   AGE
        pvc-4   64Mi       node-1   Released    default/ledger   kept           90d
        pvc-5   64Mi       node-1   Available                    kept           90d
    "#]],
    )
    .await;
    let output = bulkhead_on(&fake.address, &["describe", "pv", "pvc-4"]).await;
    expect![[r#"
        Name:              pvc-4
        Labels:            <none>
        Annotations:       <none>
        Revision:          4 (generation 1)
        Status:            Released
        Claim:             default/ledger
        Capacity:          64Mi
        Storage class:     kept
        Node:              node-1
        Volume:            volumes/00000000-0000-0000-0000-000000000004.img in its agent's data directory, or bulkhead-volume-00000000-0000-0000-0000-000000000004 in LVM
        Take over:         a claim of namespace default with volumeName: pvc-4
        Events:
          REVISION   AGE   ACTOR              EVENT      SUMMARY
          7          87d   system:scheduler   PodBound   bound to node-1
    "#]]
    .assert_eq(&without_times(&text(&output.stdout)));
    let patch = ["patch", "pv", "pvc-4", "--patch", "{\"spec\":{\"claimRef\":null}}"];
    check(
        &fake,
        &patch,
        expect![[r#"
        exit 0
        persistentvolume/pvc-4 patched
    "#]],
    )
    .await;
    check(
        &fake,
        &["get", "pv", "pvc-4"],
        expect![[r#"
        exit 0
        NAME    CAPACITY   NODE     STATUS      CLAIM   STORAGECLASS   AGE
        pvc-4   64Mi       node-1   Available           kept           90d
    "#]],
    )
    .await;
    check(
        &fake,
        &["delete", "pv", "pvc-5"],
        expect![[r#"
        exit 0
        persistentvolume/pvc-5 deleted
    "#]],
    )
    .await;
}
