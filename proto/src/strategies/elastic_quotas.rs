//! ElasticQuotaTrees.

use super::*;

record!(/// Any level without others below it.
elastic_quota_leaf: ElasticQuota {
    name: small(), max: quota_amounts(), min: quota_amounts(), children: Just(vec![]),
    namespaces: vec(name(), 0..3),
});
record!(/// Any level.
elastic_quota: ElasticQuota {
    name: small(), max: quota_amounts(), min: quota_amounts(), children: vec(elastic_quota_leaf(), 0..3),
    namespaces: vec(name(), 0..2),
});
record!(/// Any wish for a tree.
elastic_quota_tree_spec: ElasticQuotaTreeSpec { root: elastic_quota() });
record!(/// What is known of a level.
elastic_quota_use: ElasticQuotaUse { name: small(), used: quota_amounts() });
record!(/// Any status of a tree.
elastic_quota_tree_status: ElasticQuotaTreeStatus {
    observed_generation: any::<u64>(), levels: vec(elastic_quota_use(), 0..3),
});
record!(/// Any ElasticQuotaTree.
elastic_quota_tree: ElasticQuotaTree {
    meta: meta(), spec: elastic_quota_tree_spec(), status: elastic_quota_tree_status(),
});
