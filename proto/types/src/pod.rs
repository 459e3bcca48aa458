//! Pods: one guest VM each, with its containers.
//!
//! Field meanings are those of "Pod v1 core" in the Kubernetes API reference.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::{
    ActualSizes, AllocatedDevice, ContainerOptions, EnvSource, GuestMemory, HostPort, HugePageSize,
    HugePages, Kind, NetworkAttachment, ObjectId, ObjectMeta, PodAddresses, PodCpus, PodOptions, PodResize,
    Rare, Resources, Shared, StringMap, TaintEffect, sandbox_overhead,
};

/// Grace before a pod is killed when its spec names none, in milliseconds (Kubernetes' default).
pub const TERMINATION_GRACE_MS_DEFAULT: u64 = 30_000;

/// One guest VM and its containers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pod {
    /// Standard metadata.
    pub meta: ObjectMeta,
    /// What to run; shared by all pods of one template.
    pub spec: Shared<PodSpec>,
    /// Where it was placed, set once by the scheduler.
    pub node: Option<ObjectId>,
    /// What is known of it.
    pub status: PodStatus,
}

impl Pod {
    /// Whether at most one instance of it may ever live.
    #[must_use]
    pub fn is_unique(&self) -> bool {
        self.is_declared_unique() || self.status.devices.get().is_some() || self.cpus().is_some()
    }

    /// The same by what is wanted of it: what has devices or CPUs of a node is unique as well, because nobody else may have them
    /// while its guest may live.
    #[must_use]
    pub fn is_declared_unique(&self) -> bool {
        let has_identity = self.meta.owner.is_some_and(|owner| owner.kind == Kind::StatefulSet);
        has_identity || self.is_marked_unique()
    }

    /// The devices that it was given with its node.
    #[must_use]
    pub fn devices(&self) -> &[AllocatedDevice] {
        self.status.devices.get().map_or(&[], Vec::as_slice)
    }

    /// The CPUs that it was given with its node.
    #[must_use]
    pub fn cpus(&self) -> Option<&PodCpus> {
        self.status.cpus.get()
    }

    fn is_marked_unique(&self) -> bool {
        self.meta.annotations.get(crate::ANNOTATION_UNIQUE).is_some_and(|value| value == "true")
    }
}

/// What the pods of a workload look like.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PodTemplate {
    /// Labels of each pod.
    pub labels: StringMap,
    /// Annotations of each pod.
    pub annotations: StringMap,
    /// What each pod runs.
    pub spec: Shared<PodSpec>,
}

/// How a pod is isolated from its host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RuntimeClass {
    /// A guest VM with its own kernel.
    #[default]
    Rune = 1,
}

/// When containers that ended are started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RestartPolicy {
    /// Always.
    #[default]
    Always = 1,
    /// When they failed.
    OnFailure = 2,
    /// Never.
    Never = 3,
}

/// What a pod runs, and where it may run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PodSpec {
    /// How it is isolated.
    pub runtime_class: RuntimeClass,
    /// When containers are restarted.
    pub restart_policy: RestartPolicy,
    /// Grace between SIGTERM and SIGKILL, in milliseconds.
    pub termination_grace_ms: u64,
    /// Only nodes with all of these labels.
    pub node_selector: StringMap,
    /// Only this node, when set.
    pub node_name: Option<SmolStr>,
    /// Which taints do not repel the pod.
    pub tolerations: Vec<Toleration>,
    /// The guest's host name; the pod's name when unset.
    pub hostname: Option<SmolStr>,
    /// Run one after another, each to success, before the others start.
    pub init_containers: Vec<Container>,
    /// Run side by side. At least one.
    pub containers: Vec<Container>,
    /// What few pods have.
    pub options: Rare<PodOptions>,
}

/// Whether the value of a toleration must match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TolerationOperator {
    /// Key and value equal the taint's.
    Equal = 1,
    /// The key equals the taint's; no key tolerates everything.
    Exists = 2,
}

/// What makes a taint bearable.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Toleration {
    /// The taint's key; empty, with `Exists`, for all.
    pub key: SmolStr,
    /// How key and value are compared.
    pub operator: TolerationOperator,
    /// The taint's value, with `Equal`.
    pub value: SmolStr,
    /// Only this effect; all when unset.
    pub effect: Option<TaintEffect>,
    /// With `NoExecute`: how long the pod may stay, in milliseconds; for ever when unset.
    pub toleration_ms: Option<u64>,
}

