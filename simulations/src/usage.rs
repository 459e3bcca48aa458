//! What guests say that they use: the same of all, so that autoscalers come to rest when it does.

use bulkhead_types::PodUsage;

use crate::hypervisor::Hypervisor;

/// How long the load stays the same, in microseconds.
const LOAD_US: u64 = 20_000_000;
/// The load while there are faults, one after another, in thousandths of a core: autoscalers want 50.
const LOADS: [u64; 6] = [50, 200, 0, 90, 20, 500];
/// The load when everything shall come to rest.
const LOAD_AT_REST: u64 = 50;

/// The load of every pod at a time.
pub(crate) fn load(now_us: u64, at_rest: bool) -> u64 {
    if at_rest {
        return LOAD_AT_REST;
    }
    let turn = usize::try_from(now_us / LOAD_US).unwrap_or_default();
    LOADS[turn % LOADS.len()]
}

/// What the guests of a node use, those that have spoken.
pub(crate) fn of_guests(hypervisor: &Hypervisor, cpu_millis: u64) -> Vec<PodUsage> {
    let speaking = hypervisor.guests.iter().filter(|(_, guest)| guest.speaks);
    let usage = |pod| PodUsage {
        pod,
        cpu_millis,
        memory_bytes: 1 << 20,
        window_ms: 1000,
        age_ms: 0,
        containers: Vec::new(),
    };
    speaking.map(|(pod, _)| usage(*pod)).collect()
}
