//! StatefulSets, DaemonSets, Jobs, CronJobs, ConfigMaps, Secrets, and what is said of them.

use super::*;

fn update_strategy() -> impl Strategy<Value = StatefulSetUpdateStrategy> + Clone {
    prop_oneof![
        Just(StatefulSetUpdateStrategy::OnDelete),
        (any::<u32>(), int_or_percent()).prop_map(|(partition, max_unavailable)| {
            StatefulSetUpdateStrategy::RollingUpdate { partition, max_unavailable }
        }),
    ]
}

record!(/// Any StatefulSet spec.
stateful_set_spec: StatefulSetSpec {
    replicas: any::<u32>(), ordinals_start: any::<u32>(), selector: label_selector(), template: pod_template(),
    service_name: small(),
    pod_management_policy: select(vec![PodManagementPolicy::OrderedReady, PodManagementPolicy::Parallel]),
    update_strategy: update_strategy(), min_ready_ms: any::<u64>(), revision_history_limit: any::<u32>(),
    stopped: any::<bool>(), claims: rare(volume_claims()),
});
record!(/// Any StatefulSet status.
stateful_set_status: StatefulSetStatus {
    observed_generation: any::<u64>(), replicas: any::<u32>(), ready_replicas: any::<u32>(),
    available_replicas: any::<u32>(), current_replicas: any::<u32>(), updated_replicas: any::<u32>(),
    current_revision: small(), update_revision: small(), collision_count: any::<u32>(),
    conditions: vec(condition(), 0..3),
});

fn daemon_strategy() -> impl Strategy<Value = DaemonSetUpdateStrategy> + Clone {
    prop_oneof![
        Just(DaemonSetUpdateStrategy::OnDelete),
        (int_or_percent(), int_or_percent()).prop_map(|(max_unavailable, max_surge)| {
            DaemonSetUpdateStrategy::RollingUpdate { max_unavailable, max_surge }
        }),
    ]
}

record!(/// Any DaemonSet spec.
daemon_set_spec: DaemonSetSpec {
    selector: label_selector(), template: pod_template(), update_strategy: daemon_strategy(),
    min_ready_ms: any::<u64>(), revision_history_limit: any::<u32>(),
});
record!(/// Any DaemonSet status.
daemon_set_status: DaemonSetStatus {
    observed_generation: any::<u64>(), desired_number_scheduled: any::<u32>(),
    current_number_scheduled: any::<u32>(), number_misscheduled: any::<u32>(), number_ready: any::<u32>(),
    number_available: any::<u32>(), number_unavailable: any::<u32>(), updated_number_scheduled: any::<u32>(),
    update_revision: small(), collision_count: any::<u32>(), conditions: vec(condition(), 0..3),
});

/// Any set of indexes.
pub fn index_set() -> impl Strategy<Value = IndexSet> + Clone {
    vec(0..40u32, 0..6).prop_map(|indexes| indexes.into_iter().collect())
}

