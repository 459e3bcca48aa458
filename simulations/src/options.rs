//! Everything that the seed decides before anything happens.

use bulkhead_controlplane_core::reconcile::{EvictionRates, ReconcileConfig};
use serde::{Deserialize, Serialize};

use crate::rng::Rng;

/// Sizes that are set instead of drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Servers at the start.
    pub servers: Option<u64>,
    /// Nodes.
    pub agents: Option<u32>,
    /// Length of the faults' phase, in ticks of the servers.
    pub ticks: Option<u64>,
    /// Clocks leave the contract: such runs are neither passed nor failed, so they are asked for.
    #[serde(default)]
    pub beyond_contract: bool,
}

/// How far clocks may be from what is promised for them; beyond it a run says nothing about the system.
///
/// Leases are counted on monotonic clocks, requests are remembered by log time.
pub mod contract {
    /// The most that a clock may run too fast or too slow, in millionths.
    pub const DRIFT_PPM_MAX: u64 = 5000;
    /// How far the jumps of one wall clock may add up, in milliseconds. Far below the time for which requests are
    /// remembered: that time is log time, and a clock that runs ahead by more would let a retry happen twice.
    pub const OFFSET_MS_MAX: u64 = 60_000;
}

/// In which way a run leaves the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Beyond {
    /// Clocks drift by more than is promised.
    Drift,
    /// Wall clocks jump by more than is promised.
    Jump,
}

/// The options of one run. Times carry their unit in their name; rates are in thousandths.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// Where everything else comes from.
    pub seed: u64,
    /// Servers at the start, all voters.
    pub servers: u64,
    /// Nodes, each with one agent.
    pub agents: u32,
    /// Clients that submit and read.
    pub clients: u32,
    /// How long faults happen.
    pub safety_ms: u64,
    /// What the servers go by.
    pub server: ServerOptions,
    /// The network.
    pub network: NetworkOptions,
    /// The disks.
    pub disk: DiskOptions,
    /// What goes wrong on purpose.
    pub faults: FaultOptions,
    /// The nodes.
    pub node: NodeOptions,
    /// What clients do.
    pub workload: WorkloadOptions,
    /// Those who only look.
    pub observers: ObserverOptions,
    /// How much a host's clock may drift, in millionths.
    pub drift_ppm_max: u64,
    /// How far a host's wall clock may be off, in milliseconds.
    pub offset_ms_max: u64,
    /// Clocks leave the contract in this run.
    pub beyond: Option<Beyond>,
    /// A node that is lost when the faults end, and comes back only after the cluster has come to rest without it.
    pub lost: Option<Lost>,
}

/// What becomes of a node that is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lost {
    /// Nobody hears it; its agent lives.
    CutOff,
    /// Nobody hears it; its agent is dead, its guests live.
    AgentDead,
    /// Its power is off.
    Off,
}

/// What the servers go by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerOptions {
    /// Length of a tick.
    pub tick_ms: u64,
    /// Ticks before an election.
    pub election_ticks: usize,
    /// Ticks between heartbeats.
    pub heartbeat_ticks: usize,
    /// Entries between snapshots.
    pub snapshot_entries: u64,
    /// Entries kept before a snapshot.
    pub keep_entries: u64,
    /// Entries between comparisons of digests.
    pub digest_interval: u64,
    /// How long a server collects inputs before it looks at them, at most.
    pub pump_us_max: u64,
    /// How long a lease runs.
    pub lease_ms: u64,
    /// How often agents report.
    pub heartbeat_ms: u64,
    /// How long a node may be unreachable before its pods are replaced.
    pub eviction_ms: u64,
    /// How long a node may take from the end of its lease until its last unique guest is dead.
    pub fence_kill_ms: u64,
    /// Pods that ended are kept up to this number.
    pub terminated_pods_max: usize,
}

/// The network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkOptions {
    /// Shortest way.
    pub latency_us_min: u64,
    /// Longest usual way.
    pub latency_us_max: u64,
    /// Messages that never arrive.
    pub drop_permille: u64,
    /// Messages between servers that arrive twice.
    pub duplicate_permille: u64,
    /// Messages that take much longer.
    pub delay_permille: u64,
    /// How much longer, at most.
    pub delay_us_max: u64,
}

