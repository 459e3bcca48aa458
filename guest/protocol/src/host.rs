//! What the host says to the guest.

use std::net::IpAddr;

pub use crate::check::{
    Check, CheckConfig, ExecCheck, GrpcCheck, HostAnswer, HttpCheck, HttpHeader, ProbeConfig, SleepCheck,
    TcpCheck,
};
use crate::message::{check_enum, check_length};
pub use crate::reseed::{ENTROPY_LENGTH_MAX, ENTROPY_LENGTH_MIN, Reseed};
pub use crate::resize::{ContainerLimits, Resize};
pub use crate::stream::{
    Attach, Connect, Exec, Files, LogFiles, StreamClose, StreamCredit, StreamData, StreamKind, StreamOpen,
    StreamResize, TerminalSize,
};
pub use crate::sysctl::SysctlConfig;
use crate::volume::is_plain;
pub use crate::volume::{
    FreezeVolume, GrowVolume, MountConfig, VolumeConfig, VolumeFile, VolumeFiles, VolumeKind,
};
use crate::{CONTAINERS_MAX, DISK_SERIAL_LENGTH_MAX, DecodeError, NAME_LENGTH_MAX};

/// Most interfaces of a pod: the primary one, and one for each network that it may be attached to.
pub const INTERFACES_MAX: usize = 17;
/// The name of a pod's primary interface.
pub const PRIMARY_INTERFACE: &str = "eth0";
/// Longest name of an interface, in bytes: what the kernel allows.
pub const INTERFACE_NAME_LENGTH_MAX: usize = 15;
/// Longest host name, in bytes: what the kernel takes, which may be a full name with dots.
pub const HOST_NAME_LENGTH_MAX: usize = 64;
/// Most further addresses of an interface.
pub const ADDRESSES_MAX: usize = 64;
/// Most further routes by an interface.
pub const ROUTES_MAX: usize = 64;

/// Envelope of every frame from host to guest.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct HostFrame {
    #[prost(oneof = "HostMessage", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 30, 31, 36, 38")]
    pub(crate) message: Option<HostMessage>,
}

/// A message from the host.
///
/// The variants differ much in size, but only one message exists at a time.
#[derive(Clone, PartialEq, prost::Oneof)]
#[allow(clippy::large_enum_variant)]
pub enum HostMessage {
    /// Opens a conversation; see the crate's description.
    #[prost(message, tag = "1")]
    Hello(Hello),
    /// What to run. Once in the life of a guest; a second one is ignored.
    #[prost(message, tag = "2")]
    Configure(Configure),
    /// Send a container's log again from here.
    #[prost(message, tag = "3")]
    ResumeLogs(ResumeLogs),
    /// Log data that the guest may forget.
    #[prost(message, tag = "4")]
    AckLogs(AckLogs),
    /// End the pod and power off.
    #[prost(message, tag = "5")]
    Stop(Stop),
    /// Answered with a Pong that carries the same number.
    #[prost(message, tag = "6")]
    Ping(Ping),
    /// Files of one volume, before Configure or at any time after it.
    #[prost(message, tag = "7")]
    VolumeFiles(VolumeFiles),
    /// Begin a stream.
    #[prost(message, tag = "8")]
    StreamOpen(StreamOpen),
    /// Bytes of a stream.
    #[prost(message, tag = "9")]
    StreamData(StreamData),
    /// Room for more bytes of a stream.
    #[prost(message, tag = "10")]
    StreamCredit(StreamCredit),
    /// A stream's terminal has another size.
    #[prost(message, tag = "11")]
    StreamResize(StreamResize),
    /// The client of a stream is gone.
    #[prost(message, tag = "12")]
    StreamClose(StreamClose),
    /// Make the file system of a volume fill its disk; answered with a VolumeGrown. Only where the guest's Hello says that it
    /// can.
    #[prost(message, tag = "30")]
    GrowVolume(GrowVolume),
    /// Other sizes of the guest and its containers; answered with a Resized. Only where the guest's Hello says that it can.
    #[prost(message, tag = "13")]
    Resize(Resize),
    /// Become a guest of your own; see there.
    #[prost(message, tag = "38")]
    Reseed(Reseed),
    /// What came of an AskHost.
    #[prost(message, tag = "31")]
    HostAnswer(HostAnswer),
    /// Hold a volume still, or let it go on; answered with a VolumeFrozen. Only where the guest's Hello says that it can.
    #[prost(message, tag = "36")]
    FreezeVolume(FreezeVolume),
}

