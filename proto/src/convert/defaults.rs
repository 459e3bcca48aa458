//! Defaults of what clients submit, as the .proto files state them.

use bulkhead_types::{
    BACKOFF_LIMIT_DEFAULT, BACKOFF_LIMIT_NONE, FAILED_JOBS_HISTORY_LIMIT_DEFAULT, FILE_MODE_DEFAULT,
    IntOrPercent, MEMORY_UNIT_MEBIBYTES_DEFAULT, PROBE_FAILURE_THRESHOLD_DEFAULT, PROBE_PERIOD_MS_DEFAULT,
    PROBE_SUCCESS_THRESHOLD_DEFAULT, PROBE_TIMEOUT_MS_DEFAULT, PROGRESS_DEADLINE_MS_DEFAULT,
    REVISION_HISTORY_LIMIT_DEFAULT, ResourceField, SPLIT_COUNT_DEFAULT,
    SUCCESSFUL_JOBS_HISTORY_LIMIT_DEFAULT, TERMINATION_GRACE_MS_DEFAULT,
};
use prost::Message;

use super::autoscaler::default_spec as default_hpa_spec;
use super::descheduler::default_policy_spec;
use super::node_pool::{default_operation_spec, default_pool_spec};
use super::queue::{default_pod_group_spec, default_queue_spec};
use super::submit::{OBJECT_MESSAGE_BYTES_MAX, check_size};
use super::vertical_autoscaler::default_spec as default_vpa_spec;
use super::{ConvertError, unknown_variant};
use crate::v1;

/// Sets an enum's field that is not specified.
pub(super) fn default(field: &mut i32, value: impl Into<i32>) {
    if *field == 0 {
        *field = value.into();
    }
}

/// Fills a submitted object's spec and forgets its status; returns where its metadata is.
fn fresh<'a, S, T>(
    meta: &'a mut Option<v1::ObjectMeta>,
    spec: &mut Option<S>,
    default_spec: impl FnMut(&mut S),
    status: &mut Option<T>,
) -> &'a mut Option<v1::ObjectMeta> {
    *status = None;
    spec.iter_mut().for_each(default_spec);
    meta
}

/// The same of what has no status.
fn filled<'a, S>(
    meta: &'a mut Option<v1::ObjectMeta>,
    spec: &mut Option<S>,
    default_spec: impl FnMut(&mut S),
) -> &'a mut Option<v1::ObjectMeta> {
    spec.iter_mut().for_each(default_spec);
    meta
}

fn default_budget_spec(spec: &mut v1::DisruptionBudgetSpec) {
    default(&mut spec.unhealthy_pod_eviction_policy, v1::UnhealthyPodEvictionPolicy::IfHealthyBudget);
    spec.selector.get_or_insert_default();
}

