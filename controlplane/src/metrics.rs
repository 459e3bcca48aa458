//! What the server counts, for Prometheus. Every name is here.

use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::Duration;

use bulkhead_controlplane_core::server::{Role, ServerStatus};
use bulkhead_storage::DiskSpace;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Everything that is counted.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    persist_seconds: Histogram,
    persist_batch: Histogram,
    pub(crate) submissions: Counter<u64, AtomicU64>,
    pub(crate) refusals: Counter<u64, AtomicU64>,
    pub(crate) events: Counter<u64, AtomicU64>,
    pub(crate) messages_sent: Counter<u64, AtomicU64>,
    pub(crate) messages_dropped: Counter<u64, AtomicU64>,
    pub(crate) backups_written: Counter<u64, AtomicU64>,
    pub(crate) backups_failed: Counter<u64, AtomicU64>,
    pub(crate) backup_newest_seconds: Gauge<i64, AtomicI64>,
    pub(crate) watches: Gauge<i64, AtomicI64>,
    pub(crate) agents: Gauge<i64, AtomicI64>,
    term: Gauge,
    leader: Gauge,
    commit_index: Gauge,
    applied_index: Gauge,
    revision: Gauge,
    disk_full: Gauge,
    disk_free_bytes: Gauge,
    disk_total_bytes: Gauge,
    objects: [(&'static str, Gauge); 5],
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("bulkhead_server");
        let persist_seconds = Histogram::new(exponential_buckets(0.000_05, 2.0, 16));
        let persist_batch = Histogram::new(exponential_buckets(1.0, 2.0, 8));
        registry.register("persist_seconds", "Time to write and flush log requests", persist_seconds.clone());
        registry.register("persist_batch", "Log requests under one flush", persist_batch.clone());
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let submissions = counter("submissions", "Submissions answered");
        let refusals = counter("refusals", "Submissions refused");
        let events = counter("events", "Events applied");
        let messages_sent = counter("messages_sent", "Messages to peers");
        let messages_dropped =
            counter("messages_dropped", "Messages to peers dropped because their queue was full");
        let backups_written = counter("backups_written", "Scheduled backups written");
        let backups_failed = counter("backups_failed", "Scheduled backups that failed");
        let mut gauge = |name: &str, help: &str| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let (watches, agents) = (gauge("watches", "Open watches"), gauge("agents", "Connected agents"));
        let backup_newest_seconds = gauge(
            "backup_newest_seconds",
            "When the newest scheduled backup was made, seconds since the epoch",
        );
        let term = gauge("raft_term", "Present term");
        let leader = gauge("raft_leader", "1 on the leader");
        let commit_index = gauge("raft_commit_index", "Last entry that a quorum has");
        let applied_index = gauge("raft_applied_index", "Last entry applied");
        let revision = gauge("revision", "Last revision");
        let disk_full = gauge("disk_full", "1 while the disk refuses writes");
        let disk_free_bytes = gauge("disk_free_bytes", "Room left on the data directory's file system");
        let disk_total_bytes = gauge("disk_total_bytes", "Size of the data directory's file system");
        let objects = ["namespaces", "nodes", "pods", "replicasets", "deployments"]
            .map(|kind| (kind, gauge(&format!("objects_{kind}"), "Objects of this kind")));
        Self {
            registry,
            persist_seconds,
            persist_batch,
            submissions,
            refusals,
            events,
            messages_sent,
            messages_dropped,
            backups_written,
            backups_failed,
            backup_newest_seconds,
            watches,
            agents,
            term,
            leader,
            commit_index,
            applied_index,
            revision,
            disk_full,
            disk_free_bytes,
            disk_total_bytes,
            objects,
        }
    }

    /// Requests were written and flushed together.
    pub(crate) fn persisted(&self, requests: usize, took: Duration) {
        self.persist_seconds.observe(took.as_secs_f64());
        self.persist_batch.observe(requests as f64);
    }

    /// The server's status changed.
    pub(crate) fn observe(&self, status: &ServerStatus, state: &bulkhead_controlplane_core::State) {
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.term.set(number(status.term));
        self.leader.set(i64::from(status.role == Role::Leader));
        self.commit_index.set(number(status.commit_index));
        self.applied_index.set(number(status.applied_index));
        self.revision.set(number(status.revision));
        self.disk_full.set(i64::from(status.disk_full));
        let counts = [
            state.namespaces().len(),
            state.nodes().len(),
            state.pods().len(),
            state.replica_sets().len(),
            state.deployments().len(),
        ];
        for ((_, gauge), count) in self.objects.iter().zip(counts) {
            gauge.set(number(count as u64));
        }
    }

    /// The file system was asked.
    pub(crate) fn disk_space(&self, space: DiskSpace) {
        self.disk_free_bytes.set(i64::try_from(space.free_bytes).unwrap_or(i64::MAX));
        self.disk_total_bytes.set(i64::try_from(space.total_bytes).unwrap_or(i64::MAX));
    }

    /// Everything in Prometheus' text form.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string does not fail");
        text
    }
}
