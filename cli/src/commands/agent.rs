//! `agent`: runs the guest VMs of this machine.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;

use bulkhead_nodeagent::{
    AccelChoice, AgentConfig, CGROUP_PARENT_DEFAULT, ConfinementChoice, GuestSize, KernelSource, LogLimits,
    NetworkChoice, NetworkOptions, POD_PIDS_LIMIT_DEFAULT, PODS_MAX_DEFAULT, PodRange, QemuUser,
    ThinPoolName, VM_POOL_GUESTS_MAX, VmPoolConfig, hardware::PciId, parse_qemu_user,
};
use bulkhead_types::{
    CpuSet, LABEL_NODE_POOL, Name, NumaPolicy, Resources, check_label_key, check_label_value, parse_millis,
    parse_units,
};
use clap::{Args, ValueEnum};
use smol_str::SmolStr;

use crate::failure::Failure;
use crate::telemetry;

/// How guests are run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Accelerator {
    /// KVM when a guest really runs with it, else TCG.
    #[default]
    Auto,
    /// Emulation.
    Tcg,
    /// The processor's virtualisation.
    Kvm,
}

/// How guests' QEMUs are shut in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Confinement {
    /// As far as the machine permits; what is missing is a warning of the node.
    #[default]
    BestEffort,
    /// Wholly, or no pod starts.
    Required,
    /// Not at all: to look for mistakes only.
    Off,
}

/// What guests have in common of the machine's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum MemorySharing {
    /// Nothing.
    #[default]
    None,
    /// Pages that are alike, where the machine's kernel merges them (/sys/kernel/mm/ksm).
    Ksm,
    /// What a guest of their size had when it had booted: they begin as copies of it.
    Template,
}

/// Whether guests have a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum GuestNetwork {
    /// Where this machine lets the agent make it; elsewhere none, which is a warning of the node.
    #[default]
    Auto,
    /// A card on a bridge of the agent's, or the agent does not start.
    Bridge,
    /// No card.
    None,
}

