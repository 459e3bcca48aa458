//! VerticalPodAutoscalers: how much the containers of a workload request, by what they use, as in
//! `autoscaling.k8s.io/v1`.
//!
//! Source: "Vertical Pod Autoscaling" in the Kubernetes documentation, and the API reference and defaults of its
//! recommender and updater (github.com/kubernetes/autoscaler, vertical-pod-autoscaler).

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::{Condition, MeasuredResource, ObjectMeta, ResourceRequirements, ScaleTarget};

/// `updatePolicy.minReplicas` when not given (the default of Kubernetes' updater).
pub const VERTICAL_MIN_REPLICAS_DEFAULT: u32 = 2;
/// How often one looks at its workload, and the least time between two things that it logs, in milliseconds.
pub const VERTICAL_PERIOD_MS: u64 = 60_000;
/// Least time between two evictions of one workload's pods, in milliseconds of log time.
pub const VERTICAL_EVICTION_MS: u64 = 60_000;
/// Most buckets of a histogram.
pub const HISTOGRAM_BUCKETS_MAX: usize = 176;
/// The largest weight of a bucket in a checkpoint.
pub const CHECKPOINT_WEIGHT_MAX: u32 = 10_000;
/// The name of the policy that counts for containers without one of their own.
pub const CONTAINER_ANY: &str = "*";

/// The condition that says whether there is a recommendation.
pub const RECOMMENDATION_PROVIDED: &str = "RecommendationProvided";

/// The resources that can be recommended.
pub const RECOMMENDED_RESOURCES: [MeasuredResource; 2] = [MeasuredResource::Cpu, MeasuredResource::Memory];

/// How much the containers of a workload request, by what they use.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VerticalPodAutoscaler {
    /// Standard metadata.
    pub meta: ObjectMeta,
    /// What is wanted.
    pub spec: VerticalAutoscalerSpec,
    /// What is known.
    pub status: VerticalAutoscalerStatus,
}

/// What a recommendation does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum UpdateMode {
    /// It is shown.
    Off = 1,
    /// New pods get it.
    Initial = 2,
    /// New pods get it, and pods that are far from it are replaced.
    #[default]
    Auto = 3,
}

impl UpdateMode {
    /// As in `updatePolicy.updateMode` of a manifest.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "Off",
            Self::Initial => "Initial",
            Self::Auto => "Auto",
        }
    }
}

/// Whether a container gets what is recommended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ContainerScalingMode {
    /// It does.
    #[default]
    Auto = 1,
    /// It does not.
    Off = 2,
}

/// What of a container changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ControlledValues {
    /// Requests, and limits in the proportion that they had.
    #[default]
    RequestsAndLimits = 1,
    /// Requests only, up to the limits.
    RequestsOnly = 2,
}

/// What is wanted of a VerticalPodAutoscaler.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VerticalAutoscalerSpec {
    /// Whose pods: a Deployment, StatefulSet or DaemonSet.
    pub target: ScaleTarget,
    /// What a recommendation does.
    pub update_mode: UpdateMode,
    /// An eviction leaves at least so many pods that live.
    pub min_replicas: u32,
    /// What holds for which container; each name once.
    pub policies: Vec<ContainerResourcePolicy>,
}

impl VerticalAutoscalerSpec {
    /// What holds for a container: the policy with its name, else the one of [`CONTAINER_ANY`].
    #[must_use]
    pub fn policy(&self, container: &str) -> Option<&ContainerResourcePolicy> {
        let named = |name: &str| self.policies.iter().find(|policy| policy.container == name);
        named(container).or_else(|| named(CONTAINER_ANY))
    }

    /// Whether a resource of a container follows the recommendation.
    #[must_use]
    pub fn controls(&self, container: &str, resource: MeasuredResource) -> bool {
        match self.policy(container) {
            Some(policy) => {
                policy.mode == ContainerScalingMode::Auto && policy.controlled_resources.contains(&resource)
            }
            None => RECOMMENDED_RESOURCES.contains(&resource),
        }
    }

    /// Whether a resource of any container follows the recommendation, whatever containers there are.
    #[must_use]
    pub fn controls_any(&self, resource: MeasuredResource) -> bool {
        self.controls(CONTAINER_ANY, resource)
            || self.policies.iter().any(|policy| self.controls(&policy.container, resource))
    }

    /// Whether limits follow the requests of a container.
    #[must_use]
    pub fn scales_limits(&self, container: &str) -> bool {
        self.policy(container)
            .is_none_or(|policy| policy.controlled_values == ControlledValues::RequestsAndLimits)
    }

    /// An amount of a resource within what is allowed for a container.
    #[must_use]
    pub fn bounded(&self, container: &str, resource: MeasuredResource, amount: u64) -> u64 {
        let Some(policy) = self.policy(container) else { return amount };
        let at_least = resource_of(policy.min_allowed, resource).unwrap_or(0);
        let at_most = resource_of(policy.max_allowed, resource).unwrap_or(u64::MAX);
        amount.max(at_least).min(at_most)
    }
}