/// The disks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskOptions {
    /// Fastest flush.
    pub flush_us_min: u64,
    /// Slowest usual flush.
    pub flush_us_max: u64,
    /// Flushes that take much longer.
    pub slow_permille: u64,
    /// How long those take, at most.
    pub slow_us_max: u64,
    /// Time to write, send or take in a snapshot, at most.
    pub snapshot_us_max: u64,
}

/// What goes wrong on purpose: a weight for each kind, zero when it does not happen in this run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultOptions {
    /// Time between two faults, on average.
    pub interval_ms: u64,
    /// How long a crashed server, a partition or a full disk lasts, on average.
    pub duration_ms: u64,
    /// Power failure of a server.
    pub server_crash: u64,
    /// A server's process stands still for a while.
    pub server_pause: u64,
    /// A server's disk fails in the middle of a snapshot, and the server with it.
    pub snapshot_crash: u64,
    /// A snapshot is taken now.
    pub take_snapshot: u64,
    /// A server's disk fails for one operation.
    pub disk_error: u64,
    /// A server's disk is full for a while.
    pub disk_full: u64,
    /// A server's disk is slow for a while.
    pub disk_slow: u64,
    /// A server's disk is gone, and the server is replaced.
    pub disk_lost: u64,
    /// A durable record is damaged while the server is down.
    pub disk_damage: u64,
    /// Hosts cannot reach each other.
    pub partition: u64,
    /// Hosts become unreachable one after the other, and reachable again in another order.
    pub swizzle: u64,
    /// An operator moves the leadership.
    pub leader_transfer: u64,
    /// An operator changes the members.
    pub member_change: u64,
    /// A host's wall clock is set.
    pub clock_jump: u64,
    /// A host's clocks run at another speed.
    pub clock_drift: u64,
    /// An agent's process dies.
    pub agent_crash: u64,
    /// A node loses power.
    pub node_reboot: u64,
    /// A guest's process dies, or its guard's, which takes the guest with it.
    pub vm_crash: u64,
    /// A node is cut off for longer than it takes to fence it; its agent may be dead meanwhile.
    pub node_lost: u64,
    /// A card of a node fails, or is gone, for a while.
    #[serde(default)]
    pub device_failure: u64,
}

/// The nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeOptions {
    /// Slowest start of a guest's process.
    pub vm_start_us_max: u64,
    /// Slowest kill of a guest's process.
    pub kill_us_max: u64,
    /// Slowest boot of a guest.
    pub boot_us_max: u64,
    /// Guests that cannot be started.
    pub start_failure_permille: u64,
    /// Guests that never say a word.
    pub mute_permille: u64,
    /// Guests that do not end when asked.
    pub stubborn_permille: u64,
    /// Images that cannot be had.
    pub image_failure_permille: u64,
    /// Containers that crash some time after their start.
    pub container_crash_permille: u64,
    /// A container that serves stops to do so for a while, as its probe says, again and again.
    pub unready_permille: u64,
    /// Processor time of a node, in thousandths of a core.
    pub cpu_millis: u64,
    /// Memory of a node, in MiB.
    pub memory_mib: u64,
    /// Most guests of a node.
    pub pods_max: u32,
    /// Cards of a node that pods may have.
    #[serde(default)]
    pub devices: u32,
    /// Virtual functions of a node's NIC.
    #[serde(default)]
    pub functions: u32,
    /// NUMA nodes of a node, two cards on each; 0: its agent does not tell of its processors.
    #[serde(default)]
    pub numa_nodes: u32,
    /// Whether agents tell of images.
    #[serde(default)]
    pub tells_images: bool,
    /// Huge pages of 2 MiB of a node, in MiB; agents that have some tell of memory that may be pinned.
    #[serde(default)]
    pub huge_pages_mib: u64,
}

