//! How nodes are scored: a ConfigMap that the scheduler reads, in the words of Kubernetes' `KubeSchedulerConfiguration`.
//!
//! Source: "Scheduler Configuration" and "Resource Bin Packing" in the Kubernetes documentation. Volcano's
//! `binpack.weight` is `NodeResourcesFit.weight` with `MostAllocated`; its `binpack.cpu`, `binpack.resources.NAME` are the
//! weights of resources.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::{ConfigMap, ObjectMeta};

/// The namespace of the ConfigMap.
pub const SCHEDULER_CONFIG_NAMESPACE: &str = "kube-system";
/// Its name.
pub const SCHEDULER_CONFIG_NAME: &str = "scheduler-config";
/// The annotation by which pods choose their strategy themselves: `LeastAllocated` or `MostAllocated`.
pub const ANNOTATION_SCORING_STRATEGY: &str = "scheduling.bulkhead.io/scoring-strategy";
/// The annotation of pods for which nodes with less measured load are better: `true` (ACK's word).
pub const ANNOTATION_LOAD_AWARE: &str = "alibabacloud.com/loadAwareScheduleEnabled";
/// Largest weight of a score or a resource.
pub const SCORE_WEIGHT_MAX: u32 = 100;
/// Resources that may have a weight, at most.
pub const SCORED_RESOURCES_MAX: usize = 16;

const TYPE: &str = "NodeResourcesFit.scoringStrategy.type";
const RESOURCES: &str = "NodeResourcesFit.scoringStrategy.resources";
const FIT: &str = "NodeResourcesFit.weight";
const BALANCED: &str = "NodeResourcesBalancedAllocation.weight";
const LOAD: &str = "LoadAware.weight";
/// The key in `data` of how much images count. Needs [`crate::IMAGES_LEVEL`].
pub const SCHEDULER_CONFIG_IMAGES: &str = "ImageLocality.weight";

/// Which nodes are better for what is reserved on them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ScoringStrategy {
    /// Those with more left.
    #[default]
    LeastAllocated,
    /// Those with less left, so that others stay whole for large pods (binpack).
    MostAllocated,
}

impl ScoringStrategy {
    /// The word in ConfigMaps and annotations.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LeastAllocated => "LeastAllocated",
            Self::MostAllocated => "MostAllocated",
        }
    }

    /// The strategy of a word.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        [Self::LeastAllocated, Self::MostAllocated].into_iter().find(|one| one.as_str() == word)
    }
}

/// How nodes are scored. Weights are from 0 (not at all) to [`SCORE_WEIGHT_MAX`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchedulerConfig {
    /// Of pods that choose none themselves.
    pub strategy: ScoringStrategy,
    /// What counts for the strategy, by resource: `cpu`, `memory`, or the name of whole devices.
    pub resources: BTreeMap<SmolStr, u32>,
    /// How much the strategy counts.
    pub fit_weight: u32,
    /// How much it counts that processor time and memory run out together.
    pub balanced_weight: u32,
    /// How much measured load counts, for pods that ask for it.
    pub load_weight: u32,
    /// How much it counts that a node has the pod's images.
    pub image_weight: u32,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self {
            strategy: ScoringStrategy::default(),
            resources: [("cpu".into(), 1), ("memory".into(), 1)].into_iter().collect(),
            fit_weight: 1,
            balanced_weight: 1,
            load_weight: 1,
            image_weight: 1,
        }
    }
}

/// What is wrong with a ConfigMap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchedulerConfigError {
    /// The key in `data`.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
}

impl SchedulerConfig {
    /// Whether an object of this name is the scheduler's ConfigMap.
    #[must_use]
    pub fn is_in(meta: &ObjectMeta) -> bool {
        let namespace = meta.namespace.as_ref().map(|name| name.as_str());
        meta.name.as_str() == SCHEDULER_CONFIG_NAME && namespace == Some(SCHEDULER_CONFIG_NAMESPACE)
    }

    /// What a ConfigMap says; what it does not say is as by default.
    ///
    /// # Errors
    /// The first key that is unknown, or whose value is not what it must be.
    pub fn parse(map: &ConfigMap) -> Result<Self, SchedulerConfigError> {
        let mut config = Self::default();
        if let Some(key) = map.binary_data.keys().next() {
            return Err(error(key, "must be text, in data"));
        }
        for (key, value) in &map.data {
            let value = value.trim();
            match key.as_str() {
                TYPE => {
                    let found = ScoringStrategy::of(value);
                    config.strategy =
                        found.ok_or_else(|| error(key, "must be LeastAllocated or MostAllocated"))?;
                }
                RESOURCES => config.resources = resources(value).map_err(|reason| error(key, &reason))?,
                FIT => config.fit_weight = weight(key, value)?,
                BALANCED => config.balanced_weight = weight(key, value)?,
                LOAD => config.load_weight = weight(key, value)?,
                SCHEDULER_CONFIG_IMAGES => config.image_weight = weight(key, value)?,
                _ => {
                    let known = [TYPE, RESOURCES, FIT, BALANCED, LOAD, SCHEDULER_CONFIG_IMAGES].join(", ");
                    return Err(error(key, &format!("is unknown: the scheduler knows {known}")));
                }
            }
        }
        Ok(config)
    }
}

