//! One metric: what pods use, and how many pods would be right.

use bulkhead_types::{MetricReading, MetricTarget, REPLICAS_MAX};

/// A ratio this near to 1, in tenths, changes nothing (Kubernetes' default tolerance is 0.1).
const TOLERANCE_TENTHS: u128 = 1;

/// What is known of one pod of the workload; requests and usage are in the resource's unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodFigure {
    /// It is ready and has a figure.
    Counted {
        /// What it requests.
        request: u64,
        /// What it uses.
        usage: u64,
    },
    /// It is not ready, or too young, for its figure to mean anything.
    Unready {
        /// What it requests.
        request: u64,
    },
    /// It should have a figure, and has none.
    Missing {
        /// What it requests.
        request: u64,
    },
}

/// Sums over the pods that count.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    usage: u128,
    requests: u128,
    pods: u128,
}

impl Sum {
    fn add(&mut self, request: u64, usage: u128) {
        self.usage += usage;
        self.requests += u128::from(request);
        self.pods += 1;
    }

    /// What is compared with the target: per cent of the requests, or the average. `None` when there is nothing to
    /// divide by.
    fn value(&self, target: MetricTarget) -> Option<u128> {
        match target {
            MetricTarget::Utilization(_) => (self.usage * 100).checked_div(self.requests),
            MetricTarget::AverageValue(_) | MetricTarget::Value(_) => self.usage.checked_div(self.pods),
        }
    }
}

/// What the pods of a metric come to.
struct Sorted {
    counted: Sum,
    /// Requests of pods that are not ready.
    unready: Vec<u64>,
    /// Requests of pods without figures, and of those that are not there at all.
    missing: Vec<u64>,
}

/// Sorts pods. Beyond the wanted size, pods that are not ready or have no figures say nothing: a rollout replaces
/// others by them. Wanted pods that are not there are missing.
fn sort(pods: &[PodFigure], replicas: u32) -> Sorted {
    let mut sorted = Sorted { counted: Sum::default(), unready: Vec::new(), missing: Vec::new() };
    let mut requests = 0u128;
    for pod in pods {
        match *pod {
            PodFigure::Counted { request, usage } => sorted.counted.add(request, usage.into()),
            PodFigure::Unready { request } => sorted.unready.push(request),
            PodFigure::Missing { request } => sorted.missing.push(request),
        }
        let (PodFigure::Counted { request, .. }
        | PodFigure::Unready { request }
        | PodFigure::Missing { request }) = *pod;
        requests += u128::from(request);
    }
    let room = (replicas as usize).saturating_sub(sorted.counted.pods as usize);
    sorted.unready.truncate(room);
    let room = room - sorted.unready.len();
    let average = requests.checked_div(pods.len() as u128).unwrap_or(0);
    sorted.missing.resize(room, u64::try_from(average).unwrap_or(u64::MAX));
    sorted
}

/// What a metric says of the pods of a workload that shall have `replicas` of them, at least 1.
#[must_use]
pub fn read_metric(target: MetricTarget, pods: &[PodFigure], replicas: u32) -> MetricReading {
    let sorted = sort(pods, replicas);
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let counted = sorted.counted;
    let mut reading = MetricReading {
        pods_counted: count(counted.pods as usize),
        pods_unready: count(sorted.unready.len()),
        pods_missing: count(sorted.missing.len()),
        ..MetricReading::default()
    };
    let value = match counted.pods {
        0 => {
            reading.message = "no pod that is ready has told what it uses".to_owned();
            return reading;
        }
        _ => counted.value(target),
    };
    let Some(value) = value else {
        reading.message = "its pods request nothing of it: there is nothing to take per cent of".to_owned();
        return reading;
    };
    if let MetricTarget::Utilization(_) = target {
        reading.average_utilization = Some(u32::try_from(value).unwrap_or(u32::MAX));
    }
    reading.average_value = u64::try_from(counted.usage / counted.pods).ok();
    reading.proposal = Some(propose(target, &sorted, value, replicas));
    reading
}

/// How many pods would be right, given what is compared with the target.
fn propose(target: MetricTarget, sorted: &Sorted, value: u128, replicas: u32) -> u32 {
    let wanted = match target {
        MetricTarget::Utilization(percent) => u128::from(percent),
        MetricTarget::AverageValue(amount) | MetricTarget::Value(amount) => u128::from(amount),
    };
    let up_with_unready = !sorted.unready.is_empty() && value > wanted;
    if !up_with_unready && sorted.missing.is_empty() {
        return match is_tolerated(value, wanted) {
            true => replicas,
            false => proportional(value, wanted, sorted.counted.pods, replicas),
        };
    }
    let mut sum = sorted.counted;
    if value != wanted {
        for request in &sorted.missing {
            // Whoever says nothing stands in the way of either: all of its request when there shall be fewer pods,
            // nothing when there shall be more.
            let usage = match (value < wanted, target) {
                (false, _) => 0,
                (true, MetricTarget::Utilization(percent)) => {
                    u128::from(*request) * u128::from(percent.max(100)) / 100
                }
                (true, MetricTarget::AverageValue(amount) | MetricTarget::Value(amount)) => amount.into(),
            };
            sum.add(*request, usage);
        }
    }
    if up_with_unready {
        sorted.unready.iter().for_each(|request| sum.add(*request, 0));
    }
    let cautious = sum.value(target).expect("pods that count request something");
    let turned = (value < wanted && cautious > wanted) || (value > wanted && cautious < wanted);
    if is_tolerated(cautious, wanted) || turned {
        return replicas;
    }
    let proposal = proportional(cautious, wanted, sum.pods, replicas);
    let turned = (cautious < wanted && proposal > replicas) || (cautious > wanted && proposal < replicas);
    if turned { replicas } else { proposal }
}

pub(super) fn is_tolerated(value: u128, wanted: u128) -> bool {
    value.abs_diff(wanted) * 10 <= wanted * TOLERANCE_TENTHS
}

/// The size in proportion to the ratio. With more pods that count than there shall be, what they use together and what
/// each uses on average say different things: the one that changes less counts.
fn proportional(value: u128, wanted: u128, pods: u128, replicas: u32) -> u32 {
    let of = |pods: u128| {
        let size = (value * pods).div_ceil(wanted.max(1));
        u32::try_from(size).unwrap_or(u32::MAX).min(REPLICAS_MAX)
    };
    let (total, average) = (of(pods), of(pods.min(replicas.into())));
    match (average > replicas, total < replicas) {
        (true, _) => average,
        (_, true) => total,
        _ if total == average => total,
        _ => replicas,
    }
}

#[cfg(test)]
mod tests;
