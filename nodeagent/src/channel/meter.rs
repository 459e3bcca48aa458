//! Counters that a guest tells become what its pod and containers use.

use std::collections::BTreeMap;

use bulkhead_guest_protocol::guest::Usage;
use bulkhead_types::{ContainerUsage, ObjectId, PodUsage};
use smol_str::SmolStr;

/// Shortest window, in milliseconds: a guest that hurries gets no finer figures, only wrong ones.
const WINDOW_MS_MIN: u64 = 100;

/// The last counter of a pod or container, and what followed from it.
#[derive(Debug, Default)]
struct Gauge {
    /// Processor time so far in microseconds, and when that was told, in milliseconds.
    counter: Option<(u64, u64)>,
    cpu_millis: u64,
    window_ms: u64,
    memory_bytes: u64,
}

impl Gauge {
    fn take(&mut self, now_ms: u64, usage: &Usage) {
        self.memory_bytes = usage.memory_bytes;
        let Some((before_usec, at_ms)) = self.counter else {
            self.counter = Some((usage.cpu_usec, now_ms));
            return;
        };
        let window_ms = now_ms.saturating_sub(at_ms);
        if window_ms < WINDOW_MS_MIN {
            return;
        }
        // Microseconds per millisecond are thousandths of a core.
        self.cpu_millis = usage.cpu_usec.saturating_sub(before_usec) / window_ms;
        self.window_ms = window_ms;
        self.counter = Some((usage.cpu_usec, now_ms));
    }
}

/// What one guest said of its usage. Times are monotonic milliseconds from any point.
#[derive(Debug, Default)]
pub(super) struct Meter {
    pod: Gauge,
    containers: BTreeMap<SmolStr, Gauge>,
}

impl Meter {
    /// Takes what a guest says of its pod, or of a container that the pod has.
    pub(super) fn take(&mut self, now_ms: u64, usage: Usage) {
        let gauge = match usage.container.as_str() {
            "" => &mut self.pod,
            name => self.containers.entry(SmolStr::new(name)).or_default(),
        };
        gauge.take(now_ms, &usage);
    }

    /// What the pod uses by the last counters.
    pub(super) fn reading(&self, pod: ObjectId) -> PodUsage {
        let container = |(name, gauge): (&SmolStr, &Gauge)| ContainerUsage {
            name: name.clone(),
            cpu_millis: gauge.cpu_millis,
            memory_bytes: gauge.memory_bytes,
        };
        PodUsage {
            pod,
            cpu_millis: self.pod.cpu_millis,
            memory_bytes: self.pod.memory_bytes,
            window_ms: self.pod.window_ms,
            age_ms: 0,
            containers: self.containers.iter().map(container).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counters as told (when, of whom, processor time so far), and the last reading of the pod and of `web`.
    fn check(told: &[(u64, &str, u64)], (window_ms, pod, web): (u64, u64, Option<u64>)) {
        let mut meter = Meter::default();
        for (now_ms, container, cpu_usec) in told.iter().copied() {
            let usage = Usage { container: container.to_owned(), cpu_usec, memory_bytes: 7, time_ms: 0 };
            meter.take(now_ms, usage);
        }
        let reading = meter.reading(ObjectId(1));
        let containers: Vec<u64> = reading.containers.iter().map(|c| c.cpu_millis).collect();
        let expected = (window_ms, pod, web.into_iter().collect::<Vec<_>>());
        assert_eq!((reading.window_ms, reading.cpu_millis, containers), expected);
        assert_eq!(reading.memory_bytes, 7);
    }

    #[test]
    fn processor_time_is_measured_over_windows() {
        check(&[(0, "", 5_000_000)], (0, 0, None));
        check(&[(0, "", 5_000_000), (10_000, "", 10_000_000)], (10_000, 500, None));
        check(&[(0, "", 0), (0, "web", 0), (1000, "", 900), (1000, "web", 250_000)], (1000, 0, Some(250)));
        // A counter that goes back says nothing of the time since; the next window counts from it.
        check(&[(0, "", 9_000), (1000, "", 0), (2000, "", 1_000_000)], (1000, 1000, None));
        check(&[(0, "", 0), (1000, "", 1_000_000), (1050, "", 9_000_000)], (1000, 1000, None));
    }
}
