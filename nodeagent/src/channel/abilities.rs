//! What a pod needs of its guest that guests of earlier versions cannot do.

use bulkhead_guest_protocol::guest::Hello;
use bulkhead_guest_protocol::host::{Check, CheckConfig, ContainerConfig, PodConfig};

/// What an operator does about it.
const REMEDY: &str = "give the agent the guest program that was built with it (BULKHEAD_GUEST)";

/// Why a guest that says this of itself cannot run a pod, for people; `None` if it can.
pub(super) fn lacks(hello: &Hello, pod: &PodConfig) -> Option<String> {
    let mut all = pod.init_containers.iter().chain(&pod.containers);
    if let Some(asking) = all.find(|container| asks_by_https(container)).filter(|_| !hello.hands_over_https) {
        let name = &asking.name;
        return Some(format!(
            "container {name} has an HTTPS probe or hook, and the guest's program is of an earlier version, which knows none of \
             them: {REMEDY}"
        ));
    }
    let has_pages = pod.two_mib_pages_bytes > 0 || pod.one_gib_pages_bytes > 0;
    (has_pages && !hello.huge_pages).then(|| {
        format!(
            "the pod has huge pages, and the guest's program is of an earlier version, which sets none aside: {REMEDY}"
        )
    })
}

fn asks_by_https(container: &ContainerConfig) -> bool {
    let ContainerConfig { startup_probe, readiness_probe, liveness_probe, post_start, pre_stop, .. } =
        container;
    let probes = [startup_probe, readiness_probe, liveness_probe].into_iter().flatten();
    let checks = probes.filter_map(|probe| probe.check.as_ref());
    let is_https = |check: &CheckConfig| matches!(check.kind, Some(Check::Https(_)));
    checks.chain([post_start, pre_stop].into_iter().flatten()).any(is_https)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huge_pages_are_only_for_guests_that_set_them_aside() {
        let check = |two_mib_pages_bytes, one_gib_pages_bytes, huge_pages, expected: bool| {
            let pod = PodConfig { two_mib_pages_bytes, one_gib_pages_bytes, ..PodConfig::default() };
            let lacks = lacks(&Hello { huge_pages, ..Hello::default() }, &pod);
            assert_eq!(lacks.as_ref().is_some_and(|text| text.contains("the pod has huge pages")), expected);
            assert_eq!(lacks.is_some(), expected);
        };
        check(2 << 20, 0, true, false);
        check(2 << 20, 0, false, true);
        check(0, 1 << 30, false, true);
        check(0, 0, false, false);
    }
}