#[derive(Debug, Args)]
pub(crate) struct AgentArgs {
    /// The node's name
    #[arg(long, value_parser = |text: &str| Name::new(text))]
    pub(crate) name: Name,
    /// Where images, disks and the state of guests are kept
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
    /// Where the agent's own services listen
    #[arg(long, default_value = "0.0.0.0:7500", value_name = "ADDRESS:PORT")]
    pub(crate) listen: SocketAddr,
    /// How servers reach those services [default: the listening address, or the one that this machine uses towards
    /// its servers when it listens on all]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) advertise: Option<String>,
    /// Where the guests' kernel package is installed or unpacked: a folder with boot/vmlinuz-* and lib/modules/*
    #[arg(long, env = "BULKHEAD_KERNEL_DIR", default_value = "/", value_name = "DIR")]
    pub(crate) kernel_dir: PathBuf,
    /// The guests' kernel image (bzImage), instead of the newest of the folder
    #[arg(long, value_name = "FILE", requires = "modules_dir")]
    pub(crate) kernel: Option<PathBuf>,
    /// The modules of that kernel: .../lib/modules/VERSION
    #[arg(long, value_name = "DIR", requires = "kernel")]
    pub(crate) modules_dir: Option<PathBuf>,
    /// The program that runs as the guests' init [default: bulkhead-guest beside this program]
    #[arg(long, value_name = "FILE")]
    pub(crate) guest: Option<PathBuf>,
    /// How guests are run
    #[arg(long, value_enum, default_value_t)]
    pub(crate) accel: Accelerator,
    /// The QEMU to use
    #[arg(long, default_value = "qemu-system-x86_64", value_name = "FILE")]
    pub(crate) qemu: PathBuf,
    /// As whom guests' QEMUs run: a user's name, UID or UID:GID for all of them, FIRST-LAST for another user for each pod, or agent
    /// for the agent's [default: a range that no system uses when the agent is root, else agent]
    #[arg(long, value_parser = parse_qemu_user, value_name = "USER")]
    pub(crate) qemu_user: Option<QemuUser>,
    /// Whether pods start where this machine does not let their QEMUs be shut in wholly
    #[arg(long, value_enum, default_value_t)]
    pub(crate) confinement: Confinement,
    /// The control group, from the hierarchies' roots, below which every guest's process gets one of its own; none for no limits on
    /// the host
    #[arg(long, default_value = CGROUP_PARENT_DEFAULT, value_parser = parse_cgroup_parent, value_name = "PATH")]
    pub(crate) cgroup_parent: String,
    /// Whether guests have a network
    #[arg(long, value_enum, default_value_t)]
    pub(crate) network: GuestNetwork,
    /// The addresses of this node's guests, such as 10.128.3.0/24; no two nodes whose pods talk to each other have the same
    /// [default: one below 10.128.0.0/9 that this machine does not use]
    #[arg(long, value_parser = |text: &str| text.parse::<PodRange>(), value_name = "RANGE")]
    pub(crate) pod_cidr: Option<PodRange>,
    /// MTU of the guests' network, in bytes [default: that of the default route]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1280..=65521), value_name = "BYTES")]
    pub(crate) network_mtu: Option<u32>,
    /// Whether guests reach anybody but each other: masqueraded, so that nobody reaches them
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub(crate) egress: bool,
    /// Name servers of guests instead of those of --resolv-conf
    #[arg(long, value_delimiter = ',', value_name = "ADDRESS,...")]
    pub(crate) cluster_dns: Vec<Ipv4Addr>,
    /// Where the machine's name servers stand; those of its loopback are none for guests
    #[arg(long, default_value = "/etc/resolv.conf", value_name = "FILE")]
    pub(crate) resolv_conf: PathBuf,
    /// Processor time that pods may reserve, such as 8 or 1500m [default: what the machine has, less a reserve]
    #[arg(long, value_parser = |text: &str| parse_millis(text))]
    pub(crate) cpu: Option<u64>,
    /// How strictly CPUs and devices of a pod are to be on one NUMA node: none, best-effort, restricted or
    /// single-numa-node. Pods of a policy of their own run on nodes of that policy only
    #[arg(long, default_value = "none", value_parser = parse_numa_policy, value_name = "POLICY")]
    pub(crate) topology_manager_policy: NumaPolicy,
    /// CPUs that no pod gets for itself, such as 0,16-17; they stay in the shared pool
    #[arg(long, default_value = "", value_parser = |text: &str| text.parse::<CpuSet>(), value_name = "CPUS")]
    pub(crate) reserved_cpus: CpuSet,
    /// Memory that pods may reserve, such as 16Gi [default: what the machine has, less a reserve]
    #[arg(long, value_parser = |text: &str| parse_units(text))]
    pub(crate) memory: Option<u64>,
    /// Most pods
    #[arg(long, default_value_t = PODS_MAX_DEFAULT, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) pods_max: u32,
    /// Most processes and threads of one pod (the kubelet's podPidsLimit)
    #[arg(long, default_value_t = POD_PIDS_LIMIT_DEFAULT, value_parser = clap::value_parser!(u32).range(1..=4_194_304), value_name = "NUMBER")]
    pub(crate) pod_pids_limit: u32,
    /// Guests that are booted before there are pods for them; a pod whose guest would be of the same size gets one of them. Their memory is
    /// not allocatable
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=i64::from(VM_POOL_GUESTS_MAX)), value_name = "N")]
    pub(crate) vm_pool: u32,
    /// What the containers of a pod use together whose guest can be one of the pool: the sum of their CPU limits
    #[arg(long, default_value = "1", value_parser = |text: &str| parse_millis(text), value_name = "CPUS")]
    pub(crate) vm_pool_cpus: u64,
    /// The same of memory limits [default: that of a pod that names none]
    #[arg(long, value_parser = |text: &str| parse_units(text), value_name = "BYTES")]
    pub(crate) vm_pool_memory: Option<u64>,
    /// What guests have in common of this machine's memory: none; ksm, pages that are alike where the machine's kernel merges them;
    /// template, what a guest of their size had when it had booted, of which they begin as copies. Some of the machine's memory is not
    /// allocatable then. What is shared lets one guest measure what another one does: for tenants that trust each other
    #[arg(long, value_enum, default_value_t)]
    pub(crate) memory_sharing: MemorySharing,
    /// How long a file of a container's log becomes before another one is begun, such as 10Mi; at least 64Ki
    #[arg(long, default_value = "2Mi", value_parser = parse_log_size, value_name = "SIZE")]
    pub(crate) container_log_max_size: u64,
    /// How many files of a container's log are kept; the oldest goes
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(2..=1000), value_name = "FILES")]
    pub(crate) container_log_max_files: u32,
    /// How long a guest may boot without a word, on its console or to the agent, before it is ended [default: what fits how guests
    /// are run]
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1_000..=86_400_000))]
    pub(crate) guest_boot_deadline_ms: Option<u64>,
    /// How long a guest or its QEMU may answer nothing before it is ended [default: what fits how guests are run]
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1_000..=86_400_000))]
    pub(crate) guest_silence_ms: Option<u64>,
    /// How long a guest that failed waits for its next start, each time; for tests
    #[arg(long, hide = true, value_name = "MS")]
    pub(crate) guest_backoff_ms: Option<u64>,
    /// Where new volumes of claims are made as thin logical volumes of LVM: a volume group and a thin pool in it [default: they are files
    /// below the data directory]. Volumes that are there stay what they are
    #[arg(long, value_parser = |text: &str| text.parse::<ThinPoolName>(), value_name = "VG/THINPOOL")]
    pub(crate) volume_group: Option<ThinPoolName>,
    /// Drivers of the host whose devices pods may have, such as nouveau: they are unbound for a pod and bound again after
    /// it. Devices of other drivers are the host's own
    #[arg(long, value_delimiter = ',', value_name = "DRIVER,...")]
    pub(crate) take_devices_from: Vec<String>,
    /// Devices besides network cards whose virtual functions SriovNetworkNodePolicies say, such as accelerators, by vendor and
    /// device id
    #[arg(long, value_delimiter = ',', value_parser = |text: &str| text.parse::<PciId>(), value_name = "VENDOR:DEVICE,...")]
    pub(crate) sriov_devices: Vec<PciId>,
    /// Labels of the node, KEY=VALUE; what an operator sets wins
    #[arg(long, value_delimiter = ',', value_parser = parse_label, value_name = "KEY=VALUE,...")]
    pub(crate) labels: Vec<(SmolStr, SmolStr)>,
    /// The pool of nodes that this one is of [default: default]
    #[arg(long, value_parser = |text: &str| Name::new(text))]
    pub(crate) pool: Option<Name>,
    /// Where traces are sent (OTLP over gRPC), such as http://127.0.0.1:4317
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    pub(crate) otlp_endpoint: Option<String>,
    /// Belong to this cluster from now on: after the servers were restored from a backup or recovered, which
    /// makes them a new cluster. Its id, as `member list` shows it
    #[arg(long, value_parser = |text: &str| uuid::Uuid::parse_str(text), value_name = "CLUSTER-ID")]
    pub(crate) adopt_cluster: Option<uuid::Uuid>,
    /// Registries that are asked over plain HTTP
    #[arg(long, value_delimiter = ',', value_name = "HOST:PORT,...")]
    pub(crate) insecure_registry: Vec<String>,
    /// The node's own credentials for registries, in the form of docker's config.json: for all of its pods, after those of their
    /// imagePullSecrets. It is read anew for every pod; credential helpers are not run
    #[arg(long, value_name = "FILE")]
    pub(crate) registry_config: Option<PathBuf>,
    /// End when the process that started this one ends
    #[arg(long, hide = true)]
    pub(crate) end_with_parent: bool,
}

