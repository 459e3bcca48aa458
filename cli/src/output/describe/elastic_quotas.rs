//! ElasticQuotaTrees in full.

use bulkhead_types::{ElasticQuota, ElasticQuotaTree};

use super::Page;

/// Columns of the levels of a tree.
pub(crate) const ELASTIC_COLUMNS: [&str; 6] = ["LEVEL", "RESOURCE", "USED", "MIN", "MAX", "BORROWED"];

/// A row for each resource of each level that `wants` names. A level is indented by how deep it is.
pub(crate) fn elastic_rows(
    tree: &ElasticQuotaTree,
    wants: impl Fn(&ElasticQuota) -> bool,
) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for (depth, level) in tree.spec.root.levels().filter(|(_, level)| wants(level)) {
        let told = tree.status.levels.iter().find(|one| one.name == level.name);
        for (resource, _) in tree.spec.root.max.iter() {
            let measure = resource.measure();
            let show = |amount: u64| measure.format_amount(amount);
            let unknown = || "<unknown>".to_owned();
            let used = told.and_then(|told| told.used.of(measure));
            rows.push(vec![
                format!("{}{}", "  ".repeat(depth), level.name),
                resource.to_string(),
                used.map_or_else(unknown, show),
                show(level.min.of(measure).unwrap_or(0)),
                level.max.of(measure).map_or_else(|| "<above>".to_owned(), show),
                told.filter(|_| used.is_some())
                    .map_or_else(unknown, |told| show(told.borrowed(level, measure))),
            ]);
        }
    }
    rows
}

pub(super) fn tree(page: &mut Page, tree: &ElasticQuotaTree) {
    page.section("Levels", |page| page.table(&ELASTIC_COLUMNS, &elastic_rows(tree, |_| true)));
    let rows: Vec<Vec<String>> = tree
        .spec
        .root
        .levels()
        .flat_map(|(_, level)| {
            level.namespaces.iter().map(|name| vec![name.to_string(), level.name.to_string()])
        })
        .collect();
    if !rows.is_empty() {
        page.section("Namespaces", |page| page.table(&["NAMESPACE", "LEVEL"], &rows));
    }
}
