//! Where a guest is: its memory, and its virtual CPUs.

use std::fs;
use std::time::Duration;

use bulkhead_types::{CpuSet, NodeFacts, PodIntent, Shared};

/// What a file of a process says under a name.
fn said(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
}

/// The pod with CPUs of its own: two of those on which this process may run, or the only one.
pub fn with_cpus(mut pod: PodIntent) -> PodIntent {
    let allowed: CpuSet =
        said("/proc/self/status", "Cpus_allowed_list:").expect("told").parse().expect("a set");
    let cpus: CpuSet = allowed.iter().take(2).collect();
    let mut spec = (*pod.spec).clone();
    let container = &mut spec.containers[0];
    for amounts in [&mut container.limits, &mut container.requests] {
        amounts.cpu_millis = Some(u64::from(cpus.len()) * 1000);
    }
    (pod.spec, pod.cpus) = (Shared::new(spec), Some(cpus));
    pod
}

/// Which CPUs the threads of a guest's virtual CPUs may be on, by name.
fn virtual_cpus(pid: i32) -> Vec<(String, String)> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("it lives").flatten();
    let mut found: Vec<_> = threads
        .filter_map(|thread| {
            let status = thread.path().join("status").display().to_string();
            let name = said(&status, "Name:").filter(|name| name.starts_with("CPU "))?;
            Some((name, said(&status, "Cpus_allowed_list:")?))
        })
        .collect();
    found.sort();
    found
}

/// Waits until each virtual CPU of a guest of this pod is on one of the pod's CPUs; its memory is bound from the start, unless its node
/// warns that it cannot be.
pub async fn check(pid: i32, pod: &PodIntent, node: &NodeFacts) {
    let cpus = pod.cpus.as_ref().expect("its own");
    let maps = fs::read_to_string(format!("/proc/{pid}/numa_maps")).unwrap_or_default();
    let warned = node.warnings.iter().any(|warning| warning.contains("cannot bind memory"));
    assert_ne!(maps.lines().any(|line| line.contains(" bind:")), warned, "memory is bound or is not: {maps}");
    let expected: Vec<_> = (0..)
        .zip(cpus.iter())
        .map(|(n, cpu): (u32, u32)| (format!("CPU {n}/TCG"), cpu.to_string()))
        .collect();
    let pinned = async {
        while virtual_cpus(pid) != expected {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), pinned).await;
    assert!(waited.is_ok(), "virtual CPUs are on {:?}, and should be on {expected:?}", virtual_cpus(pid));
}