/// As its first argument it makes this program the guard of a guest; agents start it so.
pub(crate) const GUARD_VERB: &str = "fence-guard";
/// This program, also when its file was replaced by a newer one since it began.
const THIS_PROGRAM: &str = "/proc/self/exe";
/// The program that is built and installed beside this one.
const GUEST: &str = "bulkhead-guest";

fn parse_numa_policy(text: &str) -> Result<NumaPolicy, String> {
    let names: Vec<_> = NumaPolicy::NAMES.iter().map(|(name, _)| *name).collect();
    NumaPolicy::parse(text).ok_or_else(|| format!("expected one of {}", names.join(", ")))
}

/// What `--cgroup-parent` says when there is to be none.
const NO_CGROUPS: &str = "none";

fn parse_cgroup_parent(text: &str) -> Result<String, String> {
    let named = text
        .strip_prefix('/')
        .is_some_and(|rest| !rest.is_empty() && rest.split('/').all(|name| !matches!(name, "" | "." | "..")));
    if named || text == NO_CGROUPS {
        return Ok(text.to_owned());
    }
    Err("expected a path from the root such as /bulkhead, or none".to_owned())
}

/// A file must hold at least one piece of output, however long that is.
const LOG_SIZE_MIN: u64 = 64 << 10;

fn parse_log_size(text: &str) -> Result<u64, String> {
    let bytes = parse_units(text).map_err(|error| error.to_string())?;
    if bytes < LOG_SIZE_MIN { Err("must be at least 64Ki".to_owned()) } else { Ok(bytes) }
}

fn parse_label(text: &str) -> Result<(SmolStr, SmolStr), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("{text:?}: expected KEY=VALUE"))?;
    check_label_key(key).map_err(|e| e.to_string())?;
    check_label_value(value).map_err(|e| e.to_string())?;
    Ok((key.into(), value.into()))
}

