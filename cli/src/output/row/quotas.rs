//! Quotas, levels and LimitRanges in a row.

use bulkhead_types::{Department, LimitRange, Project, QuotaAmounts, QuotaStatus, ResourceQuota};

use super::or_none;
use crate::time::age;

/// `requests.cpu: 500m/2, pods: 5/4 (over)`; `?` until somebody has counted.
fn shares(hard: &QuotaAmounts, status: &QuotaStatus) -> String {
    let shares = hard.iter().map(|(resource, hard)| {
        let (measure, used) = (resource.measure(), status.used.get(resource));
        let over = if used.is_some_and(|used| used > hard) { " (over)" } else { "" };
        let used = used.map_or_else(|| "?".to_owned(), |used| measure.format_amount(used));
        format!("{resource}: {used}/{}{over}", measure.format_amount(hard))
    });
    or_none(shares.collect::<Vec<_>>().join(", "))
}

pub(super) fn quota(quota: &ResourceQuota) -> Vec<String> {
    vec![shares(&quota.spec.hard, &quota.status), age(quota.meta.created_at_ms)]
}

pub(super) fn department(department: &Department) -> Vec<String> {
    vec![shares(&department.spec.hard, &department.status), age(department.meta.created_at_ms)]
}

pub(super) fn project(project: &Project) -> Vec<String> {
    let above = project.spec.department.as_ref().map_or("", |name| name.as_str());
    vec![or_none(above), shares(&project.spec.hard, &project.status), age(project.meta.created_at_ms)]
}

pub(super) fn limit_range(range: &LimitRange) -> Vec<String> {
    let types: Vec<&str> = range.spec.limits.iter().map(|item| item.limit_type.as_str()).collect();
    vec![types.join(", "), age(range.meta.created_at_ms)]
}
