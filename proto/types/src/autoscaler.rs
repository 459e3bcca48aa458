//! HorizontalPodAutoscalers: how many pods a workload has, by what they use, as in `autoscaling/v2`.
//!
//! Source: "Horizontal Pod Autoscaling" in the Kubernetes documentation, and "HorizontalPodAutoscaler v2 autoscaling" of
//! its API reference.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::{Condition, Kind, LabelSelector, Name, ObjectMeta, ObjectRef, Rare, format_bytes, format_millis};

/// The annotation of an autoscaler with how long a pod's figures are not looked at after its guest began, in seconds.
pub const ANNOTATION_WARM_UP: &str = "autoscaling.bulkhead.io/warmUpSeconds";
/// `minReplicas` when not given.
pub const AUTOSCALER_MIN_REPLICAS_DEFAULT: u32 = 1;
/// Processor time in per cent of the request that pods shall have when no metric is given.
pub const AUTOSCALER_CPU_PERCENT_DEFAULT: u32 = 80;
/// How often an autoscaler looks at its workload, in milliseconds (Kubernetes' default).
pub const AUTOSCALER_PERIOD_MS: u64 = 15_000;
/// Most metrics of an autoscaler.
pub const AUTOSCALER_METRICS_MAX: usize = 16;
/// Most policies of one direction.
pub const SCALING_POLICIES_MAX: usize = 16;
/// Longest stabilization window, in milliseconds (Kubernetes' limit).
pub const STABILIZATION_MS_MAX: u64 = 3_600_000;
/// Longest period of a policy, in milliseconds (Kubernetes' limit).
pub const POLICY_PERIOD_MS_MAX: u64 = 1_800_000;
/// Most recommendations, and most changes, that a status keeps: a look every [`AUTOSCALER_PERIOD_MS`] makes no more of
/// them in the longest window. Beyond that the oldest go.
pub const AUTOSCALER_HISTORY_MAX: usize = 256;

/// The condition that says whether the workload can be scaled now.
pub const ABLE_TO_SCALE: &str = "AbleToScale";
/// The condition that says whether there are figures to scale by.
pub const SCALING_ACTIVE: &str = "ScalingActive";
/// The condition that says whether a bound or a policy stands in the way.
pub const SCALING_LIMITED: &str = "ScalingLimited";

/// How many pods a workload has, by what they use.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HorizontalPodAutoscaler {
    /// Standard metadata.
    pub meta: ObjectMeta,
    /// What is wanted.
    pub spec: AutoscalerSpec,
    /// What is known.
    pub status: AutoscalerStatus,
}

impl HorizontalPodAutoscaler {
    /// How long after its guest began a pod's figures are not looked at, in milliseconds.
    #[must_use]
    pub fn warm_up_ms(&self) -> u64 {
        let seconds = self.meta.annotations.get(ANNOTATION_WARM_UP).and_then(|text| text.parse::<u32>().ok());
        seconds.map_or(0, |seconds| u64::from(seconds) * 1000)
    }
}

/// What is scaled, in the namespace of whoever scales it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ScaleTarget {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: Name,
}

impl ScaleTarget {
    /// The same, seen from outside of the namespace.
    #[must_use]
    pub fn object_ref(&self, namespace: Option<&Name>) -> ObjectRef {
        ObjectRef { kind: self.kind, namespace: namespace.cloned(), name: self.name.clone() }
    }
}

/// What is wanted of an autoscaler.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AutoscalerSpec {
    /// What is scaled: a Deployment or StatefulSet.
    pub target: ScaleTarget,
    /// Fewest pods, at least 1.
    pub min_replicas: u32,
    /// Most pods, at least `min_replicas`.
    pub max_replicas: u32,
    /// By what; the one that wants most pods counts.
    pub metrics: Vec<AutoscalerMetric>,
    /// How fast there may be more pods.
    pub scale_up: ScalingRules,
    /// How fast there may be fewer.
    pub scale_down: ScalingRules,
}

/// What agents measure of pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MeasuredResource {
    /// Processor time, in thousandths of a core.
    Cpu = 1,
    /// Working set, in bytes.
    Memory = 2,
    /// What the metrics endpoint says, in thousandths: the metric has a query.
    Queried = 3,
}

impl MeasuredResource {
    /// As in `resource.name` of a manifest.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Queried => "query",
        }
    }

    /// An amount of it as in a manifest: `250m`, `64Mi`.
    #[must_use]
    pub fn format(self, amount: u64) -> String {
        match self {
            Self::Cpu | Self::Queried => format_millis(amount),
            Self::Memory => format_bytes(amount),
        }
    }
}

/// What a number from the metrics endpoint is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MetricSource {
    /// Each pod of the workload has one.
    Pods = 1,
    /// Some object of the namespace has one.
    Object = 2,
    /// It belongs to nothing in the cluster.
    External = 3,
}

impl MetricSource {
    /// As in `type` of a manifest.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pods => "Pods",
            Self::Object => "Object",
            Self::External => "External",
        }
    }
}

/// The object that a metric describes. It need not be of a kind that Bulkhead has.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MetricObject {
    /// Its `apiVersion`; may be empty.
    pub api_version: SmolStr,
    /// Its kind.
    pub kind: SmolStr,
    /// Its name, in the namespace of the autoscaler.
    pub name: SmolStr,
}

/// What is asked of the metrics endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MetricQuery {
    /// What the numbers are about.
    pub source: MetricSource,
    /// Which object, with [`MetricSource::Object`].
    pub object: Option<MetricObject>,
    /// The metric's name there: `[a-zA-Z_:][a-zA-Z0-9_:]*`.
    pub name: SmolStr,
    /// Which of its series, by their labels.
    pub selector: LabelSelector,
}

