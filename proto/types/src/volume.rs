//! What a pod takes from ConfigMaps, Secrets and itself: environment variables and volumes.
//!
//! Source: "Volumes", "Projected Volumes" and "Define Environment Variables" in the Kubernetes documentation.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::{
    Container, DownwardSource, GuestMemory, HugePageMedium, HugePages, ImagePullSecrets, Kind, Lifecycle,
    PodNaming, PodPlacement, PodSecurityContext, PodSpec, Probe, Rare, ResizePolicy, SecurityContext,
};

/// Permissions of projected files where nothing else is said (Kubernetes' default).
pub const FILE_MODE_DEFAULT: u32 = 0o644;

/// Where a container writes why it ends, when nothing else is said (Kubernetes' default).
pub const TERMINATION_MESSAGE_PATH_DEFAULT: &str = "/dev/termination-log";

/// A key of a ConfigMap or Secret of the pod's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ConfigKeyRef {
    /// The ConfigMap's or Secret's name.
    pub name: SmolStr,
    /// The key.
    pub key: SmolStr,
    /// Whether the pod starts without it.
    pub optional: bool,
}

/// Where the value of an environment variable comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EnvSource {
    /// A ConfigMap's key.
    ConfigMapKey(ConfigKeyRef),
    /// A Secret's key.
    SecretKey(ConfigKeyRef),
    /// The pod itself.
    Downward(DownwardSource),
}

/// Which kind of configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ConfigKind {
    /// A ConfigMap.
    ConfigMap = 1,
    /// A Secret.
    Secret = 2,
}

impl ConfigKind {
    /// As a kind of objects.
    #[must_use]
    pub fn kind(self) -> Kind {
        match self {
            Self::ConfigMap => Kind::ConfigMap,
            Self::Secret => Kind::Secret,
        }
    }
}

/// All keys of a ConfigMap or Secret as environment variables.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EnvFrom {
    /// Written before each key; may be empty.
    pub prefix: SmolStr,
    /// What it is.
    pub kind: ConfigKind,
    /// Its name.
    pub name: SmolStr,
    /// Whether the pod starts without it.
    pub optional: bool,
}

/// What is mounted where in a container.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VolumeMount {
    /// Which of the pod's volumes.
    pub name: SmolStr,
    /// Absolute path in the container.
    pub mount_path: String,
    /// Only this file or folder of the volume, relative to its root.
    pub sub_path: Option<String>,
    /// Whether the container may not write. Volumes of ConfigMaps, Secrets and the pod's own fields never take writes.
    pub read_only: bool,
}

/// What few containers have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerOptions {
    /// Sources of whole sets of variables; what `env` says wins.
    pub env_from: Vec<EnvFrom>,
    /// Volumes, in order: a later one may lie inside an earlier one.
    pub volume_mounts: Vec<VolumeMount>,
    /// Holds back the other probes until it succeeds; its failure ends the container.
    pub startup_probe: Rare<Probe>,
    /// Whether the container serves.
    pub readiness_probe: Rare<Probe>,
    /// Its failure ends the container.
    pub liveness_probe: Rare<Probe>,
    /// What is done after its start and before its end.
    pub lifecycle: Rare<Lifecycle>,
    /// An init container that runs beside the others from its start on (`restartPolicy: Always`).
    pub sidecar: bool,
    /// As whom it runs, and what it may do.
    pub security: Rare<SecurityContext>,
    /// The file whose content becomes the message of its end; [`TERMINATION_MESSAGE_PATH_DEFAULT`] when unset.
    pub termination_message_path: Option<String>,
    /// The end of its output becomes that message when it failed and the file is empty (`FallbackToLogsOnError`).
    pub termination_message_from_logs: bool,
    /// What it asks for by the names of extended resources: devices.
    #[serde(default)]
    pub extended: Rare<ExtendedResources>,
    /// Its process reads what attached clients write; otherwise its input has ended from the start. Needs
    /// [`crate::ATTACH_LEVEL`], as the next two.
    #[serde(default)]
    pub stdin: bool,
    /// With `stdin`: its input ends with the first client that wrote to it.
    #[serde(default)]
    pub stdin_once: bool,
    /// Its process has a terminal.
    #[serde(default)]
    pub tty: bool,
    /// The huge pages that it asks for, in `requests` and `limits` alike. Needs [`crate::HUGE_PAGES_LEVEL`].
    #[serde(default)]
    pub huge_pages: HugePages,
    /// For which resources it is restarted when it is resized. Needs [`crate::RESIZE_LEVEL`].
    #[serde(default)]
    pub resize_policy: Rare<ResizePolicy>,
}

impl Hash for ContainerOptions {
    /// What came later adds nothing where nothing is said of it, so that templates of before have the digest that they had.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { env_from, volume_mounts, startup_probe, readiness_probe, liveness_probe, .. } = self;
        (env_from, volume_mounts, startup_probe, readiness_probe, liveness_probe).hash(state);
        (&self.lifecycle, self.sidecar, &self.security, &self.termination_message_path).hash(state);
        (self.termination_message_from_logs, &self.extended).hash(state);
        if self.stdin || self.stdin_once || self.tty {
            ("attach", self.stdin, self.stdin_once, self.tty).hash(state);
        }
        (self.huge_pages, &self.resize_policy).hash(state);
    }
}

