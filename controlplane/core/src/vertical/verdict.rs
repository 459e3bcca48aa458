//! From models to a status, and whether it says something new.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bulkhead_types::{
    ConditionStatus, Container, ContainerRecommendation, MeasuredResource, ObjectId, Pod,
    RECOMMENDATION_PROVIDED, RECOMMENDED_RESOURCES, ResourceEstimate, VERTICAL_PERIOD_MS,
    VerticalAutoscalerStatus, VerticalPodAutoscaler, resource_of,
};
use smol_str::SmolStr;

use super::estimate::estimate;
use super::model::{ContainerModel, CpuSample, PEAK_WINDOW_MS};
use super::resize::oom_killed_at_ms;
use crate::conditions::set_condition;
use crate::reconcile::SoftState;

/// A checkpoint is made no more often than so, in milliseconds.
pub const CHECKPOINT_MS: u64 = 3_600_000;
/// A target is news when it moved by so many per cent.
const TARGET_PERCENT: u128 = 5;
/// A bound is news when it moved by so many per cent.
const BOUND_PERCENT: u128 = 20;

/// What a leader knows of the containers of a workload, by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Models(BTreeMap<SmolStr, ContainerModel>);

impl Models {
    /// What a former leader left.
    #[must_use]
    pub fn restore(status: &VerticalAutoscalerStatus, now_ms: u64) -> Self {
        let of = |one: &bulkhead_types::ContainerCheckpoint| {
            (one.container.clone(), ContainerModel::restore(one, now_ms))
        };
        Self(status.checkpoint.iter().map(of).collect())
    }

    /// Counts what the pods of the workload used since they were last looked at. Containers that neither `template` nor a
    /// pod has are forgotten; an empty one is that of a workload that is not there, and makes nothing forgotten.
    pub fn observe(&mut self, template: &[Container], pods: &[&Arc<Pod>], soft: &SoftState, now_ms: u64) {
        let lives = |pod: &&&Arc<Pod>| !pod.meta.is_deleting() && !pod.status.phase.is_terminal();
        if !template.is_empty() {
            let mut known = pods.iter().filter(lives).flat_map(|pod| &pod.spec.containers).chain(template);
            let known: BTreeSet<&SmolStr> = known.by_ref().map(|container| &container.name).collect();
            self.0.retain(|name, _| known.contains(name));
        }
        let ids: BTreeSet<ObjectId> = pods.iter().map(|pod| pod.meta.id).collect();
        self.0.values_mut().for_each(|model| model.retain_pods(|id| ids.contains(&id)));
        for pod in pods.iter().filter(lives) {
            for container in &pod.spec.containers {
                self.observe_container(pod, container, soft, now_ms);
            }
        }
    }

    fn observe_container(&mut self, pod: &Pod, container: &Container, soft: &SoftState, now_ms: u64) {
        let requested =
            |resource| resource_of(container.requests.or(container.limits), resource).unwrap_or(0);
        let sample = soft.usage(pod, now_ms);
        let used = sample.and_then(|sample| {
            Some((sample, sample.containers.iter().find(|used| used.name == container.name)?))
        });
        let known = pod.status.containers.iter().find(|known| known.name == container.name);
        // One from long ago was counted by a former leader, or means nothing any more.
        let killed_at_ms = known
            .and_then(oom_killed_at_ms)
            .filter(|at_ms| now_ms.saturating_sub(*at_ms) < PEAK_WINDOW_MS && *at_ms > 0);
        if used.is_none() && killed_at_ms.is_none() {
            return;
        }
        let model = self.0.entry(container.name.clone()).or_insert_with(|| ContainerModel::new(now_ms));
        if let Some((sample, used)) = used {
            let cpu =
                CpuSample { used_millis: used.cpu_millis, request_millis: requested(MeasuredResource::Cpu) };
            let cpu = (sample.window_ms > 0).then_some(cpu);
            model.add(pod.meta.id, sample.measured_at_ms, cpu, used.memory_bytes);
        }
        if let Some(at_ms) = killed_at_ms {
            model.add_oom_kill(pod.meta.id, at_ms, requested(MeasuredResource::Memory));
        }
    }
}