/// Opens a conversation.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Hello {
    /// [`crate::PROTOCOL_VERSION`] of the host.
    #[prost(uint32, tag = "1")]
    pub protocol_version: u32,
    /// It asks by HTTPS for the guest; hosts of earlier versions do not.
    #[prost(bool, tag = "92")]
    pub asks_by_https: bool,
}

/// Carries the pod to run.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Configure {
    /// The pod; a Configure without it is refused.
    #[prost(message, optional, tag = "1")]
    pub pod: Option<PodConfig>,
}

/// Everything the guest needs to know about its pod.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PodConfig {
    /// Hostname of the pod.
    #[prost(string, tag = "1")]
    pub hostname: String,
    /// The host's id of this guest; comes back in the guest's Hello.
    #[prost(string, tag = "2")]
    pub sandbox_id: String,
    /// W3C `traceparent` of the span that started the guest; comes back in the guest's Hello.
    #[prost(string, tag = "3")]
    pub trace_context: String,
    /// Run one after the other before all others; each must succeed.
    #[prost(message, repeated, tag = "4")]
    pub init_containers: Vec<ContainerConfig>,
    /// Run side by side.
    #[prost(message, repeated, tag = "5")]
    pub containers: Vec<ContainerConfig>,
    /// When ended containers start again.
    #[prost(enumeration = "RestartPolicy", tag = "6")]
    pub restart_policy: i32,
    /// Time between SIGTERM and SIGKILL where a Stop does not say it, in milliseconds.
    #[prost(uint64, tag = "7")]
    pub termination_grace_ms: u64,
    /// First back-off delay; 0 means Kubernetes' 10 s. In milliseconds.
    #[prost(uint64, tag = "8")]
    pub backoff_base_ms: u64,
    /// Largest back-off delay; 0 means Kubernetes' 300 s. In milliseconds. A container that ran for twice this long
    /// starts over with the first delay.
    #[prost(uint64, tag = "9")]
    pub backoff_max_ms: u64,
    /// How often usage is reported; 0 means every 10 s. In milliseconds.
    #[prost(uint64, tag = "10")]
    pub usage_interval_ms: u64,
    /// Network interfaces, found by MAC address.
    #[prost(message, repeated, tag = "11")]
    pub interfaces: Vec<InterfaceConfig>,
    /// `nameserver` lines of /etc/resolv.conf.
    #[prost(string, repeated, tag = "12")]
    pub nameservers: Vec<String>,
    /// Search domains of /etc/resolv.conf.
    #[prost(string, repeated, tag = "13")]
    pub search_domains: Vec<String>,
    /// Whole lines to append to /etc/hosts (hostAliases).
    #[prost(string, repeated, tag = "14")]
    pub host_aliases: Vec<String>,
    /// What containers may mount.
    #[prost(message, repeated, tag = "15")]
    pub volumes: Vec<VolumeConfig>,
    /// Commands, variables and files were left out, because this is what the host keeps on its disk: no guest can be
    /// configured with it.
    #[prost(bool, tag = "16")]
    pub incomplete: bool,
    /// Group that owns the pod's volumes; absent means root's.
    #[prost(uint32, optional, tag = "17")]
    pub fs_group: Option<u32>,
    /// Most processes and threads of the pod; 0, from hosts of earlier versions, means 4096 of each container.
    #[prost(uint32, tag = "88")]
    pub pids_max: u32,
    /// What of a volume that had content before is given to that group.
    #[prost(enumeration = "FsGroupPolicy", tag = "89")]
    pub fs_group_policy: i32,
    /// Words of the `options` line of /etc/resolv.conf.
    #[prost(string, repeated, tag = "50")]
    pub resolver_options: Vec<String>,
    /// The pod's full name, which stands in /etc/hosts before its first label; empty means that it has none.
    #[prost(string, tag = "51")]
    pub fqdn: String,
    /// Settings of the kernel, in order; before any container starts. One that fails ends the pod.
    #[prost(message, repeated, tag = "84")]
    pub sysctls: Vec<SysctlConfig>,
    /// Huge pages of 2 MiB that the guest sets aside before any container starts, in bytes. Without all of them the pod ends.
    #[prost(uint64, tag = "85")]
    pub two_mib_pages_bytes: u64,
    /// Huge pages of 1 GiB that the guest's kernel must have set aside, in bytes.
    #[prost(uint64, tag = "86")]
    pub one_gib_pages_bytes: u64,
}

