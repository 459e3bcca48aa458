//! VerticalPodAutoscalers on the command line.

use bulkhead_proto::v1;
use expect_test::expect;

use super::{Fake, bulkhead_on, check, text, without_times};

/// The example, for which so much is recommended.
fn recommended(fake: &Fake) {
    let estimate = |lower| Some(v1::ResourceEstimate { lower, target: 4 * lower, upper: 100 * lower });
    let one = |name: &str| v1::ContainerRecommendation {
        container: name.to_owned(),
        cpu_millis: estimate(25),
        memory_bytes: estimate(32 << 20),
        samples: 1440,
    };
    fake.change_vertical_autoscaler("web", |vertical| {
        vertical.status = Some(v1::VerticalAutoscalerStatus {
            decision: 3,
            evictions: 2,
            last_eviction_ms: 1_700_000_000_000,
            containers: vec![one("log"), one("web")],
            conditions: vec![v1::Condition {
                condition_type: "RecommendationProvided".to_owned(),
                status: v1::ConditionStatus::True.into(),
                reason: "RecommendationProvided".to_owned(),
                message: "a recommendation follows from what pods used".to_owned(),
                ..v1::Condition::default()
            }],
            ..v1::VerticalAutoscalerStatus::default()
        });
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn get_and_describe_show_what_is_recommended() {
    let fake = Fake::start().await;
    fake.put_manifest(include_str!("../../../examples/vertical-autoscaler.yaml"));
    let before = expect![[r#"
        exit 0
        NAME   REFERENCE        MODE   CPU      MEM      PROVIDED   AGE
        web    Deployment/web   Auto   <none>   <none>   False      90d
    "#]];
    check(&fake, &["get", "vpa"], before).await;
    recommended(&fake);
    let after = expect![[r#"
        exit 0
        NAME   REFERENCE        MODE   CPU    MEM     PROVIDED   AGE
        web    Deployment/web   Auto   100m   128Mi   True       90d
    "#]];
    check(&fake, &["get", "vpa"], after).await;
    let output = bulkhead_on(&fake.address, &["describe", "vpa", "web"]).await;
    let shown = without_times(&text(&output.stdout));
    for line in [
        "Sizes pods of:",
        "Deployment/web",
        "leave at least 2 others",
        "*           nothing",
        "50m..2",
        "web         memory     48Mi    128Mi    1Gi     128Mi      1440",
        "2 pods, the last one",
        "RecommendationProvided",
    ] {
        assert!(shown.contains(line), "{line} is not in\n{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_shows_what_is_recommended_and_what_was() {
    let fake = Fake::start().await;
    fake.put_manifest(include_str!("../../../examples/vertical-autoscaler.yaml"));
    recommended(&fake);
    let entry = |revision, event: &str, summary: &str| v1::HistoryEntry {
        revision,
        at_ms: 1_700_000_000_000 + revision,
        actor: "system:vertical-autoscaler".to_owned(),
        event: event.to_owned(),
        summary: summary.to_owned(),
        ..v1::HistoryEntry::default()
    };
    fake.state().history = vec![
        entry(4, "StatusChanged", "web: cpu 50m (25m to 1), memory 64Mi (32Mi to 1Gi), of 3 samples"),
        entry(5, "SpecChanged", "generation 2"),
        entry(7, "StatusChanged", "web: cpu 100m (25m to 1), memory 128Mi (32Mi to 1Gi), of 1440 samples"),
    ];
    let shown = expect![[r#"
        exit 0
        VerticalPodAutoscaler default/web sets the requests of new pods, and replaces others while 2 more live, of Deployment web.
        RecommendationProvided is True: a recommendation follows from what pods used (RecommendationProvided)

        CONTAINER   RESOURCE   LOWER   TARGET   UPPER   UNCAPPED   SAMPLES
        web         cpu        50m     100m     2       100m       1440
        web         memory     48Mi    128Mi    1Gi     128Mi      1440

        REVISION   AT                         DECISION, AND THE FIGURES THAT IT WAS TAKEN FROM
        4          2023-11-14T22:13:20.004Z   web: cpu 50m (25m to 1), memory 64Mi (32Mi to 1Gi), of 3 samples
        7          2023-11-14T22:13:20.007Z   web: cpu 100m (25m to 1), memory 128Mi (32Mi to 1Gi), of 1440 samples
    "#]];
    check(&fake, &["explain", "vpa", "web"], shown).await;
    let output = bulkhead_on(&fake.address, &["explain", "vpa", "gone"]).await;
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
}
