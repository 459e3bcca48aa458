//! Pods whose containers restarted too often: another node may be what they need.

use super::Run;

pub(super) fn run(run: &mut Run<'_, '_>, threshold: u32, including_init_containers: bool) {
    run.evict_where(|_, pod| {
        let sum = |all: &[bulkhead_types::ContainerStatus]| -> u64 {
            all.iter().map(|container| u64::from(container.restart_count)).sum()
        };
        let of_init = if including_init_containers { sum(&pod.status.init_containers) } else { 0 };
        let restarts = sum(&pod.status.containers) + of_init;
        (restarts >= u64::from(threshold)).then(|| format!("its containers restarted {restarts} times"))
    });
}
