//! What workloads own, and what is said of them, for every kind alike.

use serde::{Deserialize, Serialize};

use crate::{
    AutoscalerStatus, CronAutoscalerStatus, CronJobStatus, DaemonSetStatus, DeschedulerPolicyStatus,
    DisruptionBudgetStatus, ElasticQuotaTreeStatus, ElasticWorkloadStatus, JobStatus, Kind, Name,
    NodeOperationStatus, NodePoolStatus, ObjectId, PersistentVolumeClaimStatus, PodGroupStatus, QueueStatus,
    QuotaStatus, SriovNetworkNodeStateStatus, StatefulSetStatus, VerticalAutoscalerStatus,
    VolumeSnapshotStatus,
};

/// What distinguishes a pod from the others of its owner.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PodStamp {
    /// Its name.
    pub name: Name,
    /// Its ordinal (StatefulSet) or completion index (indexed Job).
    pub index: Option<u32>,
    /// The node that it is for (DaemonSet).
    pub node: Option<ObjectId>,
    /// The ControllerRevision whose template it gets (StatefulSet, DaemonSet); the owner's own template when unset.
    pub revision: Option<ObjectId>,
}

/// How a pod of a Job ended, after the job's failure policy was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PodEnd {
    /// With success.
    Succeeded = 1,
    /// With failure; counted.
    Failed = 2,
    /// With a failure that the policy passes over.
    Ignored = 3,
    /// With a failure by which the policy fails the pod's index.
    FailedIndex = 4,
    /// With a failure by which the policy fails the job.
    FailedJob = 5,
    /// By its job's own wish (suspended, too many, job ended), whatever it reported; not counted.
    Stopped = 6,
}

/// The status of an object of a kind that has no command of its own for that.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ObjectStatus {
    /// Of a StatefulSet.
    StatefulSet(StatefulSetStatus),
    /// Of a DaemonSet.
    DaemonSet(DaemonSetStatus),
    /// Of a Job.
    Job(JobStatus),
    /// Of a CronJob.
    CronJob(CronJobStatus),
    /// Of a HorizontalPodAutoscaler.
    HorizontalPodAutoscaler(AutoscalerStatus),
    /// Of a CronHorizontalPodAutoscaler.
    CronHorizontalPodAutoscaler(CronAutoscalerStatus),
    /// Of a PodDisruptionBudget.
    PodDisruptionBudget(DisruptionBudgetStatus),
    /// Of an ElasticWorkload.
    ElasticWorkload(ElasticWorkloadStatus),
    /// Of a VerticalPodAutoscaler.
    VerticalPodAutoscaler(VerticalAutoscalerStatus),
    /// Of a PersistentVolumeClaim.
    PersistentVolumeClaim(PersistentVolumeClaimStatus),
    /// Of a ResourceQuota.
    ResourceQuota(QuotaStatus),
    /// Of a Project.
    Project(QuotaStatus),
    /// Of a Department.
    Department(QuotaStatus),
    /// Of a PodGroup.
    PodGroup(PodGroupStatus),
    /// Of a Queue.
    Queue(QueueStatus),
    /// Of a SriovNetworkNodeState.
    SriovNetworkNodeState(SriovNetworkNodeStateStatus),
    /// Of a NodePool.
    NodePool(NodePoolStatus),
    /// Of a NodeOperation.
    NodeOperation(NodeOperationStatus),
    /// Of a DeschedulerPolicy.
    DeschedulerPolicy(DeschedulerPolicyStatus),
    /// Of an ElasticQuotaTree.
    ElasticQuotaTree(ElasticQuotaTreeStatus),
    /// Of a VolumeSnapshot.
    VolumeSnapshot(VolumeSnapshotStatus),
}

impl ObjectStatus {
    /// Whose it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::StatefulSet(_) => Kind::StatefulSet,
            Self::DaemonSet(_) => Kind::DaemonSet,
            Self::Job(_) => Kind::Job,
            Self::CronJob(_) => Kind::CronJob,
            Self::HorizontalPodAutoscaler(_) => Kind::HorizontalPodAutoscaler,
            Self::CronHorizontalPodAutoscaler(_) => Kind::CronHorizontalPodAutoscaler,
            Self::PodDisruptionBudget(_) => Kind::PodDisruptionBudget,
            Self::ElasticWorkload(_) => Kind::ElasticWorkload,
            Self::VerticalPodAutoscaler(_) => Kind::VerticalPodAutoscaler,
            Self::PersistentVolumeClaim(_) => Kind::PersistentVolumeClaim,
            Self::ResourceQuota(_) => Kind::ResourceQuota,
            Self::Project(_) => Kind::Project,
            Self::Department(_) => Kind::Department,
            Self::PodGroup(_) => Kind::PodGroup,
            Self::Queue(_) => Kind::Queue,
            Self::SriovNetworkNodeState(_) => Kind::SriovNetworkNodeState,
            Self::NodePool(_) => Kind::NodePool,
            Self::NodeOperation(_) => Kind::NodeOperation,
            Self::DeschedulerPolicy(_) => Kind::DeschedulerPolicy,
            Self::ElasticQuotaTree(_) => Kind::ElasticQuotaTree,
            Self::VolumeSnapshot(_) => Kind::VolumeSnapshot,
        }
    }
}
