//! Jobs: pods that run to completion, as in `batch/v1`.
//!
//! Source: "Jobs" in the Kubernetes documentation, and "Job v1 batch" of its API reference.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::{Condition, ConditionStatus, IndexSet, ObjectMeta, PodTemplate};

/// The condition of a job that has succeeded, and none of whose pods are left.
pub const JOB_COMPLETE: &str = "Complete";
/// The condition of a job that has failed, and none of whose pods are left.
pub const JOB_FAILED: &str = "Failed";
/// The condition of a job that will have failed once its pods have ended.
pub const JOB_FAILURE_TARGET: &str = "FailureTarget";
/// The condition of a job that will have succeeded once its pods have ended.
pub const JOB_SUCCESS_CRITERIA_MET: &str = "SuccessCriteriaMet";
/// The condition of a job whose pods are held back.
pub const JOB_SUSPENDED: &str = "Suspended";
/// The condition of a pod that ended because somebody wanted it away (Kubernetes' name).
pub const POD_DISRUPTION_TARGET: &str = "DisruptionTarget";
/// `backoffLimit` when not given.
pub const BACKOFF_LIMIT_DEFAULT: u32 = 6;
/// `backoffLimit` when not given and failures are limited per index.
pub const BACKOFF_LIMIT_NONE: u32 = i32::MAX as u32;
/// Most completions, and most parallel pods, of a job.
pub const COMPLETIONS_MAX: u32 = 100_000;
/// Most rules of a pod failure policy, and of a success policy (Kubernetes' limit).
pub const JOB_RULES_MAX: usize = 20;
/// Most exit codes, and most pod conditions, of a rule.
pub const JOB_RULE_VALUES_MAX: usize = 255;
/// The label with the name of a pod's job (Kubernetes' name).
pub const LABEL_JOB_NAME: &str = "batch.kubernetes.io/job-name";
/// The label, and annotation, with a pod's completion index (Kubernetes' name).
pub const LABEL_JOB_COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// The environment variable with the same.
pub const ENV_JOB_COMPLETION_INDEX: &str = "JOB_COMPLETION_INDEX";

/// Pods that run to completion.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Job {
    /// Standard metadata.
    pub meta: ObjectMeta,
    /// What is wanted.
    pub spec: JobSpec,
    /// What is known.
    pub status: JobStatus,
}

impl Job {
    /// How it ended; `None` while it has not.
    #[must_use]
    pub fn end(&self) -> Option<&Condition> {
        self.status.condition(JOB_COMPLETE).or_else(|| self.status.condition(JOB_FAILED))
    }

    /// What is to become of it once its pods have ended: its success or failure, which is certain by then. `None`
    /// while that is open.
    #[must_use]
    pub fn verdict(&self) -> Option<&Condition> {
        self.status.condition(JOB_FAILURE_TARGET).or_else(|| self.status.condition(JOB_SUCCESS_CRITERIA_MET))
    }
}

impl JobStatus {
    /// A condition that holds.
    #[must_use]
    pub fn condition(&self, condition_type: &str) -> Option<&Condition> {
        let holds = |c: &&Condition| c.condition_type == condition_type && c.status == ConditionStatus::True;
        self.conditions.iter().find(holds)
    }
}

/// Whether pods stand for indexes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CompletionMode {
    /// Any pod's success counts.
    #[default]
    NonIndexed = 1,
    /// Each index from 0 to `completions` − 1 needs one success.
    Indexed = 2,
}

/// When a pod that ends is replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PodReplacementPolicy {
    /// As soon as it is asked to end.
    #[default]
    TerminatingOrFailed = 1,
    /// Once it has ended.
    Failed = 2,
}

/// What a matching failure means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PodFailureAction {
    /// The job has failed.
    FailJob = 1,
    /// The pod's index has failed.
    FailIndex = 2,
    /// Nothing: the pod is replaced and not counted.
    Ignore = 3,
    /// The usual: counted towards the limit.
    Count = 4,
}

/// How exit codes are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ExitCodeOperator {
    /// One of the values.
    In = 1,
    /// None of the values, and not 0.
    NotIn = 2,
}