/// The status after a look; `None` when it says nothing new, or the last one is a moment ago.
#[must_use]
pub fn look(
    vertical: &VerticalPodAutoscaler,
    models: &Models,
    has_pods: bool,
    now_ms: u64,
) -> Option<VerticalAutoscalerStatus> {
    let status = &vertical.status;
    if status.decision > 0 && now_ms < status.read_at_ms.saturating_add(VERTICAL_PERIOD_MS) {
        return None;
    }
    let mut next = VerticalAutoscalerStatus {
        observed_generation: vertical.meta.generation,
        decision: status.decision + 1,
        read_at_ms: now_ms,
        containers: models.0.iter().map(|(name, model)| estimate(name.clone(), model)).collect(),
        ..status.clone()
    };
    let is_known = next.containers.iter().any(|one| one.cpu_millis.is_some() || one.memory_bytes.is_some());
    let (held, reason, message) = match (is_known, has_pods) {
        (true, _) => {
            (ConditionStatus::True, "RecommendationProvided", "a recommendation follows from what pods used")
        }
        (false, true) => (ConditionStatus::False, "NoUsageKnown", "no agent has told yet what the pods use"),
        (false, false) => {
            (ConditionStatus::False, "NoPodsMatched", "the workload has no pods, or is not there")
        }
    };
    let said = (RECOMMENDATION_PROVIDED, held);
    set_condition(&mut next.conditions, now_ms, said, reason, message);
    let measured_ms = models.0.values().map(ContainerModel::last_sample_ms).max().unwrap_or(0);
    let is_stale = status.checkpointed_at_ms == 0
        || (now_ms >= status.checkpointed_at_ms.saturating_add(CHECKPOINT_MS)
            && measured_ms > status.checkpointed_at_ms);
    // One that is not renewed is not repeated in the log.
    next.checkpoint = Vec::new();
    if is_known && is_stale {
        next.checkpoint = models.0.iter().map(|(name, model)| model.checkpoint(name.clone())).collect();
        next.checkpointed_at_ms = now_ms;
    }
    let is_news = next.checkpointed_at_ms != status.checkpointed_at_ms
        || next.observed_generation != status.observed_generation
        || words(&next) != words(status)
        || differ(&next.containers, &status.containers);
    is_news.then_some(next)
}

/// The conditions without times.
fn words(status: &VerticalAutoscalerStatus) -> Vec<(&str, ConditionStatus, &str)> {
    status.conditions.iter().map(|one| (&*one.condition_type, one.status, &*one.reason)).collect()
}

/// Whether a recommendation differs from another noticeably.
fn differ(new: &[ContainerRecommendation], old: &[ContainerRecommendation]) -> bool {
    let by_name = |a: &ContainerRecommendation, b: &ContainerRecommendation| a.container == b.container;
    new.len() != old.len()
        || new.iter().zip(old).any(|(new, old)| {
            !by_name(new, old)
                || RECOMMENDED_RESOURCES
                    .into_iter()
                    .any(|one| has_moved(new.estimate(one), old.estimate(one)))
        })
}

fn has_moved(new: Option<ResourceEstimate>, old: Option<ResourceEstimate>) -> bool {
    let (Some(new), Some(old)) = (new, old) else { return new.is_some() != old.is_some() };
    let by =
        |new: u64, old: u64, percent: u128| u128::from(new.abs_diff(old)) * 100 > u128::from(old) * percent;
    by(new.target, old.target, TARGET_PERCENT)
        || by(new.lower, old.lower, BOUND_PERCENT)
        || by(new.upper, old.upper, BOUND_PERCENT)
}

#[cfg(test)]
mod tests;
