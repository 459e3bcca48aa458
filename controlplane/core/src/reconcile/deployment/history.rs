//! Revisions, and which old ReplicaSets are kept for undo.
//!
//! Source: "Rolling Back a Deployment" and "Clean up Policy" in the Kubernetes documentation.

use std::sync::Arc;

use bulkhead_types::{Deployment, LABEL_POD_TEMPLATE_HASH, ObjectId, PodTemplate, ReplicaSet};
use smol_str::SmolStr;

/// Whether two templates are the same to a user: all but the label that tells sets apart.
pub(super) fn same_template(a: &PodTemplate, b: &PodTemplate) -> bool {
    a.spec == b.spec && a.annotations == b.annotations && own_labels(a).eq(own_labels(b))
}

fn own_labels(template: &PodTemplate) -> impl Iterator<Item = (&SmolStr, &SmolStr)> {
    template.labels.iter().filter(|(key, _)| *key != LABEL_POD_TEMPLATE_HASH)
}

/// What a template's hash is made of.
pub(super) fn hashed(template: &PodTemplate) -> impl std::hash::Hash + '_ {
    (own_labels(template).collect::<Vec<_>>(), &template.annotations, &template.spec)
}

/// The set of the present template; the oldest when there are several.
pub(super) fn find_new<'a>(
    deployment: &Deployment,
    sets: &'a [Arc<ReplicaSet>],
) -> Option<&'a Arc<ReplicaSet>> {
    sets.iter().find(|set| same_template(&set.spec.template, &deployment.spec.template))
}

/// The revision that the new set has to stand for: above all others.
pub(super) fn new_revision(sets: &[Arc<ReplicaSet>], new: Option<&ReplicaSet>) -> u64 {
    let old = sets.iter().filter(|set| Some(set.meta.id) != new.map(|n| n.meta.id));
    let above = old.map(|set| set.spec.rollout_revision).max().unwrap_or(0) + 1;
    new.map_or(above, |new| above.max(new.spec.rollout_revision))
}

/// Old sets beyond the limit that `is_empty`, the oldest revisions first.
pub(super) fn beyond_limit(
    old: &[Arc<ReplicaSet>],
    limit: u32,
    is_empty: impl Fn(ObjectId) -> bool,
) -> Vec<Arc<ReplicaSet>> {
    let mut old: Vec<_> = old.to_vec();
    old.sort_by_key(|set| (set.spec.rollout_revision, set.meta.id));
    old.truncate(old.len().saturating_sub(limit as usize));
    old.retain(|set| set.spec.replicas == 0 && is_empty(set.meta.id));
    old
}