/// Bounds a submitted object, clears what is the control plane's and fills in defaults.
pub(super) fn prepare(mut wire: v1::Object) -> Result<v1::Object, ConvertError> {
    use v1::object::Object as Wire;
    check_size(wire.encoded_len(), OBJECT_MESSAGE_BYTES_MAX)?;
    let link = |state: &mut i32| default(state, v1::VfLinkState::Auto);
    let meta = match wire.object.as_mut().ok_or_else(unknown_variant)? {
        Wire::Namespace(o) => &mut o.meta,
        Wire::Node(o) => {
            o.spec.get_or_insert_default().gpu.iter_mut().for_each(node_gpu);
            o.status = Some(v1::NodeStatus {
                phase: v1::NodePhase::Unreachable.into(),
                facts: Some(v1::NodeFacts::default()),
                ..v1::NodeStatus::default()
            });
            &mut o.meta
        }
        Wire::Pod(o) => {
            (o.node, o.status) = (None, None);
            o.spec.iter_mut().for_each(default_pod_spec);
            &mut o.meta
        }
        Wire::ReplicaSet(o) => {
            o.status = None;
            if let Some(spec) = &mut o.spec {
                spec.replicas.get_or_insert(1);
                default_template(&mut spec.template);
            }
            &mut o.meta
        }
        Wire::Deployment(o) => fresh(&mut o.meta, &mut o.spec, default_deployment_spec, &mut o.status),
        Wire::StatefulSet(o) => fresh(&mut o.meta, &mut o.spec, default_stateful_set_spec, &mut o.status),
        Wire::DaemonSet(o) => fresh(&mut o.meta, &mut o.spec, default_daemon_set_spec, &mut o.status),
        Wire::Job(o) => fresh(&mut o.meta, &mut o.spec, default_job_spec, &mut o.status),
        Wire::CronJob(o) => fresh(&mut o.meta, &mut o.spec, default_cron_job_spec, &mut o.status),
        Wire::PersistentVolumeClaim(o) => fresh(&mut o.meta, &mut o.spec, default_claim_spec, &mut o.status),
        Wire::ConfigMap(o) => &mut o.meta,
        Wire::Secret(o) => {
            default(&mut o.secret_type, v1::SecretType::Opaque);
            &mut o.meta
        }
        Wire::ControllerRevision(o) => &mut o.meta,
        Wire::ElasticWorkload(o) => fresh(&mut o.meta, &mut o.spec, default_elastic_spec, &mut o.status),
        Wire::PriorityClass(o) => &mut o.meta,
        Wire::Profile(o) => &mut o.meta,
        Wire::LimitRange(o) => &mut o.meta,
        Wire::DeviceClass(o) => filled(&mut o.meta, &mut o.spec, default_device_class_spec),
        Wire::ResourceSlice(o) => &mut o.meta,
        Wire::SriovNetworkNodePolicy(o) => {
            filled(&mut o.meta, &mut o.spec, super::sriov::default_policy_spec)
        }
        Wire::SriovNetwork(o) => filled(&mut o.meta, &mut o.spec, |spec| link(&mut spec.link_state)),
        Wire::SriovIbNetwork(o) => filled(&mut o.meta, &mut o.spec, |spec| link(&mut spec.link_state)),
        Wire::SriovNetworkNodeState(o) => &mut o.meta,
        Wire::NodePool(o) => fresh(&mut o.meta, &mut o.spec, default_pool_spec, &mut o.status),
        Wire::DeschedulerPolicy(o) => fresh(&mut o.meta, &mut o.spec, default_policy_spec, &mut o.status),
        Wire::NodeOperation(o) => fresh(&mut o.meta, &mut o.spec, default_operation_spec, &mut o.status),
        Wire::StorageClass(o) => filled(&mut o.meta, &mut o.spec, default_storage_class_spec),
        Wire::PersistentVolume(o) => &mut o.meta,
        Wire::VolumeSnapshot(o) => fresh(&mut o.meta, &mut o.spec, |_| (), &mut o.status),
        Wire::ElasticQuotaTree(o) => fresh(&mut o.meta, &mut o.spec, |_| (), &mut o.status),
        Wire::ResourceQuota(o) => fresh(&mut o.meta, &mut o.spec, |_| (), &mut o.status),
        Wire::Project(o) => fresh(&mut o.meta, &mut o.spec, |_| (), &mut o.status),
        Wire::Department(o) => fresh(&mut o.meta, &mut o.spec, |_| (), &mut o.status),
        Wire::PodGroup(o) => fresh(&mut o.meta, &mut o.spec, default_pod_group_spec, &mut o.status),
        Wire::Queue(o) => fresh(&mut o.meta, &mut o.spec, default_queue_spec, &mut o.status),
        Wire::HorizontalPodAutoscaler(o) => fresh(&mut o.meta, &mut o.spec, default_hpa_spec, &mut o.status),
        Wire::VerticalPodAutoscaler(o) => fresh(&mut o.meta, &mut o.spec, default_vpa_spec, &mut o.status),
        Wire::CronHorizontalPodAutoscaler(o) => fresh(&mut o.meta, &mut o.spec, |_| (), &mut o.status),
        Wire::PodDisruptionBudget(o) => fresh(&mut o.meta, &mut o.spec, default_budget_spec, &mut o.status),
    };
    meta.iter_mut().for_each(users_own);
    Ok(wire)
}

fn default_elastic_spec(spec: &mut v1::ElasticWorkloadSpec) {
    spec.replicas.get_or_insert(1);
}

/// Of metadata what users say; the rest is the control plane's.
fn users_own(meta: &mut v1::ObjectMeta) {
    let old = std::mem::take(meta);
    *meta = v1::ObjectMeta {
        name: old.name,
        namespace: old.namespace,
        labels: old.labels,
        annotations: old.annotations,
        ..v1::ObjectMeta::default()
    };
}

fn default_device_class_spec(spec: &mut v1::DeviceClassSpec) {
    if let Some(selector) = &mut spec.selector {
        default(&mut selector.role, v1::DeviceRole::Whole);
    }
    if let Some(sharing) = &mut spec.sharing {
        sharing.split_count.get_or_insert(SPLIT_COUNT_DEFAULT);
        sharing.memory_scaling_percent.get_or_insert(100);
        sharing.core_scaling_percent.get_or_insert(100);
        default(&mut sharing.node_scheduler_policy, v1::SchedulerPolicy::Binpack);
        default(&mut sharing.device_scheduler_policy, v1::SchedulerPolicy::Binpack);
        if let Some(units) = &mut sharing.memory_units {
            units.unit_mebibytes.get_or_insert(MEMORY_UNIT_MEBIBYTES_DEFAULT);
        }
    }
    if let Some(visibility) = &mut spec.visibility {
        default(&mut visibility.by, v1::VisibleBy::Id);
    }
}

