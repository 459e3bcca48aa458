//! The projection that everything is decided over: a set of persistent ordered maps.
//!
//! Cloning a [`State`] is O(1): a snapshot, a read view and a what-if copy share structure with the live one.
//! Objects change only through [`State::put`] and [`State::remove`], so that indexes and digest can never
//! drift from the objects (and [`crate::invariant::check`] proves it).

mod elastic_use;
mod index;
mod interner;
mod new_life;
mod queue_use;
mod quota_use;
mod records;
mod requests;
mod table;
mod tables;

use std::sync::Arc;

use bulkhead_types::{
    ConfigMap, ControllerRevision, CronHorizontalPodAutoscaler, CronJob, DaemonSet, Department, Deployment,
    DeschedulerPolicy, DeviceClass, ElasticQuotaTree, ElasticWorkload, HorizontalPodAutoscaler, Job, Kind,
    LimitRange, MemberId, MemberRecord, MemberRole, Name, Namespace, Node, NodeOperation, NodePool, Object,
    ObjectId, ObjectRef, PersistentVolume, PersistentVolumeClaim, Pod, PodDisruptionBudget, PodGroup,
    PodGroupKey, PriorityClass, Profile, Project, Queue, ReplicaSet, ResourceQuota, ResourceSlice, Revision,
    Secret, SriovIBNetwork, SriovNetwork, SriovNetworkNodePolicy, SriovNetworkNodeState, StatefulSet,
    StorageClass, VerticalPodAutoscaler, VolumeSnapshot, digest128,
};
use imbl::{OrdMap, OrdSet};
use uuid::Uuid;

use crate::cpus::{CpuIndex, NodeCpus};
use crate::devices::{self, DeviceIndex, NodeDevices};
use crate::networks::NetworkIndex;
use crate::placement::{Vicinity, World};
use crate::ports::{NodePorts, PortIndex};

pub(crate) use elastic_use::{Amounts, ElasticIndex, LevelKey, Levels, Sums};
pub(crate) use index::Index;
pub use index::NodeUsage;
pub(crate) use index::{is_active, nominated_node};
pub use new_life::REVISION_JUMP;
pub(crate) use queue_use::QueueIndex;
pub(crate) use quota_use::{Charge, QuotaIndex};
pub use quota_use::{QuotaLevel, QuotaUse};
pub use records::{RestoreError, Restorer};
pub use requests::{REQUEST_RETENTION_MS, REQUESTS_MAX};
pub use table::{Stored, Table};

