//! The elastic quota tree: there is one.

use bulkhead_types::{Object, Rejection};

use super::not_allowed;
use crate::State;

/// Refuses a second tree.
pub(super) fn check_alone(state: &State, object: &Object) -> Result<(), Rejection> {
    let Object::ElasticQuotaTree(tree) = object else { return Ok(()) };
    let Some(other) = state.elastic_quota_trees.iter().find(|one| one.meta.name != tree.meta.name) else {
        return Ok(());
    };
    let reason = format!("there is one already, {}: a cluster has one tree", other.meta.name);
    Err(not_allowed(object.object_ref(), reason).with_remedy("change that one, or delete it first"))
}
