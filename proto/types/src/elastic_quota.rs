//! Elastic quotas: a tree of guaranteed minimums and ceilings, in which what nobody uses is lent, as in ACK's capacity scheduling.
//!
//! ```text
//!  root (min = max) ─► teams (min ≤ max; the minimums together at most the root's) ─► leaves ─► namespaces
//! ```
//!
//! Source: "Capacity scheduling" in the documentation of Alibaba Cloud Container Service for Kubernetes, whose
//! `ElasticQuotaTree` (`scheduling.sigs.k8s.io/v1beta1`) this is. That a root should be no larger than the cluster is not
//! checked, because nodes come and go.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::{Measure, Name, ObjectMeta, QuotaAmounts};

/// The one namespace in which a tree counts.
pub const ELASTIC_QUOTA_NAMESPACE: &str = "kube-system";
/// Most levels of a tree, all of its nodes together.
pub const ELASTIC_QUOTA_LEVELS_MAX: usize = 256;
/// Most levels one below another, the root included.
pub const ELASTIC_QUOTA_DEPTH_MAX: usize = 8;
/// Most namespaces of a tree.
pub const ELASTIC_QUOTA_NAMESPACES_MAX: usize = 1024;

/// Who may use how much, and who lends to whom. There is at most one in a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ElasticQuotaTree {
    /// Standard metadata.
    pub meta: ObjectMeta,
    /// What is wanted.
    pub spec: ElasticQuotaTreeSpec,
    /// What is known.
    pub status: ElasticQuotaTreeStatus,
}

/// What is wanted of a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ElasticQuotaTreeSpec {
    /// The whole: its `min` is its `max`, and only resources that it names are counted.
    pub root: ElasticQuota,
}

/// One level of a tree, with what is below it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ElasticQuota {
    /// Its name, which no other level of the tree has.
    pub name: SmolStr,
    /// The most that its pods may use together, borrowed amounts included; what is not named is bounded above only.
    pub max: QuotaAmounts,
    /// What its pods can have whatever others use; of what is not named nothing.
    pub min: QuotaAmounts,
    /// The levels below it.
    pub children: Vec<ElasticQuota>,
    /// Whose pods count, of a level without children.
    pub namespaces: Vec<Name>,
}

impl ElasticQuota {
    /// It and every level below it, those above before those below, with how deep each is: the root is 0.
    pub fn levels(&self) -> impl Iterator<Item = (usize, &Self)> {
        let mut next = vec![(0, self)];
        std::iter::from_fn(move || {
            let (depth, level) = next.pop()?;
            next.extend(level.children.iter().rev().map(|child| (depth + 1, child)));
            Some((depth, level))
        })
    }
}

/// What is known of a tree. What is bound is checked against what is true then, not against this.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ElasticQuotaTreeStatus {
    /// The spec generation that this follows; 0 before somebody has looked.
    pub observed_generation: u64,
    /// Of every level, in the order of [`ElasticQuota::levels`].
    pub levels: Vec<ElasticQuotaUse>,
}

/// What the pods of one level use together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ElasticQuotaUse {
    /// The level.
    pub name: SmolStr,
    /// What pods with a node use, of the resources that the root names.
    pub used: QuotaAmounts,
}

impl ElasticQuotaUse {
    /// How much of a resource is used above a level's minimum: borrowed from others.
    #[must_use]
    pub fn borrowed(&self, level: &ElasticQuota, measure: &Measure) -> u64 {
        let used = self.used.of(measure).unwrap_or(0);
        used.saturating_sub(level.min.of(measure).unwrap_or(0))
    }
}