/// Fills in what a mode does not say.
pub(super) fn node_gpu(gpu: &mut v1::NodeGpu) {
    default(&mut gpu.strategy, v1::PartitionStrategy::Mixed);
}

fn default_deployment_spec(spec: &mut v1::DeploymentSpec) {
    use v1::deployment_strategy::{RollingUpdate, Variant};
    spec.replicas.get_or_insert(1);
    spec.progress_deadline_ms.get_or_insert(PROGRESS_DEADLINE_MS_DEFAULT);
    spec.revision_history_limit.get_or_insert(REVISION_HISTORY_LIMIT_DEFAULT);
    let strategy = spec.strategy.get_or_insert_with(|| v1::DeploymentStrategy {
        variant: Some(Variant::RollingUpdate(RollingUpdate::default())),
    });
    if let Some(Variant::RollingUpdate(rolling)) = &mut strategy.variant {
        let quarter = || v1::IntOrPercent::from(&IntOrPercent::Percent(25));
        rolling.max_surge.get_or_insert_with(quarter);
        rolling.max_unavailable.get_or_insert_with(quarter);
    }
    default_template(&mut spec.template);
}

fn default_stateful_set_spec(spec: &mut v1::StatefulSetSpec) {
    use v1::stateful_set_update_strategy::{RollingUpdate, Variant};
    spec.replicas.get_or_insert(1);
    spec.revision_history_limit.get_or_insert(REVISION_HISTORY_LIMIT_DEFAULT);
    default(&mut spec.pod_management_policy, v1::PodManagementPolicy::OrderedReady);
    let strategy = spec.update_strategy.get_or_insert_with(|| v1::StatefulSetUpdateStrategy {
        variant: Some(Variant::RollingUpdate(RollingUpdate::default())),
    });
    if let Some(Variant::RollingUpdate(rolling)) = &mut strategy.variant {
        rolling.max_unavailable.get_or_insert_with(|| (&IntOrPercent::Int(1)).into());
    }
    if let Some(claims) = &mut spec.claims {
        default(&mut claims.when_deleted, v1::ClaimRetention::Retain);
        default(&mut claims.when_scaled, v1::ClaimRetention::Retain);
        claims.templates.iter_mut().filter_map(|one| one.spec.as_mut()).for_each(default_claim_spec);
    }
    default_template(&mut spec.template);
}

fn default_claim_spec(spec: &mut v1::PersistentVolumeClaimSpec) {
    default(&mut spec.access_mode, v1::AccessMode::ReadWriteOnce);
    default(&mut spec.storage_class, v1::BuiltinClass::Local);
}

fn default_storage_class_spec(spec: &mut v1::StorageClassSpec) {
    default(&mut spec.reclaim, v1::BuiltinClass::Local);
}

fn default_daemon_set_spec(spec: &mut v1::DaemonSetSpec) {
    use v1::daemon_set_update_strategy::{RollingUpdate, Variant};
    spec.revision_history_limit.get_or_insert(REVISION_HISTORY_LIMIT_DEFAULT);
    let strategy = spec.update_strategy.get_or_insert_with(|| v1::DaemonSetUpdateStrategy {
        variant: Some(Variant::RollingUpdate(RollingUpdate::default())),
    });
    if let Some(Variant::RollingUpdate(rolling)) = &mut strategy.variant {
        let surges = rolling.max_surge.is_some();
        rolling.max_unavailable.get_or_insert_with(|| (&IntOrPercent::Int(u32::from(!surges))).into());
        rolling.max_surge.get_or_insert_with(|| (&IntOrPercent::Int(0)).into());
    }
    default_template(&mut spec.template);
}

fn default_job_spec(spec: &mut v1::JobSpec) {
    spec.parallelism.get_or_insert(1);
    default(&mut spec.completion_mode, v1::CompletionMode::NonIndexed);
    let unlimited = spec.backoff_limit_per_index.is_some();
    spec.backoff_limit.get_or_insert(if unlimited { BACKOFF_LIMIT_NONE } else { BACKOFF_LIMIT_DEFAULT });
    let judged = !spec.pod_failure_policy.is_empty();
    let replacement = match judged {
        true => v1::PodReplacementPolicy::Failed,
        false => v1::PodReplacementPolicy::TerminatingOrFailed,
    };
    default(&mut spec.pod_replacement_policy, replacement);
    default_template(&mut spec.template);
}

