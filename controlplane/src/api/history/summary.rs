//! What changed in a status, in one line for people.

use bulkhead_controlplane_core::State;
use bulkhead_types::{
    AutoscalerMetric, AutoscalerStatus, Deletion, DeliveryStatus, DeploymentStatus, ElasticQuotaTreeStatus,
    Kind, ObjectId, ObjectRef, ObjectStatus, QuotaStatus, ResourceEstimate, VerticalAutoscalerStatus,
    format_bytes, format_millis,
};

/// How far a rollout is.
pub(super) fn of_rollout(status: &DeploymentStatus) -> String {
    format!("{} updated, {} available", status.updated_replicas, status.available_replicas)
}

/// Where a delivery by steps stands.
pub(super) fn of_delivery(status: Option<&DeliveryStatus>) -> String {
    match status {
        None => "no delivery by steps any more".to_owned(),
        Some(status) if status.is_aborted() => format!("{} given up: {}", status.update, status.abort_reason),
        Some(status) if status.is_under_way() => format!("{} at step {}", status.update, status.step + 1),
        Some(status) => format!("{} is stable", status.update),
    }
}

/// What is known of an object of a kind without a status event of its own.
pub(super) fn of_status(state: &State, id: ObjectId, status: &ObjectStatus) -> String {
    match status {
        ObjectStatus::StatefulSet(s) => {
            format!("{} ready, {} updated", s.ready_replicas, s.updated_replicas)
        }
        ObjectStatus::DaemonSet(s) => {
            format!("{} of {} nodes ready", s.number_ready, s.desired_number_scheduled)
        }
        ObjectStatus::Job(s) => {
            format!("{} active, {} succeeded, {} failed", s.active, s.succeeded, s.failed)
        }
        ObjectStatus::CronJob(s) => format!("{} active jobs", s.active.len()),
        ObjectStatus::HorizontalPodAutoscaler(s) => {
            let present = state.horizontal_pod_autoscalers().get(id);
            of_autoscaler(s, present.map_or(&[], |autoscaler| &autoscaler.spec.metrics))
        }
        ObjectStatus::CronHorizontalPodAutoscaler(s) => {
            let last = s.runs.iter().max_by_key(|run| run.ran_at_ms);
            last.map_or_else(String::new, |run| format!("{}: {:?}, {}", run.job, run.outcome, run.message))
        }
        ObjectStatus::ElasticWorkload(s) => {
            let units = s.units.iter().map(|unit| match unit.name.as_str() {
                "" => format!("source {}", unit.desired_replicas),
                name => format!("{name} {}", unit.desired_replicas),
            });
            let ready: u32 = s.units.iter().map(|unit| unit.ready_replicas).sum();
            format!("{}; {ready} ready", units.collect::<Vec<_>>().join(", "))
        }
        ObjectStatus::VerticalPodAutoscaler(s) => of_recommendation(s),
        ObjectStatus::PersistentVolumeClaim(s) => format!("{}, node {}", s.phase.as_str(), s.node_name),
        ObjectStatus::ResourceQuota(s) | ObjectStatus::Project(s) | ObjectStatus::Department(s) => {
            of_quota(s)
        }
        ObjectStatus::VolumeSnapshot(s) if s.ready => format!("ready, node {}", s.node_name),
        ObjectStatus::VolumeSnapshot(s) => format!("not ready {}", s.message).trim_end().to_owned(),
        ObjectStatus::ElasticQuotaTree(s) => of_elastic_quotas(s),
        ObjectStatus::PodGroup(s) => format!(
            "{}: {} pending, {} running, {} succeeded, {} failed",
            s.phase.as_str(),
            s.pending,
            s.running,
            s.succeeded,
            s.failed
        ),
        ObjectStatus::Queue(s) => format!(
            "{}: {} pending, {} inqueue, {} running",
            s.state.as_str(),
            s.pending,
            s.inqueue,
            s.running
        ),
        ObjectStatus::PodDisruptionBudget(s) => {
            format!("{} healthy, {} evictions allowed", s.current_healthy, s.disruptions_allowed)
        }
        ObjectStatus::NodePool(_) | ObjectStatus::NodeOperation(_) | ObjectStatus::DeschedulerPolicy(_) => {
            of_fleet(status)
        }
        ObjectStatus::SriovNetworkNodeState(s) => {
            let holders: Vec<&str> =
                s.blocked.iter().flat_map(|block| block.holders.iter().map(|pod| pod.as_str())).collect();
            let waits = if holders.is_empty() {
                String::new()
            } else {
                format!(", waits for {}", holders.join(", "))
            };
            format!("{:?}{waits} {}", s.sync_status, s.last_sync_error).trim_end().to_owned()
        }
    }
}

