//! Feature levels: which records a cluster may write, so that every member can read them.
//!
//! The level is in State and is raised by a command once every member supports it; it never goes back. A record
//! of a higher level is refused before it is proposed, so a mixed cluster runs at what its oldest member knows.

use crate::{
    Binding, Command, Container, HugePageSize, Kind, LogRecord, Measure, MembershipChange, NetworkAttachment,
    NodeFacts, NodePhase, Object, Pod, PodCpus, PodSpec, PodStatus, PreemptionPolicy, QuotaAmounts,
    SecretType,
};

/// The highest level that this build knows.
pub const FEATURE_LEVEL_MAX: u32 = 15;

/// From this level on the log may say that a change of the membership was forced.
pub const FORCED_MEMBERSHIP_LEVEL: u32 = 2;

/// From this level on nodes are fenced, and what that means for pods that must be unique holds.
pub const FENCING_LEVEL: u32 = 3;

/// From this level on there are StatefulSets, DaemonSets, Jobs, CronJobs, ConfigMaps and Secrets, and pods may use the
/// latter two.
pub const WORKLOADS_LEVEL: u32 = 4;

/// From this level on there are profiles, priority classes, metrics from outside, and StatefulSets can be stopped.
pub const POLICY_LEVEL: u32 = 5;

/// From this level on there are deliveries by steps, elastic workloads, VerticalPodAutoscalers with their recommendations and
/// evictions, and PersistentVolumeClaims: objects of that kind, pods that use them, and StatefulSets with templates of them.
pub const DELIVERY_LEVEL: u32 = 6;

/// From this level on pods say near what they may be and how they spread, nodes end pods by taints, and claims know whether
/// their volume was made.
pub const PLACEMENT_LEVEL: u32 = 7;

/// From this level on there are ResourceQuotas, LimitRanges, Projects and Departments.
pub const QUOTA_LEVEL: u32 = 7;

/// From this level on pods of higher priority make others end.
pub const PREEMPTION_LEVEL: u32 = 8;

/// From this level on pods of a group are placed together or not at all.
pub const POD_GROUP_LEVEL: u32 = 8;

/// From this level on nodes have devices: DeviceClasses, ResourceSlices, pods that ask for extended resources, quotas of them.
pub const DEVICES_LEVEL: u32 = 8;

