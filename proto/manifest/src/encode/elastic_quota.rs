//! ElasticQuotaTrees as values.

use bulkhead_types::{ElasticQuota, ElasticQuotaTreeSpec, ElasticQuotaTreeStatus};
use serde_json::Value;

use super::Fields;
use super::queue::some_amounts;

/// What is wanted of a tree.
pub(super) fn spec(spec: &ElasticQuotaTreeSpec) -> Value {
    Fields::new().set("root", level(&spec.root)).finish()
}

fn level(quota: &ElasticQuota) -> Value {
    Fields::new()
        .text("name", &quota.name)
        .maybe("max", some_amounts(&quota.max))
        .maybe("min", some_amounts(&quota.min))
        .list("namespaces", quota.namespaces.iter().map(|name| Value::from(name.as_str())))
        .list("children", quota.children.iter().map(level))
        .finish()
}

/// What is known of a tree.
pub(super) fn status(status: &ElasticQuotaTreeStatus) -> Value {
    let levels = status.levels.iter().map(|level| {
        Fields::new().text("name", &level.name).maybe("used", some_amounts(&level.used)).finish()
    });
    Fields::new().set("observedGeneration", status.observed_generation.into()).list("levels", levels).finish()
}