/// The same of what is about many nodes.
fn of_fleet(status: &ObjectStatus) -> String {
    match status {
        ObjectStatus::NodePool(s) => {
            format!("{} of {} nodes ready, {} missing, {} surplus", s.ready, s.nodes, s.missing, s.surplus)
        }
        ObjectStatus::DeschedulerPolicy(s) => {
            let word = if s.last_was_dry_run { "would evict" } else { "evicted" };
            let names: Vec<String> =
                s.last.iter().map(|one| format!("{} ({})", one.name, one.strategy)).collect();
            if names.is_empty() {
                "nothing to evict".to_owned()
            } else {
                format!("{word} {}", names.join(", "))
            }
        }
        ObjectStatus::NodeOperation(s) => {
            let figures = format!("{}: {} of {} nodes done", s.phase.as_str(), s.succeeded, s.total);
            if s.message.is_empty() { figures } else { format!("{figures}; {}", s.message) }
        }
        other => unreachable!("a {} is told elsewhere", other.kind()),
    }
}

/// `requests.cpu 500m of 2, pods 5 of 4`.
/// `root: cpu 20, team: cpu 5`.
fn of_elastic_quotas(status: &ElasticQuotaTreeStatus) -> String {
    let levels = status.levels.iter().map(|level| {
        let used = level.used.iter();
        let used =
            used.map(|(resource, used)| format!("{resource} {}", resource.measure().format_amount(used)));
        format!("{}: {}", level.name, used.collect::<Vec<_>>().join(", "))
    });
    levels.collect::<Vec<_>>().join("; ")
}

fn of_quota(status: &QuotaStatus) -> String {
    let parts = status.hard.iter().map(|(resource, hard)| {
        let (measure, used) = (resource.measure(), status.used.get(resource).unwrap_or_default());
        format!("{resource} {} of {}", measure.format_amount(used), measure.format_amount(hard))
    });
    parts.collect::<Vec<_>>().join(", ")
}

/// `web: cpu 120m (60m to 1), memory 96Mi (64Mi to 1Gi), of 40 samples; 2 evicted`.
fn of_recommendation(status: &VerticalAutoscalerStatus) -> String {
    let range = |estimate: Option<ResourceEstimate>, text: fn(u64) -> String| match estimate {
        Some(one) => format!("{} ({} to {})", text(one.target), text(one.lower), text(one.upper)),
        None => "unknown".to_owned(),
    };
    let containers = status.containers.iter().map(|one| {
        let (cpu, memory) = (range(one.cpu_millis, format_millis), range(one.memory_bytes, format_bytes));
        format!("{}: cpu {cpu}, memory {memory}, of {} samples", one.container, one.samples)
    });
    let mut parts: Vec<String> = containers.collect();
    if parts.is_empty() {
        parts.push("nothing recommended".to_owned());
    }
    if status.evictions > 0 {
        parts.push(format!("{} evicted", status.evictions));
    }
    parts.join("; ")
}

/// `4 -> 7; cpu: 90% of requests wants 7; http_requests: 64 each wants 3`. The names and units are those of the metrics as
/// the autoscaler has them now; what it does not have any more goes by its place.
fn of_autoscaler(status: &AutoscalerStatus, metrics: &[AutoscalerMetric]) -> String {
    let mut text = match status.current_replicas == status.desired_replicas {
        true => format!("stays at {}", status.current_replicas),
        false => format!("{} -> {}", status.current_replicas, status.desired_replicas),
    };
    for (index, reading) in status.metrics.iter().enumerate() {
        let value = match (reading.average_utilization, reading.average_value) {
            (None, None) if reading.total.get().is_some() => {
                let total = reading.total.get().copied().unwrap_or_default();
                format!("{} in all", format_millis(total))
            }
            (Some(percent), _) => format!("{percent}% of requests"),
            (None, Some(value)) => match metrics.get(index) {
                Some(metric) => format!("{} each", metric.resource.format(value)),
                None => format!("{value} each"),
            },
            (None, None) => reading.message.clone(),
        };
        let wants = reading.proposal.map_or_else(String::new, |size| format!(" wants {size}"));
        let name = metrics.get(index).map_or_else(|| format!("metric {}", index + 1), AutoscalerMetric::name);
        text += &format!("; {name}: {value}{wants}");
    }
    text
}

/// Why an object ends, for whose room, and how long it may take.
pub(super) fn of_deletion(
    reason: &str,
    deletion: &Deletion,
    name_of: impl Fn(Kind, ObjectId) -> Option<ObjectRef>,
) -> String {
    let preemptor = deletion.preemptor.map_or_else(String::new, |id| {
        let name = name_of(Kind::Pod, id);
        format!(" for {}", name.map_or_else(|| id.to_string(), |name| name.to_string()))
    });
    format!("{reason}{preemptor}, grace {} ms", deletion.grace_ms)
}
