//! What only the leader knows, and nobody logs.

use std::collections::BTreeMap;

use bulkhead_types::{ContainerUsage, DeviceUsage, ObjectId, Pod, PodUsage};
use smol_str::SmolStr;

/// Longest age of a measurement that still counts, in milliseconds: guests measure every 10 s.
pub const USAGE_AGE_MS_MAX: u64 = 60_000;

/// When a node was heard last: by the calendar, and by the monotonic clock.
#[derive(Clone, Copy, Debug, Default)]
struct Heartbeat {
    at_ms: u64,
    up_ms: u64,
}

/// What a pod used, and when that was measured, by the leader's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When it was measured, milliseconds since the epoch.
    pub measured_at_ms: u64,
    /// How long the window of the processor time was, in milliseconds; 0 when that is not known yet.
    pub window_ms: u64,
    /// Processor time over the window, in thousandths of a core.
    pub cpu_millis: u64,
    /// Working set, in bytes.
    pub memory_bytes: u64,
    /// The same of each container, in name order.
    pub containers: Vec<ContainerUsage>,
}

/// A number that the metrics endpoint has of something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricSample {
    /// The value of its label `pod`; empty when it has none.
    pub pod: SmolStr,
    /// The number, in thousandths.
    pub value_millis: u64,
}

/// What the metrics endpoint answered to a query, or why there is no answer.
pub type MetricAnswer = Result<Vec<MetricSample>, String>;

/// Heartbeats and usage of nodes, since this server became the leader.
#[derive(Clone, Debug, Default)]
pub struct SoftState {
    leader_since_ms: u64,
    leader_since_up_ms: u64,
    heartbeats: BTreeMap<ObjectId, Heartbeat>,
    /// By node and pod: what a node says replaces what it said before, so there is no more of it than its reports may hold.
    usage: BTreeMap<ObjectId, BTreeMap<ObjectId, Sample>>,
    /// By node, with when it said so: what a node says replaces what it said before.
    device_usage: BTreeMap<ObjectId, (u64, Vec<DeviceUsage>)>,
    /// By query, with the time of the answer: each round replaces the one before.
    metrics: BTreeMap<String, (u64, MetricAnswer)>,
}

impl SoftState {
    /// Nothing known yet. `leader_since_ms` and `leader_since_up_ms` are what the leader's two clocks showed when it took
    /// over, the second rather too much than too little.
    #[must_use]
    pub fn new(leader_since_ms: u64, leader_since_up_ms: u64) -> Self {
        Self { leader_since_ms, leader_since_up_ms, ..Self::default() }
    }

    /// Notes a heartbeat of a node's current incarnation, by the leader's two clocks; `up_ms` is rather too much than
    /// too little.
    pub fn heartbeat(&mut self, node: ObjectId, now_ms: u64, up_ms: u64) {
        let last = self.heartbeats.entry(node).or_default();
        *last = Heartbeat { at_ms: now_ms.max(last.at_ms), up_ms: up_ms.max(last.up_ms) };
    }

    /// How long a node has surely been silent under this leader, by its monotonic clock, in milliseconds. Whoever led
    /// before may have heard it until this server took over.
    #[must_use]
    pub fn silent_ms(&self, node: ObjectId, up_ms: u64) -> u64 {
        let heard_up_ms = self.heartbeats.get(&node).map_or(0, |heartbeat| heartbeat.up_ms);
        up_ms.saturating_sub(heard_up_ms.max(self.leader_since_up_ms))
    }

    /// The last heartbeat of a node, if there was any since this server leads.
    #[must_use]
    pub fn last_heartbeat_ms(&self, node: ObjectId) -> Option<u64> {
        self.heartbeats.get(&node).map(|heartbeat| heartbeat.at_ms)
    }

    /// When this server became the leader, by its clock.
    #[must_use]
    pub fn leader_since_ms(&self) -> u64 {
        self.leader_since_ms
    }

    /// Notes what the pods of a node use, all of them.
    pub fn set_usage(&mut self, node: ObjectId, now_ms: u64, usage: Vec<PodUsage>) {
        let sample = |usage: PodUsage| {
            let PodUsage { pod, cpu_millis, memory_bytes, window_ms, age_ms, containers } = usage;
            let measured_at_ms = now_ms.saturating_sub(age_ms);
            (pod, Sample { measured_at_ms, window_ms, cpu_millis, memory_bytes, containers })
        };
        self.usage.insert(node, usage.into_iter().map(sample).collect());
    }

    /// What a pod uses, as the node that it is bound to said last; `None` when that is too old.
    #[must_use]
    pub fn usage(&self, pod: &Pod, now_ms: u64) -> Option<&Sample> {
        let sample = self.usage.get(&pod.node?)?.get(&pod.meta.id)?;
        (now_ms.saturating_sub(sample.measured_at_ms) <= USAGE_AGE_MS_MAX).then_some(sample)
    }

