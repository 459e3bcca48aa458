//! When the next pods may come: at once, or some time after a failure.

use bulkhead_types::{IndexFailures, Job};

use crate::job_pods::{JobPods, is_indexed};

/// First wait after a failure, in milliseconds; it doubles with each further one (Kubernetes' figures).
const BACKOFF_MS_MIN: u64 = 10_000;
/// Longest wait, in milliseconds.
const BACKOFF_MS_MAX: u64 = 360_000;

/// What may be created now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Ready {
    /// The index of each pod, if they have any.
    pub(super) places: Vec<Option<u32>>,
    /// When more may, milliseconds since the epoch.
    pub(super) next_ms: Option<u64>,
}

/// From when on a pod may follow the failures of others, milliseconds since the epoch.
fn after_failures(failures_in_row: u32, last_failure_ms: u64) -> u64 {
    match failures_in_row {
        0 => 0,
        n => last_failure_ms.saturating_add((BACKOFF_MS_MIN << (n - 1).min(16)).min(BACKOFF_MS_MAX)),
    }
}

/// Places for up to `room` pods; of indexes the lowest first.
pub(super) fn ready_for_pods(job: &Job, pods: &JobPods, room: usize, now_ms: u64) -> Ready {
    let status = &job.status;
    let per_index = job.spec.backoff_limit_per_index.is_some();
    let after_ms = after_failures(status.failures_in_row, status.last_failure_ms);
    if !per_index && now_ms < after_ms {
        return Ready { places: Vec::new(), next_ms: Some(after_ms) };
    }
    if !is_indexed(job) {
        return Ready { places: vec![None; room], next_ms: None };
    }
    let mut ready = Ready::default();
    for index in missing(job).filter(|index| !pods.taken.contains(index)) {
        if ready.places.len() == room {
            break;
        }
        match index_after_ms(&status.index_failures, index).filter(|at_ms| now_ms < *at_ms) {
            Some(at_ms) => ready.next_ms = Some(ready.next_ms.map_or(at_ms, |next_ms| next_ms.min(at_ms))),
            None => ready.places.push(Some(index)),
        }
    }
    ready
}

fn index_after_ms(failures: &[IndexFailures], index: u32) -> Option<u64> {
    let at = failures.binary_search_by_key(&index, |f| f.index).ok()?;
    Some(after_failures(failures[at].failures_in_row, failures[at].last_failure_ms))
}

/// The indexes without success that have not failed for good, ascending.
fn missing(job: &Job) -> impl Iterator<Item = u32> + '_ {
    let done = job.status.completed_indexes.ranges();
    let ends = done.iter().map(|(first, _)| *first).chain(job.spec.completions);
    let starts = std::iter::once(0).chain(done.iter().map(|(_, last)| last + 1));
    let gaps = starts.zip(ends).flat_map(|(start, end)| start..end);
    gaps.filter(|index| !job.status.failed_indexes.contains(*index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_six_minutes() {
        let waits: Vec<_> = (0..9).map(|n| after_failures(n, 1000).saturating_sub(1000) / 1000).collect();
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 320, 360, 360]);
        assert_eq!(after_failures(u32::MAX, 0), BACKOFF_MS_MAX);
    }
}
