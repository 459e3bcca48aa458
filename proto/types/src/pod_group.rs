//! Pods that are placed together or not at all: a group by two labels of its pods.
//!
//! Source: the coscheduling plugin of Kubernetes' scheduler-plugins, and ACK's gang scheduling, which share the labels.

use smol_str::SmolStr;

use crate::{Name, Pod, StringMap};

/// The label with a pod's group; the group is of the pod's namespace.
pub const LABEL_POD_GROUP: &str = "pod-group.scheduling.sigs.k8s.io/name";
/// The label with how many pods of the group must be placed together.
pub const LABEL_POD_GROUP_MIN_AVAILABLE: &str = "pod-group.scheduling.sigs.k8s.io/min-available";
/// Most pods that must be placed together: they are bound by one command.
pub const POD_GROUP_MIN_AVAILABLE_MAX: u32 = 1024;

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
