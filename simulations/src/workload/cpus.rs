//! Pods that say of what class they are, and on which NUMA nodes they want to be.

use bulkhead_controlplane_core::State;
use bulkhead_types::{
    ANNOTATION_CPUSET_SCHEDULER, ANNOTATION_NUMA_POLICY, ANNOTATION_RESOURCE_SPEC, Command,
    FEATURE_LEVEL_MAX, LABEL_QOS_CLASS, NUMA_LEVEL, PodSpec, Shared, StringMap,
};
use smol_str::SmolStr;

use crate::rng::Rng;

/// The command that a cluster needs first, if it does.
pub(super) fn level(state: &State) -> Option<Command> {
    let is_low = state.feature_level() < NUMA_LEVEL;
    is_low.then_some(Command::RaiseFeatureLevel { level: FEATURE_LEVEL_MAX })
}

/// Lets pods want CPUs for themselves, or say of which pool they are.
pub(super) fn want(
    rng: &mut Rng,
    labels: &mut StringMap,
    annotations: &mut StringMap,
    spec: &mut Shared<PodSpec>,
) {
    let class = *rng.pick(&["", "LSE", "LSR", "LSR", "LS", "BE"]);
    let policy = *rng.pick(&["", "none", "best-effort", "restricted", "single-numa-node"]);
    let key = SmolStr::new_static;
    if !class.is_empty() {
        labels.insert(key(LABEL_QOS_CLASS), key(class));
    }
    let is_pooled = matches!(class, "LS" | "BE");
    if !policy.is_empty() && !is_pooled {
        annotations.insert(key(ANNOTATION_NUMA_POLICY), key(policy));
    }
    if rng.chance(300) {
        let how = *rng.pick(&[
            r#"{"preferredCPUBindPolicy":"SpreadByPCPUs"}"#,
            r#"{"preferredCPUBindPolicy":"FullPCPUs"}"#,
            r#"{"requiredCPUBindPolicy":"FullPCPUs"}"#,
        ]);
        annotations.insert(key(ANNOTATION_RESOURCE_SPEC), key(how));
    }
    let is_bound = class.is_empty() && matches!(policy, "" | "none");
    if is_bound {
        annotations.insert(key(ANNOTATION_CPUSET_SCHEDULER), key("true"));
    }
    if is_pooled {
        return;
    }
    let mut whole = PodSpec::clone(spec);
    for container in whole.init_containers.iter_mut().chain(&mut whole.containers) {
        let millis = *rng.pick(&[1000, 1000, 2000]);
        container.limits.cpu_millis = Some(millis);
        container.requests.cpu_millis = Some(if is_bound && rng.chance(500) { millis / 2 } else { millis });
    }
    *spec = Shared::new(whole);
}
