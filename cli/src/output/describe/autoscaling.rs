//! Autoscalers in full, with the figures that they decided by last; sizes by the clock; budgets.

use bulkhead_types::{
    CronHorizontalPodAutoscaler, DisruptionBound, ElasticWorkload, HorizontalPodAutoscaler,
    PodDisruptionBudget, PolicySelect, PolicyUnit, ScalingRules,
};

use super::row::{self, metric, scaled};
use super::{Page, conditions};
use crate::time::{age, rfc3339, short};

pub(super) fn autoscaler(page: &mut Page, autoscaler: &HorizontalPodAutoscaler) {
    let (spec, status) = (&autoscaler.spec, &autoscaler.status);
    page.line("Scales", scaled(&spec.target));
    page.line("Replicas", format!("{} to {}", spec.min_replicas, spec.max_replicas));
    page.line("More pods", rules(&spec.scale_up));
    page.line("Fewer pods", rules(&spec.scale_down));
    let rows: Vec<Vec<String>> = spec
        .metrics
        .iter()
        .enumerate()
        .map(|(index, one)| {
            let reading = status.metrics.get(index);
            let figure = |figure: fn(&bulkhead_types::MetricReading) -> u32| {
                reading.map_or_else(String::new, |reading| figure(reading).to_string())
            };
            let proposal = reading.and_then(|reading| reading.proposal);
            vec![
                metric(one, reading),
                proposal.map_or_else(|| "<none>".to_owned(), |size| size.to_string()),
                figure(|reading| reading.pods_counted),
                figure(|reading| reading.pods_unready),
                figure(|reading| reading.pods_missing),
                reading.map(|reading| reading.message.clone()).unwrap_or_default(),
            ]
        })
        .collect();
    let header = ["METRIC", "WANTS", "COUNTED", "UNREADY", "MISSING", "MESSAGE"];
    page.section("Metrics", |page| page.table(&header, &rows));
    if status.decision > 0 {
        let (from, to) = (status.current_replicas, status.desired_replicas);
        let ago = age(status.read_at_ms);
        page.line("Decision", format!("number {}: {from} -> {to}, {ago} ago", status.decision));
    }
    if status.last_scale_ms > 0 {
        page.line("Last change", format!("{} ago", age(status.last_scale_ms)));
    }
    let changes = status
        .changes
        .iter()
        .map(|change| vec![rfc3339(change.at_ms), change.from.to_string(), change.to.to_string()]);
    let changes: Vec<Vec<String>> = changes.collect();
    if !changes.is_empty() {
        page.section("Recent changes", |page| page.table(&["AT", "FROM", "TO"], &changes));
    }
    conditions(page, &status.conditions);
}

/// `after 300s, at most 100% in 15s or 4 pods in 15s, whichever is more`.
fn rules(rules: &ScalingRules) -> String {
    let policies = rules.policies.iter().map(|policy| {
        let unit = match policy.unit {
            PolicyUnit::Pods => " pods",
            PolicyUnit::Percent => "%",
        };
        format!("{}{unit} in {}", policy.value, short(policy.period_ms / 1000))
    });
    let policies: Vec<String> = policies.collect();
    let which = match (rules.select_policy, policies.len()) {
        (PolicySelect::Disabled, _) => return "never".to_owned(),
        (_, 0 | 1) => "",
        (PolicySelect::Max, _) => ", whichever is more",
        (PolicySelect::Min, _) => ", whichever is less",
    };
    let after = match rules.stabilization_window_ms {
        0 => "at once".to_owned(),
        ms => format!("after {}", short(ms / 1000)),
    };
    format!("{after}, at most {}{which}", policies.join(" or "))
}

pub(super) fn cron_autoscaler(page: &mut Page, scaler: &CronHorizontalPodAutoscaler) {
    let (spec, status) = (&scaler.spec, &scaler.status);
    page.line("Scales", scaled(&spec.target));
    page.line("Time zone", spec.time_zone.as_deref().unwrap_or("UTC"));
    let dates: Vec<&str> = spec.exclude_dates.iter().map(|date| date.as_str()).collect();
    page.optional("Not on", dates.join("\n"));
    let rows: Vec<Vec<String>> = spec
        .jobs
        .iter()
        .map(|job| {
            let run = status.runs.iter().find(|run| run.job == job.name);
            vec![
                job.name.to_string(),
                job.schedule.to_string(),
                job.target_size.to_string(),
                if job.run_once { "yes" } else { "no" }.to_owned(),
                run.map_or_else(|| "<none>".to_owned(), |run| rfc3339(run.scheduled_ms)),
                run.map_or_else(String::new, |run| format!("{:?}", run.outcome)),
                run.map(|run| run.message.clone()).unwrap_or_default(),
            ]
        })
        .collect();
    let header = ["JOB", "SCHEDULE", "SIZE", "ONCE", "LAST RUN", "OUTCOME", "MESSAGE"];
    page.section("Jobs", |page| page.table(&header, &rows));
}

pub(super) fn elastic_workload(page: &mut Page, workload: &ElasticWorkload) {
    let (spec, status) = (&workload.spec, &workload.status);
    page.line("Source", format!("Deployment/{}", spec.source.name));
    page.line("Replicas", spec.replicas.to_string());
    let bounds = std::iter::once(("<source>", spec.source.bounds))
        .chain(spec.units.iter().map(|unit| (unit.name.as_str(), unit.bounds)));
    let rows: Vec<Vec<String>> = bounds
        .enumerate()
        .map(|(index, (name, bounds))| {
            let known = status.units.get(index);
            let figure = |of: fn(&bulkhead_types::ElasticUnitStatus) -> u32| {
                known.map_or_else(|| "<unknown>".to_owned(), |unit| of(unit).to_string())
            };
            vec![
                name.to_owned(),
                bounds.min.to_string(),
                bounds.max.map_or_else(|| "<none>".to_owned(), |max| max.to_string()),
                figure(|unit| unit.desired_replicas),
                figure(|unit| unit.ready_replicas),
            ]
        })
        .collect();
    page.section("Units", |page| page.table(&["UNIT", "MIN", "MAX", "DESIRED", "READY"], &rows));
    conditions(page, &status.conditions);
}

pub(super) fn budget(page: &mut Page, budget: &PodDisruptionBudget) {
    let (spec, status) = (&budget.spec, &budget.status);
    match spec.bound {
        DisruptionBound::MinAvailable(bound) => page.line("Min available", bound.to_string()),
        DisruptionBound::MaxUnavailable(bound) => page.line("Max unavailable", bound.to_string()),
    }
    page.line("Selector", row::selector(&spec.selector));
    page.line("Unhealthy pods", format!("{:?}", spec.unhealthy_pod_eviction_policy));
    let figures = format!(
        "{} expected, {} healthy, {} must stay, {} evictions allowed",
        status.expected_pods, status.current_healthy, status.desired_healthy, status.disruptions_allowed
    );
    page.line("Pods", figures);
    conditions(page, &status.conditions);
}