record!(/// Any exit codes of a rule.
exit_codes: ExitCodeRequirement {
    container_name: of(small()), operator: select(vec![ExitCodeOperator::In, ExitCodeOperator::NotIn]),
    values: vec(any::<i32>(), 0..3),
});
record!(/// Any condition of a rule.
condition_pattern: PodConditionPattern {
    condition_type: small(),
    status: select(vec![ConditionStatus::True, ConditionStatus::False, ConditionStatus::Unknown]),
});
record!(/// Any rule on failures.
failure_rule: PodFailureRule {
    action: select(vec![
        PodFailureAction::FailJob, PodFailureAction::FailIndex, PodFailureAction::Ignore,
        PodFailureAction::Count,
    ]),
    on_exit_codes: of(exit_codes()), on_pod_conditions: vec(condition_pattern(), 0..2),
});
record!(/// Any rule on successes.
success_rule: SuccessRule { succeeded_indexes: of(index_set()), succeeded_count: of(any::<u32>()) });
record!(/// Any Job spec.
job_spec: JobSpec {
    parallelism: any::<u32>(), completions: of(any::<u32>()),
    completion_mode: select(vec![CompletionMode::NonIndexed, CompletionMode::Indexed]),
    backoff_limit: any::<u32>(), backoff_limit_per_index: of(any::<u32>()),
    max_failed_indexes: of(any::<u32>()), active_deadline_ms: of(any::<u64>()),
    ttl_after_finished_ms: of(any::<u64>()), suspend: any::<bool>(),
    pod_replacement_policy: select(vec![
        PodReplacementPolicy::TerminatingOrFailed, PodReplacementPolicy::Failed,
    ]),
    pod_failure_policy: vec(failure_rule(), 0..2), success_policy: vec(success_rule(), 0..2),
    template: pod_template(),
});
record!(/// Any failures of an index.
index_failures: IndexFailures {
    index: any::<u32>(), failures: any::<u32>(), failures_in_row: any::<u32>(), last_failure_ms: any::<u64>(),
});
record!(/// Any Job status.
job_status: JobStatus {
    observed_generation: any::<u64>(), started_at_ms: any::<u64>(), completed_at_ms: any::<u64>(),
    active: any::<u32>(), ready: any::<u32>(), terminating: any::<u32>(), succeeded: any::<u32>(),
    failed: any::<u32>(), completed_indexes: index_set(), failed_indexes: index_set(),
    index_failures: vec(index_failures(), 0..3), last_failure_ms: any::<u64>(),
    failures_in_row: any::<u32>(),
    conditions: vec(condition(), 0..3),
});
record!(/// Any template of jobs.
job_template: JobTemplate { labels: labels(), annotations: labels(), spec: job_spec() });
record!(/// Any CronJob spec.
cron_job_spec: CronJobSpec {
    schedule: small(), time_zone: of(small()),
    concurrency_policy: select(vec![
        ConcurrencyPolicy::Allow, ConcurrencyPolicy::Forbid, ConcurrencyPolicy::Replace,
    ]),
    starting_deadline_ms: of(any::<u64>()), suspend: any::<bool>(),
    successful_jobs_history_limit: any::<u32>(), failed_jobs_history_limit: any::<u32>(),
    job_template: job_template(),
});
record!(/// Any CronJob status.
cron_job_status: CronJobStatus {
    last_schedule_ms: any::<u64>(), last_successful_ms: any::<u64>(), active: vec(object_id(), 0..3),
    conditions: vec(condition(), 0..2),
});

fn bytes() -> impl Strategy<Value = Vec<u8>> + Clone {
    vec(any::<u8>(), 0..8)
}

record!(/// Any ConfigMap.
config_map: ConfigMap {
    meta: meta(), immutable: any::<bool>(), data: proptest::collection::btree_map(small(), text(), 0..3),
    binary_data: proptest::collection::btree_map(small(), bytes().prop_map(Bytes::from), 0..3),
});
record!(/// Any Secret.
secret: Secret {
    meta: meta(), secret_type: select(SecretType::ALL.to_vec()), immutable: any::<bool>(),
    data: proptest::collection::btree_map(small(), bytes().prop_map(Sensitive::from), 0..3),
});
record!(/// Any StatefulSet.
stateful_set: StatefulSet { meta: meta(), spec: stateful_set_spec(), status: stateful_set_status() });
record!(/// Any DaemonSet.
daemon_set: DaemonSet { meta: meta(), spec: daemon_set_spec(), status: daemon_set_status() });
record!(/// Any Job.
job: Job { meta: meta(), spec: job_spec(), status: job_status() });
record!(/// Any CronJob.
cron_job: CronJob { meta: meta(), spec: cron_job_spec(), status: cron_job_status() });
record!(/// Any ControllerRevision.
controller_revision: ControllerRevision {
    meta: meta(), revision: any::<u64>(), template: pod_template(),
});