impl Toleration {
    /// Whether this toleration bears the taint.
    #[must_use]
    pub fn tolerates(&self, taint: &crate::Taint) -> bool {
        let effect = self.effect.is_none_or(|e| e == taint.effect);
        let key = self.key.is_empty() || self.key == taint.key;
        let value = match self.operator {
            TolerationOperator::Exists => true,
            TolerationOperator::Equal => !self.key.is_empty() && self.value == taint.value,
        };
        effect && key && value
    }
}

/// When an image is fetched although it is there already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ImagePullPolicy {
    /// Only when it is not on the node.
    #[default]
    IfNotPresent = 1,
    /// The registry is asked every time.
    Always = 2,
    /// Never: it must be on the node.
    Never = 3,
}

/// One container of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Container {
    /// Unique in the pod; a DNS label.
    pub name: SmolStr,
    /// The image, `[host[:port]/]path[:tag][@digest]`.
    pub image: SmolStr,
    /// When to fetch it.
    pub image_pull_policy: ImagePullPolicy,
    /// Replaces the image's ENTRYPOINT when not empty.
    pub command: Vec<String>,
    /// Replaces the image's CMD when not empty.
    pub args: Vec<String>,
    /// Replaces the image's WORKDIR when set.
    pub working_dir: Option<String>,
    /// Added to the image's environment, in order.
    pub env: Vec<EnvVar>,
    /// Ports that the container serves.
    pub ports: Vec<ContainerPort>,
    /// Least that must be reserved; a missing request equals the limit.
    pub requests: ResourceRequirements,
    /// Most that may be used.
    pub limits: ResourceRequirements,
    /// What few containers have.
    pub options: Rare<ContainerOptions>,
}

/// One environment variable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EnvVar {
    /// Its name: no `=`, not empty.
    pub name: String,
    /// Its value; `$(NAME)` is an earlier variable's.
    pub value: String,
    /// Where the value comes from instead; then `value` is empty.
    pub value_from: Rare<EnvSource>,
}

/// Transport protocol of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp = 1,
    /// UDP.
    Udp = 2,
    /// SCTP.
    Sctp = 3,
}

/// One port that a container serves.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ContainerPort {
    /// Optional name, unique in the pod.
    pub name: Option<SmolStr>,
    /// 1 to 65535; unique per protocol in the pod.
    pub container_port: u16,
    /// Its protocol.
    pub protocol: Protocol,
    /// Where the pod's node publishes it; unset: nowhere. Needs [`crate::PORTS_LEVEL`].
    #[serde(default)]
    pub host: Rare<HostPort>,
}

/// Requests or limits of one container; what is not given is `None`, not zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ResourceRequirements {
    /// Processor time, in thousandths of a core.
    pub cpu_millis: Option<u64>,
    /// Memory, in bytes.
    pub memory_bytes: Option<u64>,
    /// Writable disk, in bytes.
    pub ephemeral_storage_bytes: Option<u64>,
}

impl ResourceRequirements {
    /// The amounts, with zero for what is not given.
    #[must_use]
    pub fn amounts(self) -> Resources {
        Resources {
            cpu_millis: self.cpu_millis.unwrap_or(0),
            memory_bytes: self.memory_bytes.unwrap_or(0),
            ephemeral_storage_bytes: self.ephemeral_storage_bytes.unwrap_or(0),
            ..Resources::ZERO
        }
    }

    /// Field by field this one, or the other where this one is not given.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.or(other.cpu_millis),
            memory_bytes: self.memory_bytes.or(other.memory_bytes),
            ephemeral_storage_bytes: self.ephemeral_storage_bytes.or(other.ephemeral_storage_bytes),
        }
    }
}

impl Container {
    /// The huge pages that it asks for: requests and limits are the same.
    #[must_use]
    pub fn huge_pages(&self) -> HugePages {
        self.options.get().map_or(HugePages::NONE, |options| options.huge_pages)
    }

    fn with_huge_pages(&self, of: ResourceRequirements) -> Resources {
        Resources { huge_pages: self.huge_pages(), ..of.amounts() }
    }
}

