//! Quotas on the command line.

use bulkhead_proto::v1;
use expect_test::{Expect, expect};

use super::{Fake, bulkhead_on, check, text, without_times};

fn amount(resource: &str, amount: u64) -> v1::QuotaAmount {
    v1::QuotaAmount { resource: resource.to_owned(), amount }
}

/// The example, counted: the quota was lowered below its pods.
async fn with_quotas() -> Fake {
    let fake = Fake::start().await;
    fake.put_manifest(include_str!("../../../examples/quota.yaml"));
    fake.change_objects(|object| {
        let used = |used| Some(v1::QuotaStatus { hard: vec![], used });
        match object {
            v1::object::Object::ResourceQuota(one) => {
                one.status =
                    used(vec![amount("cpu", 9500), amount("pods", 51), amount("count/jobs.batch", 0)]);
            }
            v1::object::Object::Project(one) => one.status = used(vec![amount("requests.cpu", 12_000)]),
            v1::object::Object::Department(one) => one.status = used(vec![amount("pods", 60)]),
            _ => {}
        }
    });
    fake
}

#[tokio::test(flavor = "multi_thread")]
async fn quota_shows_used_hard_and_left_at_every_level() {
    let fake = with_quotas().await;
    check(&fake, &["quota", "-n", "shop"], expect![[r#"
        exit 0
        LEVEL                        RESOURCE                                             USED        HARD    LEFT
        ResourceQuota shop/compute   cpu                                                  9500m       10      500m
        ResourceQuota shop/compute   memory                                               <unknown>   40Gi    <unknown>
        ResourceQuota shop/compute   limits.cpu                                           <unknown>   20      <unknown>
        ResourceQuota shop/compute   pods                                                 51          50      0, over by 1
        ResourceQuota shop/compute   local.storageclass.storage.k8s.io/requests.storage   <unknown>   500Gi   <unknown>
        ResourceQuota shop/compute   count/jobs.batch                                     0           20      20
        Project shop                 requests.cpu                                         12          20      8
        Project shop                 requests.memory                                      <unknown>   80Gi    <unknown>
        Project shop                 requests.storage                                     <unknown>   1Ti     <unknown>
        Department sales             requests.cpu                                         <unknown>   40      <unknown>
        Department sales             requests.memory                                      <unknown>   160Gi   <unknown>
        Department sales             pods                                                 60          200     140
    "#]]).await;
    check(&fake, &["top", "quotas", "--project", "shop"], expect![[r#"
        exit 0
        LEVEL                        RESOURCE                                             USED        HARD    LEFT
        Project shop                 requests.cpu                                         12          20      8
        Project shop                 requests.memory                                      <unknown>   80Gi    <unknown>
        Project shop                 requests.storage                                     <unknown>   1Ti     <unknown>
        Department sales             requests.cpu                                         <unknown>   40      <unknown>
        Department sales             requests.memory                                      <unknown>   160Gi   <unknown>
        Department sales             pods                                                 60          200     140
        ResourceQuota shop/compute   cpu                                                  9500m       10      500m
        ResourceQuota shop/compute   memory                                               <unknown>   40Gi    <unknown>
        ResourceQuota shop/compute   limits.cpu                                           <unknown>   20      <unknown>
        ResourceQuota shop/compute   pods                                                 51          50      0, over by 1
        ResourceQuota shop/compute   local.storageclass.storage.k8s.io/requests.storage   <unknown>   500Gi   <unknown>
        ResourceQuota shop/compute   count/jobs.batch                                     0           20      20
    "#]]).await;
    check(
        &fake,
        &["quota", "--department", "sales"],
        expect![[r#"
        exit 0
        LEVEL              RESOURCE           USED        HARD    LEFT
        Department sales   requests.cpu       <unknown>   40      <unknown>
        Department sales   requests.memory    <unknown>   160Gi   <unknown>
        Department sales   pods               60          200     140
        Project shop       requests.cpu       12          20      8
        Project shop       requests.memory    <unknown>   80Gi    <unknown>
        Project shop       requests.storage   <unknown>   1Ti     <unknown>
    "#]],
    )
    .await;
    check(
        &fake,
        &["quota", "--department", "none"],
        expect![[r#"
        exit 3
        error: department/none not found
    "#]],
    )
    .await;
    check(
        &fake,
        &["quota"],
        expect![[r#"
        exit 3
        error: namespace/default not found
    "#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn get_and_describe_show_what_is_used() {
    let fake = with_quotas().await;
    for kind in ["quota", "limits"] {
        let output = bulkhead_on(&fake.address, &["-n", "shop", "get", kind]).await;
        let expected = match kind {
            "quota" => expect![[r#"
                NAME      USED/HARD                                                                                                                                                  AGE
                compute   cpu: 9500m/10, memory: ?/40Gi, limits.cpu: ?/20, pods: 51/50 (over), local.storageclass.storage.k8s.io/requests.storage: ?/500Gi, count/jobs.batch: 0/20   90d
            "#]],
            _ => expect![[r#"
                NAME    TYPES                              AGE
                usual   Container, PersistentVolumeClaim   90d
            "#]],
        };
        expected.assert_eq(&without_times(&text(&output.stdout)));
    }
    check(&fake, &["get", "project,department"], expect![[r#"
        exit 0
        NAME                       DEPARTMENT   USED/HARD                                                               AGE
        project.bulkhead.io/shop   sales        requests.cpu: 12/20, requests.memory: ?/80Gi, requests.storage: ?/1Ti   90d

        NAME                           USED/HARD                                                    AGE
        department.bulkhead.io/sales   requests.cpu: ?/40, requests.memory: ?/160Gi, pods: 60/200   90d
    "#]]).await;
}

/// What `describe` prints, without the times.
async fn check_described(fake: &Fake, what: [&str; 2], expected: Expect) {
    let output = bulkhead_on(&fake.address, &["-n", "shop", "describe", what[0], what[1]]).await;
    expected.assert_eq(&without_times(&text(&output.stdout)));
}

#[tokio::test(flavor = "multi_thread")]
async fn describe_shows_levels_in_full() {
    let fake = with_quotas().await;
    let quota = expect![[r#"
                Name:              compute
                Namespace:         shop
                Labels:            <none>
                Annotations:       <none>
                Revision:          4 (generation 1)
                Quota:
                  RESOURCE                                             USED        HARD    LEFT
                  cpu                                                  9500m       10      500m
                  memory                                               <unknown>   40Gi    <unknown>
                  limits.cpu                                           <unknown>   20      <unknown>
                  pods                                                 51          50      0, over by 1
                  local.storageclass.storage.k8s.io/requests.storage   <unknown>   500Gi   <unknown>
                  count/jobs.batch                                     0           20      20
                Events:
                  REVISION   AGE   ACTOR              EVENT      SUMMARY
                  7          87d   system:scheduler   PodBound   bound to node-1
            "#]];
    check_described(&fake, ["quota", "compute"], quota).await;
    let project = expect![[r#"
                Name:              shop
                Labels:            <none>
                Annotations:       <none>
                Revision:          2 (generation 1)
                Department:        sales
                Quota:
                  RESOURCE           USED        HARD   LEFT
                  requests.cpu       12          20     8
                  requests.memory    <unknown>   80Gi   <unknown>
                  requests.storage   <unknown>   1Ti    <unknown>
                Events:
                  REVISION   AGE   ACTOR              EVENT      SUMMARY
                  7          87d   system:scheduler   PodBound   bound to node-1
            "#]];
    check_described(&fake, ["project", "shop"], project).await;
    let department = expect![[r#"
                Name:              sales
                Labels:            <none>
                Annotations:       <none>
                Revision:          1 (generation 1)
                Quota:
                  RESOURCE          USED        HARD    LEFT
                  requests.cpu      <unknown>   40      <unknown>
                  requests.memory   <unknown>   160Gi   <unknown>
                  pods              60          200     140
                Events:
                  REVISION   AGE   ACTOR              EVENT      SUMMARY
                  7          87d   system:scheduler   PodBound   bound to node-1
            "#]];
    check_described(&fake, ["department", "sales"], department).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn describe_shows_bounds_in_full() {
    let fake = with_quotas().await;
    let limits = expect![[r#"
                Name:              usual
                Namespace:         shop
                Labels:            <none>
                Annotations:       <none>
                Revision:          5 (generation 1)
                Limits:
                  TYPE                    RESOURCE   MIN   MAX     DEFAULT REQUEST   DEFAULT LIMIT   MAX LIMIT/REQUEST RATIO
                  Container               cpu        -     4       100m              500m            10
                  Container               memory     -     8Gi     128Mi             512Mi           -
                  PersistentVolumeClaim   storage    1Gi   100Gi   -                 -               -
                Events:
                  REVISION   AGE   ACTOR              EVENT      SUMMARY
                  7          87d   system:scheduler   PodBound   bound to node-1
            "#]];
    check_described(&fake, ["limits", "usual"], limits).await;
}

/// The example of a tree, counted: training has borrowed.
async fn with_tree() -> Fake {
    let fake = Fake::start().await;
    fake.put_manifest(include_str!("../../../examples/elastic-quota.yaml"));
    fake.change_objects(|object| {
        let v1::object::Object::ElasticQuotaTree(tree) = object else { return };
        let level = |name: &str, cpu_millis, cards| v1::ElasticQuotaUse {
            name: name.to_owned(),
            used: vec![amount("cpu", cpu_millis), amount("requests.nvidia.com/gpu", cards)],
        };
        let levels = vec![
            level("root", 30_500, 4),
            level("root.training", 25_000, 4),
            level("root.inference", 5500, 0),
        ];
        tree.status = Some(v1::ElasticQuotaTreeStatus { observed_generation: 1, levels });
    });
    fake
}

#[tokio::test(flavor = "multi_thread")]
async fn quota_shows_used_min_max_and_borrowed_at_every_level_of_the_tree() {
    let fake = with_tree().await;
    check(
        &fake,
        &["quota", "--elastic"],
        expect![[r#"
        exit 0
        LEVEL              RESOURCE                  USED     MIN   MAX       BORROWED
        root               cpu                       30500m   40    40        0
        root               requests.nvidia.com/gpu   4        4     4         0
          root.training    cpu                       25       10    30        15
          root.training    requests.nvidia.com/gpu   4        1     4         3
          root.inference   cpu                       5500m    20    40        0
          root.inference   requests.nvidia.com/gpu   0        2     <above>   0
    "#]],
    )
    .await;
    check(
        &fake,
        &["top", "quotas", "-n", "training"],
        expect![[r#"
        exit 0
        LEVEL             RESOURCE                  USED     MIN   MAX   BORROWED
        root              cpu                       30500m   40    40    0
        root              requests.nvidia.com/gpu   4        4     4     0
          root.training   cpu                       25       10    30    15
          root.training   requests.nvidia.com/gpu   4        1     4     3
    "#]],
    )
    .await;
    check(
        &fake,
        &["quota", "-n", "kube-system"],
        expect![[r#"
        exit 0
        No quota limits namespace kube-system or above it
    "#]],
    )
    .await;
    let none = Fake::start().await;
    check(
        &none,
        &["quota", "--elastic"],
        expect![[r#"
        exit 3
        error: elasticquotatree not found
    "#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn get_and_describe_show_the_levels_of_the_tree() {
    let fake = with_tree().await;
    let output = bulkhead_on(&fake.address, &["-n", "kube-system", "get", "eqt"]).await;
    expect![[r#"
        NAME                 LEVELS   NAMESPACES   USED/MAX                                       AGE
        elastic-quota-tree   3        2            cpu: 30500m/40, requests.nvidia.com/gpu: 4/4   90d
    "#]]
    .assert_eq(&without_times(&text(&output.stdout)));
    let output =
        bulkhead_on(&fake.address, &["-n", "kube-system", "describe", "eqt", "elastic-quota-tree"]).await;
    expect![[r#"
        Name:              elastic-quota-tree
        Namespace:         kube-system
        Labels:            <none>
        Annotations:       <none>
        Revision:          4 (generation 1)
        Levels:
          LEVEL              RESOURCE                  USED     MIN   MAX       BORROWED
          root               cpu                       30500m   40    40        0
          root               requests.nvidia.com/gpu   4        4     4         0
            root.training    cpu                       25       10    30        15
            root.training    requests.nvidia.com/gpu   4        1     4         3
            root.inference   cpu                       5500m    20    40        0
            root.inference   requests.nvidia.com/gpu   0        2     <above>   0
        Namespaces:
          NAMESPACE   LEVEL
          training    root.training
          inference   root.inference
        Events:
          REVISION   AGE   ACTOR              EVENT      SUMMARY
          7          87d   system:scheduler   PodBound   bound to node-1
    "#]]
    .assert_eq(&without_times(&text(&output.stdout)));
}
