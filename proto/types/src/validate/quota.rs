//! Rules for quotas and LimitRanges.

use super::{Path, Report};
use crate::{
    AMOUNT_MAX, LIMIT_RANGE_ITEMS_MAX, LimitAmounts, LimitRangeItem, LimitRangeSpec, LimitRatios, LimitType,
    Measure, QUOTA_RESOURCES_MAX, QuotaAmounts, ResourceRequirements,
};

/// Checks the amounts of a quota.
pub(super) fn hard(hard: &QuotaAmounts, path: &Path<'_>, report: &mut Report) {
    let path = path.field("hard");
    report.at_most(&path, "resources", hard.len(), QUOTA_RESOURCES_MAX);
    for (resource, amount) in hard.iter() {
        if amount > i64::MAX as u64 {
            report.push(&path.key(&resource.name()), "must be below 2^63");
        }
    }
}

/// Checks a LimitRange.
pub(super) fn limit_range(spec: &LimitRangeSpec, path: &Path<'_>, report: &mut Report) {
    let path = path.field("limits");
    if spec.limits.is_empty() {
        report.push(&path, "is required: at least one item");
    }
    report.at_most(&path, "items", spec.limits.len(), LIMIT_RANGE_ITEMS_MAX);
    for (index, item) in spec.limits.iter().enumerate().take(LIMIT_RANGE_ITEMS_MAX) {
        check_item(item, &path.index(index), report);
    }
}

/// The compute amounts with their names.
fn named(amounts: ResourceRequirements) -> [(&'static str, Measure, Option<u64>); 3] {
    [
        ("cpu", Measure::RequestsCpu, amounts.cpu_millis),
        ("memory", Measure::RequestsMemory, amounts.memory_bytes),
        ("ephemeral-storage", Measure::RequestsEphemeralStorage, amounts.ephemeral_storage_bytes),
    ]
}

fn check_item(item: &LimitRangeItem, path: &Path<'_>, report: &mut Report) {
    let LimitRangeItem { limit_type, min, max, default, default_request, max_limit_request_ratio } = item;
    let none = ResourceRequirements::default();
    let is_of_claims = *limit_type == LimitType::PersistentVolumeClaim;
    let kind = limit_type.as_str();
    for (field, amounts) in [("min", min), ("max", max)] {
        let path = path.field(field);
        if is_of_claims && amounts.compute != none {
            report.push(&path, "of a PersistentVolumeClaim bounds storage only");
        }
        if !is_of_claims && amounts.storage_bytes.is_some() {
            report.push(&path.key("storage"), format!("is not of a {kind}: use type PersistentVolumeClaim"));
        }
    }
    if *limit_type != LimitType::Container {
        for (field, amounts) in [("default", default), ("defaultRequest", default_request)] {
            if *amounts != none {
                report.push(
                    &path.field(field),
                    format!("must not be set: a {kind} has no defaults, its containers have"),
                );
            }
        }
    }
    if is_of_claims && *max_limit_request_ratio != LimitRatios::default() {
        report.push(&path.field("maxLimitRequestRatio"), "must not be set: claims have no limits");
    }
    let asks = [min, max].iter().any(|amounts| **amounts != LimitAmounts::default());
    let has_ratio = *max_limit_request_ratio != LimitRatios::default();
    if !asks && !has_ratio && *default == none && *default_request == none {
        report.push(path, "says nothing: give min, max, default, defaultRequest or maxLimitRequestRatio");
    }
    check_order(item, path, report);
    check_ratios(item, path, report);
}

/// min <= defaultRequest <= default <= max, each pair where both are given (Kubernetes' rule).
fn check_order(item: &LimitRangeItem, path: &Path<'_>, report: &mut Report) {
    let in_order = [
        ("min", item.min.compute),
        ("defaultRequest", item.default_request),
        ("default", item.default),
        ("max", item.max.compute),
    ];
    for (index, (field, amounts)) in in_order.iter().enumerate() {
        for (resource, measure, amount) in named(*amounts) {
            let Some(amount) = amount else { continue };
            let field_path = path.field(field);
            if amount > AMOUNT_MAX {
                report.push(&field_path.key(resource), format!("must be at most {AMOUNT_MAX}"));
            }
            let above = in_order[index + 1..].iter().find_map(|(other, others)| {
                let most = named(*others).into_iter().find(|(name, ..)| *name == resource)?.2?;
                (amount > most).then_some((*other, most))
            });
            if let Some((other, most)) = above {
                let (amount, most) = (measure.format_amount(amount), measure.format_amount(most));
                report
                    .push(&field_path.key(resource), format!("is {amount}, above {other}, which is {most}"));
            }
        }
    }
    if let (Some(min), Some(max)) = (item.min.storage_bytes, item.max.storage_bytes)
        && min > max
    {
        let [min, max] = [min, max].map(|bytes| Measure::RequestsStorage.format_amount(bytes));
        report.push(&path.field("min").key("storage"), format!("is {min}, above max, which is {max}"));
    }
}

fn check_ratios(item: &LimitRangeItem, path: &Path<'_>, report: &mut Report) {
    let LimitRatios { cpu, memory, ephemeral_storage } = item.max_limit_request_ratio;
    for (resource, ratio) in [("cpu", cpu), ("memory", memory), ("ephemeral-storage", ephemeral_storage)] {
        if ratio.is_some_and(|ratio| ratio < 1000) {
            let path = path.field("maxLimitRequestRatio");
            report.push(&path.key(resource), "must be at least 1: no limit is below its request");
        }
    }
}