/// Everything that is true after a prefix of the log.
#[derive(Clone, Debug, Default)]
pub struct State {
    pub(crate) cluster_id: Option<Uuid>,
    pub(crate) revision: Revision,
    pub(crate) now_ms: u64,
    pub(crate) feature_level: u32,
    pub(crate) members: OrdMap<MemberId, Arc<MemberRecord>>,
    pub(crate) namespaces: Table<Namespace>,
    pub(crate) nodes: Table<Node>,
    pub(crate) pods: Table<Pod>,
    pub(crate) replica_sets: Table<ReplicaSet>,
    pub(crate) deployments: Table<Deployment>,
    pub(crate) stateful_sets: Table<StatefulSet>,
    pub(crate) daemon_sets: Table<DaemonSet>,
    pub(crate) jobs: Table<Job>,
    pub(crate) cron_jobs: Table<CronJob>,
    pub(crate) config_maps: Table<ConfigMap>,
    pub(crate) secrets: Table<Secret>,
    pub(crate) controller_revisions: Table<ControllerRevision>,
    pub(crate) horizontal_pod_autoscalers: Table<HorizontalPodAutoscaler>,
    pub(crate) cron_horizontal_pod_autoscalers: Table<CronHorizontalPodAutoscaler>,
    pub(crate) elastic_workloads: Table<ElasticWorkload>,
    pub(crate) pod_disruption_budgets: Table<PodDisruptionBudget>,
    pub(crate) vertical_pod_autoscalers: Table<VerticalPodAutoscaler>,
    pub(crate) priority_classes: Table<PriorityClass>,
    pub(crate) profiles: Table<Profile>,
    pub(crate) persistent_volume_claims: Table<PersistentVolumeClaim>,
    pub(crate) resource_quotas: Table<ResourceQuota>,
    pub(crate) limit_ranges: Table<LimitRange>,
    pub(crate) departments: Table<Department>,
    pub(crate) projects: Table<Project>,
    pub(crate) pod_groups: Table<PodGroup>,
    pub(crate) queues: Table<Queue>,
    pub(crate) device_classes: Table<DeviceClass>,
    pub(crate) resource_slices: Table<ResourceSlice>,
    pub(crate) sriov_network_node_policies: Table<SriovNetworkNodePolicy>,
    pub(crate) sriov_networks: Table<SriovNetwork>,
    pub(crate) sriov_ib_networks: Table<SriovIBNetwork>,
    pub(crate) elastic_quota_trees: Table<ElasticQuotaTree>,
    pub(crate) sriov_network_node_states: Table<SriovNetworkNodeState>,
    pub(crate) node_pools: Table<NodePool>,
    pub(crate) node_operations: Table<NodeOperation>,
    pub(crate) descheduler_policies: Table<DeschedulerPolicy>,
    pub(crate) volume_snapshots: Table<VolumeSnapshot>,
    pub(crate) storage_classes: Table<StorageClass>,
    pub(crate) persistent_volumes: Table<PersistentVolume>,
    pub(crate) index: index::Index,
    pub(crate) vicinity: Vicinity,
    pub(crate) quota: QuotaIndex,
    pub(crate) queue_use: QueueIndex,
    pub(crate) elastic_use: ElasticIndex,
    pub(crate) devices: DeviceIndex,
    pub(crate) networks: NetworkIndex,
    pub(crate) cpus: CpuIndex,
    pub(crate) ports: PortIndex,
    pub(crate) requests: requests::Requests,
    /// Sum of the digests of everything above that is kept: order-free, so every change costs O(1).
    digest: u128,
}

impl State {
    /// The cluster's identity; `None` before the first command.
    #[must_use]
    pub fn cluster_id(&self) -> Option<Uuid> {
        self.cluster_id
    }

    /// The last revision.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Log time, milliseconds since the epoch; never goes back.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// The rules that hold.
    #[must_use]
    pub fn feature_level(&self) -> u32 {
        self.feature_level
    }

    /// All members, removed ones included, by id.
    pub fn members(&self) -> impl Iterator<Item = &Arc<MemberRecord>> {
        self.members.values()
    }

    /// One member.
    #[must_use]
    pub fn member(&self, id: MemberId) -> Option<&Arc<MemberRecord>> {
        self.members.get(&id)
    }

    /// The key of a named object.
    #[must_use]
    pub fn find(&self, kind: Kind, namespace: Option<&Name>, name: &Name) -> Option<ObjectId> {
        self.index.id_of(kind, namespace, name)
    }

    /// A named object.
    #[must_use]
    pub fn find_object(&self, object: &ObjectRef) -> Option<Object> {
        self.object(object.kind, self.find(object.kind, object.namespace.as_ref(), &object.name)?)
    }

