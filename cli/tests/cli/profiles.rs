//! Profiles and PriorityClasses on the command line.

use expect_test::expect;

use super::{Fake, bulkhead_on, check, text, without_times};

#[tokio::test(flavor = "multi_thread")]
async fn get_and_describe_show_what_pods_get() {
    let fake = Fake::start().await;
    fake.put_manifest(include_str!("../../../examples/profile.yaml"));
    let classes = expect![[r#"
        exit 0
        NAME    VALUE   GLOBAL DEFAULT   AGE
        batch   -100    false            90d
        usual   1000    true             90d
    "#]];
    check(&fake, &["get", "priorityclasses"], classes).await;
    let profiles = expect![[r#"
        exit 0
        NAME      RULES   AGE
        tenants   2       90d
    "#]];
    check(&fake, &["get", "profile"], profiles).await;
    let output = bulkhead_on(&fake.address, &["describe", "profile", "tenants"]).await;
    expect![[r#"
        Name:              tenants
        Labels:            <none>
        Annotations:       <none>
        Revision:          3 (generation 1)
        Rules, in order:
          overcommit:
            Namespaces:    bulkhead.io/overcommit=true
            Pods:          <all>
            CPU request:   50 % of the limit
            Memory request: 80 % of the limit
          batch:
            Namespaces:    <all>
            Pods:          workload=batch
            Add labels:    cost-center=batch
            Add node selector: pool=spot
            Add tolerations: 1
            Priority class: batch
        Events:
          REVISION   AGE   ACTOR              EVENT      SUMMARY
          7          87d   system:scheduler   PodBound   bound to node-1
    "#]]
    .assert_eq(&without_times(&text(&output.stdout)));
    let output = bulkhead_on(&fake.address, &["describe", "pc", "batch"]).await;
    expect![[r#"
        Name:              batch
        Labels:            <none>
        Annotations:       <none>
        Revision:          1 (generation 1)
        Value:             -100
        Global default:    no
        Preemption:        Never: its pods are placed first, running ones are not ended for them
        Description:       placed when nothing else waits
        Events:
          REVISION   AGE   ACTOR              EVENT      SUMMARY
          7          87d   system:scheduler   PodBound   bound to node-1
    "#]]
    .assert_eq(&without_times(&text(&output.stdout)));
}