impl PodSpec {
    /// What the pod reserves on a node: per resource the larger of the sum over containers and the largest
    /// init container, plus the sandbox overhead. Memory that its guest has pinned counts whole, as large as the guest is.
    #[must_use]
    pub fn scheduling_request(&self) -> Resources {
        let request = self.requests();
        let mut all = request.plus(sandbox_overhead(request.memory_bytes));
        if !request.huge_pages.is_none() {
            let (memory_bytes, huge_pages) = request.huge_pages.guest_overhead();
            all = all.plus(Resources { memory_bytes, huge_pages, ..Resources::ZERO });
        }
        let how = self.guest_memory();
        if how == GuestMemory::default() {
            return all;
        }
        all.pinned_memory_bytes = self.pinned_memory_bytes();
        if how.huge_pages {
            // The host has QEMU itself and tables in ordinary memory, and the whole guest in pages.
            let page = HugePageSize::TwoMib.bytes();
            let pages = self.guest_memory_bytes().div_ceil(page).saturating_mul(page);
            all.huge_pages.two_mib_bytes = all.huge_pages.two_mib_bytes.saturating_add(pages);
            all.memory_bytes = sandbox_overhead(0).memory_bytes;
            all.memory_bytes = all.memory_bytes.saturating_add(all.pinned_memory_bytes);
        } else {
            all.memory_bytes = all.memory_bytes.max(all.pinned_memory_bytes);
        }
        all
    }

    /// What its containers request together, at most at a time, without the sandbox overhead.
    #[must_use]
    pub fn requests(&self) -> Resources {
        self.peak(|c| c.with_huge_pages(c.requests.or(c.limits)))
    }

    /// What its containers may use together, at most at a time, as far as they have limits; without the sandbox overhead.
    #[must_use]
    pub fn limits(&self) -> Resources {
        self.peak(|c| c.with_huge_pages(c.limits))
    }

    /// The same with the sandbox overhead; where no container has a limit there is none (Kubernetes' rule).
    #[must_use]
    pub fn limits_with_overhead(&self) -> Resources {
        let limits = self.limits();
        let overhead = sandbox_overhead(self.requests().memory_bytes);
        let memory_bytes = if limits.memory_bytes == 0 { 0 } else { overhead.memory_bytes };
        limits.plus(Resources { memory_bytes, ..Resources::ZERO })
    }

    /// What the guest must hold without its overhead: as the request, over limits where given.
    #[must_use]
    pub fn guest_size(&self) -> Resources {
        self.peak(|c| c.with_huge_pages(c.limits.or(c.requests)))
    }

    /// Kubernetes' effective amounts: an init container runs beside the sidecars before it, the others beside all of them.
    fn peak(&self, amounts: impl Fn(&Container) -> Resources) -> Resources {
        let (mut sidecars, mut peak) = (Resources::ZERO, Resources::ZERO);
        for container in &self.init_containers {
            let with_it = sidecars.plus(amounts(container));
            if container.is_sidecar() {
                sidecars = with_it;
            }
            peak = peak.max(with_it);
        }
        self.containers.iter().map(&amounts).fold(sidecars, Resources::plus).max(peak)
    }
}

/// Where a pod stands (Kubernetes' phases).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PodPhase {
    /// Accepted; not all containers have started.
    #[default]
    Pending = 1,
    /// Its guest runs, and at least one container has started.
    Running = 2,
    /// All containers ended with success and stay so.
    Succeeded = 3,
    /// All containers ended, at least one with failure, and stay so.
    Failed = 4,
}

