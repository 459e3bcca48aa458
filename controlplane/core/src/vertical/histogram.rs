//! A histogram of amounts whose weights halve every 24 hours.

use bulkhead_types::{CHECKPOINT_WEIGHT_MAX, HISTOGRAM_BUCKETS_MAX, HistogramCheckpoint};

/// After so long a measurement counts half, in milliseconds (Kubernetes' default).
pub const HALF_LIFE_MS: u64 = 24 * 3_600_000;

/// Bits behind the point of a weight, which is in thousandths of a measurement's.
const FRACTION_BITS: u32 = 20;
/// Weights are kept in this many half-lives after the reference; then the reference moves.
const HALF_LIVES_MAX: u64 = 32;
/// So many half-lives after the reference the newest measurement is when that has moved.
const HALF_LIVES_KEPT: u64 = 16;
/// The largest weight of one measurement, in thousandths: with it a sum of 2^40 of them stays below 2^114.
const WEIGHT_MAX: u64 = 1 << 20;
/// `2^(1/2^n)` for n from 1 on, 32 bits behind the point: binary digits of a fraction of a half-life.
const ROOTS: [u64; 12] = [
    6_074_001_000,
    5_107_605_667,
    4_683_695_048,
    4_485_121_744,
    4_389_014_833,
    4_341_736_423,
    4_318_288_544,
    4_306_612_134,
    4_300_785_774,
    4_297_875_550,
    4_296_421_177,
    4_295_694_175,
];

/// What amounts are sorted into: the first bucket, and each next one is 5 % wider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buckets {
    /// Thousandths of a core: 10, up to about 1000 cores.
    CpuMillis,
    /// Bytes: 10 MB, up to about 1 TB.
    MemoryBytes,
}

const CPU_STARTS: [u64; HISTOGRAM_BUCKETS_MAX] = starts(10);
const MEMORY_STARTS: [u64; HISTOGRAM_BUCKETS_MAX] = starts(10_000_000);

/// Where each bucket begins. Widths are kept with 16 bits behind the point.
const fn starts(first: u64) -> [u64; HISTOGRAM_BUCKETS_MAX] {
    let mut starts = [0; HISTOGRAM_BUCKETS_MAX];
    let (mut index, mut start, mut width) = (0, 0u64, first << 16);
    while index < HISTOGRAM_BUCKETS_MAX {
        starts[index] = start >> 16;
        start += width;
        width += width / 20;
        index += 1;
    }
    starts
}

impl Buckets {
    fn starts(self) -> &'static [u64; HISTOGRAM_BUCKETS_MAX] {
        match self {
            Self::CpuMillis => &CPU_STARTS,
            Self::MemoryBytes => &MEMORY_STARTS,
        }
    }

    /// The bucket of an amount; the last one has no end.
    #[must_use]
    pub fn find(self, amount: u64) -> usize {
        self.starts().partition_point(|start| *start <= amount) - 1
    }

    /// Where a bucket ends; the last one counts as ending where it begins.
    #[must_use]
    pub fn end(self, bucket: usize) -> u64 {
        let starts = self.starts();
        starts[(bucket + 1).min(HISTOGRAM_BUCKETS_MAX - 1)]
    }
}

/// A share of all weight, in per cent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(pub u8);

/// See the module. Weights are exact, in any order of measurements, within 32 half-lives of the reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    buckets: Buckets,
    weights: Box<[u128; HISTOGRAM_BUCKETS_MAX]>,
    total: u128,
    /// For when a weight is what it was measured with, milliseconds since the epoch.
    reference_ms: u64,
    newest_ms: u64,
}

