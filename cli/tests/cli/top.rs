//! What pods and nodes use, on the command line.

use bulkhead_proto::v1;
use expect_test::expect;

use super::{Fake, check};

fn pod(namespace: &str, name: &str, cpu_millis: u64, memory_mib: u64) -> v1::ObjectUsage {
    let container = |name: &str, cpu_millis| v1::ContainerUsage {
        name: name.to_owned(),
        cpu_millis,
        memory_bytes: memory_mib << 19,
    };
    v1::ObjectUsage {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        cpu_millis,
        memory_bytes: memory_mib << 20,
        window_ms: 10_000,
        containers: vec![container("app", cpu_millis / 2), container("proxy", 1)],
        ..v1::ObjectUsage::default()
    }
}

async fn with_usage() -> Fake {
    let fake = Fake::start().await;
    let new = v1::ObjectUsage { window_ms: 0, cpu_millis: 0, ..pod("default", "web-c", 0, 3) };
    let allocatable = v1::Resources { cpu_millis: 4000, memory_bytes: 8 << 30, ..v1::Resources::default() };
    let node = v1::ObjectUsage {
        namespace: String::new(),
        containers: vec![],
        allocatable: Some(allocatable),
        ..pod("", "node-1", 1000, 2048)
    };
    fake.state().usage = vec![
        pod("default", "web-b", 250, 64),
        pod("default", "web-a", 20, 128),
        pod("jobs", "x", 7, 1),
        new,
        node,
    ];
    fake
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_are_shown_with_what_they_use() {
    let fake = with_usage().await;
    let by_name = expect![[r#"
        exit 0
        NAME    CPU(cores)   MEMORY(bytes)
        web-a   20m          128Mi
        web-b   250m         64Mi
        web-c   <unknown>    3Mi
    "#]];
    check(&fake, &["top", "pods"], by_name).await;
    let by_cpu = expect![[r#"
        exit 0
        default     web-b   250m         64Mi
        default     web-a   20m          128Mi
        jobs        x       7m           1Mi
        default     web-c   <unknown>    3Mi
    "#]];
    check(&fake, &["top", "pods", "-A", "--sort-by", "cpu", "--no-headers"], by_cpu).await;
    let containers = expect![[r#"
        exit 0
        POD     NAME    CPU(cores)   MEMORY(bytes)
        web-a   app     10m          64Mi
        web-a   proxy   1m           64Mi
    "#]];
    check(&fake, &["top", "pod", "web-a", "--containers"], containers).await;
    let missing = expect![[r#"
        exit 3
        error: nothing is known of pod/none: it does not run, or has not told yet
    "#]];
    check(&fake, &["top", "pods", "none"], missing).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_shown_with_their_share() {
    let fake = with_usage().await;
    let shown = expect![[r#"
        exit 0
        NAME     CPU(cores)   CPU(%)   MEMORY(bytes)   MEMORY(%)
        node-1   1000m        25%      2048Mi          25%
    "#]];
    check(&fake, &["top", "nodes"], shown).await;
}