/// One container. What it executes is never printed: it may hold secrets.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct ContainerConfig {
    /// Name, unique in the pod, init containers included.
    #[prost(string, tag = "1")]
    pub name: String,
    /// virtio-blk serial of the disk with the root file system.
    #[prost(string, tag = "2")]
    pub disk_serial: String,
    /// The command and its arguments, already resolved against the image's configuration. Not empty.
    #[prost(string, repeated, tag = "3")]
    pub argv: Vec<String>,
    /// `NAME=value`, already merged with the image's; a later one wins.
    #[prost(string, repeated, tag = "4")]
    pub env: Vec<String>,
    /// Absolute working directory; empty means `/`. Made if it is missing.
    #[prost(string, tag = "5")]
    pub working_dir: String,
    /// User id.
    #[prost(uint32, tag = "6")]
    pub uid: u32,
    /// Group id.
    #[prost(uint32, tag = "7")]
    pub gid: u32,
    /// Supplementary group ids.
    #[prost(uint32, repeated, tag = "8")]
    pub additional_gids: Vec<u32>,
    /// CPU limit in thousandths of a CPU; 0 means none.
    #[prost(uint64, tag = "9")]
    pub cpu_millis: u64,
    /// Memory limit; 0 means none.
    #[prost(uint64, tag = "10")]
    pub memory_bytes: u64,
    /// The container cannot write to its root file system.
    #[prost(bool, tag = "11")]
    pub read_only_root: bool,
    /// Volumes, in order.
    #[prost(message, repeated, tag = "12")]
    pub mounts: Vec<MountConfig>,
    /// Holds back the other probes until it succeeds; its failure ends the container.
    #[prost(message, optional, tag = "13")]
    pub startup_probe: Option<ProbeConfig>,
    /// Whether the container serves.
    #[prost(message, optional, tag = "14")]
    pub readiness_probe: Option<ProbeConfig>,
    /// Its failure ends the container.
    #[prost(message, optional, tag = "15")]
    pub liveness_probe: Option<ProbeConfig>,
    /// Done after the start; its failure ends the container.
    #[prost(message, optional, tag = "16")]
    pub post_start: Option<CheckConfig>,
    /// Done before SIGTERM, within the grace.
    #[prost(message, optional, tag = "17")]
    pub pre_stop: Option<CheckConfig>,
    /// An init container that runs beside the others from its start on.
    #[prost(bool, tag = "18")]
    pub sidecar: bool,
    /// Capabilities, bit n is capability n; absent means what container runtimes give.
    #[prost(uint64, optional, tag = "19")]
    pub capabilities: Option<u64>,
    /// No program has more rights than whoever starts it.
    #[prost(bool, tag = "20")]
    pub no_new_privileges: bool,
    /// Some system calls are refused.
    #[prost(bool, tag = "21")]
    pub filters_system_calls: bool,
    /// The file whose content becomes the message of its end; empty means none.
    #[prost(string, tag = "22")]
    pub message_path: String,
    /// The end of its output becomes that message when it failed and the file is empty.
    #[prost(bool, tag = "23")]
    pub message_from_logs: bool,
    /// CPU request in thousandths of a CPU: its part when the guest's processors are scarce.
    #[prost(uint64, tag = "40")]
    pub cpu_request_millis: u64,
    /// What it may write to its root file system; 0 means what that has room for.
    #[prost(uint64, tag = "41")]
    pub ephemeral_storage_bytes: u64,
    /// Huge pages of 2 MiB that it may use, in bytes.
    #[prost(uint64, tag = "47")]
    pub two_mib_pages_bytes: u64,
    /// Huge pages of 1 GiB that it may use, in bytes.
    #[prost(uint64, tag = "48")]
    pub one_gib_pages_bytes: u64,
    /// Its process reads what attached clients write; otherwise its input has ended from the start.
    #[prost(bool, tag = "80")]
    pub stdin: bool,
    /// With `stdin`: its input ends with the first client that wrote to it.
    #[prost(bool, tag = "81")]
    pub stdin_once: bool,
    /// Its process has a terminal.
    #[prost(bool, tag = "82")]
    pub tty: bool,
    /// It sees all devices of the guest, and may change the kernel's files; its other rights are said by the fields above.
    #[prost(bool, tag = "83")]
    pub privileged: bool,
    /// The signal that asks it to end, by its number, the image's STOPSIGNAL; 0 means SIGTERM.
    #[prost(int32, tag = "87")]
    pub stop_signal: i32,
}

