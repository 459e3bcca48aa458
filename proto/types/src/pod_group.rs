//! Pods that are placed together or not at all: a group by two labels of its pods, or by a PodGroup that they name.
//!
//! Source: the coscheduling plugin of Kubernetes' scheduler-plugins, and ACK's gang scheduling, which share the labels; Volcano's
//! PodGroup (`scheduling.volcano.sh/v1beta1`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::{Condition, Name, ObjectMeta, Pod, QuotaAmounts, StringMap};

/// The label with a pod's group; the group is of the pod's namespace.
pub const LABEL_POD_GROUP: &str = "pod-group.scheduling.sigs.k8s.io/name";
/// The label with how many pods of the group must be placed together.
pub const LABEL_POD_GROUP_MIN_AVAILABLE: &str = "pod-group.scheduling.sigs.k8s.io/min-available";
/// Most pods that must be placed together: they are bound by one command.
pub const POD_GROUP_MIN_AVAILABLE_MAX: u32 = 1024;
/// Most pods of a group that hold room at a time, from [`crate::GROUP_PREEMPTION_LEVEL`] on: so a group always ends whole.
pub const POD_GROUP_PODS_MAX: u32 = 2048;

/// The annotation of a pod with its PodGroup, which is of the pod's namespace.
pub const ANNOTATION_POD_GROUP: &str = "scheduling.k8s.io/group-name";
/// The annotation, or label, of a pod with its role in its group.
pub const ANNOTATION_TASK_SPEC: &str = "volcano.sh/task-spec";
/// Most roles that a PodGroup has minimums of.
pub const POD_GROUP_TASKS_MAX: usize = 64;
/// Longest time-out of a PodGroup, in milliseconds: a day.
pub const SCHEDULE_TIMEOUT_MS_MAX: u64 = 86_400_000;
/// Shortest and longest time for which a group that timed out is not tried, in milliseconds. It is the time-out itself
/// between these.
pub const SCHEDULE_BACKOFF_MS: (u64, u64) = (10_000, 300_000);
/// The condition that says whether the group has its nodes.
pub const POD_GROUP_SCHEDULED: &str = "Scheduled";
/// The condition that says that the group waited for longer than its time-out.
pub const POD_GROUP_TIMED_OUT: &str = "ScheduleTimeout";

/// Pods that are placed together or not at all.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PodGroup {
    /// Standard metadata.
    pub meta: ObjectMeta,
    /// What is wanted.
    pub spec: PodGroupSpec,
    /// What is known.
    pub status: PodGroupStatus,
}

/// What is wanted of a group.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PodGroupSpec {
    /// How many of its pods must be placed together, from 1 to [`POD_GROUP_MIN_AVAILABLE_MAX`].
    pub min_member: u32,
    /// The same of each role that is named; together at most [`POD_GROUP_MIN_AVAILABLE_MAX`].
    pub min_task_member: BTreeMap<SmolStr, u32>,
    /// What must be free in the cluster and in the queue before the group is placed, what its pods hold included.
    pub min_resources: QuotaAmounts,
    /// Its queue.
    pub queue: Name,
    /// Its pods must be of this PriorityClass' value; whatever all of them have when unset.
    pub priority_class_name: Option<Name>,
    /// After so long without nodes the group says so, and is not tried for a while; in milliseconds, never when unset.
    pub schedule_timeout_ms: Option<u64>,
}

/// How far a group is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PodGroupPhase {
    /// It waits for something else than room: its pods, its queue, or the end of its back-off.
    #[default]
    Pending = 1,
    /// It waits for room.
    Inqueue = 2,
    /// As many as must have their nodes.
    Running = 3,
    /// Some have, but fewer than must.
    Unknown = 4,
    /// As many as must have succeeded.
    Completed = 5,
}

impl PodGroupPhase {
    /// The word in manifests.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Inqueue => "Inqueue",
            Self::Running => "Running",
            Self::Unknown => "Unknown",
            Self::Completed => "Completed",
        }
    }
}

/// What is known of a group. Nothing but its back-off relies on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PodGroupStatus {
    /// The spec generation that this follows; 0 before somebody has looked.
    pub observed_generation: u64,
    /// How far it is.
    pub phase: PodGroupPhase,
    /// Scheduled, and ScheduleTimeout once that happened.
    pub conditions: Vec<Condition>,
    /// Pods that wait for a node.
    pub pending: u32,
    /// Pods that have a node and have not ended.
    pub running: u32,
    /// Pods that succeeded.
    pub succeeded: u32,
    /// Pods that failed.
    pub failed: u32,
    /// Since when it waits for nodes, milliseconds since the epoch; 0 when it does not.
    pub waiting_since_ms: u64,
    /// Until when it is not tried, milliseconds since the epoch; 0 when it may be.
    pub backoff_until_ms: u64,
}