fn error(key: &str, reason: &str) -> SchedulerConfigError {
    SchedulerConfigError { key: key.to_owned(), reason: reason.to_owned() }
}

fn weight(key: &str, value: &str) -> Result<u32, SchedulerConfigError> {
    let found = value.parse().ok().filter(|weight| *weight <= SCORE_WEIGHT_MAX);
    found.ok_or_else(|| error(key, &format!("must be a number from 0 to {SCORE_WEIGHT_MAX}")))
}

/// `cpu=1,memory=1,nvidia.com/gpu=2`; a name alone weighs 1.
fn resources(value: &str) -> Result<BTreeMap<SmolStr, u32>, String> {
    let mut found = BTreeMap::new();
    for part in value.split(',').map(str::trim) {
        let (name, weight) = part.split_once('=').unwrap_or((part, "1"));
        let weight = weight.trim().parse().ok().filter(|weight| (1..=SCORE_WEIGHT_MAX).contains(weight));
        let Some(weight) = weight else {
            return Err(format!("says of {name} no weight from 1 to {SCORE_WEIGHT_MAX}"));
        };
        let name = SmolStr::new(name.trim());
        if !matches!(name.as_str(), "cpu" | "memory") && !name.contains('/') {
            return Err(format!(
                "names {name:?}: it must be cpu, memory, or a device's name such as nvidia.com/gpu"
            ));
        }
        if found.insert(name.clone(), weight).is_some() {
            return Err(format!("names {name} twice"));
        }
    }
    if found.len() > SCORED_RESOURCES_MAX {
        return Err(format!("names more than {SCORED_RESOURCES_MAX} resources"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Name;

    fn check(data: &[(&str, &str)], expected: Result<SchedulerConfig, &str>) {
        let name = |text| Name::new(text).expect("a name");
        let map = ConfigMap {
            meta: ObjectMeta::new(Some(name("kube-system")), name("scheduler-config")),
            immutable: false,
            data: data.iter().map(|(key, value)| ((*key).into(), (*value).to_owned())).collect(),
            binary_data: BTreeMap::new(),
        };
        assert!(SchedulerConfig::is_in(&map.meta));
        let found = SchedulerConfig::parse(&map).map_err(|bad| format!("{} {}", bad.key, bad.reason));
        assert_eq!(found, expected.map_err(str::to_owned), "{data:?}");
    }

    #[test]
    fn what_is_not_said_is_as_by_default() {
        check(&[], Ok(SchedulerConfig::default()));
        let resources = [("cpu".into(), 1), ("nvidia.com/gpu".into(), 2)].into_iter().collect();
        let binpack = SchedulerConfig {
            strategy: ScoringStrategy::MostAllocated,
            resources,
            fit_weight: 5,
            ..SchedulerConfig::default()
        };
        check(&[(TYPE, "MostAllocated"), (RESOURCES, "cpu, nvidia.com/gpu = 2"), (FIT, "5")], Ok(binpack));
        let off = SchedulerConfig { balanced_weight: 0, load_weight: 100, ..SchedulerConfig::default() };
        check(&[(BALANCED, "0"), (LOAD, "100\n")], Ok(off));
    }

    #[test]
    fn what_is_wrong_is_named() {
        check(&[(TYPE, "Binpack")], Err(&format!("{TYPE} must be LeastAllocated or MostAllocated")));
        check(&[(FIT, "-1")], Err(&format!("{FIT} must be a number from 0 to 100")));
        check(&[(FIT, "101")], Err(&format!("{FIT} must be a number from 0 to 100")));
        check(&[(RESOURCES, "cpu=0")], Err(&format!("{RESOURCES} says of cpu no weight from 1 to 100")));
        check(&[(RESOURCES, "cpu=1,cpu=2")], Err(&format!("{RESOURCES} names cpu twice")));
        let words = "it must be cpu, memory, or a device's name such as nvidia.com/gpu";
        check(&[(RESOURCES, "gpu=1")], Err(&format!("{RESOURCES} names \"gpu\": {words}")));
        let known = [TYPE, RESOURCES, FIT, BALANCED, LOAD, SCHEDULER_CONFIG_IMAGES].join(", ");
        check(
            &[("binpack.weight", "5")],
            Err(&format!("binpack.weight is unknown: the scheduler knows {known}")),
        );
    }
}
