//! Autoscalers on the command line.

use bulkhead_proto::v1;
use bulkhead_types::{FEATURE_LEVEL_MAX, WORKLOADS_LEVEL};
use expect_test::expect;

use super::{Fake, bulkhead_on, check, text, with_web, without_times};

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_is_autoscaled_by_hand() {
    let fake = with_web().await;
    let words = ["autoscale", "deployment", "web", "--min", "2", "--max", "5", "--cpu-percent", "60"];
    let said = expect!["exit 0\nhorizontalpodautoscaler.autoscaling/web autoscaled\n"];
    check(&fake, &words, said).await;
    match fake.state().object_of(v1::Kind::HorizontalPodAutoscaler, "web") {
        Some(v1::object::Object::HorizontalPodAutoscaler(made)) => {
            let spec = made.spec.as_ref().expect("a spec");
            assert_eq!((spec.min_replicas, spec.max_replicas), (Some(2), 5));
        }
        other => panic!("no autoscaler: {other:?}"),
    }
    let output = bulkhead_on(&fake.address, &["autoscale", "daemonset/log", "--max", "3"]).await;
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn get_and_describe_show_the_figures() {
    let fake = Fake::start().await;
    fake.put_manifest(include_str!("../../../examples/autoscaler.yaml"));
    let before = expect![[r#"
        exit 0
        NAME   REFERENCE        TARGETS                                             MINPODS   MAXPODS   REPLICAS   AGE
        web    Deployment/web   cpu: <unknown>/50%, memory of web: <unknown>/48Mi   2         10        0          90d
    "#]];
    check(&fake, &["get", "hpa"], before).await;
    fake.change_autoscaler("web", |autoscaler| {
        autoscaler.status = Some(v1::AutoscalerStatus {
            decision: 3,
            current_replicas: 2,
            desired_replicas: 4,
            metrics: vec![
                v1::MetricReading {
                    average_utilization: Some(90),
                    average_value: Some(90),
                    proposal: Some(4),
                    pods_counted: 2,
                    ..v1::MetricReading::default()
                },
                v1::MetricReading { message: "nothing told".to_owned(), ..v1::MetricReading::default() },
            ],
            ..v1::AutoscalerStatus::default()
        });
    });
    let after = expect![[r#"
        exit 0
        NAME   REFERENCE        TARGETS                                       MINPODS   MAXPODS   REPLICAS   AGE
        web    Deployment/web   cpu: 90%/50%, memory of web: <unknown>/48Mi   2         10        4          90d
    "#]];
    check(&fake, &["get", "hpa"], after).await;
    let output = bulkhead_on(&fake.address, &["describe", "hpa", "web"]).await;
    let shown = without_times(&text(&output.stdout));
    for line in [
        "Scales:",
        "2 to 10",
        "cpu: 90%/50%",
        "nothing told",
        "number 3: 2 -> 4",
        "after 60s, at most 1 pods in 30s",
    ] {
        assert!(shown.contains(line), "{line} is not in\n{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_shows_the_decisions_of_an_autoscaler() {
    let fake = Fake::start().await;
    fake.put_manifest(include_str!("../../../examples/autoscaler.yaml"));
    let entry = |revision, event: &str, summary: &str| v1::HistoryEntry {
        revision,
        at_ms: 1_700_000_000_000 + revision,
        actor: "system:autoscaler".to_owned(),
        event: event.to_owned(),
        summary: summary.to_owned(),
        ..v1::HistoryEntry::default()
    };
    fake.state().history = vec![
        entry(4, "StatusChanged", "stays at 2; metric 1: 40% of requests wants 2"),
        entry(5, "SpecChanged", "generation 2"),
        entry(7, "StatusChanged", "2 -> 4; metric 1: 90% of requests wants 4"),
        entry(9, "StatusChanged", "stays at 4; metric 1: 50% of requests wants 4"),
    ];
    let shown = expect![[r#"
        exit 0
        HorizontalPodAutoscaler default/web scales Deployment web between 2 and 10.

        REVISION   AT                         DECISION, AND THE FIGURES THAT IT WAS TAKEN FROM
        7          2023-11-14T22:13:20.007Z   2 -> 4; metric 1: 90% of requests wants 4
        9          2023-11-14T22:13:20.009Z   stays at 4; metric 1: 50% of requests wants 4
    "#]];
    check(&fake, &["explain", "hpa", "web", "--limit", "2"], shown).await;
    fake.state().history.clear();
    let shown = expect![[r#"
        exit 0
        HorizontalPodAutoscaler default/web scales Deployment web between 2 and 10.
        No decision of it is kept.
    "#]];
    check(&fake, &["explain", "hpa", "web"], shown).await;
    let output = bulkhead_on(&fake.address, &["explain", "hpa", "gone"]).await;
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_by_the_clock_are_shown() {
    let fake = Fake::start().await;
    fake.put_manifest(include_str!("../../../examples/cron-autoscaler.yaml"));
    let listed = expect![[r#"
        exit 0
        NAME   REFERENCE                     TIMEZONE        JOBS   LAST RUN   LAST OUTCOME   AGE
        web    HorizontalPodAutoscaler/web   Europe/Berlin   2      <none>     <none>         90d
    "#]];
    check(&fake, &["get", "cronhpa"], listed).await;
    let output = bulkhead_on(&fake.address, &["describe", "cronhpa", "web"]).await;
    let shown = without_times(&text(&output.stdout));
    for line in ["Not on:", "* * * 25 12 *", "0 0 8 * * 1-5", "evening"] {
        assert!(shown.contains(line), "{line} is not in\n{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn budgets_are_shown_and_drains_wait_for_them() {
    let fake = with_web().await;
    fake.put_manifest(include_str!("../../../examples/disruption-budget.yaml"));
    let listed = expect![[r#"
        exit 0
        NAME   MIN AVAILABLE   MAX UNAVAILABLE   ALLOWED DISRUPTIONS   AGE
        web    1               N/A               0                     90d
    "#]];
    check(&fake, &["get", "pdb"], listed).await;
    fake.put_running_pod("lonely", "node-1");
    fake.state().refuse_evictions = 1;
    let drained = expect![[r#"
        exit 0
        node/node-1 cordoned
        evicting pod default/lonely
        pod/lonely evicted
        node/node-1 drained
        waiting: PodDisruptionBudget web does not allow it
    "#]];
    check(&fake, &["drain", "node-1", "--force"], drained).await;
    fake.put_running_pod("other", "node-1");
    fake.state().refuse_evictions = u32::MAX;
    let output = bulkhead_on(&fake.address, &["drain", "node-1", "--force", "--timeout", "300ms"]).await;
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    assert!(
        text(&output.stderr).contains("1 pods stay: PodDisruptionBudget web"),
        "{}",
        text(&output.stderr)
    );

    // A cluster that is not wholly upgraded yet knows neither budgets nor evictions.
    fake.state().levels_behind = FEATURE_LEVEL_MAX - WORKLOADS_LEVEL + 1;
    let drained = expect![[r#"
        exit 0
        node/node-1 already cordoned
        evicting pod default/other
        pod/other evicted
        node/node-1 drained
    "#]];
    check(&fake, &["drain", "node-1", "--force"], drained).await;
}
