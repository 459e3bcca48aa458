//! Pods that are older than they may be.

use super::Run;

pub(super) fn run(run: &mut Run<'_, '_>, max_pod_life_time_ms: u64) {
    let now_ms = run.view.now_ms;
    run.evict_where(|_, pod| {
        let age_ms = now_ms.saturating_sub(pod.meta.created_at_ms);
        (age_ms > max_pod_life_time_ms).then(|| format!("it is {} s old", age_ms / 1000))
    });
}