impl std::fmt::Debug for ContainerConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ContainerConfig").field("name", &self.name).finish_non_exhaustive()
    }
}

/// One network interface with static addresses.
#[derive(Clone, PartialEq, prost::Message)]
pub struct InterfaceConfig {
    /// MAC address, `52:54:00:12:34:56`: what the interface is found by, unless `pci_port` says where it is; then it gets this
    /// address, or keeps its own when this is empty.
    #[prost(string, tag = "1")]
    pub mac: String,
    /// Address with prefix length, `10.0.2.15/24`; empty means none.
    #[prost(string, tag = "2")]
    pub address: String,
    /// Address of the default gateway; empty means that the default route does not lead here.
    #[prost(string, tag = "3")]
    pub gateway: String,
    /// MTU in bytes; 0 keeps the device's.
    #[prost(uint32, tag = "4")]
    pub mtu: u32,
    /// PCI address in the guest of the root port that the device is behind, `0000:00:10.0`; empty means found by `mac`.
    #[prost(string, tag = "60")]
    pub pci_port: String,
    /// Its name in the guest; empty means `eth0`, the pod's primary interface.
    #[prost(string, tag = "61")]
    pub name: String,
    /// Further addresses with prefix lengths, of either family.
    #[prost(string, repeated, tag = "62")]
    pub more_addresses: Vec<String>,
    /// Further routes by it.
    #[prost(message, repeated, tag = "63")]
    pub routes: Vec<RouteConfig>,
}

/// A route by an interface.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RouteConfig {
    /// Network with prefix length, `10.9.0.0/16`.
    #[prost(string, tag = "1")]
    pub destination: String,
    /// Address of the gateway; empty means that the network is on the link itself.
    #[prost(string, tag = "2")]
    pub gateway: String,
}

/// What of a volume that had content before is given to the pod's group; Kubernetes' `fsGroupChangePolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum FsGroupPolicy {
    /// Its own folder only: what hosts of earlier versions want.
    RootOnly = 0,
    /// All of it.
    Always = 1,
    /// All of it, unless its own folder belongs to the group with the rights that it would be given.
    OnRootMismatch = 2,
}

/// Kubernetes' restart policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum RestartPolicy {
    /// Not set: refused.
    Unspecified = 0,
    /// Whenever a container ends.
    Always = 1,
    /// When it ends with an error.
    OnFailure = 2,
    /// Never.
    Never = 3,
}

