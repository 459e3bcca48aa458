//! The gRPC services: decode, ask, encode. One file per service.

mod advice;
mod agents;
mod cards;
mod cluster;
mod commands;
mod default_class;
mod history;
mod manifests;
mod peers;
mod podio;
mod queries;
mod usage;
mod what_if;

use std::sync::Arc;

use bulkhead_controlplane_core::State;
use bulkhead_controlplane_core::server::{Input, Reply};
use bulkhead_proto::v1;
use bulkhead_storage::{DiskSpace, EventStore, SledOptions, SnapshotStore};
use bulkhead_types::Name;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tonic::Status;
use tonic::service::Routes;

use crate::backups::SharedBackups;
use crate::error::{RETRY_AFTER, disk_full, exhausted, invalid, rejection_status, unavailable};
use crate::handle::Handle;
use crate::intents::IntentHub;
use crate::metrics::Metrics;
use crate::past::Turns;
use crate::propose::Proposer;
use crate::transport::Identity;
use crate::view::Views;
use crate::watch::WatchHub;

/// Largest request, decoded.
const REQUEST_BYTES_MAX: usize = 16 << 20;

/// What every service works with. Cloning is cheap.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) identity: Identity,
    pub(crate) handle: Handle,
    pub(crate) proposer: Proposer,
    pub(crate) views: Views,
    pub(crate) watches: Arc<WatchHub>,
    pub(crate) intents: Arc<IntentHub>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) events: Arc<dyn EventStore>,
    /// The revision up to which the event store has everything.
    pub(crate) history_kept: watch::Receiver<u64>,
    pub(crate) snapshots: Arc<dyn SnapshotStore>,
    pub(crate) backups: SharedBackups,
    /// Turns of watches that begin in the past, and of trials.
    pub(crate) turns: Turns,
    /// Where the log and everything else is kept.
    pub(crate) data_dir: Arc<std::path::Path>,
    pub(crate) lease_ms: u64,
    pub(crate) heartbeat_ms: u64,
}

impl Api {
    /// All services of `bulkhead.v1`.
    pub(crate) fn routes(&self) -> Routes {
        macro_rules! services {
            ($($module:ident :: $server:ident),*) => {{
                let mut routes = Routes::builder();
                $(routes.add_service(
                    v1::$module::$server::new(self.clone()).max_decoding_message_size(REQUEST_BYTES_MAX),
                );)*
                routes.routes()
            }};
        }
        services!(
            commands_server::CommandsServer,
            queries_server::QueriesServer,
            manifests_server::ManifestsServer,
            agents_server::AgentsServer,
            pod_io_server::PodIoServer,
            cluster_server::ClusterServer,
            peers_server::PeersServer
        )
    }

    /// The State to read from: what is true now, or what this replica has, and at least this revision.
    pub(crate) async fn read(&self, stale: bool, at_least: u64, deadline: Instant) -> Result<State, Status> {
        if !stale {
            self.read_barrier(deadline).await?;
        }
        let mut views = self.views.clone();
        match timeout_at(deadline, views.at_least(at_least)).await {
            Ok(true) => Ok(views.state()),
            Ok(false) => Err(unavailable("the server is shutting down")),
            Err(_) => Err(unavailable(format!("this replica has not reached revision {at_least} yet"))),
        }
    }

    /// Waits until everything that was acknowledged before now is in this replica's State.
    async fn read_barrier(&self, deadline: Instant) -> Result<(), Status> {
        while Instant::now() < deadline {
            // A replica applies only what it has on its disk: without room it stays behind.
            if self.is_disk_full() {
                return Err(disk_full());
            }
            let asked = timeout_at(deadline, self.handle.ask(|ticket| Input::Read { ticket })).await;
            match asked {
                Ok(Ok(Reply::ReadReady)) => return Ok(()),
                Ok(Ok(_)) => tokio::time::sleep_until(deadline.min(Instant::now() + RETRY_AFTER)).await,
                Ok(Err(stopped)) => return Err(unavailable(stopped.to_string())),
                Err(_) if self.views.status.borrow().as_ref().is_some_and(|s| s.leader.is_some()) => {
                    return Err(unavailable("this replica has not caught up with the leader"));
                }
                Err(_) => break,
            }
        }
        // A client's last try may come with no time left.
        if self.is_disk_full() {
            return Err(disk_full());
        }
        Err(unavailable(
            "no server leads: an election is under way, or there is no quorum; a stale read needs neither",
        ))
    }

    /// Whether this server's disk takes no writes: it refused one, or would refuse the next (who is asked to write
    /// nothing, because no leader has room either, has not met that yet).
    fn is_disk_full(&self) -> bool {
        let refused = self.views.status.borrow().as_ref().is_some_and(|s| s.disk_full);
        let reserve_bytes = SledOptions::default().reserve_bytes;
        refused || DiskSpace::of(&self.data_dir).is_ok_and(|space| space.free_bytes < reserve_bytes)
    }

    /// What a plain question to the node thread gives, as a status when it is a refusal.
    fn refusal(reply: Reply) -> Status {
        match reply {
            Reply::Rejected(rejection) => rejection_status(&rejection),
            Reply::NotLeader(_) | Reply::Lost => unavailable("no server leads right now"),
            Reply::Overloaded => exhausted("too many requests wait already"),
            Reply::DiskFull => disk_full(),
            other => Status::internal(format!("an unexpected answer: {other:?}")),
        }
    }
}

/// Reads an optional name: empty is `None`.
fn optional_name(field: &str, text: &str) -> Result<Option<Name>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    Name::new(text).map(Some).map_err(|e| invalid(field, e.to_string()))
}