/// What clients do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadOptions {
    /// Time between two operations of a client, on average.
    pub think_ms: u64,
    /// How long a client waits for an answer.
    pub timeout_ms: u64,
    /// How often it asks before it gives up.
    pub attempts_max: u32,
    /// Operations that are reads.
    pub read_permille: u64,
    /// Different Deployments.
    pub deployments: u64,
    /// Most replicas of one of them.
    pub replicas_max: u64,
    /// Operations on Jobs and CronJobs; in runs without any the cluster keeps its first feature level.
    #[serde(default)]
    pub jobs_permille: u64,
    /// Submissions of several commands.
    pub bundle_permille: u64,
    /// Submissions that name the revision that they were decided on.
    pub precondition_permille: u64,
    /// So many replicas fill the cluster, and most Deployments have them; 0 when there is room to spare.
    pub fill_replicas: u64,
    /// Commands about autoscalers of Deployments.
    #[serde(default)]
    pub autoscalers_permille: u64,
    /// Commands about deliveries by steps, overflow, budgets, the clock, profiles and priorities.
    #[serde(default)]
    pub policies_permille: u64,
    /// Pods and templates that say near what they may be, and how they spread.
    #[serde(default)]
    pub placement_permille: u64,
    /// Pods and templates that ask for cards, and commands that keep cards back.
    #[serde(default)]
    pub devices_permille: u64,
    /// Pods and templates that want CPUs for themselves.
    #[serde(default)]
    pub cpus_permille: u64,
    /// Pods and templates that ask for huge pages, or want their guests' memory to be of them.
    #[serde(default)]
    pub huge_pages_permille: u64,
    /// Pods and templates that publish ports of their nodes.
    #[serde(default)]
    pub ports_permille: u64,
    /// Pods that attach networks.
    #[serde(default)]
    pub networks_permille: u64,
    /// Commands about PodGroups, Queues, and pods of them.
    #[serde(default)]
    pub queues_permille: u64,
    /// Commands about how nodes are scored, and pods that say it.
    #[serde(default)]
    pub scoring_permille: u64,
    /// Commands about pools of nodes, labels of single nodes, and operations on many.
    #[serde(default)]
    pub pools_permille: u64,
    /// Commands about an elastic quota tree over the namespaces.
    #[serde(default)]
    pub elastic_permille: u64,
    /// Commands about claims, snapshots, and pods that use them.
    #[serde(default)]
    pub volumes_permille: u64,
    /// Commands that give pods that run other sizes.
    #[serde(default)]
    pub resizes_permille: u64,
    /// Commands about StatefulSets, DaemonSets, and the taints that DaemonSets mind.
    pub sets_permille: u64,
}

/// Those who look: watchers, and clients whose histories are checked for linearizability.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObserverOptions {
    /// Clients that use objects as registers.
    pub registers: u32,
    /// Registers.
    pub register_objects: u64,
    /// Time between two operations of such a client, on average.
    pub register_think_ms: u64,
    /// Watchers.
    pub watchers: u32,
    /// How often a server turns to a stream, at longest.
    pub watch_turn_us_max: u64,
    /// Changes that a server keeps for its watchers.
    pub watch_changes_max: u64,
}

impl ObserverOptions {
    fn draw(rng: &mut Rng) -> Self {
        Self {
            registers: rng.range(2, 4) as u32,
            register_objects: rng.range(1, 3),
            register_think_ms: *rng.pick(&[100, 300, 1000]),
            watchers: rng.range(1, 4) as u32,
            watch_turn_us_max: *rng.pick(&[100_000, 500_000, 3_000_000]),
            watch_changes_max: *rng.pick(&[8, 64, 1024, 65_536]),
        }
    }
}

/// Thousandths of the whole.
const ALWAYS: u64 = 1000;
/// Most guests of a node with room to spare.
const PODS_MAX: u32 = 20;
/// Runs whose cluster is full, in thousandths.
const FULL_PERMILLE: u64 = 120;

