//! Quotas, levels and LimitRanges in full.

use bulkhead_types::{
    LimitRange, LimitRangeItem, LimitRatios, Measure, QuotaAmounts, QuotaStatus, ResourceRequirements,
    format_bytes, format_millis,
};

use super::Page;

/// Columns of what a level has.
pub(crate) const LEVEL_COLUMNS: [&str; 4] = ["RESOURCE", "USED", "HARD", "LEFT"];

/// A row for each resource; what is used above the quota is marked in the last cell.
pub(crate) fn level_rows(hard: &QuotaAmounts, status: &QuotaStatus) -> Vec<Vec<String>> {
    let row = |(resource, hard): (&bulkhead_types::QuotaResource, u64)| {
        let show = |amount| resource.measure().format_amount(amount);
        let used = status.used.get(resource);
        let left = match used {
            Some(used) if used > hard => format!("0, over by {}", show(used - hard)),
            Some(used) => show(hard - used),
            None => "<unknown>".to_owned(),
        };
        let used = used.map_or_else(|| "<unknown>".to_owned(), show);
        vec![resource.to_string(), used, show(hard), left]
    };
    hard.iter().map(row).collect()
}

pub(super) fn level(page: &mut Page, hard: &QuotaAmounts, status: &QuotaStatus) {
    page.section("Quota", |page| page.table(&LEVEL_COLUMNS, &level_rows(hard, status)));
}

pub(super) fn limit_range(page: &mut Page, range: &LimitRange) {
    let header =
        ["TYPE", "RESOURCE", "MIN", "MAX", "DEFAULT REQUEST", "DEFAULT LIMIT", "MAX LIMIT/REQUEST RATIO"];
    let rows: Vec<Vec<String>> = range.spec.limits.iter().flat_map(item_rows).collect();
    page.section("Limits", |page| page.table(&header, &rows));
}

type Get = fn(&ResourceRequirements) -> Option<u64>;

fn item_rows(item: &LimitRangeItem) -> Vec<Vec<String>> {
    let LimitRatios { cpu, memory, ephemeral_storage } = item.max_limit_request_ratio;
    let compute: [(&str, Measure, Get, Option<u64>); 3] = [
        ("cpu", Measure::RequestsCpu, |r| r.cpu_millis, cpu),
        ("memory", Measure::RequestsMemory, |r| r.memory_bytes, memory),
        (
            "ephemeral-storage",
            Measure::RequestsEphemeralStorage,
            |r| r.ephemeral_storage_bytes,
            ephemeral_storage,
        ),
    ];
    let dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let kind = item.limit_type.as_str().to_owned();
    let mut rows = Vec::new();
    for (name, measure, get, ratio) in compute {
        let amounts = [&item.min.compute, &item.max.compute, &item.default_request, &item.default].map(get);
        if amounts.iter().all(Option::is_none) && ratio.is_none() {
            continue;
        }
        let amounts = amounts.map(|amount| dash(amount.map(|amount| measure.format_amount(amount))));
        let start = [kind.clone(), name.to_owned()].into_iter();
        rows.push(start.chain(amounts).chain([dash(ratio.map(format_millis))]).collect());
    }
    if item.min.storage_bytes.is_some() || item.max.storage_bytes.is_some() {
        let bounds =
            [item.min.storage_bytes, item.max.storage_bytes].map(|bytes| dash(bytes.map(format_bytes)));
        let start = [kind, "storage".to_owned()].into_iter();
        rows.push(start.chain(bounds).chain(["-".to_owned(), "-".to_owned(), "-".to_owned()]).collect());
    }
    rows
}
