//! ElasticWorkloads: replicas that go over from a Deployment to further units with other placement.
//!
//! ```text
//!  replicas ──► every minimum ──► the source, up to its maximum ──► the units in order, each up to its maximum
//!               (scaling in goes the same way back: the last unit that has more than its minimum first)
//! ```
//!
//! Kubernetes has no such kind; name, fields and rules are those of the one that is in use elsewhere
//! (`autoscaling.alibabacloud.com/v1beta1`).

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::{
    Condition, DeploymentSpec, LabelSelector, Name, ObjectMeta, PodSpec, Shared, StringMap, Toleration,
};

/// Most units of an ElasticWorkload, the source not counted.
pub const ELASTIC_UNITS_MAX: usize = 16;
/// The label by which the pods of a unit differ from those of the source and of other units.
pub const LABEL_ELASTIC_UNIT: &str = "bulkhead.io/elastic-unit";
/// The condition of an ElasticWorkload that says whether all its units are as it wants them.
pub const SYNCED: &str = "Synced";

/// A Deployment whose replicas go over to further units.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ElasticWorkload {
    /// Standard metadata.
    pub meta: ObjectMeta,
    /// What is wanted.
    pub spec: ElasticWorkloadSpec,
    /// What is known.
    pub status: ElasticWorkloadStatus,
}

/// What is wanted of an ElasticWorkload.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ElasticWorkloadSpec {
    /// The Deployment, of the same namespace.
    pub source: ElasticSource,
    /// Pods of the source and of all units together.
    pub replicas: u32,
    /// In the order in which they fill; at most [`ELASTIC_UNITS_MAX`].
    pub units: Vec<ElasticUnit>,
}

/// The Deployment whose replicas go over.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ElasticSource {
    /// Its name.
    pub name: Name,
    /// Its size's bounds.
    pub bounds: ElasticBounds,
}

/// How many pods there may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ElasticBounds {
    /// At least, while there are so many.
    pub min: u32,
    /// At most; as many as there are when unset.
    pub max: Option<u32>,
}

/// A copy of the source with other placement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ElasticUnit {
    /// Unique in the workload; a DNS label.
    pub name: SmolStr,
    /// Its size's bounds.
    pub bounds: ElasticBounds,
    /// Labels of its pods, over those of the source.
    pub labels: StringMap,
    /// Annotations of its pods, over those of the source.
    pub annotations: StringMap,
    /// Labels that its nodes must have, over those of the source.
    pub node_selector: StringMap,
    /// Tolerations of its pods, after those of the source.
    pub tolerations: Vec<Toleration>,
}

/// What is known of an ElasticWorkload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ElasticWorkloadStatus {
    /// The generation that this is about.
    pub observed_generation: u64,
    /// The source, which has no name here, and the units in order.
    pub units: Vec<ElasticUnitStatus>,
    /// Whether all is as wanted.
    pub conditions: Vec<Condition>,
}

/// What is known of a unit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ElasticUnitStatus {
    /// Its name; empty for the source.
    pub name: SmolStr,
    /// Pods that it shall have.
    pub desired_replicas: u32,
    /// Pods that are ready.
    pub ready_replicas: u32,
}

impl ElasticWorkloadSpec {
    fn bounds(&self) -> impl Iterator<Item = ElasticBounds> + '_ {
        std::iter::once(self.source.bounds).chain(self.units.iter().map(|unit| unit.bounds))
    }

    /// The sizes of the source and of the units, in order. Together they are `replicas`, or [`Self::capacity`] if that is less.
    #[must_use]
    pub fn sizes(&self) -> Vec<u32> {
        let mut left = self.replicas;
        let mut take = |most: u32| {
            let taken = most.min(left);
            left -= taken;
            taken
        };
        let mut sizes: Vec<u32> = self.bounds().map(|bounds| take(bounds.min)).collect();
        for (size, bounds) in sizes.iter_mut().zip(self.bounds()) {
            *size += take(bounds.max.map_or(u32::MAX, |max| max.saturating_sub(*size)));
        }
        sizes
    }

    /// How many pods all bounds together allow; `None` when one of them is open.
    #[must_use]
    pub fn capacity(&self) -> Option<u32> {
        self.bounds().try_fold(0u32, |sum, bounds| Some(sum.saturating_add(bounds.max?)))
    }
}

impl ElasticUnit {
    /// The name of its Deployment.
    ///
    /// # Errors
    /// When the two names together are too long.
    pub fn deployment_name(&self, source: &Name) -> Result<Name, crate::NameError> {
        Name::new(format!("{source}-unit-{}", self.name))
    }

    /// The spec of its Deployment, for a size.
    #[must_use]
    pub fn spec(&self, source: &DeploymentSpec, replicas: u32) -> DeploymentSpec {
        let over = |map: &StringMap, more: &StringMap| {
            let mut map = map.clone();
            map.extend(more.clone());
            map
        };
        let mut spec = source.clone();
        spec.replicas = replicas;
        let own = StringMap::from([(SmolStr::new_static(LABEL_ELASTIC_UNIT), self.name.clone())]);
        let LabelSelector { match_labels, match_expressions } = &source.selector;
        spec.selector = LabelSelector {
            match_labels: over(match_labels, &own),
            match_expressions: match_expressions.clone(),
        };
        let template = &mut spec.template;
        template.labels = over(&over(&template.labels, &self.labels), &own);
        template.annotations = over(&template.annotations, &self.annotations);
        let mut pod = PodSpec::clone(&template.spec);
        pod.node_selector = over(&pod.node_selector, &self.node_selector);
        let more = self.tolerations.iter().filter(|more| !template.spec.tolerations.contains(more));
        pod.tolerations.extend(more.cloned());
        if pod != *template.spec {
            template.spec = Shared::new(pod);
        }
        spec
    }
}