/// What a container asks for by the names of extended resources, as `nvidia.com/gpu`. Where a name is in both, both are
/// the same; a request alone is none (Kubernetes' rule).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ExtendedResources {
    /// As `resources.requests` says.
    pub requests: BTreeMap<SmolStr, u64>,
    /// As `resources.limits` says: what counts.
    pub limits: BTreeMap<SmolStr, u64>,
}

impl Container {
    /// What it asks for by the names of extended resources, by name; nothing of which it asks for none.
    pub fn extended_resources(&self) -> impl Iterator<Item = (&SmolStr, u64)> {
        let extended = self.options.get().and_then(|options| options.extended.get());
        let limits = extended.into_iter().flat_map(|extended| &extended.limits);
        limits.map(|(name, amount)| (name, *amount)).filter(|(_, amount)| *amount > 0)
    }
}

impl PodSpec {
    /// Whether any container asks for an extended resource.
    #[must_use]
    pub fn asks_for_devices(&self) -> bool {
        let names =
            |one: &Container| one.options.get().is_some_and(|options| options.extended.get().is_some());
        self.containers.iter().chain(&self.init_containers).any(names)
    }
}

/// What few pods have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PodOptions {
    /// Volumes that containers may mount.
    pub volumes: Vec<Volume>,
    /// As whom its containers run.
    pub security: Rare<PodSecurityContext>,
    /// The name of its PriorityClass.
    pub priority_class: Rare<SmolStr>,
    /// Where it may be, and near what it would rather be.
    pub placement: Rare<PodPlacement>,
    /// How the memory of its guest is had. The control plane's own. Needs [`crate::PINNED_MEMORY_LEVEL`].
    #[serde(default)]
    pub guest_memory: Rare<GuestMemory>,
    /// How it is called, and whom it asks for names. Needs [`crate::POD_DNS_LEVEL`].
    #[serde(default)]
    pub naming: Rare<PodNaming>,
    /// What its images may be had with. Needs [`crate::PULL_SECRETS_LEVEL`].
    #[serde(default)]
    pub image_pull_secrets: Rare<ImagePullSecrets>,
}

/// A volume of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Volume {
    /// Unique in the pod; a DNS label.
    pub name: SmolStr,
    /// What is in it.
    pub source: VolumeSource,
}

/// What is in a volume.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum VolumeSource {
    /// Nothing at first; it ends with the guest.
    EmptyDir {
        /// In the guest's memory instead of on a disk of its own.
        memory: bool,
        /// Most that it takes, in bytes.
        size_limit_bytes: Option<u64>,
        /// In huge pages of the guest; then `memory` is not set. Needs [`crate::HUGE_PAGES_LEVEL`].
        #[serde(default)]
        huge_pages: Rare<HugePageMedium>,
    },
    /// Files from one source (`configMap`, `secret`, `downwardAPI`).
    Files {
        /// Where they come from.
        source: Projection,
        /// Permissions of files that name none.
        default_mode: u32,
    },
    /// Files from several sources; of equal paths the last one's.
    Projected {
        /// Where they come from.
        sources: Vec<Projection>,
        /// Permissions of files that name none.
        default_mode: u32,
    },
    /// What a PersistentVolumeClaim of the pod's namespace keeps; it outlives the pod.
    PersistentVolumeClaim {
        /// The claim's name.
        claim_name: SmolStr,
        /// Whether no container may write.
        read_only: bool,
    },
}

/// A source of files.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Projection {
    /// A ConfigMap's keys.
    ConfigMap(ConfigProjection),
    /// A Secret's keys.
    Secret(ConfigProjection),
    /// What the pod tells of itself.
    DownwardApi {
        /// A file each.
        items: Vec<DownwardItem>,
    },
}

/// Files from a ConfigMap or Secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ConfigProjection {
    /// Its name.
    pub name: SmolStr,
    /// Whether the pod starts without it, or without some of the keys in `items`.
    pub optional: bool,
    /// Which keys become which files; every key its own when empty.
    pub items: Vec<KeyToPath>,
}

/// A key as a file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyToPath {
    /// The key.
    pub key: SmolStr,
    /// The file, relative to the volume's root.
    pub path: String,
    /// Its permissions, when not the volume's default.
    pub mode: Option<u32>,
}

/// Something of the pod as a file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DownwardItem {
    /// The file, relative to the volume's root.
    pub path: String,
    /// What stands in it.
    pub source: DownwardSource,
    /// Its permissions, when not the volume's default.
    pub mode: Option<u32>,
}

impl Container {
    /// Sources of whole sets of variables.
    #[must_use]
    pub fn env_from(&self) -> &[EnvFrom] {
        self.options.get().map_or(&[], |options| &options.env_from)
    }

    /// Volumes that it mounts.
    #[must_use]
    pub fn volume_mounts(&self) -> &[VolumeMount] {
        self.options.get().map_or(&[], |options| &options.volume_mounts)
    }
}

