//! Pods that ask for huge pages, and pods whose guests' memory is to be of them.

use bulkhead_controlplane_core::State;
use bulkhead_types::{
    ANNOTATION_ENABLE_HUGEPAGES, Command, ContainerOptions, FEATURE_LEVEL_MAX, HUGE_PAGES_LEVEL, HugePages,
    PodSpec, Rare, Shared, StringMap,
};
use smol_str::SmolStr;

use crate::rng::Rng;

const MIB: u64 = 1 << 20;

/// The command that a cluster needs first, if it does.
pub(super) fn level(state: &State) -> Option<Command> {
    let is_low = state.feature_level() < HUGE_PAGES_LEVEL;
    is_low.then_some(Command::RaiseFeatureLevel { level: FEATURE_LEVEL_MAX })
}

/// Lets a pod ask for huge pages, be in them with its whole guest, or both.
pub(super) fn ask(rng: &mut Rng, annotations: &mut StringMap, spec: &mut Shared<PodSpec>) {
    let how = rng.range(0, 3);
    if how == 0 {
        let key = SmolStr::new_static;
        annotations.insert(key(ANNOTATION_ENABLE_HUGEPAGES), key("true"));
    }
    let mut whole = PodSpec::clone(spec);
    for container in whole.init_containers.iter_mut().chain(&mut whole.containers) {
        // Less may be requested than the guest has: what is pinned counts all the same.
        if rng.chance(500) {
            container.limits.memory_bytes = container.requests.memory_bytes.map(|bytes| 4 * bytes);
        }
        if how > 0 {
            let two_mib_bytes = *rng.pick(&[2, 32, 128]) * MIB;
            let huge_pages = HugePages { two_mib_bytes, one_gib_bytes: 0 };
            let present = container.options.get().cloned().unwrap_or_default();
            container.options = Rare::some(ContainerOptions { huge_pages, ..present });
        }
    }
    *spec = Shared::new(whole);
}
