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