/// Identifies a group: its pods' namespace, and its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodGroupKey {
    /// The namespace.
    pub namespace: Option<Name>,
    /// The group's name there.
    pub name: SmolStr,
}

/// What labels say of a group: its name, and how many pods must be placed together, from 2. `None` when they name none, or
/// when one pod is enough.
#[must_use]
pub fn group_of(labels: &StringMap) -> Option<(&SmolStr, u32)> {
    let name = labels.get(LABEL_POD_GROUP)?;
    let least = labels.get(LABEL_POD_GROUP_MIN_AVAILABLE)?.parse::<u32>().ok()?;
    (!name.is_empty() && (2..=POD_GROUP_MIN_AVAILABLE_MAX).contains(&least)).then_some((name, least))
}

/// What is wrong with the labels of a group: the key, and why. Fine where there is no group.
///
/// # Errors
/// The first mistake.
pub fn check_group_labels(labels: &StringMap) -> Result<(), (&'static str, String)> {
    let (name, least) = (labels.get(LABEL_POD_GROUP), labels.get(LABEL_POD_GROUP_MIN_AVAILABLE));
    match (name, least) {
        (None, None) => Ok(()),
        (None, Some(_)) => {
            Err((LABEL_POD_GROUP_MIN_AVAILABLE, format!("says nothing without the label {LABEL_POD_GROUP}")))
        }
        (Some(name), _) if name.is_empty() => Err((LABEL_POD_GROUP, "must not be empty".to_owned())),
        (Some(_), None) => {
            Err((LABEL_POD_GROUP, format!("needs the label {LABEL_POD_GROUP_MIN_AVAILABLE} beside it")))
        }
        (Some(_), Some(least)) => match least.parse::<u32>() {
            Ok(1..=POD_GROUP_MIN_AVAILABLE_MAX) => Ok(()),
            _ => {
                let reason =
                    format!("{least:?} is not a whole number from 1 to {POD_GROUP_MIN_AVAILABLE_MAX}");
                Err((LABEL_POD_GROUP_MIN_AVAILABLE, reason))
            }
        },
    }
}

impl Pod {
    /// The group that the pod is placed with, and how many of it must be placed together.
    #[must_use]
    pub fn group(&self) -> Option<(PodGroupKey, u32)> {
        let (name, least) = group_of(&self.meta.labels)?;
        Some((PodGroupKey { namespace: self.meta.namespace.clone(), name: name.clone() }, least))
    }

    /// The group of the pod from feature level 9 on: by labels, else by the PodGroup that it names.
    #[must_use]
    pub fn group_key(&self) -> Option<PodGroupKey> {
        if let Some((key, _)) = self.group() {
            return Some(key);
        }
        if self.meta.annotations.is_empty() {
            return None;
        }
        let name = Name::new(self.meta.annotations.get(ANNOTATION_POD_GROUP)?.as_str()).ok()?;
        Some(PodGroupKey { namespace: self.meta.namespace.clone(), name: name.as_str().into() })
    }

    /// The pod's role in its group: an annotation, else a label; empty without one.
    #[must_use]
    pub fn task(&self) -> &str {
        let (notes, labels) = (&self.meta.annotations, &self.meta.labels);
        notes
            .get(ANNOTATION_TASK_SPEC)
            .or_else(|| labels.get(ANNOTATION_TASK_SPEC))
            .map_or("", SmolStr::as_str)
    }
}

impl PodGroup {
    /// What its pods are known by.
    #[must_use]
    pub fn key(&self) -> PodGroupKey {
        PodGroupKey { namespace: self.meta.namespace.clone(), name: self.meta.name.as_str().into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(labels: &[(&str, &str)], group: Option<(&str, u32)>, wrong: Option<&str>) {
        let labels: StringMap = labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        let found = group_of(&labels).map(|(name, least)| (name.as_str(), least));
        assert_eq!(found, group, "{labels:?}");
        assert_eq!(check_group_labels(&labels).err().map(|(key, _)| key), wrong, "{labels:?}");
    }

    #[test]
    fn two_labels_make_a_group() {
        const NAME: &str = LABEL_POD_GROUP;
        const LEAST: &str = LABEL_POD_GROUP_MIN_AVAILABLE;
        check(&[], None, None);
        check(&[(NAME, "tf"), (LEAST, "5")], Some(("tf", 5)), None);
        check(&[(NAME, "tf"), (LEAST, "1")], None, None);
        check(&[(NAME, "tf")], None, Some(NAME));
        check(&[(LEAST, "5")], None, Some(LEAST));
        check(&[(NAME, ""), (LEAST, "5")], None, Some(NAME));
        for least in ["0", "-1", "many", "", "1025"] {
            check(&[(NAME, "tf"), (LEAST, least)], None, Some(LEAST));
        }
    }
}
