//! Jobs and CronJobs on the command line.

use bulkhead_proto::v1;
use expect_test::expect;

use super::{Fake, bulkhead_on, check, text};

/// A server that holds the example Job `report` and the example CronJob `nightly`.
async fn with_jobs() -> Fake {
    let fake = Fake::start().await;
    fake.put_manifest(include_str!("../../../examples/job.yaml"));
    fake.put_manifest(include_str!("../../../examples/cronjob.yaml"));
    fake
}

fn condition(condition_type: &str) -> v1::Condition {
    v1::Condition {
        condition_type: condition_type.to_owned(),
        status: v1::ConditionStatus::True.into(),
        reason: "BackoffLimitExceeded".to_owned(),
        message: "Job has reached the specified backoff limit".to_owned(),
        ..v1::Condition::default()
    }
}

fn is_suspended(fake: &Fake) -> bool {
    match fake.state().object("report") {
        Some(v1::object::Object::Job(job)) => job.spec.as_ref().is_some_and(|spec| spec.suspend),
        other => panic!("no job: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_suspended_and_resumed() {
    let fake = with_jobs().await;
    let said = expect!["exit 0\njob.batch/report suspended\n"];
    check(&fake, &["suspend", "job/report"], said).await;
    assert!(is_suspended(&fake));
    check(&fake, &["resume", "job", "report"], expect!["exit 0\njob.batch/report resumed\n"]).await;
    assert!(!is_suspended(&fake));
    let output = bulkhead_on(&fake.address, &["suspend", "deploy/web"]).await;
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cron_job_is_run_by_hand() {
    let fake = with_jobs().await;
    let words = ["create", "job", "now", "--from", "cronjob/nightly"];
    check(&fake, &words, expect!["exit 0\njob.batch/now created\n"]).await;
    assert!(fake.state().object("now").is_some());
    let output = bulkhead_on(&fake.address, &["create", "job", "now", "--from=cronjob/none"]).await;
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    let output = bulkhead_on(&fake.address, &["create", "job", "now", "--from=job/report"]).await;
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn wait_ends_with_the_condition() {
    let fake = with_jobs().await;
    let address = fake.address.clone();
    let words = ["wait", "job/report", "--for=condition=complete"];
    let command = tokio::spawn(async move { bulkhead_on(&address, &words).await });
    fake.watched(1).await;
    fake.change_job("report", |job| {
        job.status.get_or_insert_default().conditions.push(condition("Complete"));
    });
    let output = command.await.expect("it ran");
    assert_eq!(
        (output.status.code(), text(&output.stdout)),
        (Some(0), "job.batch/report condition met\n".to_owned())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn wait_ends_without_the_condition() {
    let fake = with_jobs().await;
    let wait = |condition: &'static str| {
        let address = fake.address.clone();
        async move {
            let words = ["wait", "job/report", "--for", condition, "--timeout", "300ms"];
            bulkhead_on(&address, &words).await.status.code()
        }
    };
    assert_eq!(wait("condition=complete").await, Some(4), "not in time");
    fake.change_job("report", |job| {
        job.status.get_or_insert_default().conditions.push(condition("Failed"));
    });
    assert_eq!(wait("condition=complete").await, Some(1), "never");
    assert_eq!(wait("condition=failed").await, Some(0));
    assert_eq!(wait("delete").await, Some(4));
    fake.remove("report");
    assert_eq!(wait("delete").await, Some(0));
    assert_eq!(wait("condition=complete").await, Some(3));
    assert_eq!(wait("complete").await, Some(2));
}