    /// The objects that `owner` controls, of one kind, in id order.
    pub fn owned(&self, owner: ObjectId, kind: Kind) -> impl Iterator<Item = ObjectId> + '_ {
        self.index.owned(owner, kind)
    }

    /// The pods that `owner` controls, in id order, those that end or ended included.
    pub fn pods_of(&self, owner: ObjectId) -> impl DoubleEndedIterator<Item = &Arc<Pod>> + '_ {
        self.index.owned(owner, Kind::Pod).filter_map(|id| self.pods.get(id))
    }

    /// How many pods of `owner` neither end nor ended.
    #[must_use]
    pub fn active_pods(&self, owner: ObjectId) -> u32 {
        self.index.active_pods(owner)
    }

    /// The pods bound to a node, in id order, those that ended included.
    pub fn pods_on(&self, node: ObjectId) -> impl Iterator<Item = &Arc<Pod>> + '_ {
        self.index.on_node(node).filter_map(|id| self.pods.get(id))
    }

    /// The nodes of the pods that refer to a ConfigMap or Secret, in order, each once.
    #[must_use]
    pub fn nodes_using(&self, object: &ObjectRef) -> Vec<ObjectId> {
        let mut nodes: Vec<ObjectId> = self.users_of(object).filter_map(|pod| pod.node).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }

    /// The pods that have a node and refer to a ConfigMap, Secret or PersistentVolumeClaim, in id order, those that end or
    /// ended included.
    pub fn users_of(&self, object: &ObjectRef) -> impl Iterator<Item = &Arc<Pod>> + use<'_> {
        self.index.users(object).into_iter().filter_map(|id| self.pods.get(id))
    }

    /// A claim by name.
    #[must_use]
    pub fn claim(&self, namespace: Option<&Name>, name: &str) -> Option<&Arc<PersistentVolumeClaim>> {
        let id = self.find(Kind::PersistentVolumeClaim, namespace, &Name::new(name).ok()?)?;
        self.persistent_volume_claims.get(id)
    }

    /// The claims that are bound to a node, in id order.
    pub fn claims_on(&self, node: ObjectId) -> impl Iterator<Item = &Arc<PersistentVolumeClaim>> + '_ {
        self.index.claims_on(node).filter_map(|id| self.persistent_volume_claims.get(id))
    }

    /// A snapshot by name.
    #[must_use]
    pub fn volume_snapshot(&self, namespace: Option<&Name>, name: &str) -> Option<&Arc<VolumeSnapshot>> {
        let id = self.find(Kind::VolumeSnapshot, namespace, &Name::new(name).ok()?)?;
        self.volume_snapshots.get(id)
    }

    /// A StorageClass by name; the two that are always there are none.
    #[must_use]
    pub fn storage_class(&self, name: &str) -> Option<&Arc<StorageClass>> {
        self.storage_classes.get(self.find(Kind::StorageClass, None, &Name::new(name).ok()?)?)
    }

    /// The snapshots that are ready on a node, in id order.
    pub fn snapshots_on(&self, node: ObjectId) -> impl Iterator<Item = &Arc<VolumeSnapshot>> + '_ {
        self.index.kept_on(node).filter_map(|id| self.volume_snapshots.get(id))
    }

    /// The volumes that claims left on a node, in id order.
    pub fn retained_on(&self, node: ObjectId) -> impl Iterator<Item = &Arc<PersistentVolume>> + '_ {
        self.index.kept_on(node).filter_map(|id| self.persistent_volumes.get(id))
    }

    /// The snapshots of a claim that are not ready yet, and the bound claims that are still to be made of an object; in id
    /// order, whether or not that object is there.
    pub(crate) fn copies_of(&self, source: &ObjectRef) -> impl Iterator<Item = ObjectId> + use<> {
        self.index.copies_of(source).into_iter()
    }

    /// Whether what is known of what nodes keep and of copies is what follows from the objects.
    pub(crate) fn copies_are_right(&self) -> bool {
        let snapshots = self.volume_snapshots.iter().cloned().map(Object::VolumeSnapshot);
        let claims = self.persistent_volume_claims.iter().cloned().map(Object::PersistentVolumeClaim);
        let volumes = self.persistent_volumes.iter().cloned().map(Object::PersistentVolume);
        self.index.copies_agree(snapshots.chain(claims).chain(volumes))
    }

    /// The claims of a namespace from a name on, in name order.
    pub(crate) fn claims_from(
        &self,
        namespace: Option<&Name>,
        from: Name,
    ) -> impl Iterator<Item = &Arc<PersistentVolumeClaim>> + use<'_> {
        let ids = self.index.named_from(Kind::PersistentVolumeClaim, namespace, from);
        ids.filter_map(|id| self.persistent_volume_claims.get(id))
    }

    /// The autoscaler that sets the size of a workload, if any does.
    #[must_use]
    pub fn autoscaler_of(&self, target: &ObjectRef) -> Option<&Arc<HorizontalPodAutoscaler>> {
        let mut scalers = self.index.scalers(target, Kind::HorizontalPodAutoscaler);
        scalers.find_map(|id| self.horizontal_pod_autoscalers.get(id))
    }

    /// What recommends the requests of a workload's containers, if anything does.
    #[must_use]
    pub fn vertical_autoscaler_of(&self, target: &ObjectRef) -> Option<&Arc<VerticalPodAutoscaler>> {
        let mut scalers = self.index.scalers(target, Kind::VerticalPodAutoscaler);
        scalers.find_map(|id| self.vertical_pod_autoscalers.get(id))
    }

    /// What scales an object by the clock, if anything does.
    #[must_use]
    pub fn cron_autoscaler_of(&self, target: &ObjectRef) -> Option<&Arc<CronHorizontalPodAutoscaler>> {
        let mut scalers = self.index.scalers(target, Kind::CronHorizontalPodAutoscaler);
        scalers.find_map(|id| self.cron_horizontal_pod_autoscalers.get(id))
    }

    /// The ElasticWorkload that sets the size of a Deployment and copies it, if any does.
    #[must_use]
    pub fn elastic_workload_of(&self, source: &ObjectRef) -> Option<&Arc<ElasticWorkload>> {
        let mut scalers = self.index.scalers(source, Kind::ElasticWorkload);
        scalers.find_map(|id| self.elastic_workloads.get(id))
    }

    /// The pods that wait for a node, oldest first.
    #[must_use]
    pub fn pending_pods(&self) -> &OrdSet<ObjectId> {
        &self.index.pending
    }

    /// What the pods bound to a node reserve together.
    #[must_use]
    pub fn node_usage(&self, node: ObjectId) -> NodeUsage {
        self.index.node_usage.get(&node).copied().unwrap_or_default()
    }

    /// The pods that wait while room is kept for them on a node, oldest first.
    pub fn nominated_on(&self, node: ObjectId) -> impl Iterator<Item = &Arc<Pod>> + '_ {
        self.index.nominated_on(node).filter_map(|id| self.pods.get(id))
    }

    /// Whether any pod is of a group.
    #[must_use]
    pub fn has_pod_groups(&self) -> bool {
        self.index.has_groups()
    }

    /// The pods of a group, oldest first, those that end or ended included.
    pub fn pods_of_group(&self, group: &PodGroupKey) -> impl Iterator<Item = &Arc<Pod>> + use<'_> {
        self.index.of_group(group).filter_map(|id| self.pods.get(id))
    }

    /// Whether a namespace holds anything.
    #[must_use]
    pub fn is_namespace_empty(&self, namespace: &Name) -> bool {
        self.index.in_namespace(namespace).next().is_none()
    }

    /// What a namespace holds.
    pub fn in_namespace<'a>(&'a self, namespace: &'a Name) -> impl Iterator<Item = (Kind, ObjectId)> + 'a {
        self.index.in_namespace(namespace)
    }

    /// What there is of everything that quotas count, at one level.
    #[must_use]
    pub fn quota_use(&self, level: &QuotaLevel) -> &QuotaUse {
        static NONE: QuotaUse = QuotaUse::NONE;
        self.quota.sum(level).unwrap_or(&NONE)
    }

    /// A namespace, its project and that one's department, as far as there are such.
    pub fn quota_levels(&self, namespace: &Name) -> impl Iterator<Item = QuotaLevel> + use<> {
        self.quota.levels(namespace)
    }

    /// The namespaces that say they belong to a project, by name.
    pub fn namespaces_of(&self, project: &Name) -> impl Iterator<Item = &Name> {
        self.quota.namespaces_of(project)
    }

    /// The projects of a department, by name.
    pub fn projects_of(&self, department: &Name) -> impl Iterator<Item = &Name> {
        self.quota.projects_of(department)
    }

    /// The answer to an earlier request, while it is remembered.
    #[must_use]
    pub fn request_outcome(&self, request_id: Uuid) -> Option<bulkhead_types::Outcome> {
        self.requests.get(request_id)
    }

    /// A digest of everything kept here; equal on all replicas after the same entry.
    #[must_use]
    pub fn digest(&self) -> u128 {
        let scalars = digest128(&(self.cluster_id, self.revision, self.now_ms, self.feature_level));
        self.digest.wrapping_add(scalars).wrapping_add(self.requests.digest())
    }

    /// Stores an object over its former self, with indexes and digest; returns what it was.
    pub(crate) fn put(&mut self, object: Object) -> Option<Object> {
        let former = self.insert(object.clone());
        self.index.change(former.as_ref(), Some(&object));
        self.change_vicinity(former.as_ref(), Some(&object));
        self.change_devices(former.as_ref(), Some(&object));
        self.networks.change(former.as_ref(), Some(&object));
        self.cpus.change(former.as_ref(), Some(&object), (&self.pods, &self.index));
        self.ports.change(former.as_ref(), Some(&object));
        self.change_quota(former.as_ref(), Some(&object));
        self.account(former.as_ref(), Some(&object));
        former
    }

    /// Forgets an object, with indexes and digest; returns what it was.
    pub(crate) fn remove(&mut self, kind: Kind, id: ObjectId) -> Option<Object> {
        let former = self.object(kind, id)?;
        self.index.change(Some(&former), None);
        self.account(Some(&former), None);
        self.erase(kind, id);
        self.change_vicinity(Some(&former), None);
        self.change_devices(Some(&former), None);
        self.networks.change(Some(&former), None);
        self.cpus.change(Some(&former), None, (&self.pods, &self.index));
        self.ports.change(Some(&former), None);
        self.change_quota(Some(&former), None);
        Some(former)
    }

    pub(crate) fn set_feature_level(&mut self, level: u32) {
        self.feature_level = level;
        self.requests.follow_level(level);
    }

    fn change_vicinity(&mut self, former: Option<&Object>, present: Option<&Object>) {
        let Self { vicinity, pods, nodes, namespaces, index, .. } = self;
        vicinity.change(former, present, World { pods, nodes, namespaces, index });
    }

    fn change_devices(&mut self, former: Option<&Object>, present: Option<&Object>) {
        let Self { devices, pods, nodes, device_classes: classes, resource_slices: slices, index, .. } = self;
        let (policies, nics) = (&self.sriov_network_node_policies, &self.sriov_network_node_states);
        let world = devices::World { pods, nodes, classes, slices, index, policies, nics };
        devices.change(former, present, world);
    }

    /// After the ledgers of devices, which say how many cards a request is for.
    fn change_quota(&mut self, former: Option<&Object>, present: Option<&Object>) {
        let Self { devices, quota, queue_use, elastic_use, pods, .. } = self;
        quota.change(former, present);
        queue_use.change(former, present, &devices.classes);
        elastic_use.change(former, present, (&devices.classes, pods));
        if matches!(former.or(present), Some(Object::DeviceClass(_) | Object::SriovNetworkNodePolicy(_))) {
            quota.follow_classes(&devices.classes, pods);
            queue_use.recount(&devices.classes, pods);
            elastic_use.recount(&devices.classes, pods);
        }
    }

    /// The devices of a node and who holds them; `None` of one whose agent reports none.
    #[must_use]
    pub fn node_devices(&self, node: ObjectId) -> Option<&NodeDevices> {
        self.devices.get(node).map(AsRef::as_ref)
    }

    /// The CPUs of a node and who has which for itself; `None` of one whose agent does not report them.
    #[must_use]
    pub fn node_cpus(&self, node: ObjectId) -> Option<&NodeCpus> {
        self.cpus.get(node).map(AsRef::as_ref)
    }

    /// The ledgers of CPUs made afresh: what is kept must always equal them.
    pub(crate) fn cpus_from_scratch(&self) -> CpuIndex {
        CpuIndex::of(&self.nodes, &self.pods, &self.index)
    }

    /// The ports of a node that pods publish, and who has which; `None` of one where nobody has any.
    #[must_use]
    pub fn node_ports(&self, node: ObjectId) -> Option<&NodePorts> {
        self.ports.get(node).map(AsRef::as_ref)
    }

    /// The ledgers of ports made afresh: what is kept must always equal them.
    pub(crate) fn ports_from_scratch(&self) -> PortIndex {
        PortIndex::of(&self.pods)
    }

    /// The devices of a node as its agent reported them.
    #[must_use]
    pub fn resource_slice_of(&self, node: ObjectId) -> Option<&Arc<ResourceSlice>> {
        self.resource_slices.get(self.devices.slice_of(node)?)
    }

    /// What the NICs of a node shall be, and are.
    #[must_use]
    pub fn sriov_state_of(&self, node: ObjectId) -> Option<&Arc<SriovNetworkNodeState>> {
        self.sriov_network_node_states.get(self.devices.nics_of(node)?)
    }

    /// Who has an address of an SR-IOV network.
    #[must_use]
    pub fn address_holder(&self, address: std::net::IpAddr) -> Option<ObjectId> {
        self.networks.addresses.holder(address)
    }

    /// How many addresses of SR-IOV networks pods have.
    #[must_use]
    pub fn addresses_len(&self) -> usize {
        self.networks.addresses.len()
    }

    /// What is known of networks made afresh: what is kept must always equal it.
    pub(crate) fn networks_from_scratch(&self) -> NetworkIndex {
        let mut networks = NetworkIndex::default();
        self.objects().for_each(|object| networks.change(None, Some(&object)));
        networks
    }

    /// The sums of queues made afresh: what is kept must always equal them.
    pub(crate) fn queue_use_from_scratch(&self) -> QueueIndex {
        let mut sums = QueueIndex::default();
        for group in self.pod_groups.iter() {
            sums.change(None, Some(&Object::PodGroup(Arc::clone(group))), &self.devices.classes);
        }
        sums.recount(&self.devices.classes, &self.pods);
        sums
    }

    /// The sums of elastic quotas made afresh: what is kept must always equal them.
    pub(crate) fn elastic_use_from_scratch(&self) -> ElasticIndex {
        let mut sums = ElasticIndex::default();
        for tree in self.elastic_quota_trees.iter() {
            let tree = Object::ElasticQuotaTree(Arc::clone(tree));
            sums.change(None, Some(&tree), (&self.devices.classes, &self.pods));
        }
        sums
    }

    /// The ledgers of devices made afresh: what is kept must always equal them.
    pub(crate) fn devices_from_scratch(&self) -> DeviceIndex {
        let Self { pods, nodes, device_classes: classes, resource_slices: slices, index, .. } = self;
        let (policies, nics) = (&self.sriov_network_node_policies, &self.sriov_network_node_states);
        let mut devices = DeviceIndex::default();
        devices.rebuild(devices::World { pods, nodes, classes, slices, index, policies, nics });
        devices
    }

    /// The counts of who is near whom, made afresh: what is kept must always equal them.
    pub(crate) fn vicinity_from_scratch(&self) -> Vicinity {
        let Self { pods, nodes, namespaces, index, .. } = self;
        let mut vicinity = Vicinity::default();
        vicinity.rebuild(World { pods, nodes, namespaces, index });
        vicinity
    }

    /// Stores what is known of a member.
    pub(crate) fn put_member(&mut self, record: MemberRecord) {
        let record = Arc::new(record);
        self.digest = self.digest.wrapping_add(digest128(&record));
        if let Some(former) = self.members.insert(record.member, record) {
            self.digest = self.digest.wrapping_sub(digest128(&former));
        }
    }

    /// Forgets all members.
    fn clear_members(&mut self) {
        for former in std::mem::take(&mut self.members).values() {
            self.digest = self.digest.wrapping_sub(digest128(former));
        }
    }

    fn account(&mut self, former: Option<&Object>, object: Option<&Object>) {
        if let Some(former) = former {
            self.digest = self.digest.wrapping_sub(digest128(former));
        }
        if let Some(object) = object {
            self.digest = self.digest.wrapping_add(digest128(object));
        }
    }

    /// The digest computed afresh from every object: what [`Self::digest`] must always equal.
    pub(crate) fn digest_from_scratch(&self) -> u128 {
        let objects = self.objects().map(|o| digest128(&o)).fold(0u128, u128::wrapping_add);
        let members = self.members.values().map(digest128).fold(0u128, u128::wrapping_add);
        let scalars = digest128(&(self.cluster_id, self.revision, self.now_ms, self.feature_level));
        objects.wrapping_add(members).wrapping_add(scalars).wrapping_add(self.requests.digest_from_scratch())
    }

    /// Members that vote.
    pub fn voters(&self) -> impl Iterator<Item = &Arc<MemberRecord>> {
        self.members.values().filter(|m| m.role == MemberRole::Voter)
    }
}
