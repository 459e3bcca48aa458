//! Any object.

use bulkhead_types::{Namespace, Object};

use super::{ConvertError, Field, read, unknown_variant, wire_field, wire_struct};
use crate::v1;

wire_struct!(Namespace => v1::Namespace { meta });

impl From<&Object> for v1::Object {
    fn from(value: &Object) -> Self {
        use v1::object::Object as Wire;
        let object = match value {
            Object::Namespace(o) => Wire::Namespace(o.as_ref().into()),
            Object::Node(o) => Wire::Node(o.to_wire()),
            Object::Pod(o) => Wire::Pod(o.to_wire()),
            Object::ReplicaSet(o) => Wire::ReplicaSet(o.to_wire()),
            Object::Deployment(o) => Wire::Deployment(o.to_wire()),
            Object::StatefulSet(o) => Wire::StatefulSet(o.to_wire()),
            Object::DaemonSet(o) => Wire::DaemonSet(o.to_wire()),
            Object::Job(o) => Wire::Job(o.to_wire()),
            Object::CronJob(o) => Wire::CronJob(o.to_wire()),
            Object::ConfigMap(o) => Wire::ConfigMap(o.to_wire()),
            Object::Secret(o) => Wire::Secret(o.to_wire()),
            Object::ControllerRevision(o) => Wire::ControllerRevision(o.to_wire()),
            Object::HorizontalPodAutoscaler(o) => Wire::HorizontalPodAutoscaler(o.to_wire()),
            Object::CronHorizontalPodAutoscaler(o) => Wire::CronHorizontalPodAutoscaler(o.to_wire()),
            Object::PodDisruptionBudget(o) => Wire::PodDisruptionBudget(o.to_wire()),
            Object::ElasticWorkload(o) => Wire::ElasticWorkload(o.to_wire()),
            Object::VerticalPodAutoscaler(o) => Wire::VerticalPodAutoscaler(o.to_wire()),
            Object::PriorityClass(o) => Wire::PriorityClass(o.to_wire()),
            Object::Profile(o) => Wire::Profile(o.to_wire()),
            Object::PersistentVolumeClaim(o) => Wire::PersistentVolumeClaim(o.to_wire()),
            Object::ResourceQuota(o) => Wire::ResourceQuota(o.to_wire()),
            Object::LimitRange(o) => Wire::LimitRange(o.to_wire()),
            Object::Department(o) => Wire::Department(o.to_wire()),
            Object::Project(o) => Wire::Project(o.to_wire()),
            Object::PodGroup(o) => Wire::PodGroup(o.to_wire()),
            Object::Queue(o) => Wire::Queue(o.to_wire()),
            Object::DeviceClass(o) => Wire::DeviceClass(o.to_wire()),
            Object::ResourceSlice(o) => Wire::ResourceSlice(o.to_wire()),
            Object::SriovNetworkNodePolicy(o) => Wire::SriovNetworkNodePolicy(o.to_wire()),
            Object::SriovNetwork(o) => Wire::SriovNetwork(o.to_wire()),
            Object::SriovIBNetwork(o) => Wire::SriovIbNetwork(o.to_wire()),
            Object::SriovNetworkNodeState(o) => Wire::SriovNetworkNodeState(o.to_wire()),
            Object::NodePool(o) => Wire::NodePool(o.to_wire()),
            Object::NodeOperation(o) => Wire::NodeOperation(o.to_wire()),
            Object::DeschedulerPolicy(o) => Wire::DeschedulerPolicy(o.to_wire()),
            Object::ElasticQuotaTree(o) => Wire::ElasticQuotaTree(o.to_wire()),
            Object::StorageClass(o) => Wire::StorageClass(o.to_wire()),
            Object::PersistentVolume(o) => Wire::PersistentVolume(o.to_wire()),
            Object::VolumeSnapshot(o) => Wire::VolumeSnapshot(o.to_wire()),
        };
        Self { object: Some(object) }
    }
}

