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

fn card(index: u32, usage: v1::DeviceUsage, pod: (&str, &str)) -> v1::CardUsage {
    let address = format!("0000:4{index}:00.0");
    let usage = v1::DeviceUsage { device: address.clone(), address, index, ..usage };
    v1::CardUsage { usage: Some(usage), pod_namespace: pod.0.to_owned(), pod_name: pod.1.to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn cards_are_shown_and_those_in_guests_are_not_idle() {
    let fake = with_usage().await;
    let busy = v1::DeviceUsage {
        model: "NVIDIA H200".to_owned(),
        utilization_percent: Some(87),
        memory_used_bytes: Some(3 << 30),
        memory_bytes: Some(139 << 30),
        temperature_celsius: Some(61),
        power_milliwatts: Some(250_900),
        ..v1::DeviceUsage::default()
    };
    let in_guest = v1::DeviceUsage {
        in_guest: true,
        memory_bytes: Some(139 << 30),
        last_reset: "flr".to_owned(),
        ..v1::DeviceUsage::default()
    };
    let guests = card(1, in_guest, ("default", "web-a"));
    let mut usage = std::mem::take(&mut fake.state().usage);
    for one in &mut usage {
        match one.name.as_str() {
            "node-1" => {
                let nothing = card(2, v1::DeviceUsage::default(), ("", ""));
                one.devices = vec![card(0, busy.clone(), ("", "")), guests.clone(), nothing];
            }
            "web-a" => one.devices = vec![guests.clone()],
            _ => {}
        }
    }
    fake.state().usage = usage;
    let of_nodes = expect![[r#"
        exit 0
        NODE     GPU   MODEL          GPU(%)       MEMORY(bytes)     TEMP(C)     POWER(W)    RESET   POD
        node-1   0     NVIDIA H200    87%          3072Mi/142336Mi   61          250         -       -
        node-1   1     0000:41:00.0   in a guest   -/142336Mi        -           -           flr     default/web-a
        node-1   2     0000:42:00.0   <unknown>    <unknown>         <unknown>   <unknown>   -       -
    "#]];
    check(&fake, &["top", "nodes", "--devices"], of_nodes).await;
    let of_pods = expect![[r#"
        exit 0
        NAMESPACE   POD     GPU   MODEL          GPU(%)       MEMORY(bytes)   TEMP(C)   POWER(W)   RESET
        default     web-a   1     0000:41:00.0   in a guest   -/142336Mi      -         -          flr
    "#]];
    check(&fake, &["top", "pods", "-A", "--devices"], of_pods).await;
}
