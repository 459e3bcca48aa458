//! Autoscalers on the command line.

use bulkhead_proto::v1;
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
