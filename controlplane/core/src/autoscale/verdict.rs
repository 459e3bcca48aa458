//! From what the metrics say to the size that is set, with the reasons.

use bulkhead_types::{
    ABLE_TO_SCALE, AUTOSCALER_HISTORY_MAX, AutoscalerSpec, AutoscalerStatus, ConditionStatus, MetricReading,
    MetricSource, Recommendation, ReplicaChange, SCALING_ACTIVE, SCALING_LIMITED,
};

use super::pace::{in_window, limits, stabilized};
use crate::conditions::set_condition;

/// Figures alone make a decision worth keeping no more often than so, in milliseconds.
pub const REFRESH_MS: u64 = 60_000;

/// What an autoscaler looks at.
#[derive(Clone, Copy, Debug)]
pub struct Look<'a> {
    /// What is wanted of it.
    pub spec: &'a AutoscalerSpec,
    /// Its generation.
    pub generation: u64,
    /// What is known of it.
    pub status: &'a AutoscalerStatus,
    /// The present time, milliseconds since the epoch.
    pub now_ms: u64,
    /// The workload's size; `None` when there is no such workload.
    pub replicas: Option<u32>,
}

/// What an autoscaler does, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The size that the workload shall have.
    pub to: u32,
    /// The autoscaler's status from now on, but for a change of the size: that is noted where it is made.
    pub status: AutoscalerStatus,
    /// Whether it says something that is worth keeping.
    pub is_news: bool,
}

/// One condition: whether, why in a word, why in a sentence.
type Said = (ConditionStatus, &'static str, String);

/// Decides by what the metrics say, one reading for each of the spec's.
#[must_use]
pub fn look(look: &Look<'_>, metrics: Vec<MetricReading>) -> Decision {
    let Look { spec, status, now_ms, .. } = *look;
    let mut next = AutoscalerStatus {
        observed_generation: look.generation,
        decision: status.decision + 1,
        read_at_ms: now_ms,
        current_replicas: look.replicas.unwrap_or(0),
        desired_replicas: look.replicas.unwrap_or(0),
        ..status.clone()
    };
    next.changes = kept_changes(spec, &status.changes, now_ms);
    next.recommendations = kept_recommendations(spec, &status.recommendations, now_ms);
    let mut said = |condition_type, (status, reason, message): Said| {
        set_condition(&mut next.conditions, now_ms, (condition_type, status), reason, &message);
    };
    let Some(replicas) = look.replicas else {
        let message = format!("there is no {} {}", spec.target.kind, spec.target.name);
        said(ABLE_TO_SCALE, (ConditionStatus::False, "FailedGetScale", message));
        next.metrics = Vec::new();
        return finish(status, next, 0);
    };
    let verdict = judge(look, replicas, &metrics);
    let Verdict { to, recommended, able, active, limited } = verdict;
    said(ABLE_TO_SCALE, able);
    said(SCALING_ACTIVE, active);
    limited.into_iter().for_each(|limited| said(SCALING_LIMITED, limited));
    next.metrics = metrics;
    next.desired_replicas = to;
    if let Some(recommended) = recommended {
        let differs = next.recommendations.last().is_none_or(|last| last.replicas != recommended);
        if differs {
            next.recommendations.push(Recommendation { since_ms: now_ms, replicas: recommended });
        }
    }
    let surplus = next.recommendations.len().saturating_sub(AUTOSCALER_HISTORY_MAX);
    next.recommendations.drain(..surplus);
    finish(status, next, to)
}

struct Verdict {
    to: u32,
    /// What the metrics recommend, within the bounds, for those who look back at it.
    recommended: Option<u32>,
    able: Said,
    active: Said,
    limited: Option<Said>,
}

fn judge(look: &Look<'_>, replicas: u32, metrics: &[MetricReading]) -> Verdict {
    use ConditionStatus::{False, True};
    let Look { spec, status, now_ms, .. } = *look;
    let ready = (True, "ReadyForNewScale", "the last change is long enough ago".to_owned());
    let stay = |able, active| Verdict { to: replicas, recommended: None, able, active, limited: None };
    if replicas == 0 {
        let message = "the workload has no replicas: scale it up by hand to have it scaled".to_owned();
        return stay(ready, (False, "ScalingDisabled", message));
    }
    let forced = replicas.clamp(spec.min_replicas, spec.max_replicas);
    let (wanted, active) = match wanted(spec, replicas, metrics) {
        Ok(wanted) => {
            (Some(wanted), (True, "ValidMetricFound", "a size follows from what pods use".to_owned()))
        }
        Err((reason, message)) => (None, (False, reason, message)),
    };
    if forced != replicas {
        // The bounds hold at once, whatever the metrics say.
        let reason = if forced < replicas { "TooManyReplicas" } else { "TooFewReplicas" };
        let able = (True, "SucceededRescale", "the size is brought within its bounds".to_owned());
        let limited = Some((True, reason, "the size was outside of its bounds".to_owned()));
        return Verdict { to: forced, recommended: None, able, active, limited };
    }
    let Some(wanted) = wanted else { return stay(ready, active) };
    let stable = stabilized(spec, &status.recommendations, now_ms, replicas, wanted);
    let pace = limits(spec, &status.changes, now_ms, replicas);
    let paced = stable.clamp(pace.lowest, pace.highest);
    let to = paced.clamp(spec.min_replicas, spec.max_replicas);
    let able = match (stable == wanted, wanted < replicas, to == replicas) {
        (false, true, _) => {
            let message = "recent recommendations were higher: the highest of them counts".to_owned();
            (True, "ScaleDownStabilized", message)
        }
        (false, false, _) => {
            let message = "recent recommendations were lower: the lowest of them counts".to_owned();
            (True, "ScaleUpStabilized", message)
        }
        (true, _, false) => (True, "SucceededRescale", "the size is changed".to_owned()),
        (true, _, true) => ready,
    };
    let (limit, message) = if to < paced {
        ("TooManyReplicas", "more pods are wanted than maxReplicas allows")
    } else if to > paced {
        ("TooFewReplicas", "fewer pods are wanted than minReplicas allows")
    } else if paced < stable {
        ("ScaleUpLimit", "more pods are wanted than the policies allow now")
    } else if paced > stable {
        ("ScaleDownLimit", "fewer pods are wanted than the policies allow now")
    } else {
        ("DesiredWithinRange", "the wanted size is within the bounds")
    };
    let is_limited = if limit == "DesiredWithinRange" { False } else { True };
    let limited = Some((is_limited, limit, message.to_owned()));
    Verdict { to, recommended: Some(wanted), able, active, limited }
}

/// The largest proposal. When a metric says nothing the others may only ask for more.
fn wanted(
    spec: &AutoscalerSpec,
    replicas: u32,
    metrics: &[MetricReading],
) -> Result<u32, (&'static str, String)> {
    let most = metrics.iter().filter_map(|reading| reading.proposal).max();
    let silent = metrics.iter().enumerate().find(|(_, reading)| reading.proposal.is_none());
    match (most, silent) {
        (Some(most), None) => Ok(most),
        (Some(most), Some(_)) if most >= replicas => Ok(most),
        (_, Some((index, silent))) => {
            let query = spec.metrics.get(index).and_then(|metric| metric.query.get());
            Err((silence(query.map(|query| query.source)), silent.message.clone()))
        }
        (None, None) => Err((silence(None), "there is no metric".to_owned())),
    }
}

/// Kubernetes' word for a metric that says nothing.
fn silence(source: Option<MetricSource>) -> &'static str {
    match source {
        None => "FailedGetResourceMetric",
        Some(MetricSource::Pods) => "FailedGetPodsMetric",
        Some(MetricSource::Object) => "FailedGetObjectMetric",
        Some(MetricSource::External) => "FailedGetExternalMetric",
    }
}