/// Any object of these kinds.
pub(super) fn workload_object() -> impl Strategy<Value = Object> + Clone {
    prop_oneof![
        stateful_set().prop_map(|o| Object::StatefulSet(Arc::new(o))),
        daemon_set().prop_map(|o| Object::DaemonSet(Arc::new(o))),
        job().prop_map(|o| Object::Job(Arc::new(o))),
        cron_job().prop_map(|o| Object::CronJob(Arc::new(o))),
        config_map().prop_map(|o| Object::ConfigMap(Arc::new(o))),
        secret().prop_map(|o| Object::Secret(Arc::new(o))),
        controller_revision().prop_map(|o| Object::ControllerRevision(Arc::new(o))),
        horizontal_pod_autoscaler().prop_map(|o| Object::HorizontalPodAutoscaler(Arc::new(o))),
        cron_horizontal_pod_autoscaler().prop_map(|o| Object::CronHorizontalPodAutoscaler(Arc::new(o))),
        pod_disruption_budget().prop_map(|o| Object::PodDisruptionBudget(Arc::new(o))),
        elastic_workload().prop_map(|o| Object::ElasticWorkload(Arc::new(o))),
        vertical_pod_autoscaler().prop_map(|o| Object::VerticalPodAutoscaler(Arc::new(o))),
        priority_class().prop_map(|o| Object::PriorityClass(Arc::new(o))),
        profile().prop_map(|o| Object::Profile(Arc::new(o))),
        claim().prop_map(|o| Object::PersistentVolumeClaim(Arc::new(o))),
        resource_quota().prop_map(|o| Object::ResourceQuota(Arc::new(o))),
        limit_range().prop_map(|o| Object::LimitRange(Arc::new(o))),
        department().prop_map(|o| Object::Department(Arc::new(o))),
        project().prop_map(|o| Object::Project(Arc::new(o))),
        pod_group().prop_map(|o| Object::PodGroup(Arc::new(o))),
        queue().prop_map(|o| Object::Queue(Arc::new(o))),
        device_class().prop_map(|o| Object::DeviceClass(Arc::new(o))),
        resource_slice().prop_map(|o| Object::ResourceSlice(Arc::new(o))),
        sriov_policy().prop_map(|o| Object::SriovNetworkNodePolicy(Arc::new(o))),
        sriov_network().prop_map(|o| Object::SriovNetwork(Arc::new(o))),
        sriov_ib_network().prop_map(|o| Object::SriovIBNetwork(Arc::new(o))),
        sriov_state().prop_map(|o| Object::SriovNetworkNodeState(Arc::new(o))),
        node_pool().prop_map(|o| Object::NodePool(Arc::new(o))),
        node_operation().prop_map(|o| Object::NodeOperation(Arc::new(o))),
        descheduler_policy().prop_map(|o| Object::DeschedulerPolicy(Arc::new(o))),
        elastic_quota_tree().prop_map(|o| Object::ElasticQuotaTree(Arc::new(o))),
        volume_snapshot().prop_map(|o| Object::VolumeSnapshot(Arc::new(o))),
        persistent_volume().prop_map(|o| Object::PersistentVolume(Arc::new(o))),
        storage_class().prop_map(|o| Object::StorageClass(Arc::new(o))),
    ]
}

/// Any status that has no command of its own.
pub fn object_status() -> impl Strategy<Value = ObjectStatus> + Clone {
    prop_oneof![
        stateful_set_status().prop_map(ObjectStatus::StatefulSet),
        daemon_set_status().prop_map(ObjectStatus::DaemonSet),
        job_status().prop_map(ObjectStatus::Job),
        cron_job_status().prop_map(ObjectStatus::CronJob),
        autoscaler_status().prop_map(ObjectStatus::HorizontalPodAutoscaler),
        cron_autoscaler_status().prop_map(ObjectStatus::CronHorizontalPodAutoscaler),
        disruption_budget_status().prop_map(ObjectStatus::PodDisruptionBudget),
        elastic_workload_status().prop_map(ObjectStatus::ElasticWorkload),
        vertical_autoscaler_status().prop_map(ObjectStatus::VerticalPodAutoscaler),
        claim_status().prop_map(ObjectStatus::PersistentVolumeClaim),
        quota_status().prop_map(ObjectStatus::ResourceQuota),
        quota_status().prop_map(ObjectStatus::Project),
        quota_status().prop_map(ObjectStatus::Department),
        pod_group_status().prop_map(ObjectStatus::PodGroup),
        queue_status().prop_map(ObjectStatus::Queue),
        sriov_state_status().prop_map(ObjectStatus::SriovNetworkNodeState),
        node_pool_status().prop_map(ObjectStatus::NodePool),
        node_operation_status().prop_map(ObjectStatus::NodeOperation),
        descheduler_policy_status().prop_map(ObjectStatus::DeschedulerPolicy),
        elastic_quota_tree_status().prop_map(ObjectStatus::ElasticQuotaTree),
        volume_snapshot_status().prop_map(ObjectStatus::VolumeSnapshot),
    ]
}

