//! What a pod needs of its guest that guests of earlier versions cannot do.

use bulkhead_guest_protocol::guest::Hello;
use bulkhead_guest_protocol::host::{Check, CheckConfig, ContainerConfig, PodConfig};

/// Why a guest that says this of itself cannot run a pod, for people; `None` if it can.
pub(super) fn lacks(hello: &Hello, pod: &PodConfig) -> Option<String> {
    let mut all = pod.init_containers.iter().chain(&pod.containers);
    let asking = all.find(|container| asks_by_https(container)).filter(|_| !hello.hands_over_https)?;
    Some(format!(
        "container {} has an HTTPS probe or hook, and the guest's program is of an earlier version, which knows none of them: \
         give the agent the guest program that was built with it (BULKHEAD_GUEST)",
        asking.name
    ))
}

fn asks_by_https(container: &ContainerConfig) -> bool {
    let ContainerConfig { startup_probe, readiness_probe, liveness_probe, post_start, pre_stop, .. } =
        container;
    let probes = [startup_probe, readiness_probe, liveness_probe].into_iter().flatten();
    let checks = probes.filter_map(|probe| probe.check.as_ref());
    let is_https = |check: &CheckConfig| matches!(check.kind, Some(Check::Https(_)));
    checks.chain([post_start, pre_stop].into_iter().flatten()).any(is_https)
}
