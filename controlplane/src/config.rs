//! How a server process is set up.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bulkhead_controlplane_core::reconcile::fencing::FENCE_KILL_MS_DEFAULT;
use bulkhead_types::{FEATURE_LEVEL_MAX, MemberId};
use smol_str::SmolStr;

/// The port that servers listen on unless told otherwise.
pub const DEFAULT_PORT: u16 = 7400;

/// Changes kept for watches unless told otherwise. At about 200 bytes each beside the shared objects, some 13 MiB.
const WATCH_CHANGES: usize = 1 << 16;

/// How a server process is set up. Times are in milliseconds.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Its member id, at least 1; never one that was used before.
    pub member: MemberId,
    /// Where its data lives; made when missing.
    pub data_dir: PathBuf,
    /// Where it listens for clients, agents and peers.
    pub listen: SocketAddr,
    /// Where the others reach it, `host:port`.
    pub advertise: SmolStr,
    /// The first voters of a new cluster, with their addresses; the same on each of them. Empty when joining.
    pub initial_cluster: Vec<(MemberId, SmolStr)>,
    /// Servers of a running cluster, `host:port`: a new member asks them what cluster it joins.
    pub join: Vec<SmolStr>,
    /// Where metrics are served over HTTP; nowhere when unset.
    pub metrics_listen: Option<SocketAddr>,
    /// The base URL of a Prometheus, such as `http://prometheus:9090`, that autoscalers by `Pods`, `Object` and `External`
    /// metrics read; none when unset.
    pub metrics_endpoint: Option<String>,
    /// Length of a Raft tick.
    pub tick_ms: u64,
    /// Ticks without a leader before an election, at least; the draw is up to twice as many.
    pub election_ticks: usize,
    /// Ticks between a leader's heartbeats.
    pub heartbeat_ticks: usize,
    /// How long an agent's lease runs.
    pub lease_ms: u64,
    /// How long a node may be unreachable before its pods are replaced.
    pub eviction_ms: u64,
    /// How long a node may take from the end of its lease until its last unique guest is dead.
    pub fence_kill_ms: u64,
    /// A snapshot is taken, and the log before it dropped, after so many log entries,
    pub snapshot_entries: u64,
    /// or so many bytes of them,
    pub snapshot_log_bytes: u64,
    /// or this long after the first entry since the last one.
    pub snapshot_age_ms: u64,
    /// Events are kept so long,
    pub history_ms: u64,
    /// and at most about so many bytes of them, whichever is less.
    pub history_bytes: u64,
    /// Changes kept in memory for watches; those that begin before are served from the history on disk.
    pub watch_changes: usize,
    /// Replicas compare digests of their states at every so-manieth log entry.
    pub digest_interval: u64,
    /// Scheduled backups, if this server is to make any.
    pub backup: Option<BackupOptions>,
    /// The highest feature level that this server supports; lower than this build's to pass for an older one.
    pub feature_level_max: u32,
}

/// Scheduled backups.
#[derive(Clone, Debug)]
pub struct BackupOptions {
    /// Where they are written; made when missing.
    pub dir: PathBuf,
    /// Time between two.
    pub every: Duration,
    /// How many are kept, at least 1.
    pub keep: usize,
    /// Who writes them; the leader when unset.
    pub by: Option<MemberId>,
}

impl Default for BackupOptions {
    fn default() -> Self {
        const HOUR: Duration = Duration::from_secs(60 * 60);
        Self { dir: PathBuf::new(), every: 6 * HOUR, keep: 30, by: None }
    }
}

impl ServerOptions {
    /// The defaults for a member that listens on `listen` and is reached there too.
    #[must_use]
    pub fn new(member: MemberId, data_dir: PathBuf, listen: SocketAddr) -> Self {
        const DAY_MS: u64 = 24 * 60 * 60 * 1000;
        Self {
            member,
            data_dir,
            listen,
            advertise: SmolStr::new(listen.to_string()),
            initial_cluster: Vec::new(),
            join: Vec::new(),
            metrics_listen: None,
            metrics_endpoint: None,
            tick_ms: 50,
            election_ticks: 20,
            heartbeat_ticks: 4,
            lease_ms: 10_000,
            eviction_ms: 300_000,
            fence_kill_ms: FENCE_KILL_MS_DEFAULT,
            snapshot_entries: 20_000,
            snapshot_log_bytes: 256 << 20,
            snapshot_age_ms: DAY_MS / 24,
            history_ms: 30 * DAY_MS,
            history_bytes: 8 << 30,
            watch_changes: WATCH_CHANGES,
            digest_interval: 1024,
            backup: None,
            feature_level_max: FEATURE_LEVEL_MAX,
        }
    }
}