impl Options {
    /// What this seed decides.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        Self::draw_shaped(seed, Shape::default())
    }

    /// What this seed decides, but for the sizes that are set.
    #[must_use]
    pub fn draw_shaped(seed: u64, shape: Shape) -> Self {
        let rng = &mut Rng::child(seed, "options", 0);
        let agents_drawn = *rng.pick(&[2, 3, 4, 6, 8, 20]);
        let servers_drawn = *rng.pick(&[3, 3, 3, 5]);
        let agents = shape.agents.unwrap_or(agents_drawn).max(1);
        let mut options = Self {
            seed,
            servers: shape.servers.unwrap_or(servers_drawn).max(1),
            agents,
            clients: rng.range(2, 5) as u32,
            safety_ms: rng.range(60_000, 120_000),
            server: ServerOptions::draw(rng),
            network: NetworkOptions::draw(rng),
            disk: DiskOptions::draw(rng),
            faults: FaultOptions::draw(rng),
            node: NodeOptions::draw(rng),
            workload: WorkloadOptions::draw(rng, agents),
            observers: ObserverOptions::draw(&mut Rng::child(seed, "observers", 0)),
            drift_ppm_max: *rng.pick(&[0, 50, 1000, contract::DRIFT_PPM_MAX]),
            offset_ms_max: *rng.pick(&[0, 100, 5000]),
            beyond: shape.beyond_contract.then(|| *rng.pick(&[Beyond::Drift, Beyond::Jump])),
            lost: None,
        };
        options.fill(&mut Rng::child(seed, "room", 0));
        options.draw_fencing(&mut Rng::child(seed, "fencing", 0));
        // From a source of its own: the other draws of a seed stay what they were.
        options.workload.sets_permille = *Rng::child(seed, "sets", 0).pick(&[0, 200, 500]);
        // Drawn apart, so that what older seeds decide stays as it was.
        options.workload.jobs_permille = *Rng::child(seed, "jobs", 0).pick(&[0, 0, 300, 600]);
        options.workload.autoscalers_permille = *Rng::child(seed, "autoscalers", 0).pick(&[0, 0, 100, 200]);
        options.workload.policies_permille = *Rng::child(seed, "policies", 0).pick(&[0, 0, 150, 400]);
        options.workload.placement_permille = *Rng::child(seed, "placement", 0).pick(&[0, 0, 300, 700]);
        options.workload.queues_permille = *Rng::child(seed, "queues", 0).pick(&[0, 0, 200, 500]);
        options.workload.scoring_permille = *Rng::child(seed, "scoring", 0).pick(&[0, 0, 0, 50, 200]);
        options.workload.pools_permille = *Rng::child(seed, "pools", 0).pick(&[0, 0, 100, 300]);
        options.workload.elastic_permille = *Rng::child(seed, "elastic", 0).pick(&[0, 0, 0, 30, 100]);
        options.node.unready_permille = *Rng::child(seed, "probes", 0).pick(&[0, 0, 100, 500]);
        options.draw_devices(&mut Rng::child(seed, "devices", 0));
        options.draw_networks(&mut Rng::child(seed, "networks", 0));
        options.draw_cpus(&mut Rng::child(seed, "cpus", 0));
        options.node.tells_images = *Rng::child(seed, "images", 0).pick(&[false, false, true]);
        options.workload.volumes_permille = *Rng::child(seed, "volumes", 0).pick(&[0, 0, 0, 100, 300]);
        options.workload.resizes_permille = *Rng::child(seed, "resizes", 0).pick(&[0, 0, 0, 100, 300]);
        options.workload.ports_permille = *Rng::child(seed, "ports", 0).pick(&[0, 0, 0, 100, 300]);
        options.draw_huge_pages(&mut Rng::child(seed, "huge pages", 0));
        options.bound_snapshots();
        match options.beyond {
            Some(Beyond::Drift) => options.faults.clock_drift = options.faults.clock_drift.max(3),
            Some(Beyond::Jump) => options.faults.clock_jump = options.faults.clock_jump.max(3),
            None => {}
        }
        if let Some(ticks) = shape.ticks {
            options.safety_ms = ticks * options.server.tick_ms;
        }
        options
    }

    /// From a stream of its own: what was drawn before stays what it was.
    fn draw_fencing(&mut self, rng: &mut Rng) {
        self.node.kill_us_max = *rng.pick(&[1000, 200_000, 2_000_000]);
        // As tight as is promised: a millisecond is lost where clocks are read.
        self.server.fence_kill_ms = self.node.kill_us_max / 1000 + 1;
        self.faults.node_lost = if rng.chance(ALWAYS / 4) { 0 } else { 2 };
        let lost = *rng.pick(&[None, Some(Lost::CutOff), Some(Lost::AgentDead), Some(Lost::Off)]);
        self.lost = lost.filter(|_| self.agents > 1);
    }

    /// In some runs nodes have a NIC with virtual functions.
    fn draw_networks(&mut self, rng: &mut Rng) {
        self.node.functions = *rng.pick(&[0, 0, 0, 3, 6]);
        if self.node.functions > 0 {
            self.workload.networks_permille = *rng.pick(&[150, 400]);
        }
    }

    /// In some runs nodes tell of their processors, and pods want some for themselves.
    fn draw_cpus(&mut self, rng: &mut Rng) {
        self.node.numa_nodes = *rng.pick(&[0, 0, 0, 1, 2]);
        if self.node.numa_nodes > 0 {
            self.workload.cpus_permille = *rng.pick(&[200, 500]);
        }
    }

    /// In some runs nodes have huge pages, never enough of them.
    fn draw_huge_pages(&mut self, rng: &mut Rng) {
        self.node.huge_pages_mib = *rng.pick(&[0, 0, 0, 256, 1024]);
        if self.node.huge_pages_mib > 0 {
            self.workload.huge_pages_permille = *rng.pick(&[150, 400]);
        }
    }

    /// In every third run nodes have cards, which fail and vanish.
    fn draw_devices(&mut self, rng: &mut Rng) {
        self.node.devices = *rng.pick(&[0, 0, 0, 0, 2, 4]);
        if self.node.devices > 0 {
            self.workload.devices_permille = *rng.pick(&[300, 600]);
            self.faults.device_failure = *rng.pick(&[0, 4]);
        }
    }

    /// Some clusters are small, and one workload fills them.
    fn fill(&mut self, rng: &mut Rng) {
        if !rng.chance(FULL_PERMILLE) {
            return;
        }
        self.node.pods_max = rng.range(1, 3) as u32;
        self.workload.fill_replicas = u64::from(self.agents * self.node.pods_max);
        self.workload.deployments = 1;
    }

    /// A snapshot of everything after every few entries is worth having in runs with few entries only: in others
    /// most of the time would go into writing them.
    fn bound_snapshots(&mut self) {
        let busy = u64::from(self.clients) * 1000 / self.workload.think_ms + u64::from(self.agents);
        self.server.snapshot_entries = self.server.snapshot_entries.max(2 * busy);
    }

    /// Takes away everything that goes wrong by itself: what is left is decided one by one.
    pub fn be_quiet(&mut self) {
        let network = &mut self.network;
        (network.drop_permille, network.duplicate_permille, network.delay_permille) = (0, 0, 0);
        self.disk.slow_permille = 0;
        let node = &mut self.node;
        (node.start_failure_permille, node.mute_permille, node.stubborn_permille) = (0, 0, 0);
        (node.image_failure_permille, node.container_crash_permille) = (0, 0);
        node.unready_permille = 0;
    }
}

