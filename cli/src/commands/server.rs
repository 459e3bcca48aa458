//! `server`: one replica of the control plane.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use bulkhead_controlplane::{BackupOptions, ServerOptions};
use bulkhead_types::MemberId;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::Failure;
use crate::telemetry;

/// A member of the first configuration, `1=host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InitialMember {
    pub(crate) id: u64,
    pub(crate) address: String,
}

#[derive(Debug, Args)]
pub(crate) struct ServerArgs {
    /// This server's id: 1 or more, never used before in this cluster
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) id: u64,
    /// Where its log and state are kept
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
    /// Where it listens for clients, agents and other servers
    #[arg(long, default_value = "0.0.0.0:7400", value_name = "ADDRESS:PORT")]
    pub(crate) listen: SocketAddr,
    /// How others reach it [default: what it listens on]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) advertise: Option<String>,
    /// Start a new cluster of these members: 1=host:port,2=host:port,3=host:port. The same on all of them,
    /// and on every start: a data directory of another cluster is refused
    #[arg(long, value_delimiter = ',', value_parser = parse_member, value_name = "ID=HOST:PORT,...", conflicts_with = "join")]
    pub(crate) initial_cluster: Vec<InitialMember>,
    /// Join the cluster of these servers, which were told with `member add`
    #[arg(long, value_delimiter = ',', value_name = "HOST:PORT,...")]
    pub(crate) join: Vec<String>,
    /// Where Prometheus metrics are served over HTTP; nowhere when not given
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) metrics_listen: Option<SocketAddr>,
    /// The Prometheus that autoscalers by Pods, Object and External metrics read, such as http://prometheus:9090; the same
    /// on every server
    #[arg(long, value_name = "URL")]
    pub(crate) metrics_endpoint: Option<String>,
    /// Where traces are sent (OTLP over gRPC), such as http://127.0.0.1:4317
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    pub(crate) otlp_endpoint: Option<String>,
    /// One tick of the consensus clock [default: 50]
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(crate) tick_ms: Option<u64>,
    /// Ticks without a leader until an election; up to twice as many, at random [default: 20]
    #[arg(long, value_name = "TICKS", value_parser = parse_ticks)]
    pub(crate) election_ticks: Option<usize>,
    /// How long a node's lease runs. The same on all servers [default: 10000]
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(100..=3_600_000))]
    pub(crate) lease_ms: Option<u64>,
    /// How long a node may be unreachable before its pods are replaced [default: 300000]
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(0..=86_400_000))]
    pub(crate) eviction_ms: Option<u64>,
    /// How long a node may take, from the end of its lease until its last unique guest is dead: only then may such pods
    /// run elsewhere. The same on all servers [default: 5000]
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(0..=3_600_000))]
    pub(crate) fence_kill_ms: Option<u64>,
    /// Log entries from one snapshot to the next [default: 20000]
    #[arg(long, value_name = "ENTRIES", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub(crate) snapshot_entries: Option<u64>,
    /// As --snapshot-entries, by the size of the entries [default: 256]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1_048_576))]
    pub(crate) snapshot_log_mib: Option<u64>,
    /// As --snapshot-entries, by the age of the oldest entry since the last one [default: 60]
    #[arg(long, value_name = "MINUTES", value_parser = clap::value_parser!(u64).range(1..=525_600))]
    pub(crate) snapshot_minutes: Option<u64>,
    /// How long the history of events is kept [default: 720]
    #[arg(long, value_name = "HOURS", value_parser = clap::value_parser!(u64).range(1..=876_000))]
    pub(crate) history_hours: Option<u64>,
    /// About how large the history of events may be; the oldest goes first [default: 8192]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1_073_741_824))]
    pub(crate) history_mib: Option<u64>,
    /// Write backups of the whole cluster to this directory; the same on every server
    #[arg(long, value_name = "DIR")]
    pub(crate) backup_dir: Option<PathBuf>,
    /// Time between two backups, such as 6h [default: 6h]
    #[arg(long, requires = "backup_dir", value_parser = crate::time::parse_duration, value_name = "DURATION")]
    pub(crate) backup_every: Option<Duration>,
    /// How many backups are kept, at least 1 [default: 30]
    #[arg(long, requires = "backup_dir", value_parser = clap::value_parser!(u32).range(1..), value_name = "COUNT")]
    pub(crate) backup_keep: Option<u32>,
    /// The one server that writes backups [default: whichever leads]
    #[arg(long, requires = "backup_dir", value_parser = clap::value_parser!(u64).range(1..), value_name = "ID")]
    pub(crate) backup_by: Option<u64>,
    /// Log entries from one comparison of states between servers to the next
    #[arg(long, hide = true, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) digest_entries: Option<u64>,
    /// Pass for an older server
    #[arg(long, hide = true, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) feature_level_max: Option<u32>,
    /// End when the process that started this one ends
    #[arg(long, hide = true)]
    pub(crate) end_with_parent: bool,
}