/// One thing that is scaled by (`Resource`, or `ContainerResource` when it names a container, or by a query).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AutoscalerMetric {
    /// Which resource.
    pub resource: MeasuredResource,
    /// Of which container; of the whole pod when unset.
    pub container: Option<SmolStr>,
    /// How much of it.
    pub target: MetricTarget,
    /// With [`MeasuredResource::Queried`], and only then: what is asked.
    pub query: Rare<MetricQuery>,
}

impl AutoscalerMetric {
    /// A resource of whole pods.
    #[must_use]
    pub fn resource(resource: MeasuredResource, target: MetricTarget) -> Self {
        Self { resource, container: None, target, query: Rare::NONE }
    }

    /// What it is called: the resource, `memory of app`, or the queried metric's own name.
    #[must_use]
    pub fn name(&self) -> String {
        match (self.query.get(), &self.container) {
            (Some(query), _) => query.name.to_string(),
            (None, Some(container)) => format!("{} of {container}", self.resource.as_str()),
            (None, None) => self.resource.as_str().to_owned(),
        }
    }
}

/// How much of it there shall be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MetricTarget {
    /// So many per cent of its requests.
    Utilization(u32),
    /// So much for each pod on average, in the resource's unit.
    AverageValue(u64),
    /// So much in all, in thousandths: of what is queried only.
    Value(u64),
}

/// Which policy counts when there are several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PolicySelect {
    /// The one that allows the largest change.
    #[default]
    Max = 1,
    /// The one that allows the smallest change.
    Min = 2,
    /// None: there is no scaling in this direction.
    Disabled = 3,
}

/// What a policy counts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PolicyUnit {
    /// Pods.
    Pods = 1,
    /// Per cent of the pods that there were at the period's begin.
    Percent = 2,
}

/// How much may change in a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ScalingPolicy {
    /// In what it counts.
    pub unit: PolicyUnit,
    /// How much, at least 1.
    pub value: u32,
    /// Within how long, in milliseconds.
    pub period_ms: u64,
}

/// How fast the number of pods may change in one direction.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ScalingRules {
    /// Of all recommendations of so long the one that changes least counts, in milliseconds.
    pub stabilization_window_ms: u64,
    /// Which policy counts.
    pub select_policy: PolicySelect,
    /// How much may change; at least one.
    pub policies: Vec<ScalingPolicy>,
}

impl ScalingRules {
    /// What holds for more pods when nothing is given: at once, doubling or 4 pods in 15 s, whichever is more.
    #[must_use]
    pub fn scale_up_default() -> Self {
        let policies = vec![
            ScalingPolicy { unit: PolicyUnit::Pods, value: 4, period_ms: 15_000 },
            ScalingPolicy { unit: PolicyUnit::Percent, value: 100, period_ms: 15_000 },
        ];
        Self { stabilization_window_ms: 0, select_policy: PolicySelect::Max, policies }
    }

    /// What holds for fewer pods when nothing is given: after 5 minutes, all at once.
    #[must_use]
    pub fn scale_down_default() -> Self {
        let policies = vec![ScalingPolicy { unit: PolicyUnit::Percent, value: 100, period_ms: 15_000 }];
        Self { stabilization_window_ms: 300_000, select_policy: PolicySelect::Max, policies }
    }

    /// The longest period of its policies, in milliseconds.
    #[must_use]
    pub fn period_ms(&self) -> u64 {
        self.policies.iter().map(|policy| policy.period_ms).max().unwrap_or(0)
    }
}

/// What is known of an autoscaler: the figures of its last decision, and what its next one must look back at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AutoscalerStatus {
    /// The spec generation that the last decision followed.
    pub observed_generation: u64,
    /// Counts decisions, from 1: one that was taken on an older status than the present is refused.
    pub decision: u64,
    /// Log time of the last change of the workload's size, milliseconds since the epoch; 0 before.
    pub last_scale_ms: u64,
    /// The size that the last decision found.
    pub current_replicas: u32,
    /// The size that it set, or left.
    pub desired_replicas: u32,
    /// When its figures were read, milliseconds since the epoch.
    pub read_at_ms: u64,
    /// Its figures, one for each metric of the spec, in the spec's order.
    pub metrics: Vec<MetricReading>,
    /// What was recommended since when, oldest first: each holds until the next one.
    pub recommendations: Vec<Recommendation>,
    /// Changes of the size that policies still look back at, oldest first.
    pub changes: Vec<ReplicaChange>,
    /// AbleToScale, ScalingActive, ScalingLimited; in type order.
    pub conditions: Vec<Condition>,
}

/// What one metric said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MetricReading {
    /// In per cent of the requests; `None` when the target is no utilization, or nothing is known.
    pub average_utilization: Option<u32>,
    /// What a counted pod uses on average, in the resource's unit; `None` when nothing is known.
    pub average_value: Option<u64>,
    /// How many pods this metric wants; `None` when nothing is known.
    pub proposal: Option<u32>,
    /// Pods whose figures count.
    pub pods_counted: u32,
    /// Pods that are not ready, or too young, to count.
    pub pods_unready: u32,
    /// Pods that should count, but are not there or have no figures.
    pub pods_missing: u32,
    /// Why nothing is known, for people; empty otherwise.
    pub message: String,
    /// What a query said in all, in thousandths.
    pub total: Rare<u64>,
}

/// A recommended size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Recommendation {
    /// Since when it holds, milliseconds since the epoch.
    pub since_ms: u64,
    /// The size.
    pub replicas: u32,
}

/// A change of the size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ReplicaChange {
    /// When, milliseconds since the epoch.
    pub at_ms: u64,
    /// The size before.
    pub from: u32,
    /// The size after.
    pub to: u32,
}