/// From this level on pods attach SR-IOV networks: policies, node states, networks, and addresses that are given with a
/// pod's node.
pub const NETWORKS_LEVEL: u32 = 9;
/// From this level on cards have partitions, memory units, modes and faults.
pub const PARTITIONS_LEVEL: u32 = 9;
/// From this level on there are PodGroups and Queues, pods name them, and groups are preempted whole.
pub const QUEUES_LEVEL: u32 = 9;
/// From this level on the scheduler reads its ConfigMap, and namespaces say where their pods go.
pub const SCORING_LEVEL: u32 = 10;
/// From this level on there are NodePools, operations on many nodes, and descheduling.
pub const POOLS_LEVEL: u32 = 10;
/// From this level on there are ElasticQuotaTrees.
pub const ELASTIC_QUOTA_LEVEL: u32 = 10;
/// From this level on nodes tell of their CPUs and NUMA nodes, and pods have CPUs of their own.
pub const NUMA_LEVEL: u32 = 10;
/// From this level on it is asked again, where a preemption is applied, whether everybody who ends for it need end.
pub const VICTIMS_NEEDED_LEVEL: u32 = 11;
/// From this level on others end for a group that waits, groups of any size end whole, and a group holds no more pods than
/// [`crate::POD_GROUP_PODS_MAX`].
pub const GROUP_PREEMPTION_LEVEL: u32 = 11;
/// From this level on pods publish ports of their nodes.
pub const PORTS_LEVEL: u32 = 11;
/// From this level on nodes tell of their images, and the scheduler's ConfigMap of how much they count.
pub const IMAGES_LEVEL: u32 = 11;
/// From this level on DeviceClasses say which labels nodes get, by which words pods choose cards, which containers see which, and
/// more of how they are shared and counted.
pub const DEVICE_RULES_LEVEL: u32 = 11;
/// From this level on pods have addresses on their nodes' networks, and may tell their containers of them.
pub const POD_NETWORK_LEVEL: u32 = 12;
/// From this level on containers' own processes have standard input and terminals.
pub const ATTACH_LEVEL: u32 = 12;
/// From this level on pods set what their kernel does, and containers are privileged in their guests.
pub const PRIVILEGED_LEVEL: u32 = 12;
/// From this level on volumes grow, snapshots are taken of them, and claims are made of snapshots and of other claims.
pub const VOLUMES_LEVEL: u32 = 12;
/// From this level on the annotations of pods that limit what their guests send and receive mean something.
pub const BANDWIDTH_LEVEL: u32 = 12;
/// From this level on nodes tell of their huge pages, and containers ask for them.
pub const HUGE_PAGES_LEVEL: u32 = 13;
/// From this level on pods say how the memory of their guests is had, and what is pinned counts as large as the guest is.
pub const PINNED_MEMORY_LEVEL: u32 = 13;
/// From this level on cpu and memory of running pods change.
pub const RESIZE_LEVEL: u32 = 13;
/// From this level on probes and hooks ask by HTTPS.
pub const HTTPS_PROBE_LEVEL: u32 = 13;
/// From this level on pods say whom they ask for names, and how they are called beside their host name.
pub const POD_DNS_LEVEL: u32 = 13;
/// From this level on a pod's default route may lead by one of its networks, and networks have routes.
pub const DEFAULT_ROUTE_LEVEL: u32 = 13;
/// From this level on several pods read a volume together.
pub const SHARED_VOLUMES_LEVEL: u32 = 13;
/// From this level on there are StorageClasses, what is retained of claims is listed, deleted and taken over, and quotas count
/// claims by their classes' names, and VolumeSnapshots.
pub const STORAGE_CLASS_LEVEL: u32 = 13;
/// From this level on pods set what their kernel does by an annotation as well.
pub const ANNOTATED_SYSCTLS_LEVEL: u32 = 14;
/// From this level on pods that need more disks than a guest has places for are refused.
pub const GUEST_DISKS_LEVEL: u32 = 14;
/// From this level on pods name the Secrets that their images are had with, and Secrets may be `kubernetes.io/dockercfg`.
pub const PULL_SECRETS_LEVEL: u32 = 14;
/// From this level on nodes tell one by one what their machines need.
pub const PRECONDITIONS_LEVEL: u32 = 14;
/// From this level on probes and hooks say that they ask the loopback, not the pod's own address.
pub const PROBE_HOST_LEVEL: u32 = 15;
/// From this level on pods say when what is in their claims is given to their group.
pub const FS_GROUP_CHANGE_POLICY_LEVEL: u32 = 15;
/// From this level on nodes tell of links, interfaces and ways to be reset of their PCI functions, and the states of their NICs how
/// fast links are.
pub const PCI_FACTS_LEVEL: u32 = 15;

impl Kind {
    /// The feature level that a cluster must have before objects of this kind may be in its log.
    #[must_use]
    pub fn feature_level(self) -> u32 {
        match self {
            Self::Namespace | Self::Node | Self::Pod | Self::ReplicaSet | Self::Deployment => 1,
            Self::PriorityClass | Self::Profile => POLICY_LEVEL,
            Self::ElasticWorkload => DELIVERY_LEVEL,
            Self::VerticalPodAutoscaler => DELIVERY_LEVEL,
            Self::PersistentVolumeClaim => DELIVERY_LEVEL,
            Self::ResourceQuota | Self::LimitRange | Self::Department | Self::Project => QUOTA_LEVEL,
            Self::DeviceClass | Self::ResourceSlice => DEVICES_LEVEL,
            Self::PodGroup | Self::Queue => QUEUES_LEVEL,
            Self::SriovNetworkNodePolicy
            | Self::SriovNetwork
            | Self::SriovIBNetwork
            | Self::SriovNetworkNodeState => NETWORKS_LEVEL,
            Self::NodePool | Self::NodeOperation | Self::DeschedulerPolicy => POOLS_LEVEL,
            Self::ElasticQuotaTree => ELASTIC_QUOTA_LEVEL,
            Self::VolumeSnapshot => VOLUMES_LEVEL,
            Self::StorageClass | Self::PersistentVolume => STORAGE_CLASS_LEVEL,
            _ => WORKLOADS_LEVEL,
        }
    }
}

