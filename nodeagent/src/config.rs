//! What an operator tells the agent.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use bulkhead_nodeagent_core::QemuUser;
use bulkhead_nodeagent_core::hardware::PciId;
use bulkhead_types::{CpuSet, NumaPolicy, StringMap};

use crate::VmPoolConfig;
use crate::cgroup::CGROUP_PARENT_DEFAULT;
use crate::logs::LogLimits;
use crate::network::NetworkOptions;
use crate::volumes::ThinPoolName;

/// Most pods of a node when nobody says otherwise (Kubernetes' default).
pub const PODS_MAX_DEFAULT: u32 = 110;
/// Most processes and threads of one pod where nothing else is said.
pub const POD_PIDS_LIMIT_DEFAULT: u32 = 4096;

/// Which accelerator runs guests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccelChoice {
    /// KVM if a guest was seen to run with it, else emulation with a warning.
    #[default]
    Auto,
    /// Emulation.
    Tcg,
    /// KVM; the agent does not start where no guest runs with it.
    Kvm,
}

/// What happens where a host does not let guests be shut in wholly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConfinementChoice {
    /// They run with what it permits; what is missing is a warning of the node.
    #[default]
    BestEffort,
    /// No pod starts.
    Required,
    /// Nobody is shut in, whatever the host permits: to look for mistakes only.
    Off,
}

/// What guests have in common of the host's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MemorySharing {
    /// Nothing.
    #[default]
    None,
    /// Pages that are alike, once the host's kernel has found them (KSM); whether it looks is the host's setting.
    Ksm,
    /// What a guest of their size had when it had booted: they are copies of it.
    Template,
}

/// Where the guests' kernel and its modules come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelSource {
    /// Folder with `boot/vmlinuz-*` and `lib/modules/*`, as a Debian kernel package makes it: the newest version.
    Folder(PathBuf),
    /// Just these.
    Files {
        /// The kernel image (bzImage).
        kernel: PathBuf,
        /// Its modules, `.../lib/modules/<version>`.
        modules_dir: PathBuf,
    },
}

/// The configuration of the agent.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// The node's name; RFC 1123 label.
    pub name: String,
    /// Servers, `http://host:port`; any of them will do.
    pub servers: Vec<String>,
    /// Where everything of this agent is kept.
    pub data_dir: PathBuf,
    /// Where the agent's own services listen. Port 0 picks one.
    pub listen: SocketAddr,
    /// Where servers reach `listen`, `host:port`; the bound address when unset.
    pub advertise: Option<String>,
    /// Where the guests' kernel comes from.
    pub kernel: KernelSource,
    /// The static guest binary.
    pub guest: PathBuf,
    /// Which accelerator.
    pub accel: AccelChoice,
    /// QEMU's program.
    pub qemu: PathBuf,
    /// As whom guests' QEMUs run; unset: each as another user of a range that no system uses, or the agent's where that is not root.
    pub qemu_user: Option<QemuUser>,
    /// What happens where guests cannot be shut in.
    pub confinement: ConfinementChoice,
    /// The control group, from the hierarchies' roots, below which guests' processes get theirs; unset: they get none.
    pub cgroup_parent: Option<String>,
    /// The guests' network.
    pub network: NetworkOptions,
    /// The program, with arguments, that becomes the guard of a guest that must be unique: it calls
    /// [`crate::run_guard`].
    pub guard: Vec<OsString>,
    /// Processor time for pods instead of what was found, in thousandths of a core.
    pub cpu_millis: Option<u64>,
    /// How strictly CPUs and devices of a pod are to be on one NUMA node (the kubelet's `--topology-manager-policy`).
    pub numa_policy: NumaPolicy,
    /// CPUs that no pod gets for itself (the kubelet's `--reserved-cpus`).
    pub reserved_cpus: CpuSet,
    /// Memory for pods instead of what was found, in bytes.
    pub memory_bytes: Option<u64>,
    /// Most pods.
    pub pods_max: u32,
    /// Most processes and threads of one pod, 1 to 4194304 (the kubelet's `podPidsLimit`).
    pub pod_pids_limit: u32,
    /// Registries (`host:port`) that are asked over plain HTTP besides those on loopback.
    pub insecure_registries: Vec<String>,
    /// The node's own credentials for registries, in the form of docker's `config.json`.
    pub registry_config: Option<PathBuf>,
    /// Where volumes of claims are made as thin logical volumes; unset: they are files.
    pub volume_group: Option<ThinPoolName>,
    /// Drivers of the host whose devices may be taken for guests, such as `nouveau`: those of others are the host's own.
    pub take_devices_from: Vec<String>,
    /// Devices besides network cards whose virtual functions SriovNetworkNodePolicies say, such as accelerators.
    pub sriov_devices: Vec<PciId>,
    /// Labels of the node.
    pub labels: StringMap,
    /// First and longest wait before a guest is started again, in milliseconds; the core's defaults when unset.
    pub backoff_ms: Option<(u64, u64)>,
    /// The cluster to belong to from now on, whichever it was before; what it was before when unset.
    pub adopt_cluster: Option<String>,
    /// Guests that are booted before there are pods for them; none when unset.
    pub vm_pool: Option<VmPoolConfig>,
    /// What guests have in common of the host's memory.
    pub memory_sharing: MemorySharing,
    /// How much of each container's output is kept.
    pub log_limits: LogLimits,
    /// From the start of a guest's process, or its last output, to its first word, in milliseconds; what fits the accelerator when
    /// unset.
    pub boot_deadline_ms: Option<u64>,
    /// How long a guest or its QEMU may answer nothing before it is ended, in milliseconds; what fits the accelerator when unset.
    pub silence_ms: Option<u64>,
}

impl AgentConfig {
    /// A configuration with the usual places and no overrides.
    #[must_use]
    pub fn new(name: impl Into<String>, servers: Vec<String>, data_dir: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            servers,
            data_dir: data_dir.into(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            advertise: None,
            kernel: KernelSource::Folder(PathBuf::from("/")),
            guest: PathBuf::from("bulkhead-guest"),
            accel: AccelChoice::Auto,
            qemu: PathBuf::from("qemu-system-x86_64"),
            qemu_user: None,
            confinement: ConfinementChoice::BestEffort,
            cgroup_parent: Some(CGROUP_PARENT_DEFAULT.to_owned()),
            network: NetworkOptions::default(),
            guard: vec![OsString::from("bulkhead-fence-guard")],
            cpu_millis: None,
            numa_policy: NumaPolicy::None,
            reserved_cpus: CpuSet::new(),
            memory_bytes: None,
            pods_max: PODS_MAX_DEFAULT,
            pod_pids_limit: POD_PIDS_LIMIT_DEFAULT,
            insecure_registries: Vec::new(),
            registry_config: None,
            volume_group: None,
            take_devices_from: Vec::new(),
            sriov_devices: Vec::new(),
            labels: StringMap::new(),
            backoff_ms: None,
            adopt_cluster: None,
            vm_pool: None,
            memory_sharing: MemorySharing::None,
            log_limits: LogLimits::default(),
            boot_deadline_ms: None,
            silence_ms: None,
        }
    }
}
