//! The kinds of objects, and one type that holds any of them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    ConfigMap, ControllerRevision, CronHorizontalPodAutoscaler, CronJob, DaemonSet, Department, Deployment,
    DeschedulerPolicy, DeviceClass, ElasticQuotaTree, ElasticWorkload, HorizontalPodAutoscaler, Job,
    LimitRange, Name, Node, NodeOperation, NodePool, ObjectMeta, PersistentVolume, PersistentVolumeClaim,
    Pod, PodDisruptionBudget, PodGroup, PriorityClass, Profile, Project, Queue, ReplicaSet, ResourceQuota,
    ResourceSlice, Secret, SriovIBNetwork, SriovNetwork, SriovNetworkNodePolicy, SriovNetworkNodeState,
    StatefulSet, StorageClass, VerticalPodAutoscaler, VolumeSnapshot,
};

/// The table of kinds: [`Kind`], [`Object`] and what differs between them, one line each.
macro_rules! kinds {
    ($(
        $(#[doc = $doc:literal])+
        $kind:ident = $number:literal, $api_version:literal, $scope:ident, [$($alias:literal),+ $(,)?];
    )+) => {
        /// What kinds of objects there are. Numbers are those of the wire and are never reused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Kind {
            $($(#[doc = $doc])+ $kind = $number,)+
        }

        impl Kind {
            /// Every kind, in the order of their numbers.
            pub const ALL: [Self; [$($number),+].len()] = [$(Self::$kind),+];

            /// The name as in `kind:` of a manifest.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$kind => stringify!($kind)),+ }
            }

            /// The `apiVersion` of the kind in a manifest.
            #[must_use]
            pub fn api_version(self) -> &'static str {
                match self { $(Self::$kind => $api_version),+ }
            }

            /// Whether objects of this kind live in a namespace.
            #[must_use]
            pub fn is_namespaced(self) -> bool {
                match self { $(Self::$kind => kinds!(@namespaced $scope)),+ }
            }

            /// Reads a kind as a user types it, in any case: its name, its plural or a short form, such as
            /// `Deployment`, `deployments` or `deploy`.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                let lower = text.to_ascii_lowercase();
                let aliases: [(Self, &[&str]); Self::ALL.len()] = [$((Self::$kind, &[$($alias),+])),+];
                aliases.into_iter().find_map(|(kind, aliases)| aliases.contains(&lower.as_str()).then_some(kind))
            }
        }

        /// Any object. Cloning is cheap: the content is shared.
        #[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Object {
            $(
                #[doc = concat!("See [`", stringify!($kind), "`].")]
                $kind(Arc<$kind>),
            )+
        }

        impl Object {
            /// The object's kind.
            #[must_use]
            pub fn kind(&self) -> Kind {
                match self { $(Self::$kind(_) => Kind::$kind),+ }
            }

            /// The object's metadata.
            #[must_use]
            pub fn meta(&self) -> &ObjectMeta {
                match self { $(Self::$kind(o) => &o.meta),+ }
            }

            /// The object's metadata, to change; the content is copied when it is shared.
            #[must_use]
            pub fn meta_mut(&mut self) -> &mut ObjectMeta {
                match self { $(Self::$kind(o) => &mut Arc::make_mut(o).meta),+ }
            }
        }
    };
    (@namespaced cluster) => { false };
    (@namespaced namespaced) => { true };
}