fn parse_ticks(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|n| (3..=1000).contains(n))
        .ok_or_else(|| format!("{text:?}: expected 3 to 1000"))
}

pub(crate) fn parse_member(text: &str) -> Result<InitialMember, String> {
    let expected = || format!("{text:?}: expected ID=HOST:PORT, such as 1=10.0.0.1:7400");
    let (id, address) = text.split_once('=').ok_or_else(expected)?;
    let id = id.parse().ok().filter(|id| *id > 0).ok_or_else(expected)?;
    let (host, port) = address.rsplit_once(':').ok_or_else(expected)?;
    if host.is_empty() || port.parse::<u16>().is_err() {
        return Err(expected());
    }
    Ok(InitialMember { id, address: address.to_owned() })
}

pub(crate) async fn run(args: ServerArgs) -> Result<(), Failure> {
    if args.end_with_parent {
        super::dev::end_with_parent()?;
    }
    let _telemetry = telemetry::init_process("bulkhead-server", args.otlp_endpoint.as_deref())?;
    let shutdown = asked_to_end()?;
    let options = options(args)?;
    bulkhead_controlplane::run(options, shutdown).await.map_err(|e| anyhow::Error::from(e).into())
}

fn options(args: ServerArgs) -> Result<ServerOptions, Failure> {
    let own = args.initial_cluster.iter().find(|m| m.id == args.id).map(|m| m.address.clone());
    let advertise = match args.advertise.or(own) {
        Some(address) => address,
        None if args.listen.ip().is_unspecified() => {
            return Err(Failure::usage(
                "--listen on all addresses needs --advertise: how do others reach this server?",
            ));
        }
        None => args.listen.to_string(),
    };
    let mut options = ServerOptions::new(MemberId(args.id), args.data_dir, args.listen);
    options.advertise = advertise.into();
    options.initial_cluster =
        args.initial_cluster.into_iter().map(|m| (MemberId(m.id), m.address.into())).collect();
    options.join = args.join.into_iter().map(Into::into).collect();
    options.metrics_listen = args.metrics_listen;
    options.metrics_endpoint = args.metrics_endpoint;
    options.tick_ms = args.tick_ms.unwrap_or(options.tick_ms);
    options.election_ticks = args.election_ticks.unwrap_or(options.election_ticks);
    // Several heartbeats fit into an election time-out, whatever that is.
    options.heartbeat_ticks = options.heartbeat_ticks.min((options.election_ticks / 4).max(1));
    options.lease_ms = args.lease_ms.unwrap_or(options.lease_ms);
    options.snapshot_entries = args.snapshot_entries.unwrap_or(options.snapshot_entries);
    options.eviction_ms = args.eviction_ms.unwrap_or(options.eviction_ms);
    options.fence_kill_ms = args.fence_kill_ms.unwrap_or(options.fence_kill_ms);
    options.snapshot_log_bytes = args.snapshot_log_mib.map_or(options.snapshot_log_bytes, |mib| mib << 20);
    options.snapshot_age_ms = args.snapshot_minutes.map_or(options.snapshot_age_ms, |m| m * 60_000);
    options.history_ms = args.history_hours.map_or(options.history_ms, |hours| hours * 3_600_000);
    options.history_bytes = args.history_mib.map_or(options.history_bytes, |mib| mib << 20);
    options.digest_interval = args.digest_entries.unwrap_or(options.digest_interval);
    let supported = options.feature_level_max;
    options.feature_level_max = args.feature_level_max.unwrap_or(supported).min(supported);
    let defaults = BackupOptions::default();
    options.backup = args.backup_dir.map(|dir| BackupOptions {
        dir,
        every: args.backup_every.unwrap_or(defaults.every),
        keep: args.backup_keep.map_or(defaults.keep, |keep| keep as usize),
        by: args.backup_by.map(MemberId),
    });
    Ok(options)
}

/// Resolves at the first SIGTERM or Ctrl-C.
pub(crate) fn asked_to_end() -> Result<impl Future<Output = ()> + Send, Failure> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for Ctrl-C")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn initial_members_are_id_and_address() {
        let member = |id, address: &str| Ok(InitialMember { id, address: address.to_owned() });
        assert_eq!(parse_member("1=10.0.0.1:7400"), member(1, "10.0.0.1:7400"));
        assert_eq!(parse_member("2=[::1]:7400"), member(2, "[::1]:7400"));
        for bad in ["", "1", "0=a:1", "a=b:1", "1=b", "1=:5", "1=b:x"] {
            assert!(parse_member(bad).is_err(), "{bad}");
        }
    }
}