pub(crate) async fn run(args: AgentArgs, servers: &[String]) -> Result<(), Failure> {
    if args.end_with_parent {
        super::dev::end_with_parent()?;
    }
    let _telemetry = telemetry::init_process("bulkhead-agent", args.otlp_endpoint.as_deref())?;
    let shutdown = super::server::asked_to_end()?;
    let config = config(args, servers)?;
    bulkhead_nodeagent::run(config, shutdown).await.map_err(|e| anyhow::Error::from(e).into())
}

impl From<MemorySharing> for bulkhead_nodeagent::MemorySharing {
    fn from(said: MemorySharing) -> Self {
        match said {
            MemorySharing::None => Self::None,
            MemorySharing::Ksm => Self::Ksm,
            MemorySharing::Template => Self::Template,
        }
    }
}

impl From<Accelerator> for AccelChoice {
    fn from(accel: Accelerator) -> Self {
        match accel {
            Accelerator::Auto => Self::Auto,
            Accelerator::Tcg => Self::Tcg,
            Accelerator::Kvm => Self::Kvm,
        }
    }
}

fn config(args: AgentArgs, servers: &[String]) -> Result<AgentConfig, Failure> {
    let advertise = match args.advertise {
        Some(address) => Some(address),
        None if args.listen.ip().is_unspecified() => Some(reached_at(args.listen, servers)?),
        None => None,
    };
    let urls = servers.iter().map(|s| if s.contains("://") { s.clone() } else { format!("http://{s}") });
    let pool = args.pool.map(|pool| (SmolStr::new_static(LABEL_NODE_POOL), SmolStr::new(pool.as_str())));
    let pool_size = Resources {
        cpu_millis: args.vm_pool_cpus,
        memory_bytes: args.vm_pool_memory.unwrap_or(0),
        ..Resources::ZERO
    };
    let vm_pool = VmPoolConfig { guests: args.vm_pool, size: GuestSize::of(pool_size) };
    Ok(AgentConfig {
        vm_pool: Some(vm_pool).filter(|pool| pool.guests > 0),
        memory_sharing: args.memory_sharing.into(),
        listen: args.listen,
        advertise,
        kernel: match args.kernel.zip(args.modules_dir) {
            Some((kernel, modules_dir)) => KernelSource::Files { kernel, modules_dir },
            None => KernelSource::Folder(args.kernel_dir),
        },
        guest: args.guest.unwrap_or_else(beside_this_program),
        accel: args.accel.into(),
        qemu: args.qemu,
        qemu_user: args.qemu_user,
        confinement: match args.confinement {
            Confinement::BestEffort => ConfinementChoice::BestEffort,
            Confinement::Required => ConfinementChoice::Required,
            Confinement::Off => ConfinementChoice::Off,
        },
        cgroup_parent: Some(args.cgroup_parent).filter(|parent| parent != NO_CGROUPS),
        network: NetworkOptions {
            choice: match args.network {
                GuestNetwork::Auto => NetworkChoice::Auto,
                GuestNetwork::Bridge => NetworkChoice::Bridge,
                GuestNetwork::None => NetworkChoice::None,
            },
            pod_cidr: args.pod_cidr,
            mtu: args.network_mtu,
            egress: args.egress,
            cluster_dns: args.cluster_dns,
            resolv_conf: args.resolv_conf,
        },
        guard: vec![THIS_PROGRAM.into(), GUARD_VERB.into()],
        cpu_millis: args.cpu,
        numa_policy: args.topology_manager_policy,
        reserved_cpus: args.reserved_cpus,
        memory_bytes: args.memory,
        pods_max: args.pods_max,
        pod_pids_limit: args.pod_pids_limit,
        adopt_cluster: args.adopt_cluster.map(|id| id.to_string()),
        insecure_registries: args.insecure_registry,
        registry_config: args.registry_config,
        boot_deadline_ms: args.guest_boot_deadline_ms,
        silence_ms: args.guest_silence_ms,
        backoff_ms: args.guest_backoff_ms.map(|ms| (ms, ms)),
        volume_group: args.volume_group,
        take_devices_from: args.take_devices_from,
        sriov_devices: args.sriov_devices,
        log_limits: LogLimits {
            file_bytes: args.container_log_max_size,
            files: args.container_log_max_files,
        },
        labels: args.labels.into_iter().chain(pool).collect(),
        ..AgentConfig::new(args.name.as_str(), urls.collect(), args.data_dir)
    })
}