impl Object {
    /// The feature level that a cluster must have before this may be in its log.
    #[must_use]
    pub fn feature_level(&self) -> u32 {
        let spec = PodSpec::feature_level;
        let content = match self {
            Self::Deployment(deployment) if deployment.spec.delivery.get().is_some() => {
                spec(&deployment.spec.template.spec).max(DELIVERY_LEVEL)
            }
            Self::Pod(pod) if says_sizes(&pod.status) => RESIZE_LEVEL,
            Self::Pod(pod) if pod.status.addresses.get().is_some() => POD_NETWORK_LEVEL,
            Self::Node(node) if node.status.facts.preconditions.get().is_some() => PRECONDITIONS_LEVEL,
            Self::Node(node) if node.status.facts.has_huge_pages() => HUGE_PAGES_LEVEL,
            Self::Pod(pod) if pod.cpus().is_some_and(|cpus| !cpus.huge_pages.is_none()) => HUGE_PAGES_LEVEL,
            Self::Node(node) if node.status.images.get().is_some() => IMAGES_LEVEL,
            Self::PersistentVolumeClaim(claim) if claim.spec.needs_sharing() => SHARED_VOLUMES_LEVEL,
            Self::PersistentVolumeClaim(claim)
                if claim.source.get().is_some() || claim.status.progress.get().is_some() =>
            {
                VOLUMES_LEVEL
            }
            Self::Node(node) if node.status.device_labels.get().is_some() => DEVICE_RULES_LEVEL,
            Self::Node(node) if node.status.pool.get().is_some() => POOLS_LEVEL,
            Self::Node(node) if node.status.facts.cpus.get().is_some() => NUMA_LEVEL,
            Self::Pod(pod) if pod.status.cpus.get().is_some() => NUMA_LEVEL,
            Self::Node(node) if node.spec.gpu.get().is_some() => PARTITIONS_LEVEL,
            Self::Node(node) if node.status.phase == NodePhase::Fenced => FENCING_LEVEL,
            Self::Pod(pod) if pod.status.networks.get().is_some() => NETWORKS_LEVEL,
            Self::ResourceSlice(slice) if slice.devices.iter().any(|one| one.nic.get().is_some()) => {
                NETWORKS_LEVEL
            }
            Self::DeviceClass(class) if class.spec != class.spec.below_rules() => DEVICE_RULES_LEVEL,
            Self::DeviceClass(class) if class.spec != class.spec.below_partitions() => PARTITIONS_LEVEL,
            Self::Pod(pod) if is_preempting(pod) => PREEMPTION_LEVEL,
            Self::PriorityClass(class)
                if class.preemption_policy == Some(PreemptionPolicy::PreemptLowerPriority) =>
            {
                PREEMPTION_LEVEL
            }
            Self::Pod(pod) => spec(&pod.spec),
            Self::ReplicaSet(set) => spec(&set.spec.template.spec),
            Self::Deployment(deployment) if deployment.spec.stopped => {
                spec(&deployment.spec.template.spec).max(WORKLOADS_LEVEL)
            }
            Self::HorizontalPodAutoscaler(one) if one.spec.target.kind == Kind::ElasticWorkload => {
                DELIVERY_LEVEL
            }
            Self::CronHorizontalPodAutoscaler(one) if one.spec.target.kind == Kind::ElasticWorkload => {
                DELIVERY_LEVEL
            }
            Self::HorizontalPodAutoscaler(one)
                if one.spec.metrics.iter().any(|m| m.query.get().is_some()) =>
            {
                POLICY_LEVEL
            }
            Self::StatefulSet(set) if set.spec.claims.get().is_some() => {
                spec(&set.spec.template.spec).max(DELIVERY_LEVEL)
            }
            Self::StatefulSet(set) if set.spec.stopped => spec(&set.spec.template.spec).max(POLICY_LEVEL),
            Self::StatefulSet(set) => spec(&set.spec.template.spec).max(WORKLOADS_LEVEL),
            Self::DaemonSet(set) => spec(&set.spec.template.spec).max(WORKLOADS_LEVEL),
            Self::Job(job) => spec(&job.spec.template.spec).max(WORKLOADS_LEVEL),
            Self::CronJob(job) => spec(&job.spec.job_template.spec.template.spec).max(WORKLOADS_LEVEL),
            Self::Deployment(deployment) => spec(&deployment.spec.template.spec),
            Self::Secret(secret) if secret.secret_type == SecretType::DockerCfg => PULL_SECRETS_LEVEL,
            Self::ResourceQuota(quota) => quota_level(&quota.spec.hard),
            Self::Project(project) => quota_level(&project.spec.hard),
            Self::Department(department) => quota_level(&department.spec.hard),
            other => other.kind().feature_level(),
        };
        let content = content.max(self.pods().map_or(1, PodSpec::later_level)).max(self.routes_level());
        let content = content.max(if self.shares_claims() { SHARED_VOLUMES_LEVEL } else { 1 });
        let content = content.max(self.later_level());
        if self.meta().managers.get().is_some() { content.max(WORKLOADS_LEVEL) } else { content }
    }
}

