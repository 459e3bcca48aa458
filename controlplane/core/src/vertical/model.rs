//! What is known of the use of a container, over all pods of its workload.

use std::collections::BTreeMap;

use bulkhead_types::{ContainerCheckpoint, ObjectId};
use smol_str::SmolStr;

use super::histogram::{Buckets, HALF_LIFE_MS, Histogram};

/// Of so long the highest use of memory counts, once, in milliseconds (Kubernetes' default).
pub const PEAK_WINDOW_MS: u64 = 24 * 3_600_000;
/// The least weight of a measurement of processor time, in thousandths: that of a tenth of a core (Kubernetes' rule:
/// measurements count by what the container requests).
const CPU_WEIGHT_LEAST: u64 = 100;
/// The weight of a peak of memory, in thousandths.
const MEMORY_WEIGHT: u64 = 1000;
/// What an OOM kill adds to the memory that a container seems to need, at least, in bytes (Kubernetes' default).
const OOM_BUMP_LEAST_BYTES: u64 = 100 << 20;

/// A measurement of processor time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuSample {
    /// What was used, in thousandths of a core.
    pub used_millis: u64,
    /// What was requested then, in thousandths of a core.
    pub request_millis: u64,
}

/// The memory of a container in one pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Peak {
    /// Where the window ends; the peak is in the histogram at this time.
    window_end_ms: u64,
    peak_bytes: u64,
    /// The last measurement that was counted.
    measured_at_ms: u64,
    /// The last OOM kill that was counted.
    killed_at_ms: u64,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerModel {
    cpu: Histogram,
    memory: Histogram,
    samples: u64,
    first_sample_ms: u64,
    last_sample_ms: u64,
    pods: BTreeMap<ObjectId, Peak>,
}

impl ContainerModel {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(now_ms: u64) -> Self {
        Self::restore(&ContainerCheckpoint::default(), now_ms)
    }

    /// What a former leader knew. Peaks of windows that were open then are in it, and once more when they are measured
    /// again: at most one for each pod.
    #[must_use]
    pub fn restore(checkpoint: &ContainerCheckpoint, now_ms: u64) -> Self {
        let reference_ms = now_ms - now_ms % HALF_LIFE_MS;
        Self {
            cpu: Histogram::restore(Buckets::CpuMillis, &checkpoint.cpu, reference_ms),
            memory: Histogram::restore(Buckets::MemoryBytes, &checkpoint.memory, reference_ms),
            samples: checkpoint.samples,
            first_sample_ms: checkpoint.first_sample_ms,
            last_sample_ms: checkpoint.last_sample_ms,
            pods: BTreeMap::new(),
        }
    }

    /// What another leader can go on from.
    #[must_use]
    pub fn checkpoint(&self, container: SmolStr) -> ContainerCheckpoint {
        ContainerCheckpoint {
            container,
            cpu: self.cpu.checkpoint(),
            memory: self.memory.checkpoint(),
            samples: self.samples,
            first_sample_ms: self.first_sample_ms,
            last_sample_ms: self.last_sample_ms,
        }
    }

    /// Counts a measurement of a pod; one that was counted already is passed over. Without processor time, while none is
    /// known.
    pub fn add(&mut self, pod: ObjectId, at_ms: u64, cpu: Option<CpuSample>, memory_bytes: u64) {
        let peak = self.pods.entry(pod).or_default();
        if peak.measured_at_ms >= at_ms {
            return;
        }
        peak.measured_at_ms = at_ms;
        if let Some(CpuSample { used_millis, request_millis }) = cpu {
            self.cpu.add(used_millis, request_millis.max(CPU_WEIGHT_LEAST), at_ms);
            if self.samples == 0 {
                self.first_sample_ms = at_ms;
            }
            self.samples += 1;
            self.first_sample_ms = self.first_sample_ms.min(at_ms);
            self.last_sample_ms = self.last_sample_ms.max(at_ms);
        }
        self.raise_peak(pod, at_ms, memory_bytes);
    }

    /// Counts an OOM kill, once: the container needs a fifth, and at least 100 MiB, more than it requested or used.
    pub fn add_oom_kill(&mut self, pod: ObjectId, at_ms: u64, request_bytes: u64) {
        let peak = self.pods.entry(pod).or_default();
        if peak.killed_at_ms >= at_ms {
            return;
        }
        peak.killed_at_ms = at_ms;
        let used = request_bytes.max(peak.peak_bytes);
        let needed = used.saturating_add(OOM_BUMP_LEAST_BYTES.max(used / 5));
        self.raise_peak(pod, at_ms, needed);
    }

    /// Forgets the windows of pods that are gone; what they used stays.
    pub fn retain_pods(&mut self, is_there: impl Fn(ObjectId) -> bool) {
        self.pods.retain(|pod, _| is_there(*pod));
    }

    /// The processor time that was measured.
    #[must_use]
    pub fn cpu(&self) -> &Histogram {
        &self.cpu
    }

    /// The peaks of memory that were measured.
    #[must_use]
    pub fn memory(&self) -> &Histogram {
        &self.memory
    }

    /// How many measurements of processor time there were.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// When the last of them was made, milliseconds since the epoch; 0 when there were none.
    #[must_use]
    pub fn last_sample_ms(&self) -> u64 {
        self.last_sample_ms
    }

    /// How much is known, in millionths of a day: of the time from the first measurement to the last, and of the number
    /// of measurements at one a minute, the smaller one. At least 1.
    #[must_use]
    pub fn confidence_micros(&self) -> u64 {
        const DAY_MS: u128 = 24 * 3_600_000;
        const MINUTES_OF_DAY: u128 = 24 * 60;
        let span_ms = u128::from(self.last_sample_ms.saturating_sub(self.first_sample_ms));
        let by_time = span_ms * 1_000_000 / DAY_MS;
        let by_number = u128::from(self.samples) * 1_000_000 / MINUTES_OF_DAY;
        u64::try_from(by_time.min(by_number)).unwrap_or(u64::MAX).max(1)
    }

    fn raise_peak(&mut self, pod: ObjectId, at_ms: u64, bytes: u64) {
        let peak = self.pods.entry(pod).or_default();
        if at_ms >= peak.window_end_ms {
            let windows = (at_ms - peak.window_end_ms) / PEAK_WINDOW_MS + 1;
            // The first window begins with the first measurement.
            let is_first = peak.window_end_ms == 0;
            peak.window_end_ms =
                if is_first { at_ms + PEAK_WINDOW_MS } else { peak.window_end_ms + windows * PEAK_WINDOW_MS };
            peak.peak_bytes = 0;
        } else if bytes <= peak.peak_bytes {
            return;
        } else {
            self.memory.subtract(peak.peak_bytes, MEMORY_WEIGHT, peak.window_end_ms);
        }
        peak.peak_bytes = bytes;
        self.memory.add(bytes, MEMORY_WEIGHT, peak.window_end_ms);
    }
}

#[cfg(test)]
mod tests;
