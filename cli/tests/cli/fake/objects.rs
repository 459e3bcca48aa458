//! What any object has: metadata, a kind, a key.

use bulkhead_proto::v1;

use super::Kind;

pub(super) fn meta(object: &Kind) -> &v1::ObjectMeta {
    match object {
        Kind::Namespace(o) => o.meta.as_ref(),
        Kind::Node(o) => o.meta.as_ref(),
        Kind::Pod(o) => o.meta.as_ref(),
        Kind::ReplicaSet(o) => o.meta.as_ref(),
        Kind::Deployment(o) => o.meta.as_ref(),
        Kind::StatefulSet(o) => o.meta.as_ref(),
        Kind::DaemonSet(o) => o.meta.as_ref(),
        Kind::Job(o) => o.meta.as_ref(),
        Kind::CronJob(o) => o.meta.as_ref(),
        Kind::ConfigMap(o) => o.meta.as_ref(),
        Kind::Secret(o) => o.meta.as_ref(),
        Kind::ControllerRevision(o) => o.meta.as_ref(),
        Kind::HorizontalPodAutoscaler(o) => o.meta.as_ref(),
        Kind::CronHorizontalPodAutoscaler(o) => o.meta.as_ref(),
        Kind::PodDisruptionBudget(o) => o.meta.as_ref(),
        Kind::ElasticWorkload(o) => o.meta.as_ref(),
        Kind::VerticalPodAutoscaler(o) => o.meta.as_ref(),
        Kind::PriorityClass(o) => o.meta.as_ref(),
        Kind::Profile(o) => o.meta.as_ref(),
        Kind::PersistentVolumeClaim(o) => o.meta.as_ref(),
        Kind::ResourceQuota(o) => o.meta.as_ref(),
        Kind::LimitRange(o) => o.meta.as_ref(),
        Kind::Department(o) => o.meta.as_ref(),
        Kind::Project(o) => o.meta.as_ref(),
        Kind::PodGroup(o) => o.meta.as_ref(),
        Kind::Queue(o) => o.meta.as_ref(),
        Kind::ElasticQuotaTree(o) => o.meta.as_ref(),
        Kind::VolumeSnapshot(o) => o.meta.as_ref(),
        Kind::StorageClass(o) => o.meta.as_ref(),
        Kind::PersistentVolume(o) => o.meta.as_ref(),
        Kind::DeviceClass(o) => o.meta.as_ref(),
        Kind::ResourceSlice(o) => o.meta.as_ref(),
        Kind::SriovNetworkNodePolicy(o) => o.meta.as_ref(),
        Kind::SriovNetwork(o) => o.meta.as_ref(),
        Kind::SriovIbNetwork(o) => o.meta.as_ref(),
        Kind::SriovNetworkNodeState(o) => o.meta.as_ref(),
        Kind::NodePool(o) => o.meta.as_ref(),
        Kind::NodeOperation(o) => o.meta.as_ref(),
        Kind::DeschedulerPolicy(o) => o.meta.as_ref(),
    }
    .expect("every object has metadata")
}

pub(super) fn meta_mut(object: &mut Kind) -> &mut v1::ObjectMeta {
    match object {
        Kind::Namespace(o) => o.meta.as_mut(),
        Kind::Node(o) => o.meta.as_mut(),
        Kind::Pod(o) => o.meta.as_mut(),
        Kind::ReplicaSet(o) => o.meta.as_mut(),
        Kind::Deployment(o) => o.meta.as_mut(),
        Kind::StatefulSet(o) => o.meta.as_mut(),
        Kind::DaemonSet(o) => o.meta.as_mut(),
        Kind::Job(o) => o.meta.as_mut(),
        Kind::CronJob(o) => o.meta.as_mut(),
        Kind::ConfigMap(o) => o.meta.as_mut(),
        Kind::Secret(o) => o.meta.as_mut(),
        Kind::ControllerRevision(o) => o.meta.as_mut(),
        Kind::HorizontalPodAutoscaler(o) => o.meta.as_mut(),
        Kind::CronHorizontalPodAutoscaler(o) => o.meta.as_mut(),
        Kind::PodDisruptionBudget(o) => o.meta.as_mut(),
        Kind::ElasticWorkload(o) => o.meta.as_mut(),
        Kind::VerticalPodAutoscaler(o) => o.meta.as_mut(),
        Kind::PriorityClass(o) => o.meta.as_mut(),
        Kind::Profile(o) => o.meta.as_mut(),
        Kind::PersistentVolumeClaim(o) => o.meta.as_mut(),
        Kind::ResourceQuota(o) => o.meta.as_mut(),
        Kind::LimitRange(o) => o.meta.as_mut(),
        Kind::Department(o) => o.meta.as_mut(),
        Kind::Project(o) => o.meta.as_mut(),
        Kind::PodGroup(o) => o.meta.as_mut(),
        Kind::Queue(o) => o.meta.as_mut(),
        Kind::ElasticQuotaTree(o) => o.meta.as_mut(),
        Kind::VolumeSnapshot(o) => o.meta.as_mut(),
        Kind::StorageClass(o) => o.meta.as_mut(),
        Kind::PersistentVolume(o) => o.meta.as_mut(),
        Kind::DeviceClass(o) => o.meta.as_mut(),
        Kind::ResourceSlice(o) => o.meta.as_mut(),
        Kind::SriovNetworkNodePolicy(o) => o.meta.as_mut(),
        Kind::SriovNetwork(o) => o.meta.as_mut(),
        Kind::SriovIbNetwork(o) => o.meta.as_mut(),
        Kind::SriovNetworkNodeState(o) => o.meta.as_mut(),
        Kind::NodePool(o) => o.meta.as_mut(),
        Kind::NodeOperation(o) => o.meta.as_mut(),
        Kind::DeschedulerPolicy(o) => o.meta.as_mut(),
    }
    .expect("every object has metadata")
}

