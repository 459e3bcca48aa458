//! StatefulSets and DaemonSets on the command line.

use bulkhead_proto::v1;
use expect_test::expect;

use crate::fake::Fake;
use crate::{bulkhead_on, check, text};

const DB: &str = include_str!("../../../examples/statefulset.yaml");
const LOG: &str = include_str!("../../../examples/daemonset.yaml");

async fn fake() -> Fake {
    let fake = Fake::start().await;
    fake.put_manifest(DB);
    fake.put_manifest(LOG);
    fake
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stateful_set_is_scaled_and_a_daemon_set_is_not() {
    let fake = fake().await;
    check(
        &fake,
        &["scale", "statefulset/db", "--replicas", "5"],
        expect![[r#"
        exit 0
        statefulset.apps/db scaled
    "#]],
    )
    .await;
    check(
        &fake,
        &["scale", "daemonset/log", "--replicas", "5"],
        expect![[r#"
        exit 2
        error: DaemonSet default/log has no replicas: it has one pod on every node that suits
    "#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_are_restarted_and_undone_but_not_paused() {
    let fake = fake().await;
    check(
        &fake,
        &["rollout", "restart", "statefulset/db"],
        expect![[r#"
        exit 0
        statefulset.apps/db restarted
    "#]],
    )
    .await;
    check(
        &fake,
        &["rollout", "undo", "daemonset", "log", "--to-revision", "3"],
        expect![[r#"
        exit 0
        daemonset.apps/log rolled back
    "#]],
    )
    .await;
    check(
        &fake,
        &["rollout", "pause", "daemonset/log"],
        expect![[r#"
        exit 2
        error: DaemonSet default/log cannot be held back: only Deployments can
    "#]],
    )
    .await;
    check(
        &fake,
        &["rollout", "status", "statefulset/db", "--revision", "2"],
        expect![[r#"
        exit 2
        error: --revision is for Deployments only
    "#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_are_promoted_ended_and_begun_anew() {
    let fake = Fake::start().await;
    fake.put_manifest(include_str!("../../../examples/canary.yaml"));
    check(
        &fake,
        &["rollout", "promote", "deployment/web", "--full"],
        expect![[r#"
            exit 0
            deployment.apps/web promoted
        "#]],
    )
    .await;
    check(
        &fake,
        &["rollout", "abort", "web"],
        expect![[r#"
            exit 0
            deployment.apps/web aborted
        "#]],
    )
    .await;
    check(
        &fake,
        &["rollout", "retry", "web"],
        expect![[r#"
            exit 0
            deployment.apps/web retried
        "#]],
    )
    .await;
    check(
        &fake,
        &["rollout", "promote", "sts/db"],
        expect![[r#"
            exit 2
            error: StatefulSet default/db has no delivery by steps: only Deployments have
        "#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rollout_of_a_stateful_set_is_followed_to_its_end() {
    let fake = fake().await;
    fake.change_stateful_set("db", |set| {
        let generation = set.meta.get_or_insert_default().generation;
        let status = set.status.get_or_insert_default();
        status.observed_generation = generation;
        (status.current_revision, status.update_revision) = ("db-a".to_owned(), "db-b".to_owned());
    });
    let address = fake.address.clone();
    let command = tokio::spawn(async move { bulkhead_on(&address, &["rollout", "status", "sts/db"]).await });
    fake.watched(1).await;
    fake.change_stateful_set("db", |set| {
        let status = set.status.get_or_insert_default();
        (status.ready_replicas, status.updated_replicas) = (2, 1);
    });
    fake.change_stateful_set("db", |set| {
        let status = set.status.get_or_insert_default();
        (status.current_replicas, status.updated_replicas) = (2, 2);
        status.current_revision = "db-b".to_owned();
    });
    let output = command.await.expect("it ran");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    expect![[r#"
        Waiting for 2 pods to be ready...
        waiting for statefulset rolling update to complete 1 pods at revision db-b...
        statefulset rolling update complete 2 pods at revision db-b...
    "#]]
    .assert_eq(&text(&output.stdout));
    fake.change_stateful_set("db", |set| set.status.get_or_insert_default().ready_replicas = 1);
    let late = bulkhead_on(&fake.address, &["rollout", "status", "sts/db", "--timeout", "200ms"]).await;
    assert_eq!(late.status.code(), Some(4));
    assert_eq!(text(&late.stderr), "error: the rollout is not complete after 200ms\n");
    fake.change_stateful_set("db", |set| {
        use v1::stateful_set_update_strategy::{OnDelete, Variant};
        let variant = Some(Variant::OnDelete(OnDelete {}));
        let spec = set.spec.get_or_insert_default();
        spec.update_strategy = Some(v1::StatefulSetUpdateStrategy { variant });
    });
    check(
        &fake,
        &["rollout", "status", "sts/db"],
        expect![[r#"
        exit 1
        error: rollout status is only available for the RollingUpdate strategy
    "#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rollout_of_a_daemon_set_is_followed_to_its_end() {
    let fake = fake().await;
    fake.change_daemon_set("log", |set| {
        let generation = set.meta.get_or_insert_default().generation;
        let status = set.status.get_or_insert_default();
        (status.observed_generation, status.desired_number_scheduled) = (generation, 3);
        status.updated_number_scheduled = 1;
    });
    check(
        &fake,
        &["rollout", "status", "daemonset/log", "--watch=false"],
        expect![[r#"
        exit 0
        Waiting for daemon set "log" rollout to finish: 1 out of 3 new pods have been updated...
    "#]],
    )
    .await;
    fake.change_daemon_set("log", |set| {
        let status = set.status.get_or_insert_default();
        (status.updated_number_scheduled, status.number_available) = (3, 3);
    });
    check(
        &fake,
        &["rollout", "status", "daemonset/log"],
        expect![[r#"
        exit 0
        daemon set "log" successfully rolled out
    "#]],
    )
    .await;
    check(
        &fake,
        &["rollout", "history", "daemonset/none"],
        expect![[r#"
        exit 3
        error: none not found
    "#]],
    )
    .await;
}