impl std::fmt::Display for Options {
    /// One line with everything that makes this run another one than the rest.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { server, network, disk, node, workload, .. } = self;
        write!(
            f,
            "{}s/{}a/{}c tick={} lease={} snapshot={}-{} drop={} dup={} delay={} flush={}us think={} read={} node-faults={}",
            self.servers,
            self.agents,
            self.clients,
            server.tick_ms,
            server.lease_ms,
            server.snapshot_entries,
            server.keep_entries,
            network.drop_permille,
            network.duplicate_permille,
            network.delay_permille,
            disk.flush_us_max,
            workload.think_ms,
            workload.read_permille,
            node.start_failure_permille
                + node.mute_permille
                + node.image_failure_permille
                + node.container_crash_permille
                + node.unready_permille,
        )?;
        write!(
            f,
            " drift={} every={} for={}",
            self.drift_ppm_max, self.faults.interval_ms, self.faults.duration_ms
        )?;
        if workload.fill_replicas > 0 {
            write!(f, " full={}", workload.fill_replicas)?;
        }
        if let Some(beyond) = self.beyond {
            write!(f, " beyond={beyond:?}")?;
        }
        if let Some(lost) = self.lost {
            write!(f, " lost={lost:?}")?;
        }
        let off: Vec<&str> = self
            .faults
            .weights()
            .into_iter()
            .filter(|(_, weight)| *weight == 0)
            .map(|(name, _)| name)
            .collect();
        write!(f, " without={}", if off.is_empty() { "-".to_owned() } else { off.join(",") })
    }
}

