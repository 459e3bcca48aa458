//! From what was measured to what is recommended.

use bulkhead_types::{AMOUNT_MAX, ContainerRecommendation, ResourceEstimate};
use smol_str::SmolStr;

use super::histogram::{Histogram, Percent};
use super::model::ContainerModel;

/// The least processor time that is recommended for a container, in thousandths of a core (Kubernetes' default).
pub const CPU_LEAST_MILLIS: u64 = 25;
/// The least memory that is recommended for a container, in bytes. Kubernetes' 250 MiB are more than small guests have
/// as a whole.
pub const MEMORY_LEAST_BYTES: u64 = 32 << 20;

/// The most processor time that is recommended for a container, in thousandths of a core: the last bucket's.
const CPU_MOST_MILLIS: u64 = 1_000_000;
/// Recommended memory is whole MiB.
const MEMORY_STEP_BYTES: u64 = 1 << 20;

const LOWER: Percent = Percent(50);
const TARGET: Percent = Percent(90);
const UPPER: Percent = Percent(95);
/// What is recommended above what was used, in per cent.
const MARGIN_PERCENT: u128 = 15;

/// What is recommended for a container; the less is known of it, the further its bounds are away.
#[must_use]
pub fn estimate(container: SmolStr, model: &ContainerModel) -> ContainerRecommendation {
    let confidence = model.confidence_micros();
    let cpu = of_histogram(model.cpu(), confidence);
    let memory = of_histogram(model.memory(), confidence);
    let whole = |bytes: u64| bytes.next_multiple_of(MEMORY_STEP_BYTES);
    ContainerRecommendation {
        container,
        cpu_millis: cpu.map(|one| one.map(|millis| millis.clamp(CPU_LEAST_MILLIS, CPU_MOST_MILLIS))),
        memory_bytes: memory.map(|one| one.map(|bytes| whole(bytes.clamp(MEMORY_LEAST_BYTES, AMOUNT_MAX)))),
        samples: model.samples(),
    }
}

/// Percentiles with the margin; the bounds with their confidence: `(1 + 0.001 / c)^-2` below and `1 + 1 / c` above, c in
/// days.
fn of_histogram(histogram: &Histogram, confidence_micros: u64) -> Option<ResourceEstimate> {
    let safe = |share| {
        let used = u128::from(histogram.percentile(share)?);
        Some((used * (100 + MARGIN_PERCENT)).div_ceil(100))
    };
    let (lower, target, upper) = (safe(LOWER)?, safe(TARGET)?, safe(UPPER)?);
    let c = u128::from(confidence_micros);
    let lower = lower * c / (c + 1000) * c / (c + 1000);
    let upper = (upper * (c + 1_000_000)).div_ceil(c);
    let amount = |amount: u128| u64::try_from(amount).map_or(AMOUNT_MAX, |amount| amount.min(AMOUNT_MAX));
    Some(ResourceEstimate { lower: amount(lower), target: amount(target), upper: amount(upper) })
}

#[cfg(test)]
mod tests;
