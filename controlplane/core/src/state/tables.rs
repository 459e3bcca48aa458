//! One table for each kind of objects.

use bulkhead_types::{
    ConfigMap, ControllerRevision, CronHorizontalPodAutoscaler, CronJob, DaemonSet, Department, Deployment,
    DeschedulerPolicy, DeviceClass, ElasticQuotaTree, ElasticWorkload, HorizontalPodAutoscaler, Job, Kind,
    LimitRange, Namespace, Node, NodeOperation, NodePool, Object, ObjectId, PersistentVolume,
    PersistentVolumeClaim, Pod, PodDisruptionBudget, PodGroup, PriorityClass, Profile, Project, Queue,
    ReplicaSet, ResourceQuota, ResourceSlice, Secret, SriovIBNetwork, SriovNetwork, SriovNetworkNodePolicy,
    SriovNetworkNodeState, StatefulSet, StorageClass, VerticalPodAutoscaler, VolumeSnapshot,
};

use super::{State, Table};

macro_rules! tables {
    ($($(#[doc = $doc:literal])+ $table:ident: $kind:ident;)+) => {
        impl State {
            $(
                $(#[doc = $doc])+
                #[must_use]
                pub fn $table(&self) -> &Table<$kind> {
                    &self.$table
                }
            )+

            /// An object by key.
            #[must_use]
            pub fn object(&self, kind: Kind, id: ObjectId) -> Option<Object> {
                match kind { $(Kind::$kind => self.$table.get(id).cloned().map(Object::$kind)),+ }
            }

            /// Every object, kind by kind in the order of kinds, each in id order.
            pub fn objects(&self) -> impl Iterator<Item = Object> + '_ {
                std::iter::empty()$(.chain(self.$table.iter().cloned().map(Object::$kind)))+
            }

            /// The objects of a kind with a key above `after`, oldest first: for paging.
            #[must_use]
            pub fn objects_after(&self, kind: Kind, after: ObjectId) -> Box<dyn Iterator<Item = Object> + '_> {
                match kind {
                    $(Kind::$kind => Box::new(self.$table.after(after).cloned().map(Object::$kind))),+
                }
            }

            /// How many objects there are.
            #[must_use]
            pub fn objects_len(&self) -> usize {
                0 $(+ self.$table.len())+
            }

            /// Stores an object over its former self, without indexes and digest; returns what it was.
            pub(super) fn insert(&mut self, object: Object) -> Option<Object> {
                let id = object.meta().id;
                match object { $(Object::$kind(o) => self.$table.insert(id, o).map(Object::$kind)),+ }
            }

            /// Forgets an object, without indexes and digest.
            pub(super) fn erase(&mut self, kind: Kind, id: ObjectId) {
                match kind { $(Kind::$kind => self.$table.remove(id)),+ }
            }
        }
    };
}

tables! {
    /// All namespaces.
    namespaces: Namespace;
    /// All nodes.
    nodes: Node;
    /// All pods.
    pods: Pod;
    /// All ReplicaSets.
    replica_sets: ReplicaSet;
    /// All Deployments.
    deployments: Deployment;
    /// All StatefulSets.
    stateful_sets: StatefulSet;
    /// All DaemonSets.
    daemon_sets: DaemonSet;
    /// All Jobs.
    jobs: Job;
    /// All CronJobs.
    cron_jobs: CronJob;
    /// All ConfigMaps.
    config_maps: ConfigMap;
    /// All Secrets.
    secrets: Secret;
    /// All templates of StatefulSets and DaemonSets.
    controller_revisions: ControllerRevision;
    /// All autoscalers.
    horizontal_pod_autoscalers: HorizontalPodAutoscaler;
    /// All sizes by the clock.
    cron_horizontal_pod_autoscalers: CronHorizontalPodAutoscaler;
    /// All budgets.
    pod_disruption_budgets: PodDisruptionBudget;
    /// All ElasticWorkloads.
    elastic_workloads: ElasticWorkload;
    /// All VerticalPodAutoscalers.
    vertical_pod_autoscalers: VerticalPodAutoscaler;
    /// All PriorityClasses.
    priority_classes: PriorityClass;
    /// All profiles.
    profiles: Profile;
    /// All claims.
    persistent_volume_claims: PersistentVolumeClaim;
    /// All quotas of namespaces.
    resource_quotas: ResourceQuota;
    /// All LimitRanges.
    limit_ranges: LimitRange;
    /// All departments.
    departments: Department;
    /// All projects.
    projects: Project;
    /// All PodGroups.
    pod_groups: PodGroup;
    /// All queues.
    queues: Queue;
    /// All classes of devices.
    device_classes: DeviceClass;
    /// The devices of all nodes.
    resource_slices: ResourceSlice;
    /// All SR-IOV policies.
    sriov_network_node_policies: SriovNetworkNodePolicy;
    /// All Ethernet networks.
    sriov_networks: SriovNetwork;
    /// All InfiniBand networks.
    sriov_ib_networks: SriovIBNetwork;
    /// All trees of elastic quotas: at most one.
    elastic_quota_trees: ElasticQuotaTree;
    /// The NICs of all nodes.
    sriov_network_node_states: SriovNetworkNodeState;
    /// All pools of nodes.
    node_pools: NodePool;
    /// All operations on nodes.
    node_operations: NodeOperation;
    /// All policies of the descheduler.
    descheduler_policies: DeschedulerPolicy;
    /// All snapshots of volumes.
    volume_snapshots: VolumeSnapshot;
    /// All StorageClasses.
    storage_classes: StorageClass;
    /// All volumes that claims left behind.
    persistent_volumes: PersistentVolume;
}