impl ServerOptions {
    /// What the reconcilers go by.
    pub(crate) fn reconcile_config(&self) -> ReconcileConfig {
        ReconcileConfig {
            lease_ms: self.lease_ms,
            eviction_ms: self.eviction_ms,
            // A tenth of the times: what a simulation waits for has to come.
            eviction_rates: EvictionRates {
                interval_ms: 1000,
                interval_unhealthy_ms: 10_000,
                ..EvictionRates::default()
            },
            fence_kill_ms: self.fence_kill_ms,
            terminated_pods_max: self.terminated_pods_max,
        }
    }

    fn draw(rng: &mut Rng) -> Self {
        let lease_ms = *rng.pick(&[3000, 5000, 10_000]);
        Self {
            tick_ms: *rng.pick(&[50, 100, 100]),
            election_ticks: rng.range(8, 12) as usize,
            heartbeat_ticks: rng.range(1, 3) as usize,
            snapshot_entries: *rng.pick(&[5, 20, 50, 200]),
            keep_entries: *rng.pick(&[0, 1, 10, 50]),
            digest_interval: rng.range(1, 16),
            pump_us_max: *rng.pick(&[0, 0, 200, 2000]),
            lease_ms,
            heartbeat_ms: lease_ms / rng.range(3, 6),
            eviction_ms: *rng.pick(&[4000, 10_000, 30_000]),
            fence_kill_ms: 0,
            terminated_pods_max: *rng.pick(&[0, 3, 1000]),
        }
    }
}

impl NetworkOptions {
    fn draw(rng: &mut Rng) -> Self {
        let latency_us_min = rng.range(50, 2000);
        Self {
            latency_us_min,
            latency_us_max: latency_us_min + *rng.pick(&[100, 1000, 10_000]),
            drop_permille: *rng.pick(&[0, 0, 10, 50, 150]),
            duplicate_permille: *rng.pick(&[0, 10, 100]),
            delay_permille: *rng.pick(&[0, 5, 50]),
            delay_us_max: *rng.pick(&[50_000, 500_000, 3_000_000]),
        }
    }
}

impl DiskOptions {
    fn draw(rng: &mut Rng) -> Self {
        let flush_us_min = rng.range(50, 1000);
        Self {
            flush_us_min,
            flush_us_max: flush_us_min + *rng.pick(&[100, 3000, 20_000]),
            slow_permille: *rng.pick(&[0, 2, 20]),
            slow_us_max: *rng.pick(&[100_000, 2_000_000]),
            snapshot_us_max: *rng.pick(&[1000, 50_000, 500_000]),
        }
    }
}