impl PodPhase {
    /// Succeeded or Failed: it holds nothing any more.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// What is known of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PodStatus {
    /// Where it stands.
    pub phase: PodPhase,
    /// One CamelCase word on why, such as `ImagePullBackOff`, `NodeLost`, `Unschedulable`; may be empty.
    pub reason: SmolStr,
    /// The same for people, with the last console lines where the guest failed; may be empty.
    pub message: String,
    /// Whether all containers are ready.
    pub ready: bool,
    /// Log time since when `ready` has its value, milliseconds since the epoch; 0 when never ready.
    pub ready_since_ms: u64,
    /// Log time of the binding to a node, milliseconds since the epoch; 0 before.
    pub bound_at_ms: u64,
    /// Agent's time of the guest's start, milliseconds since the epoch; 0 before.
    pub started_at_ms: u64,
    /// The sequence number of the agent's report that this follows; 0 before the first.
    pub report_sequence: u64,
    /// Times the whole guest was started again.
    pub sandbox_restarts: u32,
    /// Init containers, in spec order; empty until the agent reports.
    pub init_containers: Vec<ContainerStatus>,
    /// Containers, in spec order; empty until the agent reports.
    pub containers: Vec<ContainerStatus>,
    /// The node on which room is kept for it, while it waits for pods there to end
    /// (Kubernetes' `nominatedNodeName`).
    #[serde(default)]
    pub nominated_node: Rare<ObjectId>,
    /// The devices that it was given with its node; they stay what they are. The control plane's own.
    #[serde(default)]
    pub devices: Rare<Vec<AllocatedDevice>>,
    /// The networks that it was attached to with its node; they stay what they are. The control plane's own.
    #[serde(default)]
    pub networks: Rare<Vec<NetworkAttachment>>,
    /// The CPUs that it was given with its node; they stay what they are. The control plane's own. Needs
    /// [`crate::NUMA_LEVEL`].
    #[serde(default)]
    pub cpus: Rare<PodCpus>,
    /// Where it is reached; unset: nowhere. Needs [`crate::POD_NETWORK_LEVEL`].
    #[serde(default)]
    pub addresses: Rare<PodAddresses>,
    /// A resize that is not done. The control plane's own. Needs [`crate::RESIZE_LEVEL`], as the next one.
    #[serde(default)]
    pub resize: Rare<PodResize>,
    /// What its agent says of its containers' sizes, once it was resized.
    #[serde(default)]
    pub actual: Rare<ActualSizes>,
}

/// What is known of one container.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ContainerStatus {
    /// Its name.
    pub name: SmolStr,
    /// Where it stands now.
    pub state: ContainerState,
    /// How it ended the last time, when it was restarted.
    pub last_termination: Option<Box<ContainerTermination>>,
    /// Times it was started again.
    pub restart_count: u32,
    /// Whether it serves.
    pub ready: bool,
    /// The image that really runs, as a digest; empty until known.
    pub image_digest: SmolStr,
}

/// Where a container stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ContainerState {
    /// Not started yet, or about to be started again.
    Waiting {
        /// One CamelCase word, such as `ContainerCreating`, `CrashLoopBackOff`.
        reason: SmolStr,
        /// The same for people.
        message: String,
    },
    /// Running.
    Running {
        /// Agent's time of the start, milliseconds since the epoch.
        started_at_ms: u64,
    },
    /// Ended.
    Terminated(Box<ContainerTermination>),
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ContainerTermination {
    /// Exit code; 128 + signal when killed by a signal.
    pub exit_code: i32,
    /// The signal that ended it, or 0.
    pub signal: i32,
    /// One CamelCase word: `Completed`, `Error`, `OOMKilled`, `ContainerCannotRun`.
    pub reason: SmolStr,
    /// The same for people.
    pub message: String,
    /// Agent's time of the start, milliseconds since the epoch.
    pub started_at_ms: u64,
    /// Agent's time of the end, milliseconds since the epoch.
    pub finished_at_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ContainerOptions;

    /// Containers by their request for processors; a sidecar's is negative.
    fn check(init: &[i64], main: &[i64], expected: u64) {
        let container = |amount: &i64| {
            let options = ContainerOptions { sidecar: *amount < 0, ..ContainerOptions::default() };
            let requests = ResourceRequirements {
                cpu_millis: Some(amount.unsigned_abs()),
                ..ResourceRequirements::default()
            };
            Container { requests, options: Rare::unless_default(options), ..Container::default() }
        };
        let spec = PodSpec {
            init_containers: init.iter().map(container).collect(),
            containers: main.iter().map(container).collect(),
            ..PodSpec::default()
        };
        assert_eq!(spec.scheduling_request().cpu_millis, expected, "{init:?} {main:?}");
    }

    #[test]
    fn the_effective_request_is_the_largest_that_runs_at_once() {
        check(&[], &[100, 200], 300);
        check(&[500, 100], &[100, 200], 500);
        check(&[-50], &[100, 200], 350);
        check(&[500, -50, 400], &[100, 200], 500);
        check(&[-50, 500], &[100, 200], 550);
        check(&[-50, -60, 100], &[10], 210);
    }
}