kinds! {
    /// A tenant's room for names.
    Namespace = 1, "v1", cluster, ["namespace", "namespaces", "ns"];
    /// A machine that runs pods.
    Node = 2, "v1", cluster, ["node", "nodes", "no"];
    /// One guest VM and its containers.
    Pod = 3, "v1", namespaced, ["pod", "pods", "po"];
    /// A number of equal pods.
    ReplicaSet = 4, "apps/v1", namespaced, ["replicaset", "replicasets", "rs"];
    /// ReplicaSets over time: a rollout.
    Deployment = 5, "apps/v1", namespaced, ["deployment", "deployments", "deploy"];
    /// Pods with an identity each.
    StatefulSet = 6, "apps/v1", namespaced, ["statefulset", "statefulsets", "sts"];
    /// One pod on every eligible node.
    DaemonSet = 7, "apps/v1", namespaced, ["daemonset", "daemonsets", "ds"];
    /// Pods that run to completion.
    Job = 8, "batch/v1", namespaced, ["job", "jobs"];
    /// Jobs by the clock.
    CronJob = 9, "batch/v1", namespaced, ["cronjob", "cronjobs", "cj"];
    /// Configuration of pods.
    ConfigMap = 10, "v1", namespaced, ["configmap", "configmaps", "cm"];
    /// Configuration of pods that only they may see.
    Secret = 11, "v1", namespaced, ["secret", "secrets"];
    /// A template that a StatefulSet or DaemonSet has, or had.
    ControllerRevision = 12, "apps/v1", namespaced, ["controllerrevision", "controllerrevisions"];
    /// How many pods a workload has, by what they use.
    HorizontalPodAutoscaler = 13, "autoscaling/v2", namespaced,
        ["horizontalpodautoscaler", "horizontalpodautoscalers", "hpa"];
    /// Sizes by the clock.
    CronHorizontalPodAutoscaler = 14, "autoscaling.alibabacloud.com/v1beta1", namespaced,
        ["cronhorizontalpodautoscaler", "cronhorizontalpodautoscalers", "cronhpa"];
    /// How many pods evictions leave.
    PodDisruptionBudget = 15, "policy/v1", namespaced,
        ["poddisruptionbudget", "poddisruptionbudgets", "pdb"];
    /// Replicas that go over from a Deployment to further units.
    ElasticWorkload = 17, "autoscaling.alibabacloud.com/v1beta1", namespaced,
        ["elasticworkload", "elasticworkloads", "ew"];
    /// How much the containers of a workload request, by what they use.
    VerticalPodAutoscaler = 16, "autoscaling.k8s.io/v1", namespaced,
        ["verticalpodautoscaler", "verticalpodautoscalers", "vpa"];
    /// Which pods are placed first.
    PriorityClass = 18, "scheduling.k8s.io/v1", cluster, ["priorityclass", "priorityclasses", "pc"];
    /// What pods get when they are created.
    Profile = 19, "bulkhead.io/v1", cluster, ["profile", "profiles"];
    /// A volume that outlives pods.
    PersistentVolumeClaim = 20, "v1", namespaced,
        ["persistentvolumeclaim", "persistentvolumeclaims", "pvc"];
    /// What a namespace may have at most.
    ResourceQuota = 21, "v1", namespaced, ["resourcequota", "resourcequotas", "quota", "quotas"];
    /// What one pod, container or claim may ask for, and gets when it does not say.
    LimitRange = 22, "v1", namespaced, ["limitrange", "limitranges", "limits"];
    /// What several projects may have together.
    Department = 23, "bulkhead.io/v1", cluster, ["department", "departments"];
    /// What several namespaces may have together.
    Project = 24, "bulkhead.io/v1", cluster, ["project", "projects"];
    /// Pods that are placed together or not at all.
    PodGroup = 25, "scheduling.volcano.sh/v1beta1", namespaced, ["podgroup", "podgroups", "pg"];
    /// Whose pods get room in which order, and how much they may have together.
    Queue = 26, "scheduling.volcano.sh/v1beta1", cluster, ["queue", "queues", "q"];
    /// Devices that pods ask for by the name of a resource.
    DeviceClass = 27, "bulkhead.io/v1", cluster, ["deviceclass", "deviceclasses"];
    /// The devices of one node.
    ResourceSlice = 28, "bulkhead.io/v1", cluster, ["resourceslice", "resourceslices"];
    /// Which virtual functions nodes shall have.
    SriovNetworkNodePolicy = 29, "sriovnetwork.openshift.io/v1", namespaced,
        ["sriovnetworknodepolicy", "sriovnetworknodepolicies"];
    /// An Ethernet network that pods attach by a virtual function.
    SriovNetwork = 30, "sriovnetwork.openshift.io/v1", namespaced, ["sriovnetwork", "sriovnetworks"];
    /// An InfiniBand network that pods attach by a virtual function.
    SriovIBNetwork = 31, "sriovnetwork.openshift.io/v1", namespaced, ["sriovibnetwork", "sriovibnetworks"];
    /// The NICs of one node, and what they shall be.
    SriovNetworkNodeState = 32, "sriovnetwork.openshift.io/v1", cluster,
        ["sriovnetworknodestate", "sriovnetworknodestates"];
    /// A set of nodes that are alike.
    NodePool = 33, "bulkhead.io/v1", cluster, ["nodepool", "nodepools", "np"];
    /// Something that is done to many nodes, batch by batch.
    NodeOperation = 34, "bulkhead.io/v1", cluster, ["nodeoperation", "nodeoperations", "nodeop"];
    /// Which pods are moved.
    DeschedulerPolicy = 36, "bulkhead.io/v1", cluster, ["deschedulerpolicy", "deschedulerpolicies", "descheduler"];
    /// Who may use how much, and who lends to whom.
    ElasticQuotaTree = 35, "scheduling.sigs.k8s.io/v1beta1", namespaced,
        ["elasticquotatree", "elasticquotatrees", "eqt"];
    /// What a claim's volume held at one moment.
    VolumeSnapshot = 37, "snapshot.storage.k8s.io/v1", namespaced, ["volumesnapshot", "volumesnapshots", "vs"];
    /// What volumes of a name are like.
    StorageClass = 38, "storage.k8s.io/v1", cluster, ["storageclass", "storageclasses", "sc"];
    /// A volume that a claim left behind.
    PersistentVolume = 39, "v1", cluster, ["persistentvolume", "persistentvolumes", "pv"];
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An object by kind and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectRef {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; `None` for cluster-scoped kinds.
    pub namespace: Option<Name>,
    /// Its name.
    pub name: Name,
}

impl std::fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

/// A room for names, owned by one tenant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Namespace {
    /// Standard metadata.
    pub meta: ObjectMeta,
}

impl Object {
    /// Kind, namespace and name.
    #[must_use]
    pub fn object_ref(&self) -> ObjectRef {
        let meta = self.meta();
        ObjectRef { kind: self.kind(), namespace: meta.namespace.clone(), name: meta.name.clone() }
    }
}