impl Histogram {
    /// An empty one. Measurements from long before the reference lose precision.
    #[must_use]
    pub fn new(buckets: Buckets, reference_ms: u64) -> Self {
        let weights = Box::new([0; HISTOGRAM_BUCKETS_MAX]);
        Self { buckets, weights, total: 0, reference_ms, newest_ms: reference_ms }
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// Adds a measurement. Its weight is in thousandths, at most 2^20.
    pub fn add(&mut self, amount: u64, weight_millis: u64, at_ms: u64) {
        if at_ms.saturating_sub(self.reference_ms) / HALF_LIFE_MS > HALF_LIVES_MAX {
            let ahead = at_ms.saturating_sub(self.reference_ms) / HALF_LIFE_MS;
            self.move_reference(ahead - HALF_LIVES_KEPT);
        }
        let weight = self.decayed(weight_millis, at_ms);
        let bucket = &mut self.weights[self.buckets.find(amount)];
        *bucket = bucket.saturating_add(weight);
        self.total = self.total.saturating_add(weight);
        self.newest_ms = self.newest_ms.max(at_ms);
    }

    /// Takes a measurement back, as it was added.
    pub fn subtract(&mut self, amount: u64, weight_millis: u64, at_ms: u64) {
        let bucket = self.buckets.find(amount);
        // What a move of the reference rounded away is not there any more.
        let weight = self.decayed(weight_millis, at_ms).min(self.weights[bucket]);
        self.weights[bucket] -= weight;
        self.total -= weight;
    }

    /// The end of the bucket up to which a share of all weight lies; `None` when nothing is in it.
    #[must_use]
    pub fn percentile(&self, share: Percent) -> Option<u64> {
        let wanted = self.total.checked_mul(u128::from(share.0)).filter(|wanted| *wanted > 0)?;
        let mut sum = 0u128;
        let bucket = self.weights.iter().position(|weight| {
            sum += weight;
            sum.saturating_mul(100) >= wanted
        })?;
        Some(self.buckets.end(bucket))
    }

    /// The same in little room: weights become shares of the largest one.
    #[must_use]
    pub fn checkpoint(&self) -> HistogramCheckpoint {
        let Some(largest) = self.weights.iter().copied().max().filter(|largest| *largest > 0) else {
            return HistogramCheckpoint::default();
        };
        let share = |weight: &u128| {
            // Halves up; divided first where the product would not fit.
            let scaled = match weight.checked_mul(u128::from(CHECKPOINT_WEIGHT_MAX)) {
                Some(product) => (product + largest / 2) / largest,
                None => weight / (largest / u128::from(CHECKPOINT_WEIGHT_MAX)),
            };
            u32::try_from(scaled).unwrap_or(CHECKPOINT_WEIGHT_MAX).min(CHECKPOINT_WEIGHT_MAX)
        };
        let shares: Vec<u32> = self.weights.iter().map(share).collect();
        let first = shares.iter().position(|share| *share > 0).unwrap_or(0);
        let end = shares.iter().rposition(|share| *share > 0).map_or(first, |last| last + 1);
        // As of the newest measurement: the older ones' weight is small then, whatever their number.
        let half_lives = self.newest_ms.saturating_sub(self.reference_ms) / HALF_LIFE_MS;
        let total = shifted(self.total, half_lives) >> FRACTION_BITS;
        HistogramCheckpoint {
            reference_ms: self.reference_ms + half_lives * HALF_LIFE_MS,
            total_weight: u64::try_from(total).unwrap_or(u64::MAX),
            first_bucket: u32::try_from(first).unwrap_or(0),
            weights: shares[first..end].to_vec(),
        }
    }

    /// What a checkpoint was made of, within its precision. One that says nothing is an empty one from `reference_ms` on.
    #[must_use]
    pub fn restore(buckets: Buckets, checkpoint: &HistogramCheckpoint, reference_ms: u64) -> Self {
        let sum: u128 = checkpoint.weights.iter().map(|share| u128::from(*share)).sum();
        if sum == 0 || checkpoint.total_weight == 0 {
            return Self::new(buckets, reference_ms);
        }
        let mut histogram = Self::new(buckets, checkpoint.reference_ms);
        let total = u128::from(checkpoint.total_weight) << FRACTION_BITS;
        let first = usize::try_from(checkpoint.first_bucket).unwrap_or(usize::MAX);
        for (index, share) in checkpoint.weights.iter().enumerate() {
            let bucket = first.saturating_add(index).min(HISTOGRAM_BUCKETS_MAX - 1);
            let weight = total * u128::from(*share) / sum;
            histogram.weights[bucket] += weight;
            histogram.total += weight;
        }
        histogram
    }

    fn move_reference(&mut self, half_lives: u64) {
        for weight in self.weights.iter_mut() {
            *weight = shifted(*weight, half_lives);
        }
        self.total = self.weights.iter().sum();
        self.reference_ms += half_lives * HALF_LIFE_MS;
    }

    /// The weight of a measurement at a time, as of the reference: doubled for each half-life after it.
    fn decayed(&self, weight_millis: u64, at_ms: u64) -> u128 {
        let (before, distance_ms) = match at_ms.checked_sub(self.reference_ms) {
            Some(after_ms) => (0, after_ms),
            None => {
                let before_ms = self.reference_ms - at_ms;
                let half_lives = before_ms.div_ceil(HALF_LIFE_MS);
                (half_lives, half_lives * HALF_LIFE_MS - before_ms)
            }
        };
        let whole = distance_ms / HALF_LIFE_MS;
        let fraction = (distance_ms % HALF_LIFE_MS) * (1 << ROOTS.len()) / HALF_LIFE_MS;
        let mut factor = 1u128 << 32;
        for (position, root) in ROOTS.iter().enumerate() {
            if fraction >> (ROOTS.len() - 1 - position) & 1 == 1 {
                factor = (factor * u128::from(*root)) >> 32;
            }
        }
        let weight = u128::from(weight_millis.min(WEIGHT_MAX)) * (factor >> (32 - FRACTION_BITS));
        let whole = u32::try_from(whole.min(HALF_LIVES_MAX + 1)).unwrap_or(0);
        shifted(weight << whole, before)
    }
}

fn shifted(weight: u128, half_lives: u64) -> u128 {
    u32::try_from(half_lives).ok().and_then(|by| weight.checked_shr(by)).unwrap_or(0)
}

#[cfg(test)]
mod tests;
