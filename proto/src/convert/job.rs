//! Jobs and CronJobs.

use bulkhead_types::{
    CompletionMode, ConcurrencyPolicy, CronJob, CronJobSpec, CronJobStatus, ExitCodeOperator,
    ExitCodeRequirement, IndexFailures, IndexSet, JOB_RULE_VALUES_MAX, JOB_RULES_MAX, Job, JobSpec,
    JobStatus, JobTemplate, PodConditionPattern, PodFailureAction, PodFailureRule, PodReplacementPolicy,
    SuccessRule,
};

use super::{ConvertError, Field, wire_enum, wire_field, wire_field_or_default, wire_struct};
use crate::v1;

wire_enum! {
    CompletionMode { NonIndexed, Indexed }
    PodReplacementPolicy { TerminatingOrFailed, Failed }
    PodFailureAction { FailJob, FailIndex, Ignore, Count }
    ExitCodeOperator { In, NotIn }
    ConcurrencyPolicy { Allow, Forbid, Replace }
}

wire_struct!(Job => v1::Job { meta, spec, status });
wire_struct!(JobSpec => v1::JobSpec {
    parallelism, completions, completion_mode, backoff_limit, backoff_limit_per_index, max_failed_indexes,
    active_deadline_ms, ttl_after_finished_ms, suspend, pod_replacement_policy,
    pod_failure_policy (JOB_RULES_MAX), success_policy (JOB_RULES_MAX), template,
});
wire_struct!(JobStatus => v1::JobStatus {
    observed_generation, started_at_ms, completed_at_ms, active, ready, terminating, succeeded, failed,
    completed_indexes, failed_indexes, index_failures, last_failure_ms, conditions,
    failures_in_row,
});
wire_struct!(PodFailureRule => v1::PodFailureRule {
    action, on_exit_codes, on_pod_conditions (JOB_RULES_MAX),
});
wire_struct!(ExitCodeRequirement => v1::ExitCodeRequirement {
    container_name, operator, values (JOB_RULE_VALUES_MAX),
});
wire_struct!(PodConditionPattern => v1::PodConditionPattern { condition_type, status });
wire_struct!(SuccessRule => v1::SuccessRule { succeeded_indexes, succeeded_count });
wire_struct!(CronJob => v1::CronJob { meta, spec, status });
wire_struct!(CronJobSpec => v1::CronJobSpec {
    schedule, time_zone, concurrency_policy, starting_deadline_ms, suspend, successful_jobs_history_limit,
    failed_jobs_history_limit, job_template,
});
wire_struct!(CronJobStatus => v1::CronJobStatus {
    last_schedule_ms, last_successful_ms, active, conditions,
});
wire_struct!(IndexFailures => v1::IndexFailures { index, failures, failures_in_row, last_failure_ms });
wire_struct!(JobTemplate => v1::JobTemplate { labels, annotations, spec });

wire_field! {
    Job => v1::Job,
    JobSpec => v1::JobSpec,
    PodFailureRule => v1::PodFailureRule,
    PodConditionPattern => v1::PodConditionPattern,
    SuccessRule => v1::SuccessRule,
    CronJob => v1::CronJob,
    CronJobSpec => v1::CronJobSpec,
    JobTemplate => v1::JobTemplate,
}
wire_field_or_default! {
    JobStatus => v1::JobStatus,
    CronJobStatus => v1::CronJobStatus,
}

impl Field<v1::ExitCodeRequirement> for ExitCodeRequirement {
    fn to_wire(&self) -> v1::ExitCodeRequirement {
        self.into()
    }
    fn from_wire(wire: v1::ExitCodeRequirement) -> Result<Self, ConvertError> {
        wire.try_into()
    }
}

impl Field<v1::IndexSet> for IndexSet {
    fn to_wire(&self) -> v1::IndexSet {
        let ranges =
            self.ranges().iter().map(|(first, last)| v1::index_set::Range { first: *first, last: *last });
        v1::IndexSet { ranges: ranges.collect() }
    }
    fn from_wire(wire: v1::IndexSet) -> Result<Self, ConvertError> {
        let ranges = wire.ranges.into_iter().map(|range| (range.first, range.last));
        Self::from_ranges(ranges).map_err(|e| ConvertError::new(e.to_string()).within("ranges"))
    }
}

/// In a status: left out when it is empty.
impl Field<Option<v1::IndexSet>> for IndexSet {
    fn to_wire(&self) -> Option<v1::IndexSet> {
        (!self.is_empty()).then(|| self.to_wire())
    }
    fn from_wire(wire: Option<v1::IndexSet>) -> Result<Self, ConvertError> {
        wire.map_or_else(|| Ok(Self::default()), Self::from_wire)
    }
}

impl Field<v1::IndexFailures> for IndexFailures {
    fn to_wire(&self) -> v1::IndexFailures {
        self.into()
    }
    fn from_wire(wire: v1::IndexFailures) -> Result<Self, ConvertError> {
        wire.try_into()
    }
}
