//! ElasticQuotaTrees in a row.

use bulkhead_types::ElasticQuotaTree;

use super::or_none;
use crate::time::age;

/// Cells of a tree: its levels, its namespaces, and what the whole uses.
pub(super) fn tree(tree: &ElasticQuotaTree) -> Vec<String> {
    let root = &tree.spec.root;
    let namespaces: usize = root.levels().map(|(_, level)| level.namespaces.len()).sum();
    let told = tree.status.levels.first();
    let shares = root.max.iter().map(|(resource, max)| {
        let measure = resource.measure();
        let used = told.and_then(|told| told.used.of(measure));
        let used = used.map_or_else(|| "?".to_owned(), |used| measure.format_amount(used));
        format!("{resource}: {used}/{}", measure.format_amount(max))
    });
    vec![
        root.levels().count().to_string(),
        namespaces.to_string(),
        or_none(shares.collect::<Vec<_>>().join(", ")),
        age(tree.meta.created_at_ms),
    ]
}
