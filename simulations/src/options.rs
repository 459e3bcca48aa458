//! Everything that the seed decides before anything happens.

use bulkhead_controlplane_core::reconcile::ReconcileConfig;

use crate::rng::Rng;

/// The options of one run. Times carry their unit in their name; rates are in thousandths.
#[derive(Clone, Debug)]
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
    /// How much a host's clock may drift, in millionths.
    pub drift_ppm_max: u64,
    /// How far a host's wall clock may be off, in milliseconds.
    pub offset_ms_max: u64,
}

/// What the servers go by.
#[derive(Clone, Debug)]
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
    /// Pods that ended are kept up to this number.
    pub terminated_pods_max: usize,
}

/// The network.
#[derive(Clone, Debug)]
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
#[derive(Clone, Debug)]
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
#[derive(Clone, Debug)]
pub struct FaultOptions {
    /// Time between two faults, on average.
    pub interval_ms: u64,
    /// How long a crashed server, a partition or a full disk lasts, on average.
    pub duration_ms: u64,
    /// Power failure of a server.
    pub server_crash: u64,
    /// Power failure of a server in the middle of a snapshot.
    pub snapshot_crash: u64,
    /// A server's disk fails for one operation.
    pub disk_error: u64,
    /// A server's disk is full for a while.
    pub disk_full: u64,
    /// Hosts cannot reach each other.
    pub partition: u64,
    /// An operator moves the leadership.
    pub leader_transfer: u64,
    /// An operator replaces a server.
    pub member_change: u64,
    /// A host's wall clock is set.
    pub clock_jump: u64,
    /// An agent's process dies.
    pub agent_crash: u64,
    /// A node loses power.
    pub node_reboot: u64,
    /// A guest's process dies.
    pub vm_crash: u64,
}

/// The nodes.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// Slowest start of a guest's process.
    pub vm_start_us_max: u64,
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
    /// Processor time of a node, in thousandths of a core.
    pub cpu_millis: u64,
    /// Memory of a node, in MiB.
    pub memory_mib: u64,
}

/// What clients do.
#[derive(Clone, Debug)]
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
    /// Submissions of several commands.
    pub bundle_permille: u64,
    /// Submissions that name the revision that they were decided on.
    pub precondition_permille: u64,
}

/// Thousandths of the whole.
const ALWAYS: u64 = 1000;

impl Options {
    /// What this seed decides.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let rng = &mut Rng::child(seed, "options", 0);
        let agents = rng.range(2, 8) as u32;
        Self {
            seed,
            servers: *rng.pick(&[3, 3, 3, 5]),
            agents,
            clients: rng.range(2, 5) as u32,
            safety_ms: rng.range(60_000, 120_000),
            server: ServerOptions::draw(rng),
            network: NetworkOptions::draw(rng),
            disk: DiskOptions::draw(rng),
            faults: FaultOptions::draw(rng),
            node: NodeOptions::draw(rng),
            workload: WorkloadOptions::draw(rng, agents),
            drift_ppm_max: *rng.pick(&[0, 50, 1000, 5000]),
            offset_ms_max: *rng.pick(&[0, 100, 5000]),
        }
    }
}

impl ServerOptions {
    /// What the reconcilers go by.
    pub(crate) fn reconcile_config(&self) -> ReconcileConfig {
        ReconcileConfig {
            lease_ms: self.lease_ms,
            eviction_ms: self.eviction_ms,
            terminated_pods_max: self.terminated_pods_max,
        }
    }

    fn draw(rng: &mut Rng) -> Self {
        let lease_ms = *rng.pick(&[3000, 5000, 10_000]);
        Self {
            tick_ms: *rng.pick(&[25, 50, 100]),
            election_ticks: rng.range(8, 12) as usize,
            heartbeat_ticks: rng.range(1, 3) as usize,
            snapshot_entries: *rng.pick(&[5, 20, 50, 200]),
            keep_entries: *rng.pick(&[0, 1, 10, 50]),
            digest_interval: rng.range(1, 16),
            pump_us_max: *rng.pick(&[0, 0, 200, 2000]),
            lease_ms,
            heartbeat_ms: lease_ms / rng.range(3, 6),
            eviction_ms: *rng.pick(&[4000, 10_000, 30_000]),
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
            snapshot_crash: weight(2),
            disk_error: weight(2),
            disk_full: weight(1),
            partition: weight(6),
            leader_transfer: weight(3),
            member_change: weight(2),
            clock_jump: weight(2),
            agent_crash: weight(4),
            node_reboot: weight(2),
            vm_crash: weight(4),
            interval_ms: *rng.pick(&[500, 1500, 4000]),
            duration_ms: *rng.pick(&[300, 2000, 8000]),
        };
        // With more than a few faults at a time nothing happens that could go wrong.
        Self { interval_ms: weights.interval_ms.max(weights.duration_ms / 4), ..weights }
    }
}

impl NodeOptions {
    fn draw(rng: &mut Rng) -> Self {
        Self {
            vm_start_us_max: *rng.pick(&[10_000, 500_000]),
            boot_us_max: *rng.pick(&[200_000, 3_000_000]),
            start_failure_permille: *rng.pick(&[0, 0, 20, 100]),
            mute_permille: *rng.pick(&[0, 0, 20]),
            stubborn_permille: *rng.pick(&[0, 50]),
            image_failure_permille: *rng.pick(&[0, 0, 50]),
            container_crash_permille: *rng.pick(&[0, 0, 100]),
            cpu_millis: *rng.pick(&[4000, 8000, 16_000]),
            memory_mib: *rng.pick(&[4096, 16_384]),
        }
    }
}

impl WorkloadOptions {
    fn draw(rng: &mut Rng, agents: u32) -> Self {
        Self {
            think_ms: *rng.pick(&[20, 100, 400]),
            timeout_ms: *rng.pick(&[500, 2000, 5000]),
            attempts_max: *rng.pick(&[1, 5, 20]) as u32,
            read_permille: *rng.pick(&[100, 400, 800]),
            deployments: rng.range(1, 5),
            replicas_max: rng.range(1, 2 + u64::from(agents)),
            bundle_permille: *rng.pick(&[0, 100]),
            precondition_permille: *rng.pick(&[0, 300]),
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
