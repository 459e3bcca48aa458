//! What would happen, on the command line.

use bulkhead_proto::v1;
use expect_test::expect;

use super::{Fake, check};

fn pod(outcome: v1::PodOutcome, name: &str, node: &str, reason: &str) -> v1::PodFate {
    v1::PodFate {
        namespace: "default".to_owned(),
        name: name.to_owned(),
        is_new: outcome == v1::PodOutcome::Placed,
        outcome: outcome.into(),
        node: node.to_owned(),
        reason: reason.to_owned(),
    }
}

fn load(pods: u32) -> Option<v1::NodeLoad> {
    let requests = v1::Resources {
        cpu_millis: u64::from(pods) * 500,
        memory_bytes: u64::from(pods) << 30,
        ..v1::Resources::default()
    };
    Some(v1::NodeLoad { requests: Some(requests), pods })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_be_is_shown() {
    let fake = Fake::start().await;
    let allocatable = v1::Resources { cpu_millis: 4000, memory_bytes: 8 << 30, ..v1::Resources::default() };
    let node = |name: &str, is_new, before, after| v1::NodeOutlook {
        name: name.to_owned(),
        is_new,
        allocatable: Some(allocatable),
        before: load(before),
        after: load(after),
    };
    fake.state().what_if = v1::WhatIfResponse {
        revision: 42,
        pods: vec![
            pod(v1::PodOutcome::Ends, "web-a", "node-1", ""),
            pod(v1::PodOutcome::Stays, "alone", "node-1", "nobody would start it elsewhere"),
            pod(v1::PodOutcome::Placed, "web-b", "what-if-1", ""),
            pod(v1::PodOutcome::Waits, "big", "", "0/2 nodes are available: 2 Insufficient cpu."),
        ],
        nodes: vec![node("node-1", false, 2, 1), node("what-if-1", true, 0, 1)],
        at_rest: true,
        ..v1::WhatIfResponse::default()
    };
    let words =
        ["what-if", "--drain", "node/node-1,node-2", "--add-nodes", "2", "--like", "node-1", "--at", "40"];
    let shown = expect![[r#"
        exit 0
        OUTCOME   NAMESPACE   POD           NODE        REASON
        ends      default     web-a         node-1
        stays     default     alone         node-1      nobody would start it elsewhere
        placed    default     web-b (new)   what-if-1
        waits     default     big                       0/2 nodes are available: 2 Insufficient cpu.

        NODE              PODS     CPU                      MEMORY
        node-1            2 -> 1   1000m -> 500m of 4000m   2048Mi -> 1024Mi of 8192Mi
        what-if-1 (new)   0 -> 1   0m -> 500m of 4000m      0Mi -> 1024Mi of 8192Mi

        At revision 42: 1 pods would end, 1 be placed, 1 wait, 1 stay on drained nodes.
    "#]];
    check(&fake, &words, shown).await;
    let asked = fake.state().asked.pop().expect("it was asked");
    assert_eq!((asked.drain_nodes, asked.at_revision), (vec!["node-1".to_owned(), "node-2".to_owned()], 40));
    assert_eq!((asked.add_nodes[0].count, asked.add_nodes[0].like.as_str()), (2, "node-1"));

    fake.state().what_if =
        v1::WhatIfResponse { revision: 42, pods_left_out: 7, ..v1::WhatIfResponse::default() };
    let words = [
        "what-if",
        "--add-nodes",
        "1",
        "--cpu",
        "64",
        "--memory",
        "256Gi",
        "--labels",
        "disk=ssd",
        "--taints",
        "gpu=true:NoSchedule",
    ];
    let shown = expect![[r#"
        exit 0
        And 7 more pods, 0 more nodes, which are not counted below.
        At revision 42: 0 pods would end, 0 be placed, 0 wait, 0 stay on drained nodes.
        There was no time to see how it ends: ask about less.
    "#]];
    check(&fake, &words, shown).await;
    let asked = fake.state().asked.pop().expect("it was asked");
    let node = &asked.add_nodes[0];
    let allocatable = node.allocatable.expect("it says what it has");
    assert_eq!((allocatable.cpu_millis, allocatable.memory_bytes), (64_000, 256 << 30));
    assert_eq!((node.labels["disk"].as_str(), node.taints[0].key.as_str()), ("ssd", "gpu"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_asked_says_why() {
    let fake = Fake::start().await;
    let shown = expect![[r#"
        exit 2
        error: --add-nodes needs --like NODE, or --cpu and --memory
    "#]];
    check(&fake, &["what-if", "--add-nodes", "1"], shown).await;
    let shown = expect![[r#"
        exit 2
        error: "gpu-" removes a taint: there is none yet
    "#]];
    check(
        &fake,
        &["what-if", "--add-nodes", "1", "--cpu", "1", "--memory", "1Gi", "--taints", "gpu-"],
        shown,
    )
    .await;
    let error = v1::ManifestError {
        file: "web.yaml".to_owned(),
        line: 3,
        column: 5,
        path: "spec.replicas".to_owned(),
        reason: "is no number".to_owned(),
    };
    fake.state().what_if = v1::WhatIfResponse { errors: vec![error], ..v1::WhatIfResponse::default() };
    let shown = expect![[r#"
        exit 1
        error: nothing was applied
        web.yaml:3:5 spec.replicas: is no number
    "#]];
    check(&fake, &["what-if"], shown).await;
}