impl Volume {
    /// Which huge pages it is made of, if it is.
    #[must_use]
    pub fn huge_pages(&self) -> Option<HugePageMedium> {
        match &self.source {
            VolumeSource::EmptyDir { huge_pages, .. } => huge_pages.get().copied(),
            _ => None,
        }
    }

    /// The sources of its files, and the permissions of those that name none; `None` when it holds what containers write.
    #[must_use]
    pub fn projections(&self) -> Option<(&[Projection], u32)> {
        match &self.source {
            VolumeSource::EmptyDir { .. } | VolumeSource::PersistentVolumeClaim { .. } => None,
            VolumeSource::Files { source, default_mode } => {
                Some((std::slice::from_ref(source), *default_mode))
            }
            VolumeSource::Projected { sources, default_mode } => Some((sources, *default_mode)),
        }
    }
}

impl PodSpec {
    /// Volumes that containers may mount.
    #[must_use]
    pub fn volumes(&self) -> &[Volume] {
        self.options.get().map_or(&[], |options| &options.volumes)
    }

    /// The name of its PriorityClass.
    #[must_use]
    pub fn priority_class(&self) -> Option<&SmolStr> {
        self.options.get()?.priority_class.get()
    }

    /// What those of its containers say that say more than most.
    pub(crate) fn options_of_all(&self) -> impl Iterator<Item = &ContainerOptions> {
        self.all_containers().filter_map(|container| container.options.get())
    }

    /// Init containers, then the others.
    pub fn all_containers(&self) -> impl Iterator<Item = &Container> {
        self.init_containers.iter().chain(&self.containers)
    }

    /// The volumes that are disks of its guest.
    pub fn disk_volumes(&self) -> impl Iterator<Item = &Volume> {
        self.volumes().iter().filter(|volume| match &volume.source {
            VolumeSource::EmptyDir { memory, huge_pages, .. } => !memory && huge_pages.get().is_none(),
            VolumeSource::PersistentVolumeClaim { .. } => true,
            VolumeSource::Files { .. } | VolumeSource::Projected { .. } => false,
        })
    }

    /// The disks that its guest has: one for each container, in which it writes over its image, and one for each volume on disk. No more
    /// than [`crate::GUEST_DISKS_MAX`].
    #[must_use]
    pub fn disks(&self) -> usize {
        self.all_containers().count() + self.disk_volumes().count()
    }

    /// Whether it says anything that only feature level 4 knows.
    #[must_use]
    pub fn has_options(&self) -> bool {
        let has =
            |c: &Container| c.options.get().is_some() || c.env.iter().any(|v| v.value_from.get().is_some());
        self.options.get().is_some() || self.all_containers().any(has)
    }

    fn projections(&self) -> impl Iterator<Item = &Projection> {
        self.volumes().iter().filter_map(Volume::projections).flat_map(|(sources, _)| sources)
    }

    /// Whether a container is told an address of the pod.
    #[must_use]
    pub fn tells_addresses(&self) -> bool {
        let is_told = |source: &EnvSource| match source {
            EnvSource::Downward(crate::DownwardSource::Field(field)) => field.is_address(),
            _ => false,
        };
        self.env_sources().any(is_told)
    }

    fn env_sources(&self) -> impl Iterator<Item = &EnvSource> {
        self.all_containers().flat_map(|c| &c.env).filter_map(|var| var.value_from.get())
    }

    /// Whether variables or files of it are made from something else than the spec: then the control plane does so.
    #[must_use]
    pub fn needs_resolution(&self) -> bool {
        self.projections().next().is_some()
            || self.env_sources().next().is_some()
            || self.all_containers().any(|c| !c.env_from().is_empty())
    }

    /// Every ConfigMap and Secret that it refers to, some of them several times.
    pub fn config_refs(&self) -> impl Iterator<Item = (ConfigKind, &SmolStr)> {
        let files = self.projections().filter_map(|projection| match projection {
            Projection::ConfigMap(one) => Some((ConfigKind::ConfigMap, &one.name)),
            Projection::Secret(one) => Some((ConfigKind::Secret, &one.name)),
            Projection::DownwardApi { .. } => None,
        });
        let variables = self.env_sources().filter_map(|source| match source {
            EnvSource::ConfigMapKey(key) => Some((ConfigKind::ConfigMap, &key.name)),
            EnvSource::SecretKey(key) => Some((ConfigKind::Secret, &key.name)),
            EnvSource::Downward(_) => None,
        });
        let sets = self.all_containers().flat_map(Container::env_from).map(|from| (from.kind, &from.name));
        let pulls = self.image_pull_secrets().iter().map(|name| (ConfigKind::Secret, name));
        files.chain(variables).chain(sets).chain(pulls)
    }

    /// Whether files of it follow from its labels or annotations.
    #[must_use]
    pub fn shows_metadata(&self) -> bool {
        self.projections().any(|projection| match projection {
            Projection::DownwardApi { items } => {
                items.iter().any(|i| matches!(&i.source, DownwardSource::Field(field) if field.may_change()))
            }
            _ => false,
        })
    }
}
