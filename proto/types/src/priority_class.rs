//! PriorityClasses: which pods are placed first, as in `scheduling.k8s.io/v1`.
//!
//! Source: "Pod Priority and Preemption" in the Kubernetes documentation.

use serde::{Deserialize, Serialize};

use crate::ObjectMeta;

/// Highest value that users may give (Kubernetes' bound: above are the system's own classes).
pub const PRIORITY_MAX: i32 = 1_000_000_000;
/// Longest description of a class, in bytes.
pub const DESCRIPTION_BYTES_MAX: usize = 4096;
/// What names of the system's own classes begin with: users cannot make such ones.
pub const SYSTEM_PRIORITY_PREFIX: &str = "system-";

/// Classes that are always there, and their values.
const SYSTEM_PRIORITIES: [(&str, i32); 2] =
    [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];

/// The value of a class that is always there.
#[must_use]
pub fn system_priority(name: &str) -> Option<i32> {
    SYSTEM_PRIORITIES.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
}

/// What a pod of a class does to pods of lower priority when no node has room for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PreemptionPolicy {
    /// Nothing: it is placed before them as soon as there is room.
    Never = 1,
    /// It makes some of them end, as few and as low as possible.
    PreemptLowerPriority = 2,
}

/// How important pods are that name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PriorityClass {
    /// Standard metadata.
    pub meta: ObjectMeta,
    /// Pods with a higher value are placed first; cannot change after creation.
    pub value: i32,
    /// Whether it is the class of pods that name none. One class at most is.
    pub global_default: bool,
    /// What its pods do to others; cannot change after creation. Unset is `PreemptLowerPriority` (Kubernetes' default);
    /// below [`crate::PREEMPTION_LEVEL`] nothing is preempted.
    pub preemption_policy: Option<PreemptionPolicy>,
    /// For people.
    pub description: String,
}