fn default_cron_job_spec(spec: &mut v1::CronJobSpec) {
    default(&mut spec.concurrency_policy, v1::ConcurrencyPolicy::Allow);
    spec.successful_jobs_history_limit.get_or_insert(SUCCESSFUL_JOBS_HISTORY_LIMIT_DEFAULT);
    spec.failed_jobs_history_limit.get_or_insert(FAILED_JOBS_HISTORY_LIMIT_DEFAULT);
    spec.job_template.iter_mut().filter_map(|t| t.spec.as_mut()).for_each(default_job_spec);
}

fn default_template(template: &mut Option<v1::PodTemplate>) {
    template.iter_mut().filter_map(|t| t.spec.as_mut()).for_each(default_pod_spec);
}

fn default_pod_spec(spec: &mut v1::PodSpec) {
    default(&mut spec.runtime_class, v1::RuntimeClass::Rune);
    default(&mut spec.restart_policy, v1::RestartPolicy::Always);
    spec.termination_grace_ms.get_or_insert(TERMINATION_GRACE_MS_DEFAULT);
    for toleration in &mut spec.tolerations {
        default(&mut toleration.operator, v1::TolerationOperator::Equal);
    }
    for container in spec.init_containers.iter_mut().chain(&mut spec.containers) {
        default(&mut container.image_pull_policy, v1::ImagePullPolicy::IfNotPresent);
        for port in &mut container.ports {
            default(&mut port.protocol, v1::Protocol::Tcp);
        }
        for var in &mut container.env {
            if let Some(v1::env_source::Variant::Downward(source)) =
                var.value_from.as_mut().and_then(|s| s.variant.as_mut())
            {
                default_downward(source);
            }
        }
        container.options.iter_mut().for_each(default_container_options);
    }
    let placement = spec.options.as_mut().and_then(|options| options.placement.as_mut());
    placement.into_iter().for_each(super::placement::default_placement);
    for volume in spec.options.iter_mut().flat_map(|options| &mut options.volumes) {
        default_volume(volume);
    }
}

fn default_container_options(options: &mut v1::ContainerOptions) {
    let probes = [&mut options.startup_probe, &mut options.readiness_probe, &mut options.liveness_probe];
    for probe in probes.into_iter().flatten() {
        probe.period_ms.get_or_insert(PROBE_PERIOD_MS_DEFAULT);
        probe.timeout_ms.get_or_insert(PROBE_TIMEOUT_MS_DEFAULT);
        probe.success_threshold.get_or_insert(PROBE_SUCCESS_THRESHOLD_DEFAULT);
        probe.failure_threshold.get_or_insert(PROBE_FAILURE_THRESHOLD_DEFAULT);
        let handler = probe.handler.as_mut().and_then(|handler| handler.variant.as_mut());
        if let Some(v1::probe_handler::Variant::HttpGet(get)) = handler {
            default_path(get);
        }
    }
    let lifecycle = options.lifecycle.as_mut();
    let hooks = lifecycle.map(|lifecycle| [&mut lifecycle.post_start, &mut lifecycle.pre_stop]);
    for hook in hooks.into_iter().flatten().flatten() {
        if let Some(v1::hook::Variant::HttpGet(get)) = &mut hook.variant {
            default_path(get);
        }
    }
}

fn default_path(get: &mut v1::HttpGet) {
    if get.path.is_empty() {
        "/".clone_into(&mut get.path);
    }
}

fn default_volume(volume: &mut v1::Volume) {
    use v1::volume_source::Variant;
    let (sources, mode) = match volume.source.as_mut().and_then(|s| s.variant.as_mut()) {
        Some(Variant::Files(files)) => (files.source.as_mut_slice(), &mut files.default_mode),
        Some(Variant::Projected(all)) => (all.sources.as_mut_slice(), &mut all.default_mode),
        Some(Variant::EmptyDir(_) | Variant::PersistentVolumeClaim(_)) | None => return,
    };
    mode.get_or_insert(FILE_MODE_DEFAULT);
    for source in sources {
        if let Some(v1::projection::Variant::DownwardApi(api)) = &mut source.variant {
            api.items.iter_mut().filter_map(|item| item.source.as_mut()).for_each(default_downward);
        }
    }
}

fn default_downward(source: &mut v1::DownwardSource) {
    if let Some(v1::downward_source::Variant::Resource(field)) = &mut source.variant {
        let is_cpu = [v1::ContainerResource::RequestsCpu, v1::ContainerResource::LimitsCpu]
            .contains(&field.resource());
        field.divisor.get_or_insert(if is_cpu { ResourceField::CORE } else { 1 });
    }
}