record!(/// Any pod of an owner.
pod_stamp: PodStamp {
    name: name(), index: of(any::<u32>()), node: of(object_id()), revision: of(object_id()),
});

pub(super) fn owned_command() -> impl Strategy<Value = Command> + Clone {
    prop_oneof![
        (object_ref(), any::<bool>())
            .prop_map(|(object, suspended)| Command::SetSuspended { object, suspended }),
        (object_ref(), name()).prop_map(|(cron_job, name)| Command::RunCronJob { cron_job, name }),
        (object_ref(), any::<bool>()).prop_map(|(object, stopped)| Command::SetStopped { object, stopped }),
        (object_ref(), any::<bool>())
            .prop_map(|(deployment, full)| Command::PromoteRollout { deployment, full }),
        object_ref().prop_map(|deployment| Command::AbortRollout { deployment }),
        object_ref().prop_map(|deployment| Command::RetryRollout { deployment }),
        (object_id(), of(delivery_status()), of(delivery_status())).prop_map(|(deployment, from, to)| {
            Command::AdvanceDelivery { deployment, from: from.into(), to: to.into() }
        }),
        (object(), of(any::<u128>())).prop_map(|(object, seen)| Command::Update { object, seen }),
        (owner_ref(), any::<u64>(), object())
            .prop_map(|(owner, generation, object)| { Command::CreateOwned { owner, generation, object } }),
        (owner_ref(), any::<u64>(), vec(pod_stamp(), 0..3))
            .prop_map(|(owner, generation, pods)| { Command::CreateOwnedPods { owner, generation, pods } }),
        (owner_ref(), vec((kind(), object_id()), 0..3))
            .prop_map(|(owner, objects)| Command::DeleteOwned { owner, objects }),
        (owner_ref(), any::<u64>(), vec(object_id(), 0..3), small()).prop_map(
            |(owner, generation, pods, reason)| Command::DeleteOwnedPods { owner, generation, pods, reason }
        ),
        autoscale(),
        recommend(),
        scheduled_or_evicted(),
        (object_id(), object_status()).prop_map(|(id, status)| Command::SetStatus { id, status }),
        (object_id(), any::<u64>())
            .prop_map(|(id, revision)| Command::SetControllerRevision { id, revision }),
    ]
}

pub(super) fn owned_event() -> impl Strategy<Value = EventKind> + Clone {
    let end = select(vec![
        PodEnd::Succeeded,
        PodEnd::Failed,
        PodEnd::Ignored,
        PodEnd::FailedIndex,
        PodEnd::FailedJob,
        PodEnd::Stopped,
    ]);
    prop_oneof![
        object().prop_map(EventKind::SpecChanged),
        (kind(), object_id(), managers()).prop_map(|(kind, id, managers)| EventKind::ManagersChanged {
            kind,
            id,
            managers
        }),
        (object_id(), object_status()).prop_map(|(id, status)| EventKind::StatusChanged { id, status }),
        (object_id(), any::<u64>())
            .prop_map(|(id, revision)| EventKind::ControllerRevisionChanged { id, revision }),
        (object_id(), end, of(any::<u32>()), text())
            .prop_map(|(job, end, index, message)| EventKind::JobPodEnded { job, end, index, message }),
        (owner_ref(), pod_stamp()).prop_map(|(owner, stamp)| EventKind::OwnedPodCreated { owner, stamp }),
    ]
}