fn kept_changes(spec: &AutoscalerSpec, changes: &[ReplicaChange], now_ms: u64) -> Vec<ReplicaChange> {
    let period_ms = spec.scale_up.period_ms().max(spec.scale_down.period_ms());
    let is_recent = |change: &&ReplicaChange| change.at_ms.saturating_add(period_ms) > now_ms;
    changes.iter().filter(is_recent).copied().collect()
}

fn kept_recommendations(
    spec: &AutoscalerSpec,
    recommendations: &[Recommendation],
    now_ms: u64,
) -> Vec<Recommendation> {
    let window_ms = spec.scale_up.stabilization_window_ms.max(spec.scale_down.stabilization_window_ms);
    let mut kept: Vec<Recommendation> = in_window(recommendations, now_ms, window_ms).copied().collect();
    // The last one holds still, however old it is.
    if kept.is_empty() {
        kept.extend(recommendations.last());
    }
    kept
}

/// Whether there is news: anything but figures that moved a little, or what is forgotten with time.
fn finish(former: &AutoscalerStatus, status: AutoscalerStatus, to: u32) -> Decision {
    let gist = |status: &AutoscalerStatus| {
        let last = status.recommendations.last().map(|one| one.replicas);
        let conditions: Vec<_> = status
            .conditions
            .iter()
            .map(|c| (c.condition_type.clone(), c.status, c.reason.clone()))
            .collect();
        (status.observed_generation, status.current_replicas, status.desired_replicas, last, conditions)
    };
    let is_stale = status.read_at_ms.saturating_sub(former.read_at_ms) >= REFRESH_MS;
    let is_news = former.decision == 0
        || gist(former) != gist(&status)
        || to != status.current_replicas
        || (is_stale && former.metrics != status.metrics);
    Decision { to, status, is_news }
}

#[cfg(test)]
mod tests;