impl Object {
    /// What it needs for what guests route.
    fn routes_level(&self) -> u32 {
        let ipam = match self {
            Self::Pod(pod) if is_routed(pod.networks()) => return DEFAULT_ROUTE_LEVEL,
            Self::SriovNetwork(network) => network.spec.ipam.as_ref(),
            Self::SriovIBNetwork(network) => network.spec.ipam.as_ref(),
            _ => None,
        };
        if ipam.is_some_and(|ipam| ipam.routes.get().is_some()) { DEFAULT_ROUTE_LEVEL } else { 1 }
    }

    /// What it needs of what came last.
    fn later_level(&self) -> u32 {
        match self {
            Self::ResourceSlice(slice) if slice.devices.iter().any(|one| one.pci.get().is_some()) => {
                PCI_FACTS_LEVEL
            }
            Self::SriovNetworkNodeState(state) if state.status.says_link_speed() => PCI_FACTS_LEVEL,
            _ if self.has_classes() => STORAGE_CLASS_LEVEL,
            _ => 1,
        }
    }

    /// Whether claims of it name a StorageClass, or take something over.
    fn has_classes(&self) -> bool {
        match self {
            Self::PersistentVolumeClaim(claim) => claim.spec.needs_classes(),
            Self::StatefulSet(set) => set.spec.claim_templates().iter().any(|one| one.spec.needs_classes()),
            _ => false,
        }
    }

    /// Whether pods side by side use one claim by it: before [`SHARED_VOLUMES_LEVEL`] nothing could say so.
    fn shares_claims(&self) -> bool {
        let uses = |spec: &PodSpec| spec.claims().next().is_some();
        match self {
            Self::ReplicaSet(one) => one.spec.replicas > 1 && uses(&one.spec.template.spec),
            Self::Deployment(one) => {
                let (surge, _) = one.spec.strategy.bounds(1);
                let side_by_side = one.spec.replicas > 1 || surge > 0 || one.spec.delivery.get().is_some();
                side_by_side && uses(&one.spec.template.spec)
            }
            Self::StatefulSet(one) => {
                let templates = one.spec.claim_templates();
                let of_template = templates.iter().any(|claim| claim.spec.needs_sharing());
                let shares = one.spec.shared_claims().next().is_some();
                of_template || (one.spec.replicas > 1 && shares)
            }
            Self::Job(one) => one.spec.parallelism > 1 && uses(&one.spec.template.spec),
            Self::CronJob(one) => {
                let job = &one.spec.job_template.spec;
                job.parallelism > 1 && uses(&job.template.spec)
            }
            _ => false,
        }
    }

    /// What the pods run that it is or makes.
    fn pods(&self) -> Option<&PodSpec> {
        Some(match self {
            Self::Pod(one) => &one.spec,
            Self::ReplicaSet(one) => &one.spec.template.spec,
            Self::Deployment(one) => &one.spec.template.spec,
            Self::StatefulSet(one) => &one.spec.template.spec,
            Self::DaemonSet(one) => &one.spec.template.spec,
            Self::Job(one) => &one.spec.template.spec,
            Self::CronJob(one) => &one.spec.job_template.spec.template.spec,
            _ => return None,
        })
    }
}

/// Whether a pod has a part in a preemption.
fn is_preempting(pod: &Pod) -> bool {
    let preemptor = pod.meta.deletion.as_ref().and_then(|deletion| deletion.preemptor);
    preemptor.is_some() || pod.status.nominated_node.get().is_some()
}

/// Of a quota: devices are counted by name, since a level of their own, and later kinds of objects not before they are there.
fn quota_level(hard: &QuotaAmounts) -> u32 {
    let level = |measure: &Measure| match measure {
        Measure::Extended(name) if HugePageSize::of_resource(name).is_some() => HUGE_PAGES_LEVEL,
        Measure::Extended(_) => DEVICES_LEVEL,
        Measure::Named(_) | Measure::Count(Kind::VolumeSnapshot) => STORAGE_CLASS_LEVEL,
        Measure::Count(kind) => kind.feature_level().max(QUOTA_LEVEL),
        _ => QUOTA_LEVEL,
    };
    hard.iter().map(|(resource, _)| level(resource.measure())).max().unwrap_or(QUOTA_LEVEL)
}