/// Send a container's log again from here.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ResumeLogs {
    /// Name of the container.
    #[prost(string, tag = "1")]
    pub container: String,
    /// First offset that the host does not have. Earlier data may be forgotten.
    #[prost(uint64, tag = "2")]
    pub from_offset: u64,
}

/// Log data that the guest may forget.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AckLogs {
    /// Name of the container.
    #[prost(string, tag = "1")]
    pub container: String,
    /// Everything before this offset is safe with the host.
    #[prost(uint64, tag = "2")]
    pub up_to_offset: u64,
}

/// End the pod: SIGTERM, SIGKILL after the grace period, power off.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Stop {
    /// Grace period in milliseconds; absent means the pod's own. A second Stop can only shorten it.
    #[prost(uint64, optional, tag = "1")]
    pub grace_ms: Option<u64>,
}

/// Asks for a Pong.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Ping {
    /// Comes back in the Pong.
    #[prost(uint64, tag = "1")]
    pub number: u64,
}

impl HostMessage {
    /// Checks what the guest relies on. The host is trusted; this catches its mistakes early and with a name.
    ///
    /// # Errors
    /// [`DecodeError::Invalid`] with the field.
    pub fn validate(&self) -> Result<(), DecodeError> {
        match self {
            Self::Configure(configure) => match &configure.pod {
                Some(pod) => pod.validate(),
                None => Err(DecodeError::Invalid { field: "Configure.pod", reason: "is missing".into() }),
            },
            Self::ResumeLogs(m) => check_length("ResumeLogs.container", &m.container, NAME_LENGTH_MAX),
            Self::AckLogs(m) => check_length("AckLogs.container", &m.container, NAME_LENGTH_MAX),
            Self::VolumeFiles(m) => m.validate(),
            Self::GrowVolume(m) => m.validate(),
            Self::Resize(m) => m.validate(),
            Self::Reseed(m) => m.validate(),
            Self::HostAnswer(m) => m.validate(),
            Self::FreezeVolume(m) => m.validate(),
            Self::StreamOpen(m) => m.validate(),
            Self::StreamData(m) => m.validate(),
            Self::Hello(_)
            | Self::Stop(_)
            | Self::Ping(_)
            | Self::StreamCredit(_)
            | Self::StreamResize(_)
            | Self::StreamClose(_) => Ok(()),
        }
    }
}

impl PodConfig {
    /// The address by which the pod is known: its primary interface's. `None` where it has no such interface, or that no address.
    #[must_use]
    pub fn own_address(&self) -> Option<IpAddr> {
        let primary =
            self.interfaces.iter().find(|one| one.name.is_empty() || one.name == PRIMARY_INTERFACE)?;
        primary.address.split('/').next()?.parse().ok()
    }

    /// Checks what the guest relies on; useful before a guest is started as well.
    ///
    /// # Errors
    /// [`DecodeError::Invalid`] with the field.
    pub fn validate(&self) -> Result<(), DecodeError> {
        let invalid = |field, reason: &str| Err(DecodeError::Invalid { field, reason: reason.into() });
        check_length("PodConfig.hostname", &self.hostname, HOST_NAME_LENGTH_MAX)?;
        check_length("PodConfig.sandbox_id", &self.sandbox_id, NAME_LENGTH_MAX)?;
        check_enum::<RestartPolicy>("PodConfig.restart_policy", self.restart_policy)?;
        if self.restart_policy() == RestartPolicy::Unspecified {
            return invalid("PodConfig.restart_policy", "is not set");
        }
        if self.containers.is_empty() {
            return invalid("PodConfig.containers", "is empty");
        }
        if self.incomplete {
            return invalid("PodConfig.incomplete", "is set");
        }
        if self.init_containers.len() + self.containers.len() > CONTAINERS_MAX {
            return invalid("PodConfig.containers", "are too many");
        }
        let mut names = std::collections::BTreeSet::new();
        for container in self.init_containers.iter().chain(&self.containers) {
            container.validate()?;
            if !names.insert(&container.name) {
                return invalid("ContainerConfig.name", "is used twice in the pod");
            }
            let known = |mount: &MountConfig| self.volumes.iter().any(|volume| volume.name == mount.volume);
            if !container.mounts.iter().all(known) {
                return invalid("MountConfig.volume", "is no volume of the pod");
            }
        }
        let mut interfaces = std::collections::BTreeSet::new();
        if self.interfaces.len() > INTERFACES_MAX {
            return invalid("PodConfig.interfaces", "are too many");
        }
        for interface in &self.interfaces {
            interface.validate()?;
            if !interfaces.insert(&interface.name) {
                return invalid("InterfaceConfig.name", "is used twice in the pod");
            }
        }
        self.sysctls.iter().try_for_each(SysctlConfig::validate)?;
        self.volumes.iter().try_for_each(VolumeConfig::validate)
    }
}