impl TryFrom<v1::Object> for Object {
    type Error = ConvertError;
    fn try_from(wire: v1::Object) -> Result<Self, ConvertError> {
        use v1::object::Object as Wire;
        Ok(match wire.object.ok_or_else(unknown_variant)? {
            Wire::Namespace(o) => Self::Namespace(read(o, "namespace")?),
            Wire::Node(o) => Self::Node(read(o, "node")?),
            Wire::Pod(o) => Self::Pod(read(o, "pod")?),
            Wire::ReplicaSet(o) => Self::ReplicaSet(read(o, "replica_set")?),
            Wire::Deployment(o) => Self::Deployment(read(o, "deployment")?),
            Wire::StatefulSet(o) => Self::StatefulSet(read(o, "stateful_set")?),
            Wire::DaemonSet(o) => Self::DaemonSet(read(o, "daemon_set")?),
            Wire::Job(o) => Self::Job(read(o, "job")?),
            Wire::CronJob(o) => Self::CronJob(read(o, "cron_job")?),
            Wire::ConfigMap(o) => Self::ConfigMap(read(o, "config_map")?),
            Wire::Secret(o) => Self::Secret(read(o, "secret")?),
            Wire::ControllerRevision(o) => Self::ControllerRevision(read(o, "controller_revision")?),
            Wire::HorizontalPodAutoscaler(o) => {
                Self::HorizontalPodAutoscaler(read(o, "horizontal_pod_autoscaler")?)
            }
            Wire::CronHorizontalPodAutoscaler(o) => {
                Self::CronHorizontalPodAutoscaler(read(o, "cron_horizontal_pod_autoscaler")?)
            }
            Wire::PodDisruptionBudget(o) => Self::PodDisruptionBudget(read(o, "pod_disruption_budget")?),
            Wire::ElasticWorkload(o) => Self::ElasticWorkload(read(o, "elastic_workload")?),
            Wire::VerticalPodAutoscaler(o) => {
                Self::VerticalPodAutoscaler(read(o, "vertical_pod_autoscaler")?)
            }
            Wire::PriorityClass(o) => Self::PriorityClass(read(o, "priority_class")?),
            Wire::Profile(o) => Self::Profile(read(o, "profile")?),
            Wire::PersistentVolumeClaim(o) => {
                Self::PersistentVolumeClaim(read(o, "persistent_volume_claim")?)
            }
            Wire::ResourceQuota(o) => Self::ResourceQuota(read(o, "resource_quota")?),
            Wire::LimitRange(o) => Self::LimitRange(read(o, "limit_range")?),
            Wire::Department(o) => Self::Department(read(o, "department")?),
            Wire::Project(o) => Self::Project(read(o, "project")?),
            Wire::PodGroup(o) => Self::PodGroup(read(o, "pod_group")?),
            Wire::Queue(o) => Self::Queue(read(o, "queue")?),
            Wire::DeviceClass(o) => Self::DeviceClass(read(o, "device_class")?),
            Wire::ResourceSlice(o) => Self::ResourceSlice(read(o, "resource_slice")?),
            Wire::SriovNetworkNodePolicy(o) => {
                Self::SriovNetworkNodePolicy(read(o, "sriov_network_node_policy")?)
            }
            Wire::SriovNetwork(o) => Self::SriovNetwork(read(o, "sriov_network")?),
            Wire::SriovIbNetwork(o) => Self::SriovIBNetwork(read(o, "sriov_ib_network")?),
            Wire::SriovNetworkNodeState(o) => {
                Self::SriovNetworkNodeState(read(o, "sriov_network_node_state")?)
            }
            Wire::NodePool(o) => Self::NodePool(read(o, "node_pool")?),
            Wire::NodeOperation(o) => Self::NodeOperation(read(o, "node_operation")?),
            Wire::DeschedulerPolicy(o) => Self::DeschedulerPolicy(read(o, "descheduler_policy")?),
            Wire::ElasticQuotaTree(o) => Self::ElasticQuotaTree(read(o, "elastic_quota_tree")?),
            Wire::StorageClass(o) => Self::StorageClass(read(o, "storage_class")?),
            Wire::PersistentVolume(o) => Self::PersistentVolume(read(o, "persistent_volume")?),
            Wire::VolumeSnapshot(o) => Self::VolumeSnapshot(read(o, "volume_snapshot")?),
        })
    }
}

wire_field!(Namespace => v1::Namespace, Object => v1::Object);
