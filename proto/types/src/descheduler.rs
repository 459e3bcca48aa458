//! Which pods are moved, because where they are is no longer where they should be.
//!
//! Source: kubernetes-sigs/descheduler, names and meanings of its strategies and their parameters (`DeschedulerPolicy`). Here
//! a policy is an object, and the control plane follows it.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::{LabelSelector, Name, ObjectId, ObjectMeta, Rare};

/// How often a policy looks when it does not say, in milliseconds.
pub const DESCHEDULER_INTERVAL_MS_DEFAULT: u64 = 300_000;
/// The bounds of what it may say, in milliseconds.
pub const DESCHEDULER_INTERVAL_MS: std::ops::RangeInclusive<u64> = 10_000..=86_400_000;
/// For how long the pods of an owner are left alone after one of them was evicted, when a policy does not say, in
/// milliseconds.
pub const COOL_DOWN_MS_DEFAULT: u64 = 1_800_000;
/// The longest that it may say, in milliseconds: a week.
pub const COOL_DOWN_MS_MAX: u64 = 7 * 86_400_000;
/// Most policies of a cluster.
pub const DESCHEDULER_POLICIES_MAX: usize = 16;
/// Most pods of one run, whatever a policy says.
pub const DESCHEDULED_PER_RUN_MAX: u32 = 100;
/// Most owners whose pods are left alone: when there are so many, nobody else is evicted until one is forgotten.
pub const COOLING_OWNERS_MAX: usize = 1024;
/// Most namespaces that a policy names.
pub const DESCHEDULER_NAMESPACES_MAX: usize = 64;

/// Which pods are moved.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DeschedulerPolicy {
    /// Standard metadata.
    pub meta: ObjectMeta,
    /// What is wanted.
    pub spec: DeschedulerPolicySpec,
    /// What was done.
    pub status: DeschedulerPolicyStatus,
}

/// What is wanted of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DeschedulerPolicySpec {
    /// How often it looks, in milliseconds; within [`DESCHEDULER_INTERVAL_MS`].
    pub interval_ms: u64,
    /// For how long the pods of an owner are left alone after a run that evicted some, in milliseconds; at most
    /// [`COOL_DOWN_MS_MAX`].
    pub cool_down_ms: u64,
    /// Say what would be evicted, and evict nothing.
    pub dry_run: bool,
    /// Most pods that one run evicts from one node.
    pub max_per_node: Option<u32>,
    /// Most that it evicts from one namespace.
    pub max_per_namespace: Option<u32>,
    /// Most that it evicts at all; [`DESCHEDULED_PER_RUN_MAX`] bounds it further.
    pub max_total: Option<u32>,
    /// Only pods of these namespaces; empty: of all.
    pub include: Vec<Name>,
    /// No pods of these.
    pub exclude: Vec<Name>,
    /// Only pods that this selects.
    pub label_selector: Rare<LabelSelector>,
    /// Only pods whose priority is below this.
    pub priority_threshold: Option<i32>,
    /// Pods with an `emptyDir` too, whose content is lost.
    pub evict_local_storage_pods: bool,
    /// What is looked for, each once, in this order.
    pub strategies: Vec<DeschedulerStrategy>,
}

/// Parts of what a node has, in per cent from 0 to 100; what is not named is not looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct UtilizationThresholds {
    /// Of processor time.
    pub cpu: Option<u32>,
    /// Of memory.
    pub memory: Option<u32>,
    /// Of the number of pods.
    pub pods: Option<u32>,
}

/// Something that is looked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DeschedulerStrategy {
    /// Nodes above all their targets, beside nodes that are below all thresholds.
    LowNodeUtilization {
        /// A node below all of these is underutilized.
        thresholds: UtilizationThresholds,
        /// A node above any of these is overutilized.
        target_thresholds: UtilizationThresholds,
        /// By what pods use, as the leader hears of it; else by what they request.
        measured: bool,
        /// Nothing is done when there are no more underutilized nodes than this.
        number_of_nodes: u32,
    },
    /// More than one pod of an owner on a node, while others have fewer.
    RemoveDuplicates,
    /// Pods on nodes that their required node affinity or node selector does not allow any more.
    RemovePodsViolatingNodeAffinity,
    /// Pods on nodes with a `NoSchedule` taint that they do not tolerate.
    RemovePodsViolatingNodeTaints {
        /// `PreferNoSchedule` counts as well.
        include_prefer_no_schedule: bool,
    },
    /// Pods of domains that have more than their spread constraints allow.
    RemovePodsViolatingTopologySpreadConstraint,
    /// Pods beside others that their required anti-affinity does not allow.
    RemovePodsViolatingInterPodAntiAffinity,
    /// Pods whose containers restarted too often.
    RemovePodsHavingTooManyRestarts {
        /// As often as this, or more often.
        pod_restart_threshold: u32,
        /// Restarts of init containers count too.
        including_init_containers: bool,
    },
    /// Pods that are older than this.
    PodLifeTime {
        /// In milliseconds.
        max_pod_life_time_ms: u64,
    },
}

impl DeschedulerStrategy {
    /// Its name, as Kubernetes has it.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::LowNodeUtilization { .. } => "LowNodeUtilization",
            Self::RemoveDuplicates => "RemoveDuplicates",
            Self::RemovePodsViolatingNodeAffinity => "RemovePodsViolatingNodeAffinity",
            Self::RemovePodsViolatingNodeTaints { .. } => "RemovePodsViolatingNodeTaints",
            Self::RemovePodsViolatingTopologySpreadConstraint => {
                "RemovePodsViolatingTopologySpreadConstraint"
            }
            Self::RemovePodsViolatingInterPodAntiAffinity => "RemovePodsViolatingInterPodAntiAffinity",
            Self::RemovePodsHavingTooManyRestarts { .. } => "RemovePodsHavingTooManyRestarts",
            Self::PodLifeTime { .. } => "PodLifeTime",
        }
    }
}

/// A pod that a run evicted, or would have.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Descheduled {
    /// Which.
    pub pod: ObjectId,
    /// `namespace/name` of it.
    pub name: SmolStr,
    /// The node where it was.
    pub node: Name,
    /// By which strategy.
    pub strategy: SmolStr,
    /// Why, for people.
    pub reason: String,
}

/// An owner whose pods are left alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CoolingOwner {
    /// Which: a Deployment for the pods of its ReplicaSets.
    pub owner: ObjectId,
    /// When one of its pods was evicted last, milliseconds since the epoch.
    pub evicted_at_ms: u64,
}

/// What a policy did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DeschedulerPolicyStatus {
    /// The spec generation of the last run; 0 before.
    pub observed_generation: u64,
    /// When the last run was, milliseconds since the epoch; 0 before.
    pub last_run_ms: u64,
    /// What it evicted, or would have; at most [`DESCHEDULED_PER_RUN_MAX`].
    pub last: Vec<Descheduled>,
    /// Whether that was a dry run.
    pub last_was_dry_run: bool,
    /// How many pods all runs evicted.
    pub evicted: u64,
    /// Owners whose pods are left alone, by id; at most [`COOLING_OWNERS_MAX`].
    pub cooling: Vec<CoolingOwner>,
}
