//! Objects of one kind by key.

use std::sync::Arc;

use bulkhead_types::{
    ConfigMap, ControllerRevision, CronHorizontalPodAutoscaler, CronJob, DaemonSet, Department, Deployment,
    DeschedulerPolicy, DeviceClass, ElasticQuotaTree, ElasticWorkload, HorizontalPodAutoscaler, Job,
    LimitRange, Namespace, Node, NodeOperation, NodePool, ObjectId, ObjectMeta, PersistentVolume,
    PersistentVolumeClaim, Pod, PodDisruptionBudget, PodGroup, PriorityClass, Profile, Project, Queue,
    ReplicaSet, ResourceQuota, ResourceSlice, Secret, SriovIBNetwork, SriovNetwork, SriovNetworkNodePolicy,
    SriovNetworkNodeState, StatefulSet, StorageClass, VerticalPodAutoscaler, VolumeSnapshot,
};
use imbl::OrdMap;

/// What can be kept in a [`Table`].
pub trait Stored {
    /// Its metadata.
    fn meta(&self) -> &ObjectMeta;
}

macro_rules! stored {
    ($($kind:ty),*) => {
        $(impl Stored for $kind {
            fn meta(&self) -> &ObjectMeta {
                &self.meta
            }
        })*
    };
}

stored!(
    Namespace,
    Node,
    Pod,
    ReplicaSet,
    Deployment,
    StatefulSet,
    VerticalPodAutoscaler,
    DaemonSet,
    Job,
    CronJob,
    ConfigMap,
    Secret,
    ControllerRevision,
    HorizontalPodAutoscaler,
    CronHorizontalPodAutoscaler,
    PodDisruptionBudget,
    ElasticWorkload,
    PriorityClass,
    Profile,
    PersistentVolumeClaim,
    ResourceQuota,
    LimitRange,
    Department,
    Project,
    PodGroup,
    Queue,
    DeviceClass,
    ResourceSlice,
    SriovNetworkNodePolicy,
    SriovNetwork,
    SriovIBNetwork,
    SriovNetworkNodeState,
    ElasticQuotaTree,
    NodePool,
    NodeOperation,
    DeschedulerPolicy,
    VolumeSnapshot,
    StorageClass,
    PersistentVolume
);

/// Objects of one kind, in key order (which is the order of creation).
#[derive(Debug)]
pub struct Table<T> {
    rows: OrdMap<ObjectId, Arc<T>>,
}

impl<T> Clone for Table<T> {
    fn clone(&self) -> Self {
        Self { rows: self.rows.clone() }
    }
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { rows: OrdMap::new() }
    }
}

impl<T: Stored> Table<T> {
    /// One object.
    #[must_use]
    pub fn get(&self, id: ObjectId) -> Option<&Arc<T>> {
        self.rows.get(&id)
    }

    /// All of them, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        self.rows.values()
    }

    /// Those with a key above `after`, oldest first: for paging.
    pub fn after(&self, after: ObjectId) -> impl Iterator<Item = &Arc<T>> {
        self.rows.range(ObjectId(after.0.saturating_add(1))..).map(|(_, row)| row)
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn insert(&mut self, id: ObjectId, row: Arc<T>) -> Option<Arc<T>> {
        self.rows.insert(id, row)
    }

    pub(super) fn remove(&mut self, id: ObjectId) {
        self.rows.remove(&id);
    }
}