fn beside_this_program() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    program.parent().map_or_else(|| PathBuf::from(GUEST), |dir| dir.join(GUEST))
}

/// The address that this machine uses towards its servers, with the listening port. Nothing is sent for that.
fn reached_at(listen: SocketAddr, servers: &[String]) -> Result<String, Failure> {
    let unknown = || {
        Failure::usage(format!(
            "no route to {}: say with --advertise how servers reach this machine",
            servers.join(", ")
        ))
    };
    if listen.port() == 0 {
        return Err(Failure::usage("--listen on all addresses needs a port, or --advertise"));
    }
    let any: SocketAddr = if listen.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).map_err(|_| unknown())?;
    let address = servers.iter().find_map(|server| {
        socket.connect(server.trim_start_matches("http://")).ok()?;
        socket.local_addr().ok()
    });
    let ip = address.ok_or_else(unknown)?.ip();
    Ok(SocketAddr::new(ip, listen.port()).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_listens_everywhere_is_reached_where_it_talks_from() {
        let servers = ["127.0.0.1:7400".to_owned()];
        let listen = |text: &str| text.parse().expect("an address");
        assert_eq!(reached_at(listen("0.0.0.0:7500"), &servers).ok().as_deref(), Some("127.0.0.1:7500"));
        assert!(reached_at(listen("0.0.0.0:0"), &servers).is_err());
        assert!(reached_at(listen("0.0.0.0:7500"), &[]).is_err());
    }

    #[test]
    fn files_of_logs_have_a_size() {
        assert_eq!(parse_log_size("10Mi"), Ok(10 << 20));
        assert_eq!(parse_log_size("64Ki"), Ok(64 << 10));
        assert!(parse_log_size("1Ki").is_err() && parse_log_size("x").is_err());
    }

    #[test]
    fn control_groups_have_paths() {
        for good in ["/bulkhead", "/system.slice/agent.service/pods", "none"] {
            assert_eq!(parse_cgroup_parent(good).as_deref(), Ok(good));
        }
        for bad in ["", "/", "bulkhead", "/a/../b", "/a//b", "/a/"] {
            assert!(parse_cgroup_parent(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn guests_are_shut_in_as_the_options_say() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            agent: AgentArgs,
        }
        let parse = |options: &[&str]| {
            let line = ["agent", "--name", "n", "--data-dir", "/d", "--listen", "127.0.0.1:1"];
            let parsed = <Line as clap::Parser>::try_parse_from(line.iter().chain(options));
            parsed.ok().and_then(|line| config(line.agent, &["127.0.0.1:7400".to_owned()]).ok())
        };
        let usual = parse(&[]).expect("the usual");
        assert_eq!((usual.qemu_user, usual.confinement), (None, ConfinementChoice::BestEffort));
        assert_eq!(usual.cgroup_parent.as_deref(), Some("/bulkhead"));
        let strict = parse(&["--confinement", "required", "--qemu-user", "7-9", "--cgroup-parent", "none"]);
        let strict = strict.expect("understood");
        assert_eq!(strict.qemu_user, Some(QemuUser::Range { first: 7, last: 9 }));
        assert_eq!((strict.confinement, strict.cgroup_parent), (ConfinementChoice::Required, None));
        assert_eq!(
            usual.network,
            NetworkOptions { choice: NetworkChoice::Auto, ..NetworkOptions::default() }
        );
        let options = ["--network", "bridge", "--pod-cidr", "10.1.2.0/24", "--egress", "false"];
        let network = parse(&options).expect("understood").network;
        assert_eq!((network.choice, network.egress), (NetworkChoice::Bridge, false));
        assert_eq!(network.pod_cidr.map(|range| range.to_string()).as_deref(), Some("10.1.2.0/24"));
        assert!(parse(&["--pod-cidr", "10.1.2.3/24"]).is_none() && parse(&["--network-mtu", "64"]).is_none());
        let pool = parse(&["--volume-group", "vg0/thin"]).expect("understood").volume_group;
        assert_eq!((usual.volume_group, pool), (None, "vg0/thin".parse().ok()));
        assert!(parse(&["--volume-group", "vg0"]).is_none() && parse(&["--volume-group=-f/thin"]).is_none());
        assert!(parse(&["--qemu-user", "root"]).is_none() && parse(&["--confinement", "maybe"]).is_none());
    }

    #[test]
    fn labels_are_checked() {
        assert_eq!(parse_label("zone=a"), Ok(("zone".into(), "a".into())));
        assert!(parse_label("zone").is_err());
        assert!(parse_label("a b=c").is_err());
    }
}
