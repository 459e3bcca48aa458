//! Profiles: what pods get when they are created, by their namespace and labels.
//!
//! ```text
//!  Profiles by name ─► their rules in order ─► those that match ─► the pod keeps what it says itself,
//!                                                                  then the first that says something counts
//! ```
//!
//! The model is a mutating admission webhook, as rules in the cluster's own state: a pod and what it got of a profile
//! are one event.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::{LabelSelector, ObjectMeta, StringMap, Toleration};

/// Most rules of a profile.
pub const PROFILE_RULES_MAX: usize = 32;
/// Most profiles of a cluster: all of them are looked at for every new pod.
pub const PROFILES_MAX: usize = 32;
/// Most entries of each map and list that a rule adds.
pub const EFFECT_ENTRIES_MAX: usize = 32;

/// Rules about pods that are created from now on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Profile {
    /// Standard metadata. Profiles count in the order of their names.
    pub meta: ObjectMeta,
    /// What it says.
    pub spec: ProfileSpec,
}

/// What a profile says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProfileSpec {
    /// In the order in which they count.
    pub rules: Vec<ProfileRule>,
}

/// What some pods get.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProfileRule {
    /// Unique in the profile; a DNS label.
    pub name: SmolStr,
    /// Pods of namespaces with such labels; of all when unset.
    pub namespace_selector: Option<LabelSelector>,
    /// Pods that have such labels by themselves; all when unset. One of the two selectors must be there.
    pub object_selector: Option<LabelSelector>,
    /// What they get.
    pub effect: ProfileEffect,
}

/// What pods get that do not say it themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProfileEffect {
    /// Labels, by key.
    pub labels: StringMap,
    /// Annotations, by key.
    pub annotations: StringMap,
    /// Labels that their node must have, by key. Pods of DaemonSets get none: their nodes are chosen already.
    pub node_selector: StringMap,
    /// Tolerations, after their own.
    pub tolerations: Vec<Toleration>,
    /// Their PriorityClass.
    pub priority_class_name: Option<SmolStr>,
    /// What their containers request. This alone counts before what a pod says itself.
    pub request_from_limit: RequestFromLimit,
}

/// Overcommit: requests as a share of limits. Containers without a limit keep their request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RequestFromLimit {
    /// Of processors, in per cent, 1 to 100.
    pub cpu_percent: Option<u32>,
    /// Of memory, in per cent, 1 to 100.
    pub memory_percent: Option<u32>,
}

impl ProfileRule {
    /// Whether it is about a pod with these labels of its own in a namespace with those.
    #[must_use]
    pub fn matches(&self, namespace: &StringMap, pod: &StringMap) -> bool {
        let holds = |selector: &Option<LabelSelector>, labels| {
            selector.as_ref().is_none_or(|selector| selector.matches(labels))
        };
        holds(&self.namespace_selector, namespace) && holds(&self.object_selector, pod)
    }
}