/// The amount of a measured resource; `None` when it is not given.
#[must_use]
pub fn resource_of(amounts: ResourceRequirements, resource: MeasuredResource) -> Option<u64> {
    match resource {
        MeasuredResource::Cpu => amounts.cpu_millis,
        MeasuredResource::Memory => amounts.memory_bytes,
        MeasuredResource::Queried => None,
    }
}

/// What holds for a container.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ContainerResourcePolicy {
    /// Its name, or [`CONTAINER_ANY`].
    pub container: SmolStr,
    /// Whether it gets what is recommended.
    pub mode: ContainerScalingMode,
    /// Least that it requests; no ephemeral storage.
    pub min_allowed: ResourceRequirements,
    /// Most that it requests; no ephemeral storage.
    pub max_allowed: ResourceRequirements,
    /// Processor time, memory or both, each once.
    pub controlled_resources: Vec<MeasuredResource>,
    /// What of it changes.
    pub controlled_values: ControlledValues,
}

/// What is known of a VerticalPodAutoscaler.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VerticalAutoscalerStatus {
    /// The spec generation that the last decision followed.
    pub observed_generation: u64,
    /// Counts decisions, from 1: one that was taken on an older status than the present is refused.
    pub decision: u64,
    /// When the figures of the last decision were read, milliseconds since the epoch; 0 before.
    pub read_at_ms: u64,
    /// Log time of the last eviction for this, milliseconds since the epoch; 0 before.
    pub last_eviction_ms: u64,
    /// How many pods were evicted for this.
    pub evictions: u64,
    /// What is recommended for each container, in name order; not yet within what policies allow.
    pub containers: Vec<ContainerRecommendation>,
    /// When the checkpoint was made, milliseconds since the epoch; 0 before.
    pub checkpointed_at_ms: u64,
    /// What a new leader goes on from, in name order.
    pub checkpoint: Vec<ContainerCheckpoint>,
    /// RecommendationProvided.
    pub conditions: Vec<Condition>,
}

impl VerticalAutoscalerStatus {
    /// What is recommended for a container.
    #[must_use]
    pub fn recommendation(&self, container: &str) -> Option<&ContainerRecommendation> {
        self.containers.iter().find(|one| one.container == container)
    }
}

/// What is recommended for a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ContainerRecommendation {
    /// Which container.
    pub container: SmolStr,
    /// Processor time, in thousandths of a core; `None` while nothing is known.
    pub cpu_millis: Option<ResourceEstimate>,
    /// Memory, in bytes; `None` while nothing is known.
    pub memory_bytes: Option<ResourceEstimate>,
    /// How many measurements of it there were, those that were told by former leaders included.
    pub samples: u64,
}

impl ContainerRecommendation {
    /// What is recommended of a resource, in its unit.
    #[must_use]
    pub fn estimate(&self, resource: MeasuredResource) -> Option<ResourceEstimate> {
        match resource {
            MeasuredResource::Cpu => self.cpu_millis,
            MeasuredResource::Memory => self.memory_bytes,
            MeasuredResource::Queried => None,
        }
    }
}

/// How much of a resource a container needs: `lower <= target <= upper`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ResourceEstimate {
    /// A pod that requests less is too small.
    pub lower: u64,
    /// What a new pod gets.
    pub target: u64,
    /// A pod that requests more is too large.
    pub upper: u64,
}

impl ResourceEstimate {
    /// Each of the three changed alike, by what keeps their order.
    #[must_use]
    pub fn map(self, change: impl Fn(u64) -> u64) -> Self {
        Self { lower: change(self.lower), target: change(self.target), upper: change(self.upper) }
    }
}

/// What is known of a container's use, in a few hundred bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ContainerCheckpoint {
    /// Which container.
    pub container: SmolStr,
    /// Its processor time.
    pub cpu: HistogramCheckpoint,
    /// Its peaks of memory, without those of windows that were open.
    pub memory: HistogramCheckpoint,
    /// How many measurements there were.
    pub samples: u64,
    /// When the first was made, milliseconds since the epoch; 0 when there were none.
    pub first_sample_ms: u64,
    /// When the last was made, milliseconds since the epoch; 0 when there were none.
    pub last_sample_ms: u64,
}

/// A histogram, its weights rounded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HistogramCheckpoint {
    /// For when its weights hold, milliseconds since the epoch.
    pub reference_ms: u64,
    /// The sum of its weights, in thousandths of a measurement's.
    pub total_weight: u64,
    /// The first bucket that is not empty.
    pub first_bucket: u32,
    /// The share of each bucket from there on, from 0 to [`CHECKPOINT_WEIGHT_MAX`], which the largest one has.
    pub weights: Vec<u32>,
}