impl Container {
    /// What it needs beside all that is said of containers elsewhere.
    fn later_level(&self) -> u32 {
        let Some(options) = self.options.get() else { return 1 };
        let privileged = self.security().is_some_and(|security| security.privileged);
        let attached = options.stdin || options.stdin_once || options.tty;
        let attach = if attached { ATTACH_LEVEL } else { 1 };
        if !options.huge_pages.is_none() {
            return HUGE_PAGES_LEVEL;
        }
        let resized = if options.resize_policy.get().is_some() { RESIZE_LEVEL } else { 1 };
        let https = if self.asks_by_https() { HTTPS_PROBE_LEVEL } else { 1 };
        attach.max(resized).max(if privileged { PRIVILEGED_LEVEL } else { 1 }).max(https)
    }
}

impl PodSpec {
    /// What it needs beside all that is said of pods elsewhere.
    fn later_level(&self) -> u32 {
        let ports = if self.host_ports().next().is_some() { PORTS_LEVEL } else { 1 };
        let told = if self.tells_addresses() { POD_NETWORK_LEVEL } else { 1 };
        let sysctls = self.security().is_some_and(|security| !security.sysctls.is_empty());
        if self.init_containers.iter().chain(&self.containers).any(Container::names_hosts) {
            return PROBE_HOST_LEVEL;
        }
        if self.security().is_some_and(|security| security.fs_group_change_policy.is_some()) {
            return FS_GROUP_CHANGE_POLICY_LEVEL;
        }
        if self.options.get().is_some_and(|options| options.image_pull_secrets.get().is_some()) {
            return PULL_SECRETS_LEVEL;
        }
        if self.options.get().is_some_and(|options| options.guest_memory.get().is_some()) {
            return PINNED_MEMORY_LEVEL;
        }
        if self.volumes().iter().any(|volume| volume.huge_pages().is_some()) {
            return HUGE_PAGES_LEVEL;
        }
        let pod = if sysctls { PRIVILEGED_LEVEL } else { 1 };
        let naming = if self.naming().is_some() { POD_DNS_LEVEL } else { 1 };
        let containers = self.init_containers.iter().chain(&self.containers);
        containers.map(Container::later_level).fold(ports.max(told).max(pod).max(naming), u32::max)
    }

    fn feature_level(&self) -> u32 {
        if self.asks_for_devices() {
            return DEVICES_LEVEL;
        }
        if self.placement().is_some() {
            return PLACEMENT_LEVEL;
        }
        if self.claims().next().is_some() {
            return DELIVERY_LEVEL;
        }
        match (self.priority_class(), self.has_options()) {
            (Some(_), _) => POLICY_LEVEL,
            (None, true) => WORKLOADS_LEVEL,
            (None, false) => 1,
        }
    }
}

/// Whether a pod routes by its networks.
fn is_routed(networks: &[NetworkAttachment]) -> bool {
    networks.iter().any(|network| network.routes.get().is_some())
}

/// Whether any pod is attached to a network.
fn any_attached(bindings: &[Binding]) -> bool {
    bindings.iter().any(|one| !one.networks.is_empty())
}

/// What an agent says of its node.
fn facts_level(facts: &NodeFacts) -> u32 {
    if facts.preconditions.get().is_some() {
        return PRECONDITIONS_LEVEL;
    }
    match (facts.has_huge_pages(), facts.cpus.get().is_some()) {
        (true, _) => HUGE_PAGES_LEVEL,
        (false, true) => NUMA_LEVEL,
        (false, false) => 1,
    }
}

/// The CPUs that a pod was given.
fn cpus_level(cpus: Option<&PodCpus>) -> u32 {
    match cpus {
        Some(cpus) if !cpus.huge_pages.is_none() => HUGE_PAGES_LEVEL,
        Some(_) => NUMA_LEVEL,
        None => 1,
    }
}

/// Agents know nothing of some fields: one that says them all the same must not write what others cannot read.
fn status_level(status: &PodStatus) -> u32 {
    let cpus = cpus_level(status.cpus.get());
    let networks = match status.networks.get() {
        None => 1,
        Some(networks) if is_routed(networks) => DEFAULT_ROUTE_LEVEL,
        Some(_) => NETWORKS_LEVEL,
    };
    let addresses = if status.addresses.get().is_some() { POD_NETWORK_LEVEL } else { 1 };
    let nominated = if status.nominated_node.get().is_some() { PREEMPTION_LEVEL } else { 1 };
    let sizes = if says_sizes(status) { RESIZE_LEVEL } else { 1 };
    cpus.max(networks).max(nominated).max(addresses).max(sizes)
}