    /// Notes what the cards of a node do, all of them. What no agent may say is left out.
    pub fn set_device_usage(&mut self, node: ObjectId, now_ms: u64, mut usage: Vec<DeviceUsage>) {
        usage.retain(DeviceUsage::is_sound);
        if usage.is_empty() {
            self.device_usage.remove(&node);
        } else {
            self.device_usage.insert(node, (now_ms, usage));
        }
    }

    /// What the cards of a node do, as it said last, with their age now; nothing of what is too old.
    pub fn device_usage(&self, node: ObjectId, now_ms: u64) -> impl Iterator<Item = DeviceUsage> + '_ {
        let said = self.device_usage.get(&node).into_iter();
        said.flat_map(move |(at_ms, usage)| {
            let since_ms = now_ms.saturating_sub(*at_ms);
            let aged = usage.iter().map(move |one| {
                let age_ms = one.age_ms.saturating_add(since_ms);
                DeviceUsage { age_ms, ..one.clone() }
            });
            aged.filter(|one| one.age_ms <= USAGE_AGE_MS_MAX)
        })
    }

    /// Notes what the metrics endpoint answered in a round, all of it.
    pub fn set_metrics(&mut self, now_ms: u64, answers: Vec<(String, MetricAnswer)>) {
        self.metrics = answers.into_iter().map(|(query, answer)| (query, (now_ms, answer))).collect();
    }

    /// The last answer to a query; `None` when that is too old.
    #[must_use]
    pub fn metric(&self, query: &str, now_ms: u64) -> Option<Result<&[MetricSample], &str>> {
        let (at_ms, answer) = self.metrics.get(query)?;
        let is_young = now_ms.saturating_sub(*at_ms) <= USAGE_AGE_MS_MAX;
        is_young.then(|| answer.as_ref().map(Vec::as_slice).map_err(String::as_str))
    }

    /// Forgets a node that is gone.
    pub fn forget(&mut self, node: ObjectId) {
        self.heartbeats.remove(&node);
        self.usage.remove(&node);
        self.device_usage.remove(&node);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bulkhead_types::{Name, ObjectMeta, PodSpec, PodStatus, Shared};

    use super::*;

    const NODE: ObjectId = ObjectId(1);

    fn pod(id: u64, node: Option<ObjectId>) -> Arc<Pod> {
        let mut meta = ObjectMeta::new(None, Name::new("p").expect("a name"));
        meta.id = ObjectId(id);
        Arc::new(Pod { meta, spec: Shared::new(PodSpec::default()), node, status: PodStatus::default() })
    }

    fn usage(pod: u64, age_ms: u64) -> PodUsage {
        let pod = ObjectId(pod);
        PodUsage { pod, cpu_millis: 5, memory_bytes: 7, window_ms: 10, age_ms, containers: vec![] }
    }

    #[test]
    fn cards_are_told_of_until_that_is_too_old() {
        let mut soft = SoftState::default();
        let card =
            |device: &str, age_ms| DeviceUsage { device: device.into(), age_ms, ..DeviceUsage::default() };
        let busy = DeviceUsage { utilization_percent: Some(101), ..card("GPU-2", 0) };
        soft.set_device_usage(NODE, 100_000, vec![card("GPU-0", 10), card("GPU-1", 50_000), busy]);
        let told = |soft: &SoftState, now_ms| {
            let all = soft.device_usage(NODE, now_ms);
            all.map(|one| format!("{} {}", one.device, one.age_ms)).collect::<Vec<_>>().join(", ")
        };
        assert_eq!(told(&soft, 105_000), "GPU-0 5010, GPU-1 55000", "and nothing that cannot be");
        assert_eq!(told(&soft, 115_000), "GPU-0 15010");
        soft.set_device_usage(NODE, 116_000, vec![]);
        assert_eq!(told(&soft, 116_000), "");
    }

    #[test]
    fn usage_is_of_where_the_pod_is_and_gets_old() {
        let mut soft = SoftState::new(0, 0);
        soft.set_usage(NODE, 100_000, vec![usage(2, 1000), usage(3, 0)]);
        let check = |soft: &SoftState, pod: &Pod, now_ms: u64, expected: Option<u64>| {
            assert_eq!(soft.usage(pod, now_ms).map(|sample| sample.measured_at_ms), expected);
        };
        let (on_node, elsewhere) = (pod(2, Some(NODE)), pod(2, Some(ObjectId(9))));
        check(&soft, &on_node, 100_000, Some(99_000));
        check(&soft, &on_node, 99_000 + USAGE_AGE_MS_MAX, Some(99_000));
        check(&soft, &on_node, 99_001 + USAGE_AGE_MS_MAX, None);
        check(&soft, &elsewhere, 100_000, None);
        check(&soft, &pod(2, None), 100_000, None);
        soft.set_usage(NODE, 101_000, vec![usage(3, 0)]);
        check(&soft, &on_node, 101_000, None);
        soft.forget(NODE);
        check(&soft, &pod(3, Some(NODE)), 101_000, None);
    }
}