impl FaultOptions {
    fn draw(rng: &mut Rng) -> Self {
        // A kind of fault that does not happen lets those that it would hide come out.
        let mut weight = |often: u64| if rng.chance(ALWAYS / 4) { 0 } else { often };
        let weights = Self {
            server_crash: weight(6),
            server_pause: weight(3),
            snapshot_crash: weight(2),
            take_snapshot: weight(3),
            disk_error: weight(2),
            disk_full: weight(1),
            disk_slow: weight(2),
            disk_lost: weight(1),
            disk_damage: weight(2),
            partition: weight(6),
            swizzle: weight(2),
            leader_transfer: weight(3),
            member_change: weight(2),
            clock_jump: weight(2),
            clock_drift: weight(2),
            agent_crash: weight(4),
            node_reboot: weight(2),
            vm_crash: weight(4),
            node_lost: 0,
            device_failure: 0,
            interval_ms: *rng.pick(&[500, 1500, 4000]),
            duration_ms: *rng.pick(&[300, 2000, 8000]),
        };
        // With more than a few faults at a time nothing happens that could go wrong.
        Self { interval_ms: weights.interval_ms.max(weights.duration_ms / 4), ..weights }
    }

    /// The weight of each kind, by its name.
    #[must_use]
    pub fn weights(&self) -> [(&'static str, u64); 20] {
        [
            ("server-crash", self.server_crash),
            ("server-pause", self.server_pause),
            ("snapshot-crash", self.snapshot_crash),
            ("take-snapshot", self.take_snapshot),
            ("disk-error", self.disk_error),
            ("disk-full", self.disk_full),
            ("disk-slow", self.disk_slow),
            ("disk-lost", self.disk_lost),
            ("disk-damage", self.disk_damage),
            ("partition", self.partition),
            ("swizzle", self.swizzle),
            ("leader-transfer", self.leader_transfer),
            ("member-change", self.member_change),
            ("clock-jump", self.clock_jump),
            ("clock-drift", self.clock_drift),
            ("agent-crash", self.agent_crash),
            ("node-reboot", self.node_reboot),
            ("vm-crash", self.vm_crash),
            ("node-lost", self.node_lost),
            ("device-failure", self.device_failure),
        ]
    }
}

impl NodeOptions {
    fn draw(rng: &mut Rng) -> Self {
        Self {
            vm_start_us_max: *rng.pick(&[10_000, 500_000]),
            kill_us_max: 0,
            boot_us_max: *rng.pick(&[200_000, 3_000_000]),
            start_failure_permille: *rng.pick(&[0, 0, 20, 100]),
            mute_permille: *rng.pick(&[0, 0, 20]),
            stubborn_permille: *rng.pick(&[0, 50]),
            image_failure_permille: *rng.pick(&[0, 0, 50]),
            container_crash_permille: *rng.pick(&[0, 0, 100]),
            unready_permille: 0,
            cpu_millis: *rng.pick(&[4000, 8000, 16_000]),
            memory_mib: *rng.pick(&[4096, 16_384]),
            pods_max: PODS_MAX,
            devices: 0,
            functions: 0,
            numa_nodes: 0,
            tells_images: false,
            huge_pages_mib: 0,
        }
    }
}

impl WorkloadOptions {
    fn draw(rng: &mut Rng, agents: u32) -> Self {
        Self {
            think_ms: *rng.pick(&[100, 400, 1000]),
            timeout_ms: *rng.pick(&[500, 2000, 5000]),
            attempts_max: *rng.pick(&[1, 5, 20]) as u32,
            read_permille: *rng.pick(&[100, 400, 800]),
            deployments: rng.range(1, 5),
            replicas_max: rng.range(1, 2 + u64::from(agents)),
            jobs_permille: 0,
            autoscalers_permille: 0,
            policies_permille: 0,
            placement_permille: 0,
            devices_permille: 0,
            networks_permille: 0,
            ports_permille: 0,
            cpus_permille: 0,
            huge_pages_permille: 0,
            queues_permille: 0,
            scoring_permille: 0,
            pools_permille: 0,
            elastic_permille: 0,
            volumes_permille: 0,
            resizes_permille: 0,
            bundle_permille: *rng.pick(&[0, 100]),
            precondition_permille: *rng.pick(&[0, 300]),
            fill_replicas: 0,
            sets_permille: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_decide_everything_and_differ() {
        let text = |seed| format!("{:?}", Options::draw(seed));
        assert_eq!(text(3), text(3));
        assert_ne!(text(3), text(4));
    }
}