/// Whether a pod is, or was, resized.
fn says_sizes(status: &PodStatus) -> bool {
    status.resize.get().is_some() || status.actual.get().is_some()
}

impl Command {
    /// The feature level that a cluster must have before this may be in its log.
    #[must_use]
    pub fn feature_level(&self) -> u32 {
        match self {
            Self::BindPods { bindings } | Self::BindPodGroup { bindings }
                if bindings.iter().any(|one| is_routed(&one.networks)) =>
            {
                DEFAULT_ROUTE_LEVEL
            }
            Self::ReportDevices { report, .. } if report.says_pci_facts() => PCI_FACTS_LEVEL,
            Self::SetSriovNodeState { status, .. } if status.says_link_speed() => PCI_FACTS_LEVEL,
            _ => self.content_level(),
        }
    }

    fn content_level(&self) -> u32 {
        // Most commands are as old as the log's format. One that comes later names its level here.
        match self {
            Self::SetNodePhase { phase: NodePhase::Fenced, .. } => FENCING_LEVEL,
            Self::ReportImages { .. } => IMAGES_LEVEL,
            Self::ReportVolumeTasks { .. } => VOLUMES_LEVEL,
            Self::SyncDeviceLabels { .. } => DEVICE_RULES_LEVEL,
            Self::RegisterNode { facts, .. } => facts_level(facts),
            Self::BindPods { bindings } | Self::BindPodGroup { bindings }
                if bindings.iter().any(|one| one.cpus.get().is_some()) =>
            {
                bindings.iter().map(|one| cpus_level(one.cpus.get())).max().unwrap_or(1)
            }
            Self::ReportPods { reports, .. } => {
                reports.iter().map(|report| status_level(&report.status)).max().unwrap_or(1)
            }
            Self::ResizePod { .. } | Self::AdmitResizes { .. } => RESIZE_LEVEL,
            Self::SetGpuMode { .. } => PARTITIONS_LEVEL,
            Self::SyncNodePool { .. }
            | Self::AdvanceNodeOperation { .. }
            | Self::ControlNodeOperation { .. }
            | Self::Deschedule { .. } => POOLS_LEVEL,
            Self::ReportDevices { report, .. } if report.says_partitions() => PARTITIONS_LEVEL,
            Self::PreemptForGroup { .. } => GROUP_PREEMPTION_LEVEL,
            Self::Preempt { victims, .. } if victims.len() > crate::VICTIMS_MAX_BEFORE_GROUPS => {
                GROUP_PREEMPTION_LEVEL
            }
            Self::Preempt { .. } | Self::ClearNominations { .. } => PREEMPTION_LEVEL,
            Self::BindPods { bindings } | Self::BindPodGroup { bindings } if any_attached(bindings) => {
                NETWORKS_LEVEL
            }
            Self::BindPodGroup { .. } => POD_GROUP_LEVEL,
            Self::BindPods { bindings } if bindings.iter().any(|one| !one.devices.is_empty()) => {
                DEVICES_LEVEL
            }
            Self::SetSriovNodeState { .. } => NETWORKS_LEVEL,
            Self::ReportDevices { report, .. } if report.devices.iter().any(|d| d.nic.get().is_some()) => {
                NETWORKS_LEVEL
            }
            Self::ReportDevices { .. } | Self::SetDeviceCordoned { .. } => DEVICES_LEVEL,
            Self::SetReplicaSetStatus { status, .. } if status.failure.get().is_some() => QUOTA_LEVEL,
            Self::SetStatus { status, .. } => status.kind().feature_level().max(WORKLOADS_LEVEL),
            Self::Create(object) | Self::Apply(object) => object.feature_level(),
            Self::Update { object, .. } | Self::CreateOwned { object, .. } => {
                object.feature_level().max(WORKLOADS_LEVEL)
            }
            Self::Delete { object, .. } | Self::Scale { object, .. } => object.kind.feature_level(),
            Self::RestartRollout { deployment, .. } | Self::UndoRollout { deployment, .. } => {
                deployment.kind.feature_level()
            }
            Self::SetStopped { object, .. } if object.kind == Kind::StatefulSet => POLICY_LEVEL,
            Self::Evict { autoscaler: Some(_), .. } => DELIVERY_LEVEL,
            Self::SetSuspended { .. }
            | Self::RunCronJob { .. }
            | Self::SetStopped { .. }
            | Self::CreateOwnedPods { .. }
            | Self::DeleteOwned { .. }
            | Self::DeleteOwnedPods { .. }
            | Self::Autoscale { .. }
            | Self::ScaleBySchedule { .. }
            | Self::Evict { .. }
            | Self::SetControllerRevision { .. } => WORKLOADS_LEVEL,
            Self::Recommend { .. }
            | Self::PromoteRollout { .. }
            | Self::AbortRollout { .. }
            | Self::RetryRollout { .. }
            | Self::AdvanceDelivery { .. }
            | Self::SpreadReplicas { .. }
            | Self::ReportVolumes { .. } => DELIVERY_LEVEL,
            _ => 1,
        }
    }
}

