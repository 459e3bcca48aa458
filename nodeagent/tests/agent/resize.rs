//! A pod that gets other sizes while it runs.

use super::*;

/// Prints what the container may use, and what its guest has, whenever that changes.
const SIZES: &str = "trap 'exit 0' TERM; last=; while :; do \
    now=\"$(/bin/busybox cat /sys/fs/cgroup/cpu.max /sys/fs/cgroup/memory.max | /bin/busybox tr '\\n' ' ')\
cpus $(/bin/busybox grep -c processor /proc/cpuinfo) \
mib $(/bin/busybox awk '/MemTotal/ {print int($2 / 1024)}' /proc/meminfo)\"; \
    if [ \"$now\" != \"$last\" ]; then echo \"size $now\"; last=\"$now\"; fi; /bin/busybox sleep 0.2; done";

/// The pod with these requests and limits.
pub(crate) fn sized(pod: &PodIntent, cpu_millis: u64, memory_mib: u64) -> PodIntent {
    let mut spec = PodSpec::clone(&pod.spec);
    let amounts = ResourceRequirements {
        cpu_millis: Some(cpu_millis),
        memory_bytes: Some(memory_mib << 20),
        ephemeral_storage_bytes: None,
    };
    (spec.containers[0].requests, spec.containers[0].limits) = (amounts, amounts);
    PodIntent { spec: Shared::new(spec), resizing: true, ..pod.clone() }
}

/// What a container sees: its limits of cpu (in thousandths) and memory (in MiB), processors, and the guest's memory in MiB.
type Seen = (u64, u64, u64, u64);

fn seen(line: &str) -> Option<Seen> {
    let words: Vec<&str> = line.strip_prefix("size ")?.split_whitespace().collect();
    let [quota, "100000", memory, "cpus", cpus, "mib", mib] = words.as_slice() else { return None };
    let number = |word: &str| word.parse::<u64>().ok();
    Some((number(quota)? / 100, number(memory)? >> 20, number(cpus)?, number(mib)?))
}

/// Follows a pod's output until a line shows what is waited for.
async fn follow(address: &str, pod: u64, is_it: impl Fn(Seen) -> bool) -> Seen {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).expect("an address");
    let mut client = PodIoClient::new(endpoint.connect().await.expect("connected"));
    let (namespace, pod) = ("default".to_owned(), format!("pod-{pod}"));
    let request = v1::LogsRequest { namespace, pod, follow: true, ..v1::LogsRequest::default() };
    let mut stream = client.logs(request).await.expect("logs").into_inner();
    let mut text = String::new();
    let found = async {
        loop {
            let chunk = stream.message().await.expect("logs").expect("it runs");
            text.push_str(&String::from_utf8_lossy(&chunk.data));
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            if let Some(found) = whole.lines().filter_map(seen).rfind(|one| is_it(*one)) {
                return found;
            }
        }
    };
    tokio::time::timeout(DEADLINE, found).await.unwrap_or_else(|_| panic!("it never came: {text}"))
}

/// Brings a pod to a size; what its container sees then.
async fn resize(
    server: &FakeServer,
    pod: &PodIntent,
    (cpu_millis, memory_mib): (u64, u64),
    is_it: impl Fn(Seen) -> bool,
) -> Seen {
    let wanted = sized(pod, cpu_millis, memory_mib);
    let sizes = wanted.spec.sizes();
    server.intend(vec![wanted]);
    let is_so = |report: &PodReport| {
        report.status.actual.get().is_some_and(|a| a.containers == sizes && a.reason.is_empty())
    };
    let report = server.report(pod.id.0, "its new sizes", is_so).await;
    assert_eq!(report.status.containers[0].restart_count, 0, "it runs on");
    let limits = |seen: Seen| (seen.0, seen.1) == (cpu_millis, memory_mib);
    follow(&server.facts().address, pod.id.0, |seen| limits(seen) && is_it(seen)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_pod_gets_more_and_less_cpu_and_memory_without_a_restart() {
    let Some((kernel_dir, guest)) = guest_parts() else { return };
    let server = FakeServer::start().await;
    let mut node = TestNode::new(&server, &kernel_dir, &guest).await;
    let plain = pod(12, SIZES, RestartPolicy::Always);
    server.intend(vec![plain.clone()]);
    node.start();
    server.report(12, "a container that runs", |report| report.status.ready).await;
    let before = node.guests();
    let had = follow(&server.facts().address, 12, |seen| (seen.0, seen.1, seen.2) == (500, 96, 1)).await.3;
    // More of both: processors and memory are added to the machine.
    let more = resize(&server, &plain, (1500, 256), |seen| seen.2 == 2 && seen.3 >= had + 128).await.3;
    // Over a restart of the agent, less of both: what was added goes.
    node.stop().await;
    node.start();
    let less = resize(&server, &plain, (300, 96), |seen| seen.2 == 1 && seen.3 < more - 64).await.3;
    // Less than it began with: the balloon takes it.
    resize(&server, &plain, (300, 64), |seen| seen.3 < less - 16).await;
    assert_eq!(node.guests(), before, "the same process all along");
    server.intend(vec![deleting(plain, 5_000)]);
    server.report(12, "its end", |report| report.gone).await;
    node.stop().await;
}