impl InterfaceConfig {
    fn validate(&self) -> Result<(), DecodeError> {
        let invalid = |field, reason: &str| Err(DecodeError::Invalid { field, reason: reason.into() });
        let byte = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        if self.name.len() > INTERFACE_NAME_LENGTH_MAX || !self.name.bytes().all(byte) || self.name == "lo" {
            return invalid("InterfaceConfig.name", "is no name of an interface");
        }
        if self.mac.is_empty() && self.pci_port.is_empty() {
            return invalid("InterfaceConfig.mac", "is empty, and pci_port too");
        }
        // It is a part of a path.
        if !self.pci_port.bytes().all(|b| b.is_ascii_hexdigit() || b":.".contains(&b))
            || self.pci_port.contains("..")
        {
            return invalid("InterfaceConfig.pci_port", "is no PCI address");
        }
        if self.more_addresses.len() > ADDRESSES_MAX || self.routes.len() > ROUTES_MAX {
            return invalid("InterfaceConfig.more_addresses", "or routes are too many");
        }
        Ok(())
    }
}

impl ContainerConfig {
    fn validate(&self) -> Result<(), DecodeError> {
        let invalid = |field, reason: &str| Err(DecodeError::Invalid { field, reason: reason.into() });
        let name_byte = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        check_length("ContainerConfig.name", &self.name, NAME_LENGTH_MAX)?;
        if self.name.is_empty() || !self.name.bytes().all(name_byte) {
            return invalid("ContainerConfig.name", "is no DNS-1123 label");
        }
        check_length("ContainerConfig.disk_serial", &self.disk_serial, DISK_SERIAL_LENGTH_MAX)?;
        if self.disk_serial.is_empty() {
            return invalid("ContainerConfig.disk_serial", "is empty");
        }
        if self.argv.first().is_none_or(String::is_empty) {
            return invalid("ContainerConfig.argv", "holds no command");
        }
        if self.argv.iter().chain(&self.env).any(|text| text.contains('\0')) {
            return invalid("ContainerConfig.argv", "or env holds a NUL byte");
        }
        if self.working_dir.contains('\0')
            || !(self.working_dir.is_empty() || self.working_dir.starts_with('/'))
        {
            return invalid("ContainerConfig.working_dir", "is not absolute");
        }
        for probe in [&self.startup_probe, &self.readiness_probe, &self.liveness_probe].into_iter().flatten()
        {
            probe.validate()?;
        }
        for hook in [&self.post_start, &self.pre_stop].into_iter().flatten() {
            hook.validate()?;
        }
        if !(self.message_path.is_empty() || self.message_path.strip_prefix('/').is_some_and(is_plain)) {
            return invalid("ContainerConfig.message_path", "is no absolute plain path");
        }
        for mount in &self.mounts {
            if !mount.path.strip_prefix('/').is_some_and(is_plain) {
                return invalid("MountConfig.path", "is no absolute plain path");
            }
            if !(mount.sub_path.is_empty() || is_plain(&mount.sub_path)) {
                return invalid("MountConfig.sub_path", "is no relative plain path");
            }
        }
        Ok(())
    }
}