impl MembershipChange {
    /// The feature level that a cluster must have before this may be in its log.
    #[must_use]
    pub fn feature_level(&self) -> u32 {
        if self.force_unsafe { FORCED_MEMBERSHIP_LEVEL } else { 1 }
    }
}

impl LogRecord {
    /// The feature level that a cluster must have before this may be in its log.
    #[must_use]
    pub fn feature_level(&self) -> u32 {
        match self {
            Self::Batch(batch) => {
                batch.iter().flat_map(|s| &s.commands).map(Command::feature_level).max().unwrap_or(1)
            }
            Self::Membership(change) => change.feature_level(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        ContainerOptions, EnvSource, EnvVar, Name, ObjectMeta, Pod, PodField, PodOptions, PodPlacement,
        PodSecurityContext, PodStatus, Rare, SecurityContext, Shared, Sysctl, Volume, VolumeSource,
    };

    fn check(spec: PodSpec, level: u32) {
        let name = |text| Name::new(text).expect("a name");
        let pod = Pod {
            meta: ObjectMeta::new(Some(name("default")), name("p")),
            spec: Shared::new(spec),
            node: None,
            status: PodStatus::default(),
        };
        assert_eq!(Command::Create(Object::Pod(Arc::new(pod))).feature_level(), level);
    }

    fn replica_set_of(spec: PodSpec) -> crate::ReplicaSetSpec {
        let (labels, annotations) = Default::default();
        let template = crate::PodTemplate { labels, annotations, spec: Shared::new(spec) };
        let selector = crate::LabelSelector::default();
        crate::ReplicaSetSpec { replicas: 1, min_ready_ms: 0, selector, template, rollout_revision: 0 }
    }

    #[test]
    fn an_eviction_for_an_autoscaler_needs_its_level() {
        let pod =
            crate::ObjectRef { kind: Kind::Pod, namespace: None, name: Name::new("p").expect("a name") };
        for (autoscaler, level) in [(None, WORKLOADS_LEVEL), (Some(crate::ObjectId(1)), DELIVERY_LEVEL)] {
            let command = Command::Evict { pod: pod.clone(), grace_ms: None, autoscaler };
            assert_eq!(command.feature_level(), level);
        }
    }

    #[test]
    fn a_pod_needs_the_level_of_what_it_says() {
        let with_env = |value_from| {
            let var = EnvVar { name: "A".to_owned(), value_from, ..EnvVar::default() };
            let container = Container { env: vec![var], ..Container::default() };
            PodSpec { containers: vec![container], ..PodSpec::default() }
        };
        check(with_env(Rare::NONE), 1);
        let field = crate::DownwardSource::Field(PodField::Name);
        check(with_env(Rare::some(EnvSource::Downward(field))), WORKLOADS_LEVEL);
        let field = crate::DownwardSource::Field(PodField::HostIp);
        check(with_env(Rare::some(EnvSource::Downward(field))), POD_NETWORK_LEVEL);
        let report = |addresses| {
            let status = PodStatus { addresses, ..PodStatus::default() };
            let report = crate::PodReport { pod: crate::ObjectId(1), sequence: 1, status, gone: false };
            Command::ReportPods { node: crate::ObjectId(2), incarnation: 1, reports: vec![report] }
        };
        assert_eq!(report(Rare::NONE).feature_level(), 1);
        assert_eq!(report(Rare::some(crate::PodAddresses::default())).feature_level(), POD_NETWORK_LEVEL);
        let source = VolumeSource::EmptyDir { memory: false, size_limit_bytes: None, huge_pages: Rare::NONE };
        let volumes = vec![Volume { name: "v".into(), source }];
        let with_volumes = |volumes| PodSpec {
            options: Rare::some(PodOptions { volumes, ..PodOptions::default() }),
            ..PodSpec::default()
        };
        check(with_volumes(volumes), WORKLOADS_LEVEL);
        let source = VolumeSource::PersistentVolumeClaim { claim_name: "c".into(), read_only: false };
        check(with_volumes(vec![Volume { name: "v".into(), source }]), DELIVERY_LEVEL);
        let source = VolumeSource::PersistentVolumeClaim { claim_name: "c".into(), read_only: true };
        let reader = with_volumes(vec![Volume { name: "v".into(), source }]);
        check(reader.clone(), DELIVERY_LEVEL);
        for (replicas, level) in [(1, DELIVERY_LEVEL), (2, SHARED_VOLUMES_LEVEL)] {
            let name = |text| Name::new(text).expect("a name");
            let spec = crate::ReplicaSetSpec { replicas, ..replica_set_of(reader.clone()) };
            let meta = ObjectMeta::new(Some(name("default")), name("set"));
            let set = crate::ReplicaSet { meta, spec, status: Default::default() };
            assert_eq!(Object::ReplicaSet(Arc::new(set)).feature_level(), level);
        }
    }

    #[test]
    fn a_pod_needs_the_level_of_its_containers_and_names() {
        let host = Rare::some(crate::HostPort { port: 80, ip: None });
        let port =
            crate::ContainerPort { name: None, container_port: 80, protocol: Default::default(), host };
        let container = Container { ports: vec![port], ..Container::default() };
        check(PodSpec { containers: vec![container], ..PodSpec::default() }, PORTS_LEVEL);
        let placement = Rare::some(PodPlacement::default());
        let options = Rare::some(PodOptions { placement, ..PodOptions::default() });
        check(PodSpec { options, ..PodSpec::default() }, PLACEMENT_LEVEL);
        let with_options = |options| {
            let container = Container { options: Rare::some(options), ..Container::default() };
            PodSpec { init_containers: vec![container], ..PodSpec::default() }
        };
        let plain = ContainerOptions::default;
        check(with_options(plain()), WORKLOADS_LEVEL);
        check(with_options(ContainerOptions { stdin: true, ..plain() }), ATTACH_LEVEL);
        check(with_options(ContainerOptions { tty: true, ..plain() }), ATTACH_LEVEL);
        let resize_policy = Rare::some(crate::ResizePolicy { restart_for_cpu: true, ..Default::default() });
        check(with_options(ContainerOptions { resize_policy, ..plain() }), RESIZE_LEVEL);
        let privileged = SecurityContext { privileged: true, ..SecurityContext::default() };
        let options = ContainerOptions { security: Rare::some(privileged), ..plain() };
        check(with_options(options), PRIVILEGED_LEVEL);
        let get = |https, host| crate::HttpGet {
            path: "/".to_owned(),
            port: crate::PortRef::Number(1),
            headers: Vec::new(),
            https,
            host,
        };
        let hook_at = |https, host| {
            let hook = Some(crate::Hook::HttpGet(get(https, host)));
            let lifecycle = crate::Lifecycle { post_start: None, pre_stop: hook };
            ContainerOptions { lifecycle: Rare::some(lifecycle), ..plain() }
        };
        let hook = |https| hook_at(https, Rare::NONE);
        check(with_options(hook_at(false, Rare::some("localhost".to_owned()))), PROBE_HOST_LEVEL);
        check(with_options(hook(false)), WORKLOADS_LEVEL);
        check(with_options(hook(true)), HTTPS_PROBE_LEVEL);
        let naming = Rare::some(crate::PodNaming { hostname_is_fqdn: true, ..Default::default() });
        let options = Rare::some(PodOptions { naming, ..PodOptions::default() });
        check(PodSpec { options, ..PodSpec::default() }, POD_DNS_LEVEL);
        let secrets = crate::ImagePullSecrets { names: vec!["keys".into()] };
        let options = PodOptions { image_pull_secrets: Rare::some(secrets), ..PodOptions::default() };
        check(PodSpec { options: Rare::some(options), ..PodSpec::default() }, PULL_SECRETS_LEVEL);
        let sysctls = vec![Sysctl { name: "kernel.sem".into(), value: "1 2 3 4".into() }];
        let secured = |security| {
            let options = PodOptions { security: Rare::some(security), ..PodOptions::default() };
            PodSpec { options: Rare::some(options), ..PodSpec::default() }
        };
        check(secured(PodSecurityContext { sysctls, ..Default::default() }), PRIVILEGED_LEVEL);
        let fs_group_change_policy = Some(crate::FsGroupChangePolicy::Always);
        let policy = PodSecurityContext { fs_group_change_policy, ..Default::default() };
        check(secured(policy), FS_GROUP_CHANGE_POLICY_LEVEL);
    }
}