/// A pod's exit codes that a rule is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ExitCodeRequirement {
    /// Only of this container, init containers included; of any when unset.
    pub container_name: Option<SmolStr>,
    /// How they are compared.
    pub operator: ExitCodeOperator,
    /// In ascending order, without repeats; never 0 with `In`.
    pub values: Vec<i32>,
}

/// A condition of a pod that a rule is about, such as `DisruptionTarget`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PodConditionPattern {
    /// The condition's type.
    pub condition_type: SmolStr,
    /// Its status.
    pub status: ConditionStatus,
}

/// What a failure means when it matches; the first rule that does counts. Exactly one of the two requirements is
/// given.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PodFailureRule {
    /// What it means.
    pub action: PodFailureAction,
    /// Which exit codes.
    pub on_exit_codes: Option<ExitCodeRequirement>,
    /// Any of these conditions.
    pub on_pod_conditions: Vec<PodConditionPattern>,
}

/// When an indexed job has succeeded before all of its indexes have; at least one of the two is given.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SuccessRule {
    /// These indexes; any when unset.
    pub succeeded_indexes: Option<IndexSet>,
    /// So many of them; all when unset.
    pub succeeded_count: Option<u32>,
}

/// What is wanted of a Job.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct JobSpec {
    /// How many pods at a time.
    pub parallelism: u32,
    /// How many successes; when unset one success ends the job (work queue).
    pub completions: Option<u32>,
    /// Whether pods stand for indexes.
    pub completion_mode: CompletionMode,
    /// How many failures before the job has failed.
    pub backoff_limit: u32,
    /// How many failures of one index before it has failed; only with `Indexed`.
    pub backoff_limit_per_index: Option<u32>,
    /// How many failed indexes before the job has failed.
    pub max_failed_indexes: Option<u32>,
    /// How long the job may run, in milliseconds; wins over the back-off limit.
    pub active_deadline_ms: Option<u64>,
    /// How long an ended job is kept, in milliseconds; for ever when unset.
    pub ttl_after_finished_ms: Option<u64>,
    /// Whether no pods shall run for now.
    pub suspend: bool,
    /// When a pod that ends is replaced.
    pub pod_replacement_policy: PodReplacementPolicy,
    /// What failures mean; the first rule that matches counts.
    pub pod_failure_policy: Vec<PodFailureRule>,
    /// When the job has succeeded early; only with `Indexed`.
    pub success_policy: Vec<SuccessRule>,
    /// What each pod looks like.
    pub template: PodTemplate,
}

/// How often the pods of one index have failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct IndexFailures {
    /// The index.
    pub index: u32,
    /// How often, counted failures only; at least 1 but where all were passed over.
    pub failures: u32,
    /// The same with those that were passed over; at least 1.
    pub failures_in_row: u32,
    /// Log time of the last one, milliseconds since the epoch.
    pub last_failure_ms: u64,
}

/// What is known of a Job. Ends of pods are counted by the command that reports them: each exactly once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct JobStatus {
    /// The spec generation that the figures follow.
    pub observed_generation: u64,
    /// Log time of the start, or of the last resumption, milliseconds since the epoch; 0 before and while suspended.
    pub started_at_ms: u64,
    /// Log time of the success, milliseconds since the epoch; 0 before.
    pub completed_at_ms: u64,
    /// Pods that neither end nor ended.
    pub active: u32,
    /// Of those, ready ones.
    pub ready: u32,
    /// Pods that were asked to end and have not.
    pub terminating: u32,
    /// Successes.
    pub succeeded: u32,
    /// Failures.
    pub failed: u32,
    /// Indexes that have succeeded.
    pub completed_indexes: IndexSet,
    /// Indexes that have failed for good.
    pub failed_indexes: IndexSet,
    /// Failures of each index that has neither succeeded nor failed for good, in index order; only with a limit per
    /// index.
    pub index_failures: Vec<IndexFailures>,
    /// Log time of the last failure, passed over or not, milliseconds since the epoch; 0 before. The next pods wait
    /// for it.
    pub last_failure_ms: u64,
    /// Failures since the last success, passed over or not: the wait doubles with each.
    pub failures_in_row: u32,
    /// Complete, Failed, FailureTarget, SuccessCriteriaMet, Suspended; in type order.
    pub conditions: Vec<Condition>,
}