pub(super) fn kind(object: &Kind) -> v1::Kind {
    match object {
        Kind::Namespace(_) => v1::Kind::Namespace,
        Kind::Node(_) => v1::Kind::Node,
        Kind::Pod(_) => v1::Kind::Pod,
        Kind::ReplicaSet(_) => v1::Kind::ReplicaSet,
        Kind::Deployment(_) => v1::Kind::Deployment,
        Kind::StatefulSet(_) => v1::Kind::StatefulSet,
        Kind::DaemonSet(_) => v1::Kind::DaemonSet,
        Kind::Job(_) => v1::Kind::Job,
        Kind::CronJob(_) => v1::Kind::CronJob,
        Kind::ConfigMap(_) => v1::Kind::ConfigMap,
        Kind::Secret(_) => v1::Kind::Secret,
        Kind::ControllerRevision(_) => v1::Kind::ControllerRevision,
        Kind::HorizontalPodAutoscaler(_) => v1::Kind::HorizontalPodAutoscaler,
        Kind::CronHorizontalPodAutoscaler(_) => v1::Kind::CronHorizontalPodAutoscaler,
        Kind::PodDisruptionBudget(_) => v1::Kind::PodDisruptionBudget,
        Kind::ElasticWorkload(_) => v1::Kind::ElasticWorkload,
        Kind::VerticalPodAutoscaler(_) => v1::Kind::VerticalPodAutoscaler,
        Kind::PriorityClass(_) => v1::Kind::PriorityClass,
        Kind::Profile(_) => v1::Kind::Profile,
        Kind::PersistentVolumeClaim(_) => v1::Kind::PersistentVolumeClaim,
        Kind::ResourceQuota(_) => v1::Kind::ResourceQuota,
        Kind::LimitRange(_) => v1::Kind::LimitRange,
        Kind::Department(_) => v1::Kind::Department,
        Kind::Project(_) => v1::Kind::Project,
        Kind::PodGroup(_) => v1::Kind::PodGroup,
        Kind::Queue(_) => v1::Kind::Queue,
        Kind::ElasticQuotaTree(_) => v1::Kind::ElasticQuotaTree,
        Kind::VolumeSnapshot(_) => v1::Kind::VolumeSnapshot,
        Kind::StorageClass(_) => v1::Kind::StorageClass,
        Kind::PersistentVolume(_) => v1::Kind::PersistentVolume,
        Kind::DeviceClass(_) => v1::Kind::DeviceClass,
        Kind::ResourceSlice(_) => v1::Kind::ResourceSlice,
        Kind::SriovNetworkNodePolicy(_) => v1::Kind::SriovNetworkNodePolicy,
        Kind::SriovNetwork(_) => v1::Kind::SriovNetwork,
        Kind::SriovIbNetwork(_) => v1::Kind::SriovIBNetwork,
        Kind::SriovNetworkNodeState(_) => v1::Kind::SriovNetworkNodeState,
        Kind::NodePool(_) => v1::Kind::NodePool,
        Kind::NodeOperation(_) => v1::Kind::NodeOperation,
        Kind::DeschedulerPolicy(_) => v1::Kind::DeschedulerPolicy,
    }
}

pub(super) fn key(kind: i32, namespace: &str, name: &str) -> String {
    format!("{kind}/{namespace}/{name}")
}

pub(super) fn key_of(object: &Kind) -> String {
    key(kind(object).into(), &meta(object).namespace, &meta(object).name)
}

pub(super) fn key_of_ref(object: &v1::ObjectRef) -> String {
    key(object.kind, &object.namespace, &object.name)
}
